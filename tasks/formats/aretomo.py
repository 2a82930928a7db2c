"""AreTomo's alignment files (.aln): one line for each view that is not dark, local shifts below.

Lengths are pixels of the raw stack, angles degrees. ROT is the tilt axis, counter-clockwise from
image +y; TX, TY is where the specimen's origin appears from the raw image's centre, so that IMOD's
transform of the same view is A = R(−ROT) / GMAG, d = −A (TX, TY). AreTomo 3 counts sections from
1, earlier releases and its relatives from 0: a file with a section 0, dark or not, counts from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.formats.errors import FormatError, shown
from tasks.formats.files import StrPath, number, read_lines, refuse_nan, whole, write_text

Floats = NDArray[np.float64]

COLUMNS = ("SEC", "ROT", "GMAG", "TX", "TY", "SMEAN", "SFIT", "SCALE", "BASE", "TILT")


@dataclass(frozen=True)
class AlnView:
    """One view: section from 0, tilt and axis [degrees], magnification, shift [raw pixels].

    `line` is where a file has it, from 1.
    """

    section: int
    tilt: float
    axis: float
    magnification: float
    shift_x: float
    shift_y: float
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class LocalShift:
    """How far a patch was moved in one view.

    Attributes
    ----------
    view : int
        Place of the view among those that are listed, from 0.
    patch : int
    x, y : float
        The patch in the aligned view, from its centre [raw pixels].
    shift_x, shift_y : float
        Of what is there [raw pixels].
    good : bool
    """

    view: int
    patch: int
    x: float
    y: float
    shift_x: float
    shift_y: float
    good: bool = True


@dataclass(frozen=True)
class Alignment:
    """What an .aln file holds.

    Attributes
    ----------
    size : (nx, ny, views)
        Of the raw stack.
    views : tuple of AlnView
        In the file's order.
    dark : tuple of (section from 0, tilt)
        Views that AreTomo has left out.
    local : tuple of LocalShift
    alpha, beta : float
        Offsets of the tilt angle, which TILT holds already, and about x [degrees].
    thickness : float or None
        Of the specimen [raw pixels].
    sure : bool
        Whether the file itself shows from which number it counts: it has a section 0, or the last.
    """

    size: tuple[int, int, int]
    views: tuple[AlnView, ...]
    dark: tuple[tuple[int, float], ...] = ()
    local: tuple[LocalShift, ...] = ()
    alpha: float = 0.0
    beta: float = 0.0
    thickness: float | None = None
    sure: bool = field(default=True, compare=False)


def is_aln(path: StrPath) -> bool:
    """Tell whether a file is an .aln, by its content."""
    return any("AreTomo" in line for line in read_lines(path)[:3])


def read_aln(path: StrPath) -> Alignment:
    """Read an .aln file.

    Raises
    ------
    FormatError
        If there is no size or view, or a line is not what it should be.
    """
    head: dict[str, list[str]] = {}
    dark: list[tuple[int, float]] = []
    rows: list[tuple[int, list[float]]] = []
    local: list[LocalShift] = []
    in_local = False
    for n, raw in enumerate(read_lines(path), 1):
        line = raw.strip()
        if line.startswith("#"):
            in_local |= line.lower().startswith("# local")
            name, equals, value = line[1:].partition("=")
            words = value.split()
            if equals and name.strip() == "DarkFrame":
                if len(words) < 2:
                    raise FormatError(path, f"{shown(line)} has no section", "complete it", n)
                section = whole(path, words[-2], "section", n)
                dark.append((section, number(path, words[-1], "tilt", n)))
            elif equals:
                head[name.strip()] = words
        elif line and in_local:
            local.append(_local(path, line.split(), n))
        elif line:
            words = line.split()
            if len(words) < len(COLUMNS):
                raise FormatError(
                    path, f"{len(words)} columns in {shown(line)}", f"{len(COLUMNS)} are needed", n
                )
            values = zip(COLUMNS, words, strict=False)
            rows.append((n, [number(path, word, name, n) for name, word in values]))
    if len(head.get("RawSize", ())) != 3 or not rows:
        raise FormatError(path, "has no RawSize, or no views", "give an .aln file of AreTomo")
    size = [whole(path, word, "RawSize") for word in head["RawSize"]]
    numbers = {round(row[0]) for _, row in rows} | {section for section, _ in dark}
    first = 0 if 0 in numbers else 1
    views = tuple(AlnView(round(r[0]) - first, r[9], r[1], r[2], r[3], r[4], n) for n, r in rows)
    wrong = next((v for v in views if not 0 <= v.section < size[2] or v.magnification <= 0), None)
    if wrong is not None:
        raise FormatError(
            path,
            f"section {wrong.section + first} of {size[2]}, magnification {wrong.magnification:g}",
            "correct the line",
            wrong.line,
        )
    sections = [v.section for v in views]
    twice = next((v for i, v in enumerate(views) if v.section in sections[:i]), None)
    if twice is not None:
        raise FormatError(
            path, f"section {twice.section + first} again", "leave one of them", twice.line
        )

    def offset(name: str) -> float:
        return number(path, head[name][0], name) if head.get(name) else 0.0

    return Alignment(
        (size[0], size[1], size[2]),
        views,
        tuple((section - first, tilt) for section, tilt in dark),
        tuple(local),
        offset("AlphaOffset"),
        offset("BetaOffset"),
        offset("Thickness") if head.get("Thickness") else None,
        first == 0 or size[2] in numbers,
    )


def _local(path: StrPath, words: list[str], line: int) -> LocalShift:
    if len(words) < 6:
        raise FormatError(path, f"{len(words)} columns of a local shift", "6 are needed", line)
    view, patch = (whole(path, word, "tilt or patch", line) for word in words[:2])
    x, y, sx, sy = (number(path, word, "place or shift", line) for word in words[2:6])
    good = len(words) < 7 or number(path, words[6], "mark", line) > 0.5
    return LocalShift(view, patch, x, y, sx, sy, good)


def write_aln(path: StrPath, alignment: Alignment) -> None:
    """Write an .aln file as AreTomo 3 does, sections from 1."""
    views, local = alignment.views, alignment.local
    refuse_nan(path, "view", (n for v in views for n in (v.tilt, v.axis, v.shift_x, v.shift_y)))
    refuse_nan(path, "local shift", (n for s in local for n in (s.x, s.y, s.shift_x, s.shift_y)))
    nx, ny, n_views = alignment.size
    patches = len({s.patch for s in local})
    lines = [
        "# AreTomo Alignment / Priims bprmMn",
        f"# RawSize = {nx} {ny} {n_views}",
        f"# NumPatches = {patches}",
        *(
            f"# DarkFrame =  {section:4d} {section + 1:4d} {tilt:8.2f}"
            for section, tilt in alignment.dark
        ),
        f"# AlphaOffset = {alignment.alpha:8.2f}",
        f"# BetaOffset = {alignment.beta:8.2f}",
    ]
    if alignment.thickness is not None:
        lines.append(f"# Thickness = {alignment.thickness:.0f}")
    lines.append(
        "# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE"
        "     TILT"
    )
    lines += [
        f"{v.section + 1:5d}  {v.axis:9.4f}  {v.magnification:9.5f}  {v.shift_x:9.3f}  "
        f"{v.shift_y:9.3f}  {1:7.2f}  {1:7.2f}  {1:7.2f}  {0:7.2f}  {v.tilt:8.2f}"
        for v in views
    ]
    if local:
        lines.append("# Local Alignment")
        lines += [
            f"{s.view:4d} {s.patch:3d} {s.x:8.2f}  {s.y:8.2f}  {s.shift_x:8.2f}  {s.shift_y:8.2f}"
            f"  {float(s.good):4.1f}"
            for s in local
        ]
    write_text(path, "\n".join(lines) + "\n")


def tilt_lines(angles: Floats, orders: NDArray[np.int64], doses: Floats) -> str:
    """Return AreTomo's _TLT.txt: tilt angle, place in the acquisition from 1, dose of each view."""
    return "".join(
        f"{a:8.2f} {o:4d} {d:8.3f}\n" for a, o, d in zip(angles, orders, doses, strict=True)
    )
