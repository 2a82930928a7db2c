"""Rows of IMOD's .defocus file, brought to the views of a series as IMOD does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from tasks.ctf_imported import Found, Hand, Values, checked
from tasks.errors import UnusableData
from tasks.formats.imod_defocus import Defocus, DefocusRow
from tasks.record import CtfEstimate, TiltSeries

# Refined angles may differ from nominal ones by the specimen's pre-tilt, and by refinement.
MOST_PRETILT = 30.0
MOST_REFINEMENT = 1.0
WORTH_SAYING = 1.0
SAME_ANGLE = 0.5


@dataclass(frozen=True)
class Matched:
    """Rows and the views they number.

    Attributes
    ----------
    rows : sequence of DefocusRow
    index : mapping of int to int
        Number that the rows use → index of the view.
    sign : int or None
        −1 where the rows' angles are the views' inverted; None where both signs fit.
    doubts : tuple of str
    """

    rows: Sequence[DefocusRow]
    index: Mapping[int, int]
    sign: int | None
    doubts: tuple[str, ...] = ()


def from_defocus(path: Path, file: Defocus, record: TiltSeries) -> Found:
    """Return the CTF of each view, from rows that fit the views by number and tilt angle.

    Numbers count the sections of an imported stack, else all views by tilt angle, else those that
    are included; where none of these goes with the angles of the rows, the angles alone decide.
    Angles may be off by a constant, which is the specimen's pre-tilt. As in IMOD, a row over
    several views is the value at the middle one, views between rows get values interpolated by
    number, and the ends are continued; a view that is in no row is marked as not reliable.

    The hand is −1 where the file tells that tilt angles must be inverted: by its flag (16, of
    version 3), or by angles that are the views' inverted, as ctfplotter writes them when called
    with ``-invert``. Otherwise nothing is known: ctfplotter never sets the flag and other programs
    leave it out unasked, so its absence is no one's word for +1.

    Raises
    ------
    UnusableData
        If the rows do not fit the views, or a value cannot be a defocus.
    """
    matched = _matched(path, file.rows, record)
    doubts = list(matched.doubts)
    if any(row.cut_on for row in file.rows):
        doubts.append(f"{path.name}: its cut-on frequencies are not used")
    if file.inverted and matched.sign == -1:
        doubts.append(f"{path.name}: its angles are inverted and its flag inverts them once more")
    middle = {(row.first + row.last) // 2: _values(path, row) for row in matched.rows}
    named = {number for row in matched.rows for number in range(row.first, row.last + 1)}
    estimates = {}
    for number, i in matched.index.items():
        u, v, angle, phase = _interpolated(middle, number)
        estimates[i] = CtfEstimate(
            defocus_u=u,
            defocus_v=v,
            astigmatism_angle=angle,
            phase_shift=phase,
            reliable=number in named,
            problem=None if number in named else f"not in {path.name}: from the views beside it",
        )
    return Found(estimates, _hand(file, matched.sign), tuple(doubts))


def _hand(file: Defocus, sign: int | None) -> Hand:
    # The flag says of angles as they are that they need inverting: once is enough.
    return -1 if file.inverted != (sign == -1) else None


def _matched(path: Path, rows: Sequence[DefocusRow], record: TiltSeries) -> Matched:
    tilts = [view.tilt_angle for view in record.views]
    sections = {view.first_frame: i for i, view in enumerate(record.views)}
    is_stack = len({view.movie.path for view in record.views}) == 1 < len(sections) == len(tilts)
    every = dict(enumerate(range(len(tilts)), 1))
    included = dict(enumerate(record.included, 1))
    numberings = [sections, every, included] if is_stack else [every, included]
    fits = [
        (round(abs(offset)), -sign, place, offset)
        for place, index in enumerate(numberings)
        for sign in (1, -1)
        if (offset := _offset(rows, index, tilts, sign)) is not None
    ]
    if not fits:
        return _by_angle(path, rows, tilts, record.name)
    # Angles of a refinement are off by the pre-tilt; a wrong numbering makes them more so.
    _, inverted, place, offset = min(fits)
    sign, index = -inverted, numberings[place]
    doubts = []
    if abs(offset) > WORTH_SAYING:
        doubts.append(f"{path.name}: its tilt angles are larger by {offset:.1f}°")
    others = [numberings[n] for _, minus, n, _ in fits if -minus == sign]
    if any(other[row.last] != index[row.last] for other in others for row in rows):
        doubts.append(
            f"{path.name}: its numbers are taken to count "
            + ("the views that are not excluded" if index is included else "all views")
        )
    both = {minus for _, minus, n, _ in fits if n == place} == {1, -1}
    if sign == -1 and not both:
        doubts.append(
            f"{path.name}: its tilt angles are those of the views inverted: taken as ctfplotter "
            "writes them with -invert, not as those of a stack in reverse order"
        )
    return Matched(rows, index, None if both else sign, tuple(doubts))


def _offset(
    rows: Sequence[DefocusRow], index: Mapping[int, int], tilts: Sequence[float], sign: int
) -> float | None:
    """Return by how much the rows' angles are larger than the views', None where they disagree."""
    if any(row.first not in index or row.last not in index for row in rows):
        return None
    away = [
        (row.low_tilt + row.high_tilt - sign * (tilts[index[row.first]] + tilts[index[row.last]]))
        / 2
        for row in rows
    ]
    offset = median(away)
    # A range of angles may reach further than its views.
    agree = all(
        abs(a - offset) <= MOST_REFINEMENT + abs(row.high_tilt - row.low_tilt) / 2
        for a, row in zip(away, rows, strict=True)
    )
    return offset if agree and abs(offset) <= MOST_PRETILT else None


def _by_angle(
    path: Path, rows: Sequence[DefocusRow], tilts: Sequence[float], series: str
) -> Matched:
    """Renumber rows by the view whose angle they have."""
    found: dict[int, DefocusRow] = {}
    for row in rows:
        angle = (row.low_tilt + row.high_tilt) / 2
        near = [i for i, tilt in enumerate(tilts) if abs(tilt - angle) <= SAME_ANGLE]
        if len(near) != 1 or near[0] + 1 in found:
            raise UnusableData(
                f"{path}: view {row.first} at {angle:g}° is none of the views of {series} by "
                "number and angle: give the .defocus file of this series, or number its views as "
                "here (`tiltflow show`)"
            )
        number = near[0] + 1
        found[number] = replace(row, first=number, last=number)
    return Matched(
        list(found.values()),
        {i + 1: i for i in range(len(tilts))},
        1,
        (f"{path.name}: its view numbers do not fit: matched by tilt angle",),
    )


def _values(path: Path, row: DefocusRow) -> Values:
    values = (row.defocus_u, row.defocus_v, row.astigmatism_angle, row.phase_shift)
    return checked(path, f"view {row.first}", values)


def _interpolated(middle: Mapping[int, Values], number: int) -> Values:
    """Return the values at a view: of its row, else between those of the rows beside it."""
    if number in middle:
        return middle[number]
    before = max((n for n in middle if n < number), default=None)
    after = min((n for n in middle if n > number), default=None)
    if before is None or after is None:
        return middle[before if after is None else after]  # type: ignore[index]
    part = (number - before) / (after - before)
    u0, v0, angle0, phase0 = _larger_first(middle[before])
    u1, v1, angle1, phase1 = _larger_first(middle[after])
    turn = (angle1 - angle0 + 90) % 180 - 90  # the shorter way round
    return (
        u0 + part * (u1 - u0),
        v0 + part * (v1 - v0),
        (angle0 + part * turn + 90) % 180 - 90,
        phase0 + part * (phase1 - phase0),
    )


def _larger_first(values: Values) -> Values:
    u, v, angle, phase = values
    return values if u >= v else (v, u, angle - 90, phase)
