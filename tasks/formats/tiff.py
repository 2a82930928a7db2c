"""TIFF movies and images: BigTIFF or not, LZW, deflate or uncompressed, strips or tiles.

TIFF stores the top row first. Rows are reversed on reading, so that row 0 is the bottom row, as
IMOD and RELION do and as MRC files mean it.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from tasks.formats.errors import FormatError
from tasks.formats.files import StrPath
from tasks.formats.tiff_directory import (
    MAGIC,
    ByteOrder,
    Directory,
    read_directories,
    refuse_cut_off,
)

WIDTH, LENGTH, BITS, COMPRESSION, FILL_ORDER, SAMPLES = 256, 257, 258, 259, 266, 277
SAMPLE_FORMAT = 339
OFFSETS, COUNTS = (273, 324), (279, 325)  # of strips, of tiles
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296

DTYPES = {1: "u", 2: "i", 3: "f"}  # by SampleFormat
SIZES = {"u": (8, 16, 32), "i": (8, 16, 32), "f": (16, 32)}
UNIT_ANGSTROM = {2: 2.54e8, 3: 1e8}  # inch, cm; any other unit says nothing of the pixel
LARGEST_PIXEL = 1000.0  # Å; what is above comes from resolutions for printing, such as 72 dpi
MOST_COMPRESSED = 4096  # LZW and deflate cannot do more: a larger frame is a damaged size

_WANTED = {
    WIDTH, LENGTH, BITS, COMPRESSION, FILL_ORDER, SAMPLES, SAMPLE_FORMAT, *OFFSETS, *COUNTS,
    X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT,
}  # fmt: skip


@dataclass(frozen=True)
class TiffMovie:
    """The pages of a TIFF file, read one at a time; small, so it may travel to workers.

    Attributes
    ----------
    path : Path
    ny, nx : int
        Rows and columns of a frame.
    dtype : np.dtype
        Of the values, in the machine's byte order.
    pixel_size : float or None
        In Å; None where the resolution tags do not say.
    offsets : tuple of int
        Where the data of each page lie in the file; 0 where they must be decoded.
    byte_order : '<' or '>'
        Of the file.
    """

    path: Path
    ny: int
    nx: int
    dtype: np.dtype[Any]
    pixel_size: float | None
    offsets: tuple[int, ...]
    byte_order: ByteOrder

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.offsets)

    def frame(self, i: int) -> NDArray[Any]:
        """Return frame `i`, from 0, as a new array (ny, nx), row 0 at the bottom."""
        if not 0 <= i < self.n_frames:
            raise IndexError(f"frame {i} of {self.path}, which has {self.n_frames}")
        rows = self._decoded(i) if self.offsets[i] == 0 else self._mapped(self.offsets[i])
        return np.array(rows[::-1], dtype=self.dtype)

    def _mapped(self, offset: int) -> NDArray[Any]:
        stored = self.dtype.newbyteorder(self.byte_order)
        return np.memmap(self.path, stored, mode="r", offset=offset, shape=(self.ny, self.nx))

    def _decoded(self, i: int) -> NDArray[Any]:
        with (
            self.path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            try:
                # libtiff: three times as fast on LZW as tifffile, whose decoder can crash on
                # damaged data.
                rows = imagecodecs.tiff_decode(data, index=i)
            except Exception as error:
                raise FormatError(
                    self.path, f"page {i + 1} cannot be decoded ({error})", "copy it again"
                ) from error
        if rows.shape != (self.ny, self.nx) or rows.dtype != self.dtype:
            raise FormatError(
                self.path,
                f"page {i + 1} is decoded as {rows.dtype} of shape {rows.shape}",
                "convert it to TIFF with LZW compression",
            )
        return rows


def open_tiff(path: StrPath, pages: int | None = None) -> TiffMovie:
    """Open a TIFF file of one or more grey pages of one size and type.

    Parameters
    ----------
    path
        The file.
    pages
        How many to read, at most; default: all.

    Raises
    ------
    FormatError
        If it is no such file, or is cut off.
    """
    path = Path(path)
    directories = read_directories(path, _WANTED, pages)
    first = directories[0]
    dtype, size = _dtype(path, first), path.stat().st_size
    offsets = []
    for i, page in enumerate(directories, 1):
        if _layout(page) != _layout(first):
            raise FormatError(
                path,
                f"page {i} has {page.number(WIDTH, 0)}×{page.number(LENGTH, 0)} pixels of "
                f"{page.number(BITS, 1)} bits, page 1 {first.number(WIDTH, 0)}×"
                f"{first.number(LENGTH, 0)} of {first.number(BITS, 1)}",
                "give a movie whose frames have one size and type",
            )
        frame_bytes = first.number(LENGTH, 0) * first.number(WIDTH, 0) * dtype.itemsize
        offsets.append(_data_offset(path, size, i, page, frame_bytes))
    with path.open("rb") as file:
        byte_order = MAGIC[file.read(4)]
    return TiffMovie(
        path=path,
        ny=first.number(LENGTH, 0),
        nx=first.number(WIDTH, 0),
        dtype=dtype,
        pixel_size=_pixel_size(first),
        offsets=tuple(offsets),
        byte_order=byte_order,
    )


def _data_offset(path: Path, size: int, number: int, page: Directory, frame_bytes: int) -> int:
    """Return where a page's values lie one after the other, or 0 when they must be decoded."""
    offsets, counts = (
        tuple(value for tag in tags for value in page.numbers(tag)) for tags in (OFFSETS, COUNTS)
    )
    refuse_cut_off(path, size, number, offsets, counts)
    stored = sum(counts)
    if frame_bytes > (stored if page.number(COMPRESSION, 1) == 1 else stored * MOST_COMPRESSED):
        raise FormatError(
            path,
            f"page {number} has {stored} bytes for {frame_bytes} bytes of values",
            "copy it again",
        )
    ends = [offset + count for offset, count in zip(offsets, counts, strict=True)]
    in_order = page.number(COMPRESSION, 1) == 1 and offsets[1:] == tuple(ends[:-1])
    plain = in_order and OFFSETS[0] in page.tags and page.number(FILL_ORDER, 1) == 1
    return offsets[0] if plain else 0


def _layout(page: Directory) -> tuple[int, ...]:
    tags = ((WIDTH, 0), (LENGTH, 0), (BITS, 1), (SAMPLES, 1), (SAMPLE_FORMAT, 1))
    return tuple(page.number(tag, default) for tag, default in tags)


def _dtype(path: Path, page: Directory) -> np.dtype[Any]:
    nx, ny, bits, samples, sample_format = _layout(page)
    kind = DTYPES.get(sample_format, "")
    if samples != 1 or bits not in SIZES.get(kind, ()) or not 0 < nx < 2**24 or not 0 < ny < 2**24:
        raise FormatError(
            path,
            f"pages of {nx}×{ny} pixels, {samples} samples a pixel of {bits} bits, "
            f"sample format {sample_format}",
            "convert it to grey values of 8, 16 or 32 bits, 4-bit data with IMOD's clip unpack",
        )
    return np.dtype(f"{kind}{bits // 8}")


def _pixel_size(page: Directory) -> float | None:
    unit = UNIT_ANGSTROM.get(page.number(RESOLUTION_UNIT, 2))
    x, y = page.numbers(X_RESOLUTION), page.numbers(Y_RESOLUTION)
    if unit is None or len(x) != 2 or len(y) != 2 or min(*x, *y) <= 0:
        return None
    size = unit * x[1] / x[0]
    same = abs(size / (unit * y[1] / y[0]) - 1) < 1e-3
    return size if same and size <= LARGEST_PIXEL else None
