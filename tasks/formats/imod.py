"""IMOD's text files: tilt angles, transforms, lists of views and fiducial points."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.formats.errors import FormatError, shown
from tasks.formats.files import (
    StrPath,
    number,
    read_lines,
    read_table,
    refuse_nan,
    whole,
    write_text,
)

Floats = NDArray[np.float64]

MOST_VIEWS = 100_000  # a longer list of views is a slip of the pen
POINT_COLUMNS = ("marker", "view", "x_px", "y_px", "residual_px", "sigma_px")


def read_tilts(path: StrPath, column: int = 0) -> Floats:
    """Read one `column` of a .tlt, .rawtlt or .xtilt file, (n,) in degrees.

    Raises
    ------
    FormatError
        If a line lacks that column or holds no number, or the file is empty.
    """
    return _table(path, 1, column)[:, column]


def write_tilts(path: StrPath, angles: ArrayLike) -> None:
    """Write angles (n,) in degrees as .tlt, .rawtlt or .xtilt, one a line."""
    values = np.asarray(angles, dtype=np.float64).ravel()
    refuse_nan(path, "angle", values)
    write_text(path, "".join(f"{value + 0.0:8.3f}\n" for value in values))


def read_xf(path: StrPath) -> tuple[Floats, Floats]:
    """Read linear transforms: matrices (n, 2, 2) and shifts (n, 2) in pixels, raw → aligned."""
    table = _table(path, 6)
    return table[:, :4].reshape(-1, 2, 2).copy(), table[:, 4:6].copy()


def write_xf(path: StrPath, matrices: ArrayLike, shifts: ArrayLike) -> None:
    """Write matrices (n, 2, 2) and shifts (n, 2) in pixels, one view a line."""
    a = np.asarray(matrices, dtype=np.float64).reshape(-1, 4)
    d = np.asarray(shifts, dtype=np.float64).reshape(-1, 2)
    if len(a) != len(d):
        raise FormatError(path, f"{len(a)} matrices and {len(d)} shifts", "give as many")
    refuse_nan(path, "transform", np.hstack([a, d]).ravel())
    rows = np.hstack([a, d]).tolist()
    write_text(
        path,
        "".join(
            "".join(f" {v:11.7f}" for v in row[:4]) + "".join(f" {v:11.3f}" for v in row[4:]) + "\n"
            for row in rows
        ),
    )


def parse_views(text: str, path: StrPath = "view list", line: int | None = None) -> tuple[int, ...]:
    """Return the view numbers in a list such as ``1,3-5 9``, ascending, each once."""
    views: set[int] = set()
    for word in re.split(r"[,\s]+", text.strip()):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", word, re.ASCII)
        if not word:
            continue
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < first + MOST_VIEWS:
            raise FormatError(
                path, f"{shown(word)} in a list of views", "write views as 1,3-5", line
            )
        views.update(range(first, last + 1))
    return tuple(sorted(views))


def print_views(views: Sequence[int]) -> str:
    """Return views as IMOD writes lists: ``1,3-5,9``."""
    ranges: list[list[int]] = []
    for view in sorted(set(views)):
        if ranges and view == ranges[-1][1] + 1:
            ranges[-1][1] = view
        else:
            ranges.append([view, view])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges)


def read_command(path: StrPath) -> dict[str, str]:
    """Read the ``KEY values`` entries of a command file (tilt.com, newst.com, …).

    Repeated keys are joined by spaces, as IMOD joins repeated lists.
    """
    entries: dict[str, str] = {}
    for raw in read_lines(path):
        line = raw.split("#")[0].strip()
        if line and not line.startswith("$"):
            key, *value = line.split(None, 1)
            entries[key] = " ".join(
                [*filter(None, [entries.get(key)]), *(v.strip() for v in value)]
            )
    return entries


def read_excluded(path: StrPath) -> tuple[int, ...]:
    """Return the views, from 1, that a tilt.com leaves out (EXCLUDE, EXCLUDELIST, EXCLUDELIST2)."""
    entries = read_command(path)
    lists = [v for key, v in entries.items() if key.upper().startswith("EXCLUDE")]
    return parse_views(" ".join(lists), path)


@dataclass(frozen=True)
class FiducialPoint:
    """Where a marker was seen: `marker` and `view` from 1, x and y as 0-based pixel indices.

    A standard error `sigma_px` of 0 is one that is not known. IMOD's model coordinates of the same
    point are x + 0.5, y + 0.5.
    """

    marker: int
    view: int
    x_px: float
    y_px: float
    residual_px: float = 0.0
    sigma_px: float = 0.0


def write_points(path: StrPath, points: Sequence[FiducialPoint]) -> None:
    """Write fiducial points as CSV with a header line."""
    values = (v for p in points for v in (p.x_px, p.y_px, p.residual_px, p.sigma_px))
    refuse_nan(path, "point", values)
    rows = [
        f"{p.marker},{p.view},{p.x_px:.3f},{p.y_px:.3f},{p.residual_px:.3f},{p.sigma_px:.4f}\n"
        for p in points
    ]
    write_text(path, ",".join(POINT_COLUMNS) + "\n" + "".join(rows))


def read_points(path: StrPath) -> tuple[FiducialPoint, ...]:
    """Read what `write_points` wrote, edited or not.

    Columns are found by their names; those of residuals and standard errors may be missing or
    empty, and further ones are left out.
    """
    lines = [(n, line.strip()) for n, line in enumerate(read_lines(path), 1) if line.strip()]
    names = [name.strip() for name in lines[0][1].split(",")] if lines else []
    if not set(POINT_COLUMNS[:4]) <= set(names):
        raise FormatError(path, "no header line", f"begin with {','.join(POINT_COLUMNS)}", 1)
    points = []
    for n, line in lines[1:]:
        words = [word.strip() for word in line.split(",")]
        if len(words) > len(names):
            raise FormatError(
                path, f"{len(words)} columns in {shown(line)}", f"give {len(names)}", n
            )
        row = dict(zip(names, words, strict=False))
        if not all(row.get(name) for name in POINT_COLUMNS[:4]):
            raise FormatError(path, f"too few columns in {shown(line)}", "complete the line", n)
        marker, view = (whole(path, row[name], "marker or view", n) for name in POINT_COLUMNS[:2])
        x, y, residual, sigma = (
            number(path, row.get(name) or "0", "coordinate", n) for name in POINT_COLUMNS[2:]
        )
        points.append(FiducialPoint(marker, view, x, y, residual, sigma))
    return tuple(points)


def _table(path: StrPath, columns: int, column: int = 0) -> Floats:
    """Return the first columns of a table of numbers as (n, max(columns, column + 1))."""
    wanted = max(columns, column + 1)
    rows = []
    for n, words in read_table(path):
        if len(words) < wanted:
            raise FormatError(
                path, f"{len(words)} columns where {wanted} are needed", "complete the line", n
            )
        rows.append([number(path, word, "value", n) for word in words[:wanted]])
    if not rows:
        raise FormatError(Path(path), "no values", "give a file of one line per view")
    return np.array(rows, dtype=np.float64)
