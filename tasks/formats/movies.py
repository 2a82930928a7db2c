"""Movies of every kind through one door: MRC, TIFF and EER, told apart by their first bytes.

Whatever the kind, row 0 of a frame is the bottom row of the image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.formats.dm import is_dm
from tasks.formats.eer import COMPRESSION, COMPRESSIONS, open_eer
from tasks.formats.errors import FormatError
from tasks.formats.files import StrPath
from tasks.formats.mrc import open_frames
from tasks.formats.tiff import open_tiff
from tasks.formats.tiff_directory import MAGIC, read_directories

Kind = Literal["mrc", "tiff", "eer", "dm"]


class Movie(Protocol):
    """Frames read one at a time from a file; small and picklable, so it may travel to workers."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def n_frames(self) -> int:
        """Number of frames."""

    @property
    def ny(self) -> int:
        """Rows of a frame."""

    @property
    def nx(self) -> int:
        """Columns of a frame."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values, in the machine's byte order."""

    @property
    def pixel_size(self) -> float | None:
        """Of these frames, in Å; None where the file does not say."""

    def frame(self, i: int) -> NDArray[Any]:
        """Return frame `i`, from 0, as a new array (ny, nx), row 0 at the bottom."""


def open_movie(path: StrPath, *, eer_fractions: int | None = None, eer_sampling: int = 1) -> Movie:
    """Open a movie or stack of images, whatever its format; nothing but headers is read.

    Parameters
    ----------
    path
        An MRC (.mrc, .mrcs, .st), TIFF or EER file; only its content counts, not its name.
    eer_fractions
        Raw EER frames that make one frame (see `eer.raw_frames_for_dose`); needed for EER, without
        effect on others.
    eer_sampling
        1, 2 or 4: pixels of a frame along each side of a detector pixel, of EER.

    Raises
    ------
    FormatError
        If the file is none of these or is cut off, or `eer_fractions` or `eer_sampling` do not
        suit it.
    OSError
        If it cannot be read.
    """
    kind = file_kind(path)
    if kind == "eer":
        return open_eer(path, eer_fractions, eer_sampling)
    if kind == "tiff":
        return open_tiff(path)
    if kind == "dm":
        raise FormatError(path, "a DigitalMicrograph file as movie", "convert it to MRC or TIFF")
    return open_frames(path)


def file_kind(path: StrPath) -> Kind:
    """Tell what kind of image file it is by its content; 'mrc' where nothing else fits."""
    with Path(path).open("rb") as file:
        head = file.read(16)
    if is_dm(head):
        return "dm"
    if head[:4] not in MAGIC:
        return "mrc"
    # The sum of all frames, uncompressed, may come before the first one.
    pages = read_directories(path, {COMPRESSION}, most=2)
    coded = any(page.number(COMPRESSION, 1) in COMPRESSIONS for page in pages)
    return "eer" if coded else "tiff"
