"""IMOD's .defocus files, versions 2 and 3.

Their astigmatism angle is that of the first defocus, counter-clockwise from +x in the images of
the raw stack, rows upward: ctfphaseflip takes ½(D₁ + D₂) + ½(D₁ − D₂) cos 2(φ − angle) with
φ = atan2(ky, kx), as CTFFIND does. Of the smaller defocus, which IMOD puts second, it is 90° more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import degrees

from tasks.formats.errors import FormatError, shown
from tasks.formats.files import StrPath, number, read_table, refuse_nan, whole, write_text

ANGSTROM_PER_NM = 10.0

# Bits of the first number of version 3's header line.
ASTIGMATISM, ANGLE_IN_RADIANS, PHASE, PHASE_IN_RADIANS, INVERTED, CUT_ON = 1, 2, 4, 8, 16, 32


@dataclass(frozen=True)
class DefocusRow:
    """The defocus of the views `first` to `last`, from 1.

    Attributes
    ----------
    first, last : int
    low_tilt, high_tilt : float
        Tilt angles of these views [degrees].
    defocus_u, defocus_v : float
        Along and across `astigmatism_angle`, underfocus positive [Å].
    astigmatism_angle : float
        Of defocus_u, counter-clockwise from image +x [degrees].
    phase_shift : float
        [degrees]
    cut_on : float
        Cut-on frequency of the phase plate as the file has it.
    """

    first: int
    last: int
    low_tilt: float
    high_tilt: float
    defocus_u: float
    defocus_v: float
    astigmatism_angle: float = 0.0
    phase_shift: float = 0.0
    cut_on: float = 0.0


@dataclass(frozen=True)
class Defocus:
    """A .defocus file; `inverted`: the tilt angles need inverting, says the file."""

    rows: tuple[DefocusRow, ...]
    version: int = 3
    inverted: bool = False


def read_defocus(path: StrPath) -> Defocus:
    """Read a .defocus file of version 2 or 3.

    Files of old IMOD releases, whose views count from 0, are counted from 1 here.

    Raises
    ------
    FormatError
        If the version is another, a line has the wrong number of columns, or there are no rows.
    """
    lines = read_table(path)
    if not lines:
        raise FormatError(path, "no lines", "give a .defocus file")
    n, first = lines[0]
    flags, version = 0, 2
    # A row of version 2 may also have six words: its fifth is a defocus, never 0.
    if len(first) == 6 and all(number(path, word, "header", n) == 0 for word in first[1:5]):
        flags, version = whole(path, first[0], "flags", n), whole(path, first[5], "version", n)
        lines = lines[1:]
    elif len(first) == 6:
        version = whole(path, first[5], "version", n)
        lines[0] = (n, first[:5])
    if version not in {2, 3} or not 0 <= flags < 64:
        raise FormatError(path, f"version {version}, flags {flags}", "use version 2 or 3", n)
    if not lines:
        raise FormatError(path, "no rows below the first line", "give a .defocus file", n)
    rows = [_row(path, line, words, flags) for line, words in lines]
    if any(row.first == 0 for row in rows):
        rows = [DefocusRow(r.first + 1, r.last + 1, *_values(r)) for r in rows]
    return Defocus(tuple(rows), version, bool(flags & INVERTED))


def write_defocus(
    path: StrPath, rows: Sequence[DefocusRow], version: int = 3, *, inverted: bool = False
) -> None:
    """Write version 3 with astigmatism, and phase shift where there is one, or version 2.

    Version 2 has one number per view, the mean defocus, and no flags. Angles are in degrees, so
    that the flags are 1 or 5, and 16 more where tilt angles must be `inverted` (hand −1 of design
    §4); novaCTF reads all of these.
    """
    if version not in {2, 3} or not rows:
        raise FormatError(path, f"version {version}, {len(rows)} rows", "use version 2 or 3")
    for row in rows:
        refuse_nan(path, f"view {row.first}", _values(row))
    if any(row.cut_on for row in rows):
        raise FormatError(path, "a cut-on frequency is not written", "set it to 0")
    phase = any(row.phase_shift for row in rows)
    flags = ASTIGMATISM | (PHASE if phase else 0) | (INVERTED if inverted else 0)
    lines = [f"{flags}\t0\t0.\t0.\t0\t3"] if version == 3 else []
    for i, row in enumerate(rows):
        words = [f"{row.first}", f"{row.last}", f"{row.low_tilt:.2f}", f"{row.high_tilt:.2f}"]
        if version == 3:
            words += [f"{v / ANGSTROM_PER_NM:.2f}" for v in (row.defocus_u, row.defocus_v)]
            words += [f"{row.astigmatism_angle:.2f}"]
            words += [f"{row.phase_shift:.2f}"] if phase else []
        else:
            words += [f"{(row.defocus_u + row.defocus_v) / 2 / ANGSTROM_PER_NM:.2f}"]
            words += ["2"] if i == 0 else []
        lines.append("\t".join(words))
    write_text(path, "\n".join(lines) + "\n")


def _row(path: StrPath, line: int, words: list[str], flags: int) -> DefocusRow:
    astigmatic = bool(flags & ASTIGMATISM)
    wanted = 5 + 2 * astigmatic + bool(flags & PHASE) + bool(flags & CUT_ON)
    if len(words) != wanted:
        raise FormatError(
            path,
            f"{len(words)} columns in {shown(' '.join(words))}, not {wanted}",
            "correct the line or the flags",
            line,
        )
    first, last = (whole(path, word, "view", line) for word in words[:2])
    if not 0 <= first <= last:
        raise FormatError(path, f"views {first} to {last}", "correct the numbers", line)
    low, high, *rest = (number(path, word, "value", line) for word in words[2:])
    defocus_u, *rest = rest
    defocus_v, angle = rest[:2] if astigmatic else (defocus_u, 0.0)
    rest = rest[2:] if astigmatic else rest
    phase = rest.pop(0) if flags & PHASE else 0.0
    return DefocusRow(
        first,
        last,
        low,
        high,
        defocus_u * ANGSTROM_PER_NM,
        defocus_v * ANGSTROM_PER_NM,
        degrees(angle) if flags & ANGLE_IN_RADIANS else angle,
        degrees(phase) if flags & PHASE_IN_RADIANS else phase,
        rest[0] if rest else 0.0,
    )


def _values(row: DefocusRow) -> tuple[float, ...]:
    return (
        row.low_tilt,
        row.high_tilt,
        row.defocus_u,
        row.defocus_v,
        row.astigmatism_angle,
        row.phase_shift,
        row.cut_on,
    )
