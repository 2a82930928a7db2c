"""An alignment that another program has made: IMOD's .xf and .tlt, AreTomo's .aln."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from kernels.geometry import View, in_plane_rotation, view_parts
from kernels.local_shifts import Bent, fit_local_shifts
from tasks.errors import UnusableData
from tasks.formats.aretomo import Alignment, is_aln, read_aln
from tasks.formats.errors import FormatError
from tasks.formats.imod import read_tilts, read_xf
from tasks.formats.imod_geometry import view_from_xf
from tasks.record import TiltSeries

Line = TypeVar("Line")
# Of tilt angles, that a file may have refined, in steps of them; never less [degrees].
MOST_APART, LEAST_APART = 0.5, 0.5


@dataclass(frozen=True)
class Taken:
    """What is taken from a file.

    Attributes
    ----------
    views : list of View
        All; those that the file leaves out have its first view's axis, and no shift.
    missing : frozenset of int
        Which are left out.
    said : str
        What of the file is not taken, nothing if all is.
    """

    views: list[View]
    missing: frozenset[int]
    said: str = ""


def imported_geometry(
    path: Path, record: TiltSeries, shape: tuple[int, int], pixel_size: float
) -> Taken:
    """Return how each view looks at the specimen, from another program's files.

    Parameters
    ----------
    path : Path
        A .xf file, with .tlt and .xtilt of the same stem beside it if there are, or an .aln file:
        told by content.
    record : TiltSeries
    shape : (ny, nx)
        Of the raw views.
    pixel_size : float
        Of them [Å].

    Raises
    ------
    UnusableData, FormatError
        Naming the file, the value and the remedy.
    """
    if not path.is_file():
        raise UnusableData(f"{path}: no such file: correct coarse.alignment_from")
    if is_aln(path):
        found = read_aln(path)
        beta = found.beta
        return _completed(
            _from_aln(path, found, record, shape, pixel_size),
            record,
            # Which way it turns is documented nowhere.
            f"its BetaOffset of {beta:g}° about x is not applied".replace("-", "−") if beta else "",
        )
    return _completed(_from_xf(path, record, shape, pixel_size), record)


def imported_deformation(
    path: Path,
    views: Sequence[View],
    times: Sequence[float],
    shape: tuple[int, int],
    pixel_size: float,
) -> tuple[list[View], Bent | None]:
    """Return the views with the local deformation that an .aln file has, if it has one.

    Parameters
    ----------
    path : Path
        As of `imported_geometry`; a .xf file has no local shifts.
    views : sequence of View
        Of `imported_geometry`.
    times : (n,)
        Of the views, 0 to 1.
    shape : (ny, nx)
        Of the raw views.
    pixel_size : float
        Of them [Å].

    Raises
    ------
    UnusableData
        If a local shift is of a view that the file does not list.
    """
    found = read_aln(path) if is_aln(path) else None
    rows = [row for row in found.local if row.good] if found else []
    if found is None or not rows:
        return list(views), None
    wrong = next((row.view for row in rows if not 0 <= row.view < len(found.views)), None)
    if wrong is not None:
        raise UnusableData(
            f"{path}: a local shift of view {wrong}, and {len(found.views)} are listed, from 0: "
            "correct the line"
        )
    scale = shape[1] / found.size[0] * pixel_size
    return fit_local_shifts(
        views,
        times,
        np.array([found.views[row.view].section for row in rows], dtype=np.int64),
        np.array([(row.x, row.y) for row in rows]) * scale,
        np.array([(row.shift_x, row.shift_y) for row in rows]) * scale,
        len({row.patch for row in rows}),
        max(shape) * pixel_size / 2,
    )


def lines_of_views(lines: Sequence[Line], record: TiltSeries, path: Path) -> dict[int, Line]:
    """Return the line of each view, in a file of all views or of those that are not left out.

    Raises
    ------
    UnusableData
        If it has another number of lines.
    """
    views, included = len(record.views), record.included
    if len(lines) not in (views, len(included)):
        left = "" if len(included) == views else f", {len(included)} without those left out"
        raise UnusableData(
            f"{path}: {len(lines)} lines, and {record.name} has {views} views{left}: give "
            "the file of this series"
        )
    of = range(views) if len(lines) == views else included
    return dict(zip(of, lines, strict=True))


def _from_xf(
    path: Path, record: TiltSeries, shape: tuple[int, int], pixel_size: float
) -> list[View | None]:
    matrices, shifts = read_xf(path)
    transforms = lines_of_views(list(zip(matrices, shifts, strict=True)), record, path)
    angles = {
        name: lines_of_views(read_tilts(beside).tolist(), record, beside)
        for name in ("tlt", "xtilt")
        if (beside := path.with_suffix(f".{name}")).is_file()
    }
    views: list[View | None] = []
    for i, view in enumerate(record.views):
        if i not in transforms:
            views.append(None)
            continue
        try:
            image, x, y = view_from_xf(*transforms[i], shape[1], shape[0])
        except ValueError as error:
            raise UnusableData(f"{path}: line of view {i + 1}: {error}: correct it") from error
        axis, magnification, stretch, skew = view_parts(image)
        tilt = angles.get("tlt", {}).get(i, view.tilt_angle)
        views.append(
            View(
                float(tilt),
                axis,
                x * pixel_size,
                y * pixel_size,
                magnification,
                float(angles.get("xtilt", {}).get(i, 0.0)),
                stretch,
                skew,
            )
        )
    return views


def _from_aln(
    path: Path,
    found: Alignment,
    record: TiltSeries,
    shape: tuple[int, int],
    pixel_size: float,
) -> list[View | None]:
    nx, ny, count = found.size
    if count != len(record.views):
        raise UnusableData(
            f"{path}: of a stack of {count} views, and {record.name} has {len(record.views)}: "
            "give the file of this series"
        )
    scale = shape[1] / nx  # AreTomo may have read a stack of another binning
    if abs(shape[0] / ny - scale) > 0.02 * scale:
        raise UnusableData(
            f"{path}: of views of {nx}×{ny} pixels, {record.name} has {shape[1]}×{shape[0]}: "
            "give the file of this series"
        )
    _check_tilts(path, found, record)
    views: list[View | None] = [None] * count
    for line in found.views:
        rotation = in_plane_rotation(line.axis)
        # In the terms of a .xf line, whose centre is IMOD's.
        matrix = rotation.T / line.magnification
        shift = -matrix @ (line.shift_x * scale, line.shift_y * scale)
        _, x, y = view_from_xf(matrix, shift, shape[1], shape[0])
        views[line.section] = View(
            line.tilt, line.axis, x * pixel_size, y * pixel_size, line.magnification
        )
    return views


def _check_tilts(path: Path, found: Alignment, record: TiltSeries) -> None:
    """Refuse a file whose lines are of other views than the record's.

    An offset that all angles share is the specimen's, but where the file does not show from which
    number it counts: then it could as well be the step from one view to the next.
    """
    angles = np.array([view.tilt_angle for view in record.views])
    step = float(np.median(np.diff(angles))) if len(angles) > 1 else 0.0
    most = max(MOST_APART * step, LEAST_APART)
    apart = np.array([line.tilt - angles[line.section] for line in found.views])
    apart -= float(np.median(apart)) if found.sure else found.alpha
    worst = int(np.argmax(np.abs(apart)))
    if abs(apart[worst]) > most:
        line = found.views[worst]
        raise FormatError(
            path,
            f"TILT {line.tilt:g}, and view {line.section + 1} of {record.name} is at "
            f"{angles[line.section]:g}°",
            "give the file of this series, or correct its sections",
            line.line,
        )


def _completed(views: Sequence[View | None], record: TiltSeries, said: str = "") -> Taken:
    """Return the views with those that the file leaves out turned like the first that it has."""
    like = next((view for view in views if view is not None), None)
    if like is None:
        raise UnusableData(f"{record.name}: the alignment has no views")
    return Taken(
        [
            replace(like, tilt=of.tilt_angle, shift_x=0.0, shift_y=0.0) if view is None else view
            for view, of in zip(views, record.views, strict=True)
        ],
        frozenset(i for i, view in enumerate(views) if view is None),
        said,
    )
