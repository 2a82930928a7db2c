"""MRC images, movies, stacks and volumes, read and written slice by slice.

What bytes (mode 0) mean is told in `mrc_header`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.formats.errors import FormatError, shown
from tasks.formats.files import StrPath, refuse_nan, replacing
from tasks.formats.mrc_header import (
    DTYPES,
    HEADER_BYTES,
    MODES,
    PACKED,
    MrcHeader,
    header_bytes,
    read_header,
)

__all__ = [
    "Frames",
    "MrcHeader",
    "open_frames",
    "read_header",
    "read_image",
    "read_volume",
    "write_stack",
    "write_volume",
]

Image = NDArray[Any]

BLOCK = 1 << 17  # values whose statistics are taken at once: 1 MiB in float64 stays in the cache


@dataclass(frozen=True)
class Frames:
    """The frames of a movie or stack, read one at a time; small, so it may travel to workers."""

    header: MrcHeader

    @property
    def path(self) -> Path:
        """The file."""
        return self.header.path

    @property
    def pixel_size(self) -> float | None:
        """In Å; None where the header does not say."""
        return self.header.pixel_size

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.header.shape[0]

    @property
    def ny(self) -> int:
        """Rows of a frame."""
        return self.header.shape[1]

    @property
    def nx(self) -> int:
        """Columns of a frame."""
        return self.header.shape[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values, in the machine's byte order."""
        return np.dtype(self.header.dtype).newbyteorder("=")

    def frame(self, i: int) -> Image:
        """Return frame `i`, from 0, as a new array (ny, nx)."""
        if not 0 <= i < self.n_frames:
            raise IndexError(f"frame {i} of {self.header.path}, which has {self.n_frames}")
        packed = self.header.mode == PACKED
        width = self.header.row_bytes if packed else self.nx
        # Not a memory map: its pages count as memory in use, and cost more over a network.
        stored = np.fromfile(
            self.header.path,
            self.header.dtype,
            count=self.ny * width,
            offset=self.header.data_offset + i * self.header.section_bytes,
        ).reshape(self.ny, width)
        return _unpacked(stored, self.nx) if packed else stored.astype(self.dtype, copy=False)


def open_frames(path: StrPath, signed: bool | None = None) -> Frames:
    """Open a movie or stack (modes 0, 1, 2, 6, 12, 101); see `read_header` for what is raised."""
    return Frames(read_header(path, signed))


def read_image(path: StrPath, signed: bool | None = None) -> Image:
    """Read a file of one image, such as a gain reference, as an array (ny, nx)."""
    frames = open_frames(path, signed)
    if frames.n_frames != 1:
        raise FormatError(path, f"{frames.n_frames} sections", "give a file of one image")
    return frames.frame(0)


def read_volume(path: StrPath, signed: bool | None = None) -> Image:
    """Map a volume or stack as a read-only array (z, y, x); nothing is read until used.

    Values packed in 4 bits (mode 101) cannot be mapped: they are read at once.
    """
    header = read_header(path, signed)
    if header.mode == PACKED:
        frames = Frames(header)
        return np.stack([frames.frame(z) for z in range(frames.n_frames)])
    return np.memmap(
        header.path, dtype=header.dtype, mode="r", offset=header.data_offset, shape=header.shape
    )


def write_stack(
    path: StrPath,
    images: ArrayLike | Iterable[Image],
    pixel_size: float,
    *,
    mode: int | None = None,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    labels: Sequence[str] = ("tiltflow",),
) -> MrcHeader:
    """Write images (n, y, x), or an iterator of (y, x), as an image stack, image by image.

    The cell has mx, my, mz = nx, ny, n, as IMOD writes stacks. `path` appears when complete.

    Parameters
    ----------
    path
        The file.
    images
        int8, uint8, int16, uint16, float16, float32 or float64, all of one shape.
    pixel_size
        In Å.
    mode
        0, 1, 2, 6 or 12; default: that of the images' type. Values are rounded for integers.
    origin
        x, y, z in Å, with MRC2014's sign.
    labels
        Up to ten, of 80 ASCII characters.

    Returns
    -------
    MrcHeader
        Of the new file.

    Raises
    ------
    FormatError
        If a value is not finite or does not fit the mode, or the shapes differ.
    """
    return _write(path, images, pixel_size, mode, origin, labels, space_group=0)


def write_volume(
    path: StrPath,
    slices: ArrayLike | Iterable[Image],
    pixel_size: float,
    *,
    mode: int | None = None,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    labels: Sequence[str] = ("tiltflow",),
) -> MrcHeader:
    """Write a volume (z, y, x), or an iterator of its z slices; otherwise as `write_stack`."""
    return _write(path, slices, pixel_size, mode, origin, labels, space_group=1)


