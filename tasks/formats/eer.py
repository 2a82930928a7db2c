"""EER movies of Falcon 4 detectors: electrons of each raw frame, run-length encoded, in TIFF pages.

A raw frame is a stream of codes, least significant bit first: the number of empty pixels before
the next electron, then the electron's place within its pixel, x before y. A number of all ones
only skips. Scans run along rows; the first row of the scan is the last row of the array: rows are
reversed like those of every other TIFF file, so that row 0 is at the bottom, as IMOD reads EER
(RELION leaves EER, and its gains, upside down relative to this). A ``.gain`` file read here and an
EER movie thus agree without a flip.

Format: Thermo Fisher Scientific, "EER file format documentation" 3.0 (2023).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from tasks.formats.errors import FormatError
from tasks.formats.files import StrPath
from tasks.formats.tiff_directory import Directory, read_directories, refuse_cut_off

WIDTH, LENGTH, COMPRESSION, OFFSETS, COUNTS = 256, 257, 259, 273, 279
METADATA, SKIP_BITS, X_BITS, Y_BITS = 65001, 65007, 65008, 65009
EIGHT_BIT, SEVEN_BIT, VARIABLE = COMPRESSIONS = (65000, 65001, 65002)
SAMPLINGS = (1, 2, 4)

_ITEM = re.compile(rb'<item\s+name="([^"]+)"(?:\s+unit="([^"]*)")?[^>]*>([^<]*)<')


@dataclass(frozen=True)
class EerMovie:
    """An EER movie as frames that each sum `grouping` raw frames; small, so it may travel.

    Attributes
    ----------
    path : Path
    ny, nx : int
        Rows and columns of a frame, those of the detector times the sampling.
    pixel_size : float or None
        In Å, of these frames; None where the metadata do not say.
    grouping : int
        Raw frames in a frame. Those left over at the end are not used.
    sampling : int
        1, 2 or 4 pixels along each side of a pixel of the detector.
    bits : (skip, x, y)
        Of a code.
    compression : int
        TIFF's number for the coding.
    strips : tuple
        Of each raw frame: (offset, bytes) of its pieces.
    """

    path: Path
    ny: int
    nx: int
    pixel_size: float | None
    grouping: int
    sampling: int
    bits: tuple[int, int, int]
    compression: int
    strips: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def n_raw(self) -> int:
        """Number of raw frames in the file."""
        return len(self.strips)

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.n_raw // self.grouping

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 while no pixel can exceed it: one electron a raw frame at most; else uint16."""
        return np.dtype(np.uint8 if self.grouping <= 255 else np.uint16)

    def frame(self, i: int) -> NDArray[Any]:
        """Return the electrons counted in frame `i`, from 0, as an array (ny, nx).

        Row 0 is at the bottom: the last row of the detector's scan. The rows lie in memory as
        scanned, in reverse: at 16k × 16k it costs a third of the time to turn them.
        """
        if not 0 <= i < self.n_frames:
            raise IndexError(f"frame {i} of {self.path}, which has {self.n_frames}")
        counts = np.zeros((self.ny, self.nx), self.dtype)
        first = i * self.grouping
        fixed = self.compression == EIGHT_BIT
        with self.path.open("rb") as file:
            for raw in range(first, first + self.grouping):
                pieces = []
                for offset, size in self.strips[raw]:
                    file.seek(offset)
                    pieces.append(file.read(size))
                fixed = self._add(raw, b"".join(pieces), counts, fixed)
        return counts[::-1]

    def _add(self, raw: int, codes: bytes, counts: NDArray[Any], fixed: bool) -> bool:
        """Add a raw frame; try codes of fixed length if `fixed`, and return whether they fit."""
        if fixed and _add_fixed(codes, counts, self.sampling):
            return True
        try:
            imagecodecs.eer_decode(
                codes + bytes(len(codes) % 2),  # the decoder takes an even number of bytes
                counts.shape,
                *self.bits,
                superres=self.sampling.bit_length() - 1,
                out=counts,
            )
        except Exception as error:
            raise FormatError(
                self.path,
                f"raw frame {raw + 1} of {self.n_raw} cannot be decoded ({error})",
                "copy it again",
            ) from error
        return False


