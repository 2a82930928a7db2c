"""Defects of a detector as text: one rectangle a line, ``x y width height`` in pixels from 0."""

from __future__ import annotations

from tasks.formats.errors import FormatError
from tasks.formats.files import StrPath, read_table, whole

Rectangle = tuple[int, int, int, int]


def read_defects(path: StrPath) -> list[Rectangle]:
    """Read the rectangles (x, y, width, height) of pixels to be replaced.

    Raises
    ------
    FormatError
        If a line is not four whole numbers, none negative.
    """
    names = ("x", "y", "width", "height")
    rectangles = []
    for line, words in read_table(path):
        if len(words) != len(names):
            raise FormatError(
                path, f"{len(words)} values", "write x y width height on each line", line
            )
        x, y, width, height = (
            whole(path, word, name, line) for word, name in zip(words, names, strict=True)
        )
        if min(x, y) < 0 or min(width, height) < 1:
            raise FormatError(
                path, f"the rectangle {x} {y} {width} {height}", "correct the line", line
            )
        rectangles.append((x, y, width, height))
    return rectangles
