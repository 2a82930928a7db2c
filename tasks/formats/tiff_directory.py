"""The directories of TIFF and BigTIFF files: one for each page, with the tags that are asked for.

Libraries log a warning and go on where the chain of pages leads beyond the end of the file. A
movie that was cut off would lose its last frames in silence, so we follow the chain ourselves.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from tasks.formats.errors import FormatError
from tasks.formats.files import StrPath

ByteOrder = Literal["<", ">"]
MAGIC: dict[bytes, ByteOrder] = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}

_CUT_OFF = "copy it again, or leave it out if the recording was cut off"
_BYTES, _RATIONAL = {2, 7}, 5
_CODES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i"}
_CODES |= {11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}

Values = tuple[int, ...] | tuple[float, ...] | bytes


@dataclass(frozen=True)
class Directory:
    """One page: where its directory lies in the file, and tags that were asked for."""

    offset: int
    tags: dict[int, Values]

    def number(self, tag: int, default: int) -> int:
        """Return the first value of `tag`."""
        value = self.tags.get(tag)
        return int(value[0]) if value else default

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return all values of `tag`; none where it is absent."""
        return tuple(int(value) for value in self.tags.get(tag, ()))


def read_directories(
    path: StrPath, wanted: Collection[int], most: int | None = None
) -> list[Directory]:
    """Follow the chain of directories of a TIFF or BigTIFF file.

    Parameters
    ----------
    path
        The file.
    wanted
        Tags whose values are read.
    most
        Directories after which to stop.

    Raises
    ------
    FormatError
        If it is no TIFF file, or a directory or value lies beyond the file's end.
    """
    path = Path(path)
    directories: list[Directory] = []
    with path.open("rb") as file:
        head = file.read(16)
        order = MAGIC.get(head[:4])
        if order is None:
            raise FormatError(path, "not a TIFF file: it starts otherwise", "give a TIFF file")
        big = head[2:4].strip(b"\0") == b"+"
        try:
            (offset,) = struct.unpack(
                f"{order}{'Q' if big else 'I'}", head[8:16] if big else head[4:8]
            )
            seen = set()
            while offset and (most is None or len(directories) < most):
                if offset in seen:
                    raise FormatError(path, "its pages form a loop", "copy it again")
                seen.add(offset)
                tags, following = _read_directory(file, offset, order, big, wanted)
                directories.append(Directory(offset, tags))
                offset = following
        except struct.error:
            raise FormatError(
                path,
                f"it ends at {path.stat().st_size} bytes, within page {len(directories) + 1}",
                _CUT_OFF,
            ) from None
    if not directories:
        raise FormatError(path, "no pages", _CUT_OFF)
    return directories


def refuse_cut_off(
    path: StrPath, size: int, page: int, offsets: tuple[int, ...], counts: tuple[int, ...]
) -> None:
    """Raise a FormatError when data of a page (from 1) are missing or beyond `size` bytes."""
    if not offsets or len(offsets) != len(counts):
        raise FormatError(
            path, f"page {page} has {len(offsets)} offsets of {len(counts)} strips", _CUT_OFF
        )
    end = max(offset + count for offset, count in zip(offsets, counts, strict=True))
    if end > size or min(offsets) <= 0:
        raise FormatError(path, f"{size} bytes found, page {page} ends at {end}", _CUT_OFF)


def _read_directory(
    file: BinaryIO, offset: int, order: str, big: bool, wanted: Collection[int]
) -> tuple[dict[int, Values], int]:
    entry = struct.Struct(f"{order}HHQ8s" if big else f"{order}HHI4s")
    _seek(file, offset, entry.size)
    count_code = f"{order}{'Q' if big else 'H'}"
    (n_entries,) = struct.unpack(count_code, file.read(struct.calcsize(count_code)))
    table = file.read(min(n_entries, 1 << 16) * entry.size)
    next_code = f"{order}{'Q' if big else 'I'}"
    (following,) = struct.unpack(next_code, file.read(struct.calcsize(next_code)))
    tags: dict[int, Values] = {}
    for i in range(n_entries):
        tag, kind, count, field = entry.unpack(table[i * entry.size : (i + 1) * entry.size])
        if tag in wanted and kind in _CODES:
            tags[tag] = _values(file, order, kind, count, field)
    return tags, following


def _values(file: BinaryIO, order: str, kind: int, count: int, field: bytes) -> Values:
    n = count * (2 if kind == _RATIONAL else 1)
    code = f"{order}{n}{_CODES[kind][0]}"
    size = struct.calcsize(code)
    if size > len(field):
        (at,) = struct.unpack(f"{order}{'Q' if len(field) == 8 else 'I'}", field)
        _seek(file, at, size)
        field = file.read(size)
    values = struct.unpack(code, field[:size])
    return values[0] if kind in _BYTES else values


def _seek(file: BinaryIO, offset: int, size: int) -> None:
    if offset + size > file.seek(0, 2):
        raise struct.error
    file.seek(offset)
