"""Stacks of erase, dose, ctf2d, preprocess and transform as MRC files with their angles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.ctf_provenance import CTF_CORRECTED
from tasks.formats.imod import write_tilts
from tasks.formats.mrc import write_stack
from tasks.record import TiltSeries
from tasks.result import Result
from tasks.store import Series
from tasks.tables import current_result

Say = Callable[[str], None]


def write_prepared(
    folder: Path, record: TiltSeries, erased: Result | None, weighted: Result | None, pixel: float
) -> None:
    """Write ``TS_01_erased.mrc`` and ``_dose.mrc``, where these results hold images.

    Parameters
    ----------
    folder : Path
    record : TiltSeries
    erased, weighted : Result or None
        Of the steps `erase` and `dose`.
    pixel : float
        Of the images [Å].
    """
    angles = [view.tilt_angle for view in record.views]
    for result, what, said in (
        (erased, "erased", "X-rays erased"),
        (weighted, "dose", "X-rays erased, weighted by dose"),
    ):
        if result is not None and "images" in result.group():
            name = f"{record.name}_{what}"
            labels = [f"tiltflow {result.step}: {said}"]
            write_stack(folder / f"{name}.mrc", _each(result), pixel, labels=labels)
            write_tilts(folder / f"{name}.rawtlt", angles)


def write_stacks(folder: Path, series: Series, branch: str, say: Say) -> None:
    """Write ``TS_01_ctfcorrected.mrc``, ``_preprocessed.mrc``, ``_ali.mrc``, what the branch has.

    Beside them lie the angles of their sections, which are the nominal ones in a .rawtlt and those
    of the alignment in a .tlt. Labels in the headers tell whether dose was weighted, and where the
    tilt axis is.

    Parameters
    ----------
    folder : Path
    series : Series
    branch : str
    say : callable
        Called with a line where the branch has moved on since a stack was made.
    """
    for step, name, angles in (
        ("ctf2d", f"{series.name}_ctfcorrected", ".rawtlt"),
        ("preprocess", f"{series.name}_preprocessed", ".rawtlt"),
        ("transform", f"{series.name}_ali", ".tlt"),
    ):
        result = current_result(series, branch, step)
        if result is None:
            continue
        about = result.attributes()
        for before, key in about["inputs"].items():
            if series.pointer(branch, before) != key:
                say(
                    f"{series.name}: branch {branch} has another result of {before} than "
                    f"{name}.mrc was made from: run `tiltflow {step}` again to have the new one"
                )
        write_stack(
            folder / f"{name}.mrc", _each(result), float(about["pixel_size"]), labels=_labels(about)
        )
        write_tilts(folder / f"{name}{angles}", about["tilt_angles"])


def _labels(about: dict[str, Any]) -> list[str]:
    weighted = "weighted by dose" if about["dose_weighted"] else "not weighted by dose"
    corrected = about.get(CTF_CORRECTED)
    if corrected:
        weighted += f", CTF-corrected ({corrected['mode']})"
    labels = [f"tiltflow {about['step']}: binning {about['binning']:g}, {weighted}"]
    if "centre" in about:
        y, x = about["centre"]
        labels.append(f"tilt axis along y at x = {x:g}, origin at y = {y:g}, pixels from 0")
    return labels


def _each(result: Result) -> Iterator[NDArray[Any]]:
    images = result.images()
    for section in range(images.shape[0]):
        yield np.asarray(images[section])
