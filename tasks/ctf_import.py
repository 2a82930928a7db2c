"""CTFs that another program has estimated, brought to the views of a series."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from tasks.ctf_import_imod import from_defocus
from tasks.ctf_imported import Found, Hand, checked
from tasks.errors import UnusableData
from tasks.formats.ctffind import CtffindRow, read_ctffind
from tasks.formats.errors import FormatError
from tasks.formats.files import read_lines
from tasks.formats.imod_defocus import read_defocus
from tasks.formats.relion_ctf import RelionCtf, read_relion_ctf
from tasks.record import CtfEstimate, TiltSeries, View

SAME_ANGLE = 0.1  # degrees between the nominal angles of one view in two programs
DIFFERENT_ANGLE = 1.0

Format = Literal["relion", "imod", "ctffind"]


@dataclass(frozen=True)
class ImportedCtf:
    """What a file tells of the CTFs of a series.

    Attributes
    ----------
    estimates : tuple of CtfEstimate or None
        For each view of the record; None where the view is excluded or the file has nothing.
    hand : 1, -1 or None
        Sign of the defocus gradient, where the file tells.
    doubts : tuple of str
        What a person should know, one line each.
    """

    estimates: tuple[CtfEstimate | None, ...]
    hand: Hand = None
    doubts: tuple[str, ...] = ()


def imported_ctf(path: Path, record: TiltSeries) -> ImportedCtf:
    """Read the CTFs of a series from a file of CTFFIND, IMOD or RELION, told by its content.

    Values stay those of the file. A resolution or score of 0 is one that nobody looked for. What
    belongs to which view is decided

    - of CTFFIND's table by the number, which counts all views sorted by tilt angle, or those that
      are included where there are as many rows as these;
    - of IMOD's .defocus by number and tilt angle, see `tasks.ctf_import_imod.from_defocus`;
    - of RELION's STAR file by the name of the movie without folder and extension, dots being
      underscores there; where none is known by the nominal tilt angle.

    Parameters
    ----------
    path : Path
    record : TiltSeries
        With the views that are excluded.

    Returns
    -------
    ImportedCtf

    Raises
    ------
    FormatError
        If the file is none of these, or broken.
    UnusableData
        If it is missing, or its rows do not belong to the views, or may belong to several.
    """
    try:
        kind = _format(path)
        found = {"relion": _from_relion, "imod": _from_imod, "ctffind": _from_ctffind}[kind](
            path, record
        )
    except OSError as error:
        why = (error.strerror or "cannot be read").lower()
        raise UnusableData(f"{path}: {why}: put the file there, or correct ctf_from") from error
    estimates = tuple(
        found.estimates.get(i) if view.excluded is None else None
        for i, view in enumerate(record.views)
    )
    missing = [str(i + 1) for i in record.included if estimates[i] is None]
    if len(missing) == len(record.included):
        raise UnusableData(
            f"{path}: has no CTF of a view of {record.name} that is not excluded: give the file of "
            "this series"
        )
    doubts = found.doubts
    if missing:
        doubts = (*doubts, f"{path.name} has no CTF of view {', '.join(missing)}")
    return ImportedCtf(estimates, found.hand, doubts)


def _format(path: Path) -> Format:
    """Tell the format by the content."""
    lines = [line.strip() for line in read_lines(path)]
    if any(line.startswith("data_") for line in lines):
        return "relion"
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    columns = len(rows[0]) if rows else 0
    if columns in {5, 6}:
        return "imod"
    if columns in {7, 8, 10}:
        return "ctffind"
    raise FormatError(
        path,
        f"{columns} columns in the first line" if columns else "no lines",
        "give CTFFIND's table, IMOD's .defocus file or RELION's STAR file",
    )


def _from_imod(path: Path, record: TiltSeries) -> Found:
    return from_defocus(path, read_defocus(path), record)


# -- CTFFIND -----------------------------------------------------------------------------------


def _from_ctffind(path: Path, record: TiltSeries) -> Found:
    rows = read_ctffind(path)
    views, included = len(record.views), record.included
    numbers = sorted(row.view for row in rows)
    for one, other in pairwise(numbers):
        if one == other:
            raise UnusableData(f"{path}: micrograph {one} comes twice: give the table of one stack")
    if numbers[0] < 1 or numbers[-1] > views:
        wrong = numbers[0] if numbers[0] < 1 else numbers[-1]
        raise UnusableData(
            f"{path}: micrograph {wrong}, {record.name} has {views} views: give the table of this "
            "series"
        )
    # CTFFIND itself counts without gaps; who left numbers out counted all views.
    counted = numbers == list(range(1, len(rows) + 1))
    if not counted or len(rows) == views:
        index = {row.view: row.view - 1 for row in rows}
    elif len(rows) == len(included):
        index = dict(enumerate(included, 1))
    else:
        raise UnusableData(
            f"{path}: has {len(rows)} rows, {record.name} has {views} views of which "
            f"{len(included)} are not excluded: exclude the views that the table lacks, or number "
            "its rows by the views"
        )
    doubts = ("its column of handedness is not used",) if any(row.hand for row in rows) else ()
    return Found(
        {index[row.view]: _ctffind_estimate(path, row) for row in rows},
        doubts=tuple(f"{path.name}: {doubt}" for doubt in doubts),
    )


def _ctffind_estimate(path: Path, row: CtffindRow) -> CtfEstimate:
    return _estimate(
        path,
        f"micrograph {row.view}",
        (row.defocus_u, row.defocus_v, row.astigmatism_angle, row.phase_shift),
        row.score,
        row.fit_resolution,
    )


# -- RELION ------------------------------------------------------------------------------------


def _from_relion(path: Path, record: TiltSeries) -> Found:
    rows = read_relion_ctf(path)
    index = _by_name(path, rows, record)
    doubts = []
    if not index:
        index = _by_angle(path, rows, record)
        doubts.append(f"{path.name}: its movies have other names: matched by nominal tilt angle")
    for i, row in index.items():
        tilt = record.views[i].tilt_angle
        if row.tilt_angle is not None and abs(row.tilt_angle - tilt) > DIFFERENT_ANGLE:
            doubts.append(f"{path.name}: {row.name} at {row.tilt_angle:g}°, here at {tilt:g}°")
    estimates = {
        i: _estimate(
            path,
            row.name or f"view at {row.tilt_angle}°",
            (row.defocus_u, row.defocus_v, row.defocus_angle, row.phase_shift),
            row.figure_of_merit,
            row.max_resolution,
        )
        for i, row in index.items()
    }
    return Found(estimates, doubts=tuple(doubts))


def _by_name(path: Path, rows: tuple[RelionCtf, ...], record: TiltSeries) -> dict[int, RelionCtf]:
    of: dict[str, list[RelionCtf]] = defaultdict(list)
    for row in rows:
        if row.name is not None:
            of[_plain_name(row.name)].append(row)
    index = {}
    for i, name in enumerate(movie_names(record.views)):
        found = of.get(_plain_name(name), [])
        if len(found) > 1:
            raise UnusableData(f"{path}: {found[0].name} comes {len(found)} times: remove rows")
        if found:
            index[i] = found[0]
    return index


def movie_names(views: tuple[View, ...]) -> list[str]:
    """Return a name for each view: its movie's, with the section where it is one of a stack."""
    names = [view.movie.name for view in views]
    if len(set(names)) == len(names):
        return names
    return [f"{view.first_frame:06d}@{view.movie.name}" for view in views]


