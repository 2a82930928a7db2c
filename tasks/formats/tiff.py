"""TIFF movies and images: BigTIFF or not, LZW, deflate or uncompressed, strips or tiles.

TIFF stores the top row first. Rows are reversed on reading, so that row 0 is the bottom row, as
IMOD and RELION do and as MRC files mean it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tasks.formats.errors import FormatError
from tasks.formats.files import StrPath
from tasks.formats.tiff_directory import Directory, read_directories, refuse_cut_off

WIDTH, LENGTH, BITS, COMPRESSION, SAMPLES, SAMPLE_FORMAT = 256, 257, 258, 259, 277, 339
OFFSETS, COUNTS = (273, 324), (279, 325)  # of strips, of tiles
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296

DTYPES = {1: "u", 2: "i", 3: "f"}  # by SampleFormat
SIZES = {"u": (8, 16, 32), "i": (8, 16, 32), "f": (16, 32)}
UNIT_ANGSTROM = {2: 2.54e8, 3: 1e8}  # inch, cm; any other unit says nothing of the pixel
LARGEST_PIXEL = 1000.0  # Å; what is above comes from resolutions for printing, such as 72 dpi

_WANTED = {
    WIDTH, LENGTH, BITS, COMPRESSION, SAMPLES, SAMPLE_FORMAT, *OFFSETS, *COUNTS,
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
        Where the directory of each page lies in the file.
    """

    path: Path
    ny: int
    nx: int
    dtype: np.dtype[Any]
    pixel_size: float | None
    offsets: tuple[int, ...]

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.offsets)

    def frame(self, i: int) -> NDArray[Any]:
        """Return frame `i`, from 0, as a new array (ny, nx), row 0 at the bottom."""
        if not 0 <= i < self.n_frames:
            raise IndexError(f"frame {i} of {self.path}, which has {self.n_frames}")
        try:
            with tifffile.TiffFile(self.path) as file:
                file.filehandle.seek(self.offsets[i])
                return self._decoded(tifffile.TiffPage(file, i))
        except (OSError, FormatError):
            raise
        except Exception as error:  # what libraries raise on bad data has no common base
            raise FormatError(
                self.path, f"page {i + 1} cannot be decoded ({error})", "copy it again"
            ) from error

    def _decoded(self, page: tifffile.TiffPage) -> NDArray[Any]:
        if page.is_contiguous:
            stored = page.parent.byteorder + self.dtype.str[1:]
            at, shape = page.dataoffsets[0], (self.ny, self.nx)
            mapped = np.memmap(self.path, dtype=stored, mode="r", offset=at, shape=shape)
            return np.array(mapped[::-1], dtype=self.dtype)
        frame = np.empty((self.ny, self.nx), self.dtype)
        upwards = frame[::-1]
        # One thread: the workers of a machine share its cores already.
        for segment, (_, _, y, x, _), (_, height, width, _) in page.segments(maxworkers=1):
            if segment is None:
                raise FormatError(
                    self.path, f"page {page.index + 1} lacks the data at row {y}", "copy it again"
                )
            target = upwards[y : y + height, x : x + width]
            target[:] = segment[0, : target.shape[0], : target.shape[1], 0]
        return frame


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
    for i, page in enumerate(directories, 1):
        if _layout(page) != _layout(first):
            raise FormatError(
                path,
                f"page {i} has {page.number(WIDTH, 0)}×{page.number(LENGTH, 0)} pixels of "
                f"{page.number(BITS, 1)} bits, page 1 {first.number(WIDTH, 0)}×"
                f"{first.number(LENGTH, 0)} of {first.number(BITS, 1)}",
                "give a movie whose frames have one size and type",
            )
        at, n = (
            tuple(value for tag in tags for value in page.numbers(tag))
            for tags in (OFFSETS, COUNTS)
        )
        refuse_cut_off(path, size, i, at, n)
    return TiffMovie(
        path=path,
        ny=first.number(LENGTH, 0),
        nx=first.number(WIDTH, 0),
        dtype=dtype,
        pixel_size=_pixel_size(first),
        offsets=tuple(page.offset for page in directories),
    )


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
