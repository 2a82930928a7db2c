"""Images of Gatan's DigitalMicrograph (.dm3, .dm4), read to use them as gain references.

A file is a tree of named tags. An image is a tag ``ImageData`` that holds ``Data`` and
``Dimensions``; beside the image itself a file has a thumbnail. DigitalMicrograph stores the top
row first; rows are reversed on reading, so that row 0 is at the bottom, as IMOD's dm2mrc does.

Format: C. Boothroyd, "Digital Micrograph file format" (2013).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tasks.formats.errors import FormatError
from tasks.formats.files import StrPath

DIRECTORY, TAG = 20, 21
STRUCT, STRING, ARRAY = 15, 18, 20
SIZES = {2: 2, 3: 4, 4: 2, 5: 4, 6: 4, 7: 8, 8: 1, 9: 1, 10: 1, 11: 8, 12: 8}
SCALARS = {2: "h", 3: "i", 4: "H", 5: "I", 6: "f", 7: "d", 8: "b", 9: "b", 10: "b"}
SCALARS |= {11: "q", 12: "Q"}
IMAGES = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8", 14: "u1"}
DEEPEST = 64  # directories within directories; real files have about ten

_CUT_OFF = "copy it again"
_ORDERS = {b"\0\0\0\0", b"\0\0\0\1"}  # big and little endian
Tags = dict[tuple[str, ...], Any]


def is_dm(head: bytes) -> bool:
    """Tell whether a file that starts with these 16 bytes is a .dm3 or .dm4 file."""
    if len(head) < 16 or head[:4] not in (b"\0\0\0\3", b"\0\0\0\4"):
        return False
    return head[8:12] in _ORDERS if head[3] == 3 else head[12:16] in _ORDERS


def read_dm_image(path: StrPath) -> NDArray[Any]:
    """Read the largest image of a .dm3 or .dm4 file as an array (ny, nx), row 0 at the bottom.

    Raises
    ------
    FormatError
        If the file is cut off or holds no two-dimensional image of real values.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            tags, order = _read_tags(file)
        except (struct.error, OverflowError):
            raise FormatError(path, "its tags end too soon or make no sense", _CUT_OFF) from None
        found = [tag[:-1] for tag in tags if tag[-2:] == ("ImageData", "Data")]
        images = [image for image in found if isinstance(tags[(*image, "Data")], tuple)]
        if not images:
            raise FormatError(path, "no image in it", "give the .dm4 file of the gain reference")
        image = max(images, key=lambda name: tags[(*name, "Data")][1])
        at, size = tags[(*image, "Data")]
        shape = tuple(
            int(value)
            for tag, value in sorted(tags.items())
            if tag[:-1] == (*image, "Dimensions") and isinstance(value, int)
        )
        code = IMAGES.get(tags.get((*image, "DataType"), 0))
        flat = shape[:2] if all(n == 1 for n in shape[2:]) else shape
        if code is None or len(flat) != 2 or min(flat) < 1:
            raise FormatError(
                path,
                f"an image of {'×'.join(map(str, shape)) or 'no'} pixels and data type "
                f"{tags.get((*image, 'DataType'))}",
                "give one image of real values",
            )
        nx, ny = flat
        dtype = np.dtype(order + code)
        file.seek(at)
        data = file.read(min(size, nx * ny * dtype.itemsize))
    if len(data) < nx * ny * dtype.itemsize:
        raise FormatError(
            path, f"{len(data)} bytes of {nx}×{ny} values of {dtype.itemsize} bytes", _CUT_OFF
        )
    rows = np.frombuffer(data, dtype).reshape(ny, nx)[::-1]
    return np.array(rows, dtype=dtype.newbyteorder("="))


def _read_tags(file: BinaryIO) -> tuple[Tags, str]:
    """Return the values of all tags by their path of names, and the order of their bytes.

    Of an array the value is (offset, bytes); directories without names are numbered.
    """
    (version,) = _read(file, ">I")
    wide = "Q" if version == 4 else "I"
    _, order_code = _read(file, f">{wide}I")
    order = "<" if order_code == 1 else ">"
    tags: Tags = {}
    _read_directory(file, wide, order, (), tags)
    return tags, order


def _read_directory(
    file: BinaryIO, wide: str, order: str, name: tuple[str, ...], tags: Tags
) -> None:
    if len(name) > DEEPEST:
        raise struct.error
    _, _, n_entries = _read(file, f">BB{wide}")
    for i in range(n_entries):
        kind, length = _read(file, ">BH")
        # A number is padded, so that names sort as numbers do.
        label = file.read(length).decode("latin-1") if length else f"{i:08d}"
        if wide == "Q":
            _read(file, ">Q")  # the entry's size in bytes
        if kind == DIRECTORY:
            _read_directory(file, wide, order, (*name, label), tags)
        elif kind == TAG:
            tags[(*name, label)] = _read_value(file, wide, order)
        else:
            raise struct.error


def _read_value(file: BinaryIO, wide: str, order: str) -> Any:
    mark, length = _read(file, f">4s{wide}")
    if mark != b"%%%%" or not 0 < length < 1 << 16:
        raise struct.error
    kinds = _read(file, f">{length}{wide}")
    if kinds[0] in SCALARS and length == 1:
        return _read(file, order + SCALARS[kinds[0]])[0]
    size = _size(kinds)
    at = file.tell()
    end = file.seek(0, 2)
    if at + size > end:
        raise struct.error
    file.seek(at + size)
    return at, size


def _size(kinds: tuple[int, ...]) -> int:
    """Return the bytes of a value: a scalar, string, structure or an array of these."""
    if kinds[0] == ARRAY and len(kinds) >= 3:
        return _size(kinds[1:-1]) * kinds[-1]
    if kinds[0] == STRUCT and len(kinds) >= 3 and len(kinds) == 3 + 2 * kinds[2]:
        return sum(_size((kind,)) for kind in kinds[4::2])
    if kinds[0] == STRING and len(kinds) == 2:
        return 2 * kinds[1]
    if kinds[0] in SIZES and len(kinds) == 1:
        return SIZES[kinds[0]]
    raise struct.error


def _read(file: BinaryIO, code: str) -> tuple[Any, ...]:
    return struct.unpack(code, file.read(struct.calcsize(code)))