def _plain_name(name: str) -> str:
    """Return a name as RELION makes it: no folder, no extension, underscores for dots."""
    section, at, rest = name.rpartition("@")
    stem = re.split(r"[/\\]", rest)[-1].rpartition(".")
    plain = (stem[0] or stem[2]).replace(".", "_")
    return f"{section.lstrip('0')}@{plain}" if at else plain


def _by_angle(path: Path, rows: tuple[RelionCtf, ...], record: TiltSeries) -> dict[int, RelionCtf]:
    index: dict[int, RelionCtf] = {}
    for row in rows:
        if row.tilt_angle is None:
            raise UnusableData(
                f"{path}: {row.name or 'a row'} is no movie of {record.name} and there is no "
                "_rlnTomoNominalStageTiltAngle: give the table of this series"
            )
        near = [
            i
            for i, view in enumerate(record.views)
            if abs(view.tilt_angle - row.tilt_angle) <= SAME_ANGLE
        ]
        if len(near) > 1 or any(i in index for i in near):
            raise UnusableData(
                f"{path}: {row.tilt_angle:g}° may be one of several views of {record.name}: give "
                "_rlnMicrographMovieName with the names of its movies"
            )
        index |= dict.fromkeys(near, row)
    if not index:
        raise UnusableData(
            f"{path}: neither {rows[0].name} is a movie nor {rows[0].tilt_angle:g}° an angle of "
            f"{record.name}: give the table of this series"
        )
    return index


def _estimate(
    path: Path,
    where: str,
    values: tuple[float, float, float, float],
    score: float | None,
    resolution: float | None,
) -> CtfEstimate:
    failed = resolution is not None and math.isinf(resolution)
    u, v, angle, phase = checked(path, where, values)
    return CtfEstimate(
        defocus_u=u,
        defocus_v=v,
        astigmatism_angle=angle,
        phase_shift=phase,
        fit_resolution=None if failed else resolution or None,
        score=score or None,
        reliable=not failed,
        problem=f"{path.name}: the fit failed" if failed else None,
    )