def _write(
    path: StrPath,
    slices: ArrayLike | Iterable[Image],
    pixel_size: float,
    mode: int | None,
    origin: tuple[float, float, float],
    labels: Sequence[str],
    space_group: int,
) -> MrcHeader:
    refuse_nan(path, "pixel size or origin", (pixel_size, *origin))
    if pixel_size <= 0:
        raise FormatError(path, f"pixel size {pixel_size} Å", "give a positive one")
    if len(labels) > 10 or any(len(x) > 80 or not x.isascii() or not x.strip() for x in labels):
        raise FormatError(path, f"labels {shown(labels)}", "give ≤ 10 of ≤ 80 ASCII characters")
    statistics = _Statistics()
    target: np.dtype[Any] | None = None
    shape: tuple[int, ...] = ()
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(bytes(HEADER_BYTES))
        for z, item in enumerate(slices):  # type: ignore[arg-type]
            image = np.asarray(item)
            if target is None:
                target, shape = _stored_dtype(path, image.dtype, mode), image.shape
            if image.ndim != 2 or image.shape != shape or not image.size:
                raise FormatError(
                    path, f"slice {z} has shape {image.shape}, the first {shape}", "give one shape"
                )
            stored, low, high = _converted(path, z, image, target)
            statistics.add(stored, low, high)
            file.write(np.ascontiguousarray(stored).data)
        if target is None:
            raise FormatError(path, "no slices", "give at least one")
        file.seek(0)
        size = (statistics.n_slices, shape[0], shape[1])
        file.write(
            header_bytes(size, target, pixel_size, origin, labels, space_group, statistics.values)
        )
    return read_header(path)


def _unpacked(rows: Image, nx: int) -> Image:
    """Return the values of rows of bytes that hold two each, the first in the low half."""
    pairs = np.empty(rows.shape, "<u2")
    step = max(1, BLOCK // rows.shape[1])
    for start in range(0, len(rows), step):  # both at a time, in the cache
        part = pairs[start : start + step]
        part[:] = rows[start : start + step]
        part |= part << 4
        part &= 0x0F0F
    return np.ascontiguousarray(pairs.view(np.uint8)[:, :nx])


class _Statistics:
    """Minimum, maximum, mean and deviation of slices that pass by once (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.minimum, self.maximum = np.inf, -np.inf
        self.mean = self.squares = 0.0
        self.count = self.n_slices = 0

    def add(self, image: Image, low: float, high: float) -> None:
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self.n_slices += 1
        rows = max(1, BLOCK // image.shape[1])
        for start in range(0, image.shape[0], rows):
            block = image[start : start + rows].astype(np.float64).ravel()
            mean = float(block.mean())
            block -= mean
            block *= block  # not `block @ block`: threads of BLAS cost more than they save here
            step, total = mean - self.mean, self.count + block.size
            self.mean += step * block.size / total
            self.squares += float(block.sum()) + step**2 * self.count * block.size / total
            self.count = total

    @property
    def values(self) -> tuple[float, float, float, float]:
        rms = float(np.sqrt(self.squares / self.count))
        return self.minimum, self.maximum, self.mean, rms


def _stored_dtype(path: StrPath, dtype: np.dtype[Any], mode: int | None) -> np.dtype[Any]:
    if dtype.name not in MODES or mode not in {None, *DTYPES}:
        raise FormatError(
            path, f"values {dtype.name} in mode {mode}", f"use one of {[*MODES]}, {[*DTYPES]}"
        )
    if MODES[dtype.name] == 0 and mode in {None, 0}:
        return dtype
    code = DTYPES[MODES[dtype.name] if mode is None else mode]
    return np.dtype("u1" if code == "i1" else code).newbyteorder("<")


def _converted(
    path: StrPath, z: int, image: Image, target: np.dtype[Any]
) -> tuple[Image, float, float]:
    if target.kind in "iu" and image.dtype.kind == "f":
        image = np.rint(image)
    low, high = float(image.min()), float(image.max())
    limits = np.finfo(target) if target.kind == "f" else np.iinfo(target)
    if not float(limits.min) <= low <= high <= float(limits.max):  # false for NaN, too
        raise FormatError(
            path,
            f"slice {z} has values {low} to {high}, which {target.name} cannot hold",
            "mask values that are not finite, or choose another mode",
        )
    return image.astype(target, copy=False), low, high
