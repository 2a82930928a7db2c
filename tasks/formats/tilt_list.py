"""Tilt angles of a stack: lists (.tlt, .rawtlt, AreTomo's), a range, and the order of acquisition.

Orders count from 0 here, whatever the file counts from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal, get_args

from tasks.formats.errors import FormatError, shown
from tasks.formats.files import StrPath, number, read_lines, whole

STEEPEST = 90.0  # degrees
COLUMNS = ("tilt angle", "acquisition order", "dose")

Scheme = Literal["listed", "dose-symmetric", "bidirectional"]


@dataclass(frozen=True)
class TiltList:
    """The columns of a list, one value per view, in the file's order.

    Attributes
    ----------
    angles : tuple of float
        Degrees.
    order : tuple of int, optional
        Of acquisition, from 0.
    dose : tuple of float, optional
        Of each view, e/Å².
    """

    angles: tuple[float, ...]
    order: tuple[int, ...] | None = None
    dose: tuple[float, ...] | None = None


def read_tilt_list(path: StrPath) -> TiltList:
    """Read a list of one line per view: angle, then order and dose where the file has them.

    Columns are parted by spaces, tabs or commas; ``#`` starts a comment. That is IMOD's .tlt and
    .rawtlt, and what AreTomo takes as ``-AngFile``, whose order counts from 1; others' from 0.

    Raises
    ------
    FormatError
        If a value is no number, an angle is beyond ±90°, a dose is negative, lines differ in
        their columns, or the order is no permutation.
    """
    rows: list[tuple[int, list[str]]] = []
    for n, line in enumerate(read_lines(path), 1):
        words = re.split(r"\s*,\s*|\s+", line.partition("#")[0].lstrip().rstrip(", \t"))
        if words == [""]:
            continue
        expected = len(rows[0][1]) if rows else len(words)
        if len(words) != expected or expected > len(COLUMNS):
            raise FormatError(
                path,
                f"{len(words)} columns, of {expected if rows else 'at most 3'}",
                f"give {', '.join(COLUMNS)}, or the first of these",
                n,
            )
        rows.append((n, words))
    if not rows:
        raise FormatError(path, "no tilt angle", "give one angle per line")
    angles = tuple(_angle(path, words[0], n) for n, words in rows)
    columns = len(rows[0][1])
    order = _order(path, rows) if columns > 1 else None
    dose = tuple(_dose(path, words[2], n) for n, words in rows) if columns > 2 else None
    return TiltList(angles, order, dose)


def parse_range(text: str, n: int) -> tuple[float, ...]:
    """Return the `n` angles of ``first,last,step`` or ``first:last:step``, in degrees.

    A positive step leads from the first to the last angle, whichever is the greater.

    Raises
    ------
    ValueError
        If `text` is no range within ±90° that ends at its last angle, or has not `n` angles.
    """
    try:
        first, last, step = (float(word) for word in re.split("[,:]", text))
    except ValueError:
        raise ValueError(
            f"range of tilt angles {shown(text)}: give first,last,step, like -60,60,3"
        ) from None
    if not (abs(first) <= STEEPEST and abs(last) <= STEEPEST and math.isfinite(step)):
        raise ValueError(f"range of tilt angles {shown(text)}: angles must lie within ±90")
    if first != last and (step == 0 or (step < 0 and last > first)):
        raise ValueError(f"range of tilt angles {shown(text)}: steps of {step} never reach {last}")
    steps = 0.0 if first == last else abs((last - first) / step)
    whole_steps = round(min(steps, 1e9))
    rounding = 0.05 if whole_steps else 0.0  # of a step such as 1.66667
    if abs(steps - whole_steps) > rounding:
        raise ValueError(f"range of tilt angles {shown(text)}: steps of {step} miss {last}")
    if whole_steps + 1 != n:
        raise ValueError(
            f"range of tilt angles {shown(text)} has {whole_steps + 1} angles, the stack {n} views"
        )
    apart = (last - first) / max(whole_steps, 1)
    return tuple(round(first + i * apart, 4) + 0.0 for i in range(n))


def acquisition_order(angles: Sequence[float], scheme: Scheme) -> tuple[int, ...]:
    """Return when each view was taken, from 0, by the scheme that the microscope followed.

    Parameters
    ----------
    angles
        Of the views, degrees.
    scheme
        ``listed``: as listed. ``dose-symmetric``: from the start outwards, by distance from it;
        of two equally far the higher angle first. ``bidirectional``: from the start to the end of
        the branch with more views (the upper of two alike), then from the start the other branch.
        The start is the angle nearest to 0, or to the middle of the range when 0 lies outside it.

    Raises
    ------
    ValueError
        If the scheme is another or an angle is not finite.
    """
    if scheme not in get_args(Scheme):
        raise ValueError(f"scheme {scheme!r}: expected one of {', '.join(get_args(Scheme))}")
    if bad := [angle for angle in angles if not math.isfinite(angle)]:
        raise ValueError(f"tilt angle {bad[0]}: expected a finite number")
    if scheme == "listed" or not angles:
        return tuple(range(len(angles)))
    low, high = min(angles), max(angles)
    centre = 0.0 if low <= 0 <= high else (low + high) / 2
    start = min(angles, key=lambda angle: (abs(angle - centre), -angle))
    upper = sorted((i for i, a in enumerate(angles) if a >= start), key=lambda i: angles[i])
    lower = sorted((i for i, a in enumerate(angles) if a < start), key=lambda i: -angles[i])
    if scheme == "dose-symmetric":
        taken = _outwards(angles, start, upper, lower)
    else:
        taken = [*upper, *lower] if len(upper) > len(lower) else [upper[0], *lower, *upper[1:]]
    order = [0] * len(angles)
    for position, i in enumerate(taken):
        order[i] = position
    return tuple(order)


def _outwards(
    angles: Sequence[float], start: float, upper: Sequence[int], lower: Sequence[int]
) -> list[int]:
    """Merge two branches by distance from the start; a quarter of a step is no difference."""
    branches = [[angles[i] for i in branch] for branch in (upper, [upper[0], *lower])]
    steps = [abs(b - a) for branch in branches for a, b in pairwise(branch)]
    same = median(steps) / 4 if steps else 0.0
    taken: list[int] = []
    u, v = 0, 0
    while u < len(upper) or v < len(lower):
        up = angles[upper[u]] - start if u < len(upper) else math.inf
        down = start - angles[lower[v]] if v < len(lower) else math.inf
        if up <= down + same:
            taken.append(upper[u])
            u += 1
        else:
            taken.append(lower[v])
            v += 1
    return taken


def _angle(path: StrPath, text: str, line: int) -> float:
    value = number(path, text, COLUMNS[0], line)
    if abs(value) > STEEPEST:
        raise FormatError(path, f"tilt angle {text} is beyond ±90°", "correct it", line)
    return value


def _dose(path: StrPath, text: str, line: int) -> float:
    value = number(path, text, COLUMNS[2], line)
    if value < 0:
        raise FormatError(path, f"dose {text} is negative", "correct it", line)
    return value


def _order(path: StrPath, rows: Sequence[tuple[int, list[str]]]) -> tuple[int, ...]:
    order = [whole(path, words[1], COLUMNS[1], n) for n, words in rows]
    first = 0 if 0 in order else 1
    lines: dict[int, int] = {}
    for value, (n, words) in zip(order, rows, strict=True):
        if not first <= value < first + len(order):
            problem = f"acquisition order {words[1]} of {len(order)} views"
        elif value in lines:
            problem = f"acquisition order {words[1]} again, as in line {lines[value]}"
        else:
            lines[value] = n
            continue
        raise FormatError(path, problem, f"number them {first} to {first + len(order) - 1}", n)
    return tuple(value - first for value in order)
