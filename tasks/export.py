"""Export of a series for other programs: files of what its branch has, whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tasks.chunks.deconvolve import DECONVOLVED
from tasks.chunks.reconstruct import HALVES, KEPT
from tasks.errors import NotThere, WrongParameter
from tasks.export_aretomo import write_aretomo
from tasks.export_ctf import write_defoci
from tasks.export_fiducials import write_beads
from tasks.export_imod import Say, turned_by, write_angles, write_reconstruction
from tasks.export_motion import write_motion
from tasks.export_novactf import write_planes
from tasks.export_pictures import write_pictures
from tasks.export_stacks import write_prepared, write_stacks
from tasks.export_volume import checked_mode, each_slice, write_tomogram
from tasks.formats.mrc import write_stack
from tasks.record import TiltSeries
from tasks.result import Result
from tasks.steps import ALIGNMENTS
from tasks.store import Series, parse_project
from tasks.tables import current_result

Target = Literal["imod", "aretomo", "novactf", "mrc"]


@dataclass(frozen=True)
class Source:
    """What a branch has of a series, each part resting on the same results.

    Attributes
    ----------
    series : Series
    record : TiltSeries
        With the geometry from which the tomogram was made, where there is one.
    motion, tomogram, corrected, ctf : Result or None
        corrected: the tomogram of ctf3d.
    alignment : str or None
        Step that decided the geometry.
    beads : Result or None
        That of an alignment by beads, if it is this one.
    keys : mapping of str to str
        Step → key of every result that these rest on.
    """

    series: Series
    record: TiltSeries
    motion: Result | None
    alignment: str | None
    tomogram: Result | None
    corrected: Result | None
    ctf: Result | None
    beads: Result | None
    keys: Mapping[str, str]

    @property
    def pixel_size(self) -> float:
        """Pixel of the motion-corrected images [Å]."""
        return self.record.acquisition.pixel_size * self.motion_binning

    def result(self, step: str) -> Result | None:
        """Return the result of a step that these rest on, None where they rest on none."""
        return self.series.result(step, self.keys[step]) if step in self.keys else None

    @property
    def motion_binning(self) -> float:
        """Raw pixels per pixel of the motion-corrected images."""
        made = {} if self.motion is None else self.motion.attributes()["parameters"]
        return float(made.get("binning", 1.0))


def export_series(
    project: str,
    series: str,
    branch: str,
    to: str,
    out: Path,
    say: Say = lambda line: None,
    mode: int | None = None,
) -> list[Path]:
    """Write the files of a series that another program reads.

    Files of the same names are replaced, each at once when all are written; others stay.

    Parameters
    ----------
    project, series, branch
        What to export. Images, geometry and exclusions are those that the branch's tomogram was
        made from, even where the branch has moved on since.
    to : {'imod', 'aretomo', 'novactf', 'mrc'}
        imod: ``out/TS_01/`` with stack, transforms, angles, defoci, tomogram, motion and
        the command files with which IMOD makes the same tomogram. aretomo: ``out/TS_01/`` with
        stack, .aln (local shifts included), list of angles and doses, tomogram. novactf: the
        files of imod, and ``defocus_file_k`` of each plane that novaCTF has. mrc:
        ``out/TS_01.st``, its odd and even halves, the dose-weighted sums if there are, motion,
        ``out/TS_01_rec.mrc`` (of ctf3d ``out/TS_01_ctf3d_rec.mrc``, deconvolved ones
        ``_rec_deconv.mrc``, halves ``_rec_odd.mrc`` and ``_rec_even.mrc``, iterations that were
        kept ``_rec_iteration-010.mrc``), central slices and projections as PNG, and what `erase`,
        `dose`, `ctf2d`, `preprocess` and `transform` have made.
    out : Path
        Folder, made where it does not exist.
    say : callable, optional
        Called with a line for each thing that is left out, and why.
    mode : {0, 1, 2, 12}, optional
        Of tomograms' MRC files; by default integers as they are stored, else 2, 32-bit floats.

    Returns
    -------
    list of Path
        The files, sorted.

    Raises
    ------
    NotThere
        If the branch has nothing that could be exported.
    WrongParameter
        If `to` or `mode` is unknown.
    """
    checked_mode(mode)
    if to not in get_args(Target):
        raise WrongParameter(f"--to {to}: there are {', '.join(get_args(Target))}")
    out = Path(out).expanduser()
    of = parse_project(project).series(series)
    source = find_source(of, branch, say, of_corrected=to == "novactf")
    if to == "mrc":
        with _placed(out, out, series) as folder:
            _write_images(folder, source, say)
            _write_halves(folder, source)
            if source.motion is not None:
                stars, table = folder / f"{series}_motion", folder / f"{series}_motion.csv"
                write_motion(stars, table, source.record, source.motion, say)
            erased, weighted = (source.result(step) for step in ("erase", "dose"))
            write_prepared(folder, source.record, erased, weighted, source.pixel_size)
            write_stacks(folder, of, branch, say)
            _write_tomograms(folder, source, say, mode)
            _write_pictures(folder, source)
            files = _names(folder)
        return [out / name for name in files]
    with _placed(out, out / series, series) as folder:
        _write_images(folder, source, say)
        if to == "aretomo":
            if source.motion is None or source.alignment is None:
                raise NotThere(f"{series}: not aligned on branch {branch}: nothing for AreTomo")
            of_alignment = of.result(source.alignment, source.keys[source.alignment])
            write_aretomo(
                folder, source.record, source.motion, of_alignment, source.pixel_size, say
            )
            _write_tomograms(folder, source, say, mode)
            files = _names(folder)
            return [out / series / name for name in files]
        # Of novaCTF, planes, commands and transforms all belong to one box.
        boxed = (to == "novactf" and source.corrected) or source.tomogram
        _, x_tilt = turned_by(boxed)
        write_angles(folder, source.record, source.alignment, x_tilt)
        if source.motion is not None:
            write_motion(
                folder / "motion", folder / "motion.csv", source.record, source.motion, say
            )
        write_defoci(folder, source.record, source.ctf, source.pixel_size, say)
        if source.alignment is not None and source.motion is not None:
            images = source.motion.images().shape
            write_reconstruction(
                *(folder, source.record, (images[2], images[1]), source.pixel_size),
                *(boxed, source.result(source.alignment), say),
            )
            if source.beads is not None:
                write_beads(folder, source.record, source.beads, source.pixel_size)
        else:
            say(f"{series}: not aligned on branch {branch}: no .xf, .tlt, newst.com and tilt.com")
        if to == "novactf":
            if boxed is None:
                raise NotThere(
                    f"{series}: no tomogram on branch {branch}, in whose box novaCTF's planes lie: "
                    f"`tiltflow run {project}` first"
                )
            write_planes(folder, source.record, boxed)
        _write_tomograms(folder, source, say, mode)
        files = _names(folder)
    return [out / series / name for name in files]


def find_source(
    series: Series, branch: str, say: Say = lambda line: None, *, of_corrected: bool = False
) -> Source:
    """Return what `branch` has of a series; `of_corrected`: as its tomogram of ctf3d rests on it.

    Raises
    ------
    NotThere
        If that is nothing.
    """
    # What is exported must fit together: the tomogram, or the best alignment, decides.
    order: tuple[str, ...] = ("reconstruct", *ALIGNMENTS, "exclude", "motion")
    found = {step: current_result(series, branch, step) for step in (*order, "ctf", "ctf3d")}
    if of_corrected:
        order = ("ctf3d", *order)
    tomogram = found["reconstruct"]
    last = next((found[step] for step in order if found[step] is not None), None)
    if last is None:
        others = ", ".join(sorted(set(series.branches()) - {branch}))
        raise NotThere(
            f"{series.name}: nothing to export on branch {branch!r}"
            + (f" (there are also: {others})" if others else "")
            + f": `tiltflow run {series.project.url}` first"
        )
    keys = _origins(last)
    alignment = next((step for step in ALIGNMENTS if step in keys), None)
    corrected = found["ctf3d"] if of_corrected else None
    rests = corrected or tomogram
    other = {} if tomogram is None else tomogram.attributes()["inputs"]
    if corrected is not None and alignment and other and other.get(alignment) != keys[alignment]:
        say(
            f"{series.name}: reconstruct rests on another alignment than ctf3d: "
            f"{series.name}_rec.mrc does not belong to the other files"
        )
    if corrected is not None:
        found["ctf"] = series.result("ctf", keys["ctf"])
    if rests is not None and alignment and series.pointer(branch, alignment) != keys[alignment]:
        say(
            f"{series.name}: branch {branch} has another {alignment} alignment than its tomogram: "
            "the files have the one that the tomogram was made from"
        )
    if found["ctf"] is not None:
        keys["ctf"] = found["ctf"].key
    motion = series.result("motion", keys["motion"]) if "motion" in keys else None
    beads = series.result("align", keys["align"]) if alignment == "align" else None
    return Source(
        *(series, series.record_of(keys), motion, alignment, tomogram, found["ctf3d"]),
        *(found["ctf"], beads, keys),
    )


def _origins(result: Result) -> dict[str, str]:
    """Return step → key of a result and of all that it was made from."""
    keys: dict[str, str] = {}
    for step, key in result.attributes().get("inputs", {}).items():
        if step != "thickness":  # it may be of another alignment than the tomogram
            keys |= _origins(result.series.result(step, key))
    return keys | {result.step: result.key}


@contextmanager
def _placed(out: Path, target: Path, name: str) -> Iterator[Path]:
    """Yield a hidden folder in `out`; what is in it moves to `target` when all went well."""
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f".{name}.{secrets.token_hex(4)}.partial"
    partial.mkdir()
    try:
        yield partial
        for file in _names(partial):
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial / file, target / file)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _names(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def _write_images(folder: Path, source: Source, say: Say) -> None:
    name = source.series.name
    if source.motion is None:
        say(f"{name}: no motion-corrected images: no {name}.st")
        return
    write_stack(folder / f"{name}.st", each_slice(source.motion.images()), source.pixel_size)


def _write_halves(folder: Path, source: Source) -> None:
    """Write the sums of odd and of even frames, which a stack imported without movies lacks."""
    if source.motion is None:
        return
    for half in ("odd", "even", "weighted"):
        if half in source.motion.group():
            path = folder / f"{source.series.name}_{half}.st"
            write_stack(path, each_slice(source.motion.array(half)), source.pixel_size)


def _write_tomograms(folder: Path, source: Source, say: Say, mode: int | None) -> None:
    name = source.series.name
    if source.tomogram is None:
        say(f"{name}: no tomogram on this branch: no {name}_rec.mrc")
    for tomogram, file in ((source.tomogram, "rec"), (source.corrected, "ctf3d_rec")):
        if tomogram is None:
            continue
        for array, ending in _arrays(tomogram).items():
            write_tomogram(folder / f"{name}_{file}{ending}.mrc", tomogram, array, mode)


def _arrays(tomogram: Result) -> dict[str, str]:
    """Return array → ending of its file, of all volumes of a tomogram's full size."""
    names = sorted(name for name, _ in tomogram.group().arrays())
    endings = {"0": "", DECONVOLVED: "_deconv", **{half: f"_{half}" for half in HALVES}}
    kept = {name: f"_{name}" for name in names if name.startswith(KEPT)}
    return {name: ending for name, ending in (endings | kept).items() if name in names}


def _write_pictures(folder: Path, source: Source) -> None:
    for tomogram, file in ((source.tomogram, "rec"), (source.corrected, "ctf3d_rec")):
        if tomogram is not None:
            write_pictures(folder, f"{source.series.name}_{file}", tomogram)