def open_eer(path: StrPath, grouping: int | None = None, sampling: int = 1) -> EerMovie:
    """Open an EER movie.

    Parameters
    ----------
    path
        The file.
    grouping
        Raw frames that make a frame, see `raw_frames_for_dose`. There is no default: hundreds of
        raw frames with a few hundredths of an electron a pixel are of use to nobody.
    sampling
        1, 2 or 4: pixels of a frame along each side of a detector pixel.

    Raises
    ------
    FormatError
        If it is no EER file, is cut off, or `grouping` or `sampling` do not suit it.
    """
    path = Path(path)
    tags = {WIDTH, LENGTH, COMPRESSION, OFFSETS, COUNTS, METADATA, SKIP_BITS, X_BITS, Y_BITS}
    directories = read_directories(path, tags)
    pages = [page for page in directories if page.number(COMPRESSION, 1) in COMPRESSIONS]
    if not pages:
        raise FormatError(path, "a TIFF file without EER frames", "give an .eer file")
    first, size = pages[0], path.stat().st_size
    strips = []
    for i, page in enumerate(pages, 1):
        if _layout(page) != _layout(first):
            raise FormatError(
                path, f"raw frame {i} differs from the first in size or coding", "copy it again"
            )
        offsets, counts = page.numbers(OFFSETS), page.numbers(COUNTS)
        refuse_cut_off(path, size, i, offsets, counts)
        strips.append(tuple(zip(offsets, counts, strict=True)))
    nx, ny, compression, *bits = _layout(first)
    if not 0 < nx < 2**15 or not 0 < ny < 2**15:
        raise FormatError(path, f"frames of {nx}×{ny} pixels", "copy it again")
    if sampling not in SAMPLINGS or sampling > 2 ** min(bits[1:]):
        most = 2 ** min(bits[1], bits[2], 2)
        raise FormatError(
            path, f"sampling {sampling}", f"choose {', '.join(map(str, SAMPLINGS))}, at most {most}"
        )
    if grouping is None or not 1 <= grouping <= min(len(pages), 65535):
        raise FormatError(
            path,
            f"{len(pages)} raw frames and {'no' if grouping is None else grouping} of them in a "
            "frame",
            "choose how many raw frames, or what dose, make a frame",
        )
    pixel = _pixel_size(next((page for page in directories if METADATA in page.tags), first))
    return EerMovie(
        path=path,
        ny=ny * sampling,
        nx=nx * sampling,
        pixel_size=None if pixel is None else pixel / sampling,
        grouping=grouping,
        sampling=sampling,
        bits=(bits[0], bits[1], bits[2]),
        compression=compression,
        strips=tuple(strips),
    )


def count_raw_frames(path: StrPath) -> int:
    """Return the number of raw frames of an EER movie, which a choice of grouping needs."""
    return open_eer(path, grouping=1).n_raw


def raw_frames_for_dose(raw_frames: int, dose: float, dose_of_frame: float) -> int:
    """Return how many raw frames make a frame of about a chosen dose, few being left over.

    Parameters
    ----------
    raw_frames : int
        Of the movie.
    dose : float
        Of the movie, e/Å².
    dose_of_frame : float
        Wanted, e/Å².

    Raises
    ------
    ValueError
        If a dose is negative, or that of a frame is 0.
    """
    if not (dose >= 0 and dose_of_frame > 0):
        raise ValueError(f"doses are {dose} and {dose_of_frame} e/Å², they must be positive")
    return max(1, raw_frames // max(1, round(dose / dose_of_frame)))


def _layout(page: Directory) -> tuple[int, ...]:
    compression = page.number(COMPRESSION, 1)
    bits = (8 if compression == EIGHT_BIT else 7, 2, 2)
    if compression == VARIABLE:
        bits = (page.number(SKIP_BITS, 7), page.number(X_BITS, 2), page.number(Y_BITS, 2))
    return page.number(WIDTH, 0), page.number(LENGTH, 0), compression, *bits


def _pixel_size(page: Directory) -> float | None:
    text = page.tags.get(METADATA)
    found = _ITEM.findall(text) if isinstance(text, bytes) else []
    items = {name: (unit, value) for name, unit, value in found}
    unit, value = items.get(b"sensorPixelSize.width", (b"", b""))
    try:
        size = float(value) * 1e10
    except ValueError:
        return None
    return size if unit == b"m" and 0 < size < 1000 else None


def _add_fixed(codes: bytes, counts: NDArray[Any], sampling: int) -> bool:
    """Add a frame of 12-bit codes, each of 8 bits to skip and 4 of place, and tell whether it fits.

    Programs disagree on whether a code that only skips (255) keeps its four idle bits. Reading one
    kind as the other does not end on the last pixel, so the frame itself tells.
    """
    ny, nx = counts.shape[0] // sampling, counts.shape[1] // sampling
    low, middle, high = np.frombuffer(codes + bytes(-len(codes) % 3), np.uint8).reshape(-1, 3).T
    skips = np.stack([low, (middle >> 4) | (high << 4)], axis=1).ravel().astype(np.int64)
    places = np.stack([middle & 15, high >> 4], axis=1).ravel()
    electron = skips < 255
    pixels = np.cumsum(skips) + np.cumsum(electron) - electron
    end = int(np.searchsorted(pixels, ny * nx))
    if end == pixels.size or pixels[end] != ny * nx:
        return False
    pixels, places = pixels[:end][electron[:end]], places[:end][electron[:end]]
    shift = 3 - sampling.bit_length()
    x = (pixels % nx) * sampling + (((places & 3) ^ 2) >> shift)
    y = (pixels // nx) * sampling + (((places >> 2) ^ 2) >> shift)
    counts[y, x] += 1  # no place occurs twice: a raw frame has one electron a pixel at most
    return True
