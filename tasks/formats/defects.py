"""Defects of a detector: rectangles, SerialEM's list, or a map.

Rectangles are lines of ``x y width height`` in pixels from 0 of the frames as read, row 0 at the
bottom. SerialEM's list counts rows from the top and in pixels of the camera, and is brought to the
frames. A map is an image (MRC, TIFF, .dm4) whose defects are not 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.formats.errors import FormatError, shown
from tasks.formats.files import StrPath, read_table, whole
from tasks.formats.gain_files import FINEST, read_reference

Rectangle = tuple[int, int, int, int]
Mask = NDArray[np.bool_]

REMARKS = {"RotationAndFlip", "K2Type", "FalconType", "NumToAvgSuperRes"}
NUMBERS_OF = {"CameraSizeX": 1, "CameraSizeY": 1, "WasScaled": 1, "UsableArea": 4}
NUMBERS_OF |= {"PartialBadColumn": 4, "PartialBadRow": 4}
LISTS = {"BadColumns": 1, "BadRows": 1, "BadPixels": 2}
HEAD_BYTES = 1024


def read_defect_mask(path: StrPath, shape: tuple[int, int]) -> Mask:
    """Read the defects in any of the formats as a mask (ny, nx), True where pixels are bad.

    Parameters
    ----------
    path
        The file.
    shape : (ny, nx)
        Of the frames. SerialEM's list and maps may have 1, 2 or 4 times as many pixels along each
        side, or as few.

    Raises
    ------
    FormatError
        If the file has none of the formats, or does not fit `shape`.
    """
    path = Path(path)
    with path.open("rb") as file:
        if b"\0" in file.read(HEAD_BYTES):
            return _matched(path, read_reference(path) != 0, shape)
    table = read_table(path)
    if table and table[0][1][0][0].isalpha():
        return _matched(path, _serialem_mask(path), shape)
    mask: Mask = np.zeros(shape, dtype=bool)
    for x, y, width, height in read_defects(path):
        if x + width > shape[1] or y + height > shape[0]:
            raise FormatError(
                path,
                f"the rectangle {x} {y} {width} {height} is not within frames of "
                f"{shape[1]}×{shape[0]} pixels",
                "correct the line",
            )
        mask[y : y + height, x : x + width] = True
    return mask


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


def _serialem_mask(path: Path) -> Mask:
    """Return the mask of the camera's pixels, row 0 at the bottom."""
    entries = [
        (line, words[0], [whole(path, word, words[0], line) for word in words[1:]])
        for line, words in read_table(path)
    ]
    for line, name, values in entries:
        n = NUMBERS_OF.get(name)
        step = LISTS.get(name)
        if n is None and step is None and name not in REMARKS:
            raise FormatError(
                path, f"{shown(name)} is no entry of a defect list", "remove it", line
            )
        if (n is not None and len(values) != n) or (
            step is not None and (not values or len(values) % step)
        ):
            raise FormatError(path, f"{name} has {len(values)} values", "correct the line", line)
    single = {name: values[0] for _, name, values in entries if NUMBERS_OF.get(name) == 1}
    nx, ny = single.get("CameraSizeX", 0), single.get("CameraSizeY", 0)
    if not (0 < nx < 2**16 and 0 < ny < 2**16):
        raise FormatError(
            path, f"the camera has {nx}×{ny} pixels", "add CameraSizeX and CameraSizeY"
        )
    # A list scaled to super-resolution gives the first of 2×2 pixels, or 4×4.
    side = {0: 1, 1: 2}.get(single.get("WasScaled", 0), 4)
    from_top: Mask = np.zeros((ny, nx), dtype=bool)

    for line, name, values in entries:
        for y, x, end_y, end_x in _regions(name, values, (ny, nx), side):
            if not (0 <= y < end_y <= ny and 0 <= x < end_x <= nx):
                raise FormatError(
                    path,
                    f"{name} marks x {x} to {end_x - 1}, y {y} to {end_y - 1}, the camera has "
                    f"{nx}×{ny} pixels",
                    "correct the line",
                    line,
                )
            from_top[y:end_y, x:end_x] = True
    return from_top[::-1]


def _regions(
    name: str, values: list[int], shape: tuple[int, int], side: int
) -> list[tuple[int, int, int, int]]:
    """Return what an entry marks as (y, x, end of y, end of x), rows counted from the top."""
    ny, nx = shape
    if name == "BadPixels":
        pairs = zip(values[::2], values[1::2], strict=True)
        return [(y, x, y + side, x + side) for x, y in pairs]
    if name == "BadColumns":
        return [(0, x, ny, x + 1) for x in values]
    if name == "BadRows":
        return [(y, 0, y + 1, nx) for y in values]
    if name == "PartialBadColumn":
        x, width, start, last = values
        return [(start, x, last + 1, x + width)]
    if name == "PartialBadRow":
        y, height, start, last = values
        return [(y, start, y + height, last + 1)]
    if name == "UsableArea" and any(values):
        top, left, bottom, right = values
        outside = [(0, 0, top, nx), (0, 0, ny, left)]
        outside += [(bottom + 1, 0, ny, nx), (0, right + 1, ny, nx)]
        return [region for region in outside if region[0] < region[2] and region[1] < region[3]]
    return []


def _matched(path: Path, mask: Mask, shape: tuple[int, int]) -> Mask:
    """Bring a mask to the sampling of the frames: a pixel is bad where any part of it is."""
    ny, nx = mask.shape
    for factor in (1, 2, FINEST):
        if (ny * factor, nx * factor) == shape:
            return np.repeat(np.repeat(mask, factor, axis=0), factor, axis=1)
        if (ny, nx) == (shape[0] * factor, shape[1] * factor):
            blocks = mask.reshape(shape[0], factor, shape[1], factor)
            return np.asarray(blocks.any(axis=(1, 3)))
    raise FormatError(
        path,
        f"defects of {ny}×{nx} pixels, the movies have {shape[0]}×{shape[1]}",
        "give the defects of these movies",
    )
