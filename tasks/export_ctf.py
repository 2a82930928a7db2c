"""The CTFs of a series for IMOD, CTFFIND's readers and RELION."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tasks.ctf_import import movie_names
from tasks.export_imod import Say
from tasks.formats.ctffind import CURVES, CtffindRow, write_avrot, write_ctffind
from tasks.formats.imod_defocus import DefocusRow, write_defocus
from tasks.formats.relion_ctf import RelionCtf, write_relion_ctf
from tasks.record import CtfEstimate, TiltSeries
from tasks.result import Result

Known = Sequence[tuple[int, CtfEstimate]]


def write_defoci(
    folder: Path, record: TiltSeries, ctf: Result | None, pixel_size: float, say: Say
) -> None:
    """Write .defocus, a CTFFIND table with its profiles, and a RELION table.

    They have the views that are not excluded. .defocus and CTFFIND's table count views from 1 and
    leave out numbers: IMOD interpolates where a view is missing. Astigmatism angles are those in
    the images of the stack, which IMOD turns by the .xf. A score or resolution that is unknown,
    as of a CTF that came from IMOD, is 0 in CTFFIND's table, as CTFFIND writes what it was not
    asked for, and no column in RELION's; .defocus has neither. None of the three has an
    uncertainty, or tells which values come from other views.

    Parameters
    ----------
    folder : Path
    record : TiltSeries
    ctf : Result or None
        Of the ctf step, whose profiles are written.
    pixel_size : float
        Of the images in the stack [Å].
    say : callable
        Called with a line for each thing that is left out.
    """
    name = record.name
    known = [
        (i, view.ctf)
        for i, view in enumerate(record.views)
        if view.ctf is not None and view.excluded is None
    ]
    if not known:
        say(
            f"{name}: no CTF on this branch: no {name}.defocus, {name}_ctffind.txt and "
            f"{name}_ctf.star"
        )
        return
    write_defocus(
        folder / f"{name}.defocus",
        [
            DefocusRow(
                first=i + 1,
                last=i + 1,
                low_tilt=record.geometry(i).tilt,
                high_tilt=record.geometry(i).tilt,
                defocus_u=found.defocus_u,
                defocus_v=found.defocus_v,
                astigmatism_angle=found.astigmatism_angle,
                phase_shift=found.phase_shift,
            )
            for i, found in known
        ],
        inverted=record.hand == -1,
    )
    write_ctffind(
        folder / f"{name}_ctffind.txt",
        [_ctffind_row(i, found) for i, found in known],
        _comments(record, known, pixel_size),
    )
    _write_profiles(folder, record, known, ctf, pixel_size, say)
    names = movie_names(record.views)
    write_relion_ctf(
        folder / f"{name}_ctf.star",
        name,
        [_relion_row(record, i, names[i], found) for i, found in known],
    )


def _write_profiles(
    folder: Path, record: TiltSeries, known: Known, ctf: Result | None, pixel_size: float, say: Say
) -> None:
    """Write CTFFIND's profiles, in the order of its table: power over the background, minus 1.

    A view of which there is no profile has zeros, so that the order holds.
    """
    path = folder / f"{record.name}_ctffind_avrot.txt"
    stored = None if ctf is None or "profiles" not in ctf.group() else ctf.array("profiles")
    if stored is None or stored.shape[1] < len(CURVES):
        say(f"{record.name}: the CTF step left no profiles with their noise: no {path.name}")
        return
    profiles = np.asarray(stored[:])[[i for i, _ in known], : len(CURVES)]
    frequency = np.nanmax(profiles[:, 0], axis=0, initial=0.0)
    profiles[:, 0] = np.where(np.isnan(profiles[:, 0]), frequency, profiles[:, 0])
    profiles = np.nan_to_num(profiles, nan=0.0, posinf=0.0, neginf=0.0)
    write_avrot(path, profiles, _comments(record, known, pixel_size))


def _comments(record: TiltSeries, known: Known, pixel_size: float) -> list[str]:
    """Return the lines at the head of CTFFIND's files, of which programs read the numbers."""
    acquisition = record.acquisition
    return [
        "Output from tiltflow",
        f"Input file: {record.name}.st ; Number of micrographs: {len(known)}",
        f"Pixel size: {pixel_size:.3f} Angstroms ; acceleration voltage: "
        f"{acquisition.voltage:.1f} keV ; spherical aberration: {acquisition.cs:.2f} mm ; "
        f"amplitude contrast: {acquisition.amplitude_contrast:.2f}",
        f"Micrograph numbers are those of the views in {record.name}.st",
    ]


def _ctffind_row(index: int, ctf: CtfEstimate) -> CtffindRow:
    return CtffindRow(
        view=index + 1,
        defocus_u=ctf.defocus_u,
        defocus_v=ctf.defocus_v,
        astigmatism_angle=ctf.astigmatism_angle,
        phase_shift=ctf.phase_shift,
        score=ctf.score or 0.0,
        fit_resolution=ctf.fit_resolution or 0.0,
    )


def _relion_row(record: TiltSeries, index: int, name: str, ctf: CtfEstimate) -> RelionCtf:
    view = record.views[index]
    return RelionCtf(
        name=name,
        defocus_u=ctf.defocus_u,
        defocus_v=ctf.defocus_v,
        defocus_angle=ctf.astigmatism_angle,
        phase_shift=ctf.phase_shift,
        figure_of_merit=ctf.score,
        max_resolution=ctf.fit_resolution,
        tilt_angle=view.tilt_angle,
        movie_index=view.order,
        pre_exposure=view.prior_dose,
        frames=view.frames,
    )
