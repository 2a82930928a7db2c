"""Lists of views by series, in two columns: ``TS_01 1``, ``TS_03 1-3,40``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.formats.errors import FormatError, shown
from tasks.formats.files import StrPath, read_lines

EXAMPLE = "write lines such as TS_01 1 or TS_03 1-3,40"


@dataclass(frozen=True)
class ViewRange:
    """Views `first` to `last` of a series, from 1, sorted by tilt; named in `line` of the file."""

    first: int
    last: int
    line: int


def read_view_list(path: StrPath) -> dict[str, tuple[ViewRange, ...]]:
    """Read lines of a series' name and its views, from 1, sorted by tilt: series → ranges.

    A series may have several lines. Views are parted by commas or spaces; what follows a # is a
    comment. A file without lines names none.

    Raises
    ------
    FormatError
        If a line is not a name and views, or a range begins below 1 or ends before it begins.
    """
    ranges: dict[str, list[ViewRange]] = {}
    for number, text in enumerate(read_lines(path), 1):
        name, *words = re.split(r"[\s,]+", text.partition("#")[0].strip(" \t,"))
        if not name:
            continue
        if not words:
            raise FormatError(path, f"{shown(name)} without views", EXAMPLE, number)
        ranges.setdefault(name, []).extend(_range(path, word, number) for word in words)
    return {name: tuple(found) for name, found in ranges.items()}


def indices_of(path: StrPath, series: str, views: int) -> list[int]:
    """Return the indices, from 0, of the views that a list names of a series of so many views.

    Raises
    ------
    FormatError
        As `read_view_list`, and if it names a view that the series does not have.
    """
    indices: list[int] = []
    for found in read_view_list(path).get(series, ()):
        if found.last > views:
            raise FormatError(
                path, f"{series} has no view {found.last}", f"it has 1 to {views}", found.line
            )
        indices.extend(range(found.first - 1, found.last))
    return indices


def _range(path: StrPath, word: str, line: int) -> ViewRange:
    match = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", word)
    if match is None:
        raise FormatError(path, f"{shown(word)} names no views", EXAMPLE, line)
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last:
        raise FormatError(path, f"views {word}", "count from 1, the lower number first", line)
    return ViewRange(first, last, line)
