"""Gain and dark references, and maps of defects: MRC, DigitalMicrograph (.dm4) and TIFF (.gain).

All are read with row 0 at the bottom, like movies, so that a reference and a movie of one camera
agree without a flip unless the camera's software turned one of them. Gains are returned as stored.
Gatan's .dm4 and Thermo Fisher's .gain files are multiplied with the frames, zeros being defects;
the EER gains in MRC files that came before .gain divide: that is the caller's `inverted`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.formats.dm import read_dm_image
from tasks.formats.errors import FormatError
from tasks.formats.files import StrPath
from tasks.formats.movies import file_kind
from tasks.formats.mrc import read_image
from tasks.formats.tiff import open_tiff

FINEST = 4  # samplings of a detector pixel: those of EER


def read_reference(path: StrPath) -> NDArray[Any]:
    """Read a reference as an array (ny, nx) of the file's type.

    Of a TIFF file with several pages the first counts, as in Thermo Fisher's ``.gain`` files.

    Raises
    ------
    FormatError
        If it is no image of one of these formats, an MRC file of several, or a movie.
    """
    kind = file_kind(path)
    if kind == "dm":
        return read_dm_image(path)
    if kind == "tiff":
        return open_tiff(path, pages=1).frame(0)
    if kind == "eer":
        raise FormatError(path, "an EER movie as reference", "give the camera's .gain file")
    return read_image(path)


def match_reference(
    path: StrPath, reference: NDArray[Any], shape: tuple[int, int], *, counts: bool = False
) -> NDArray[Any]:
    """Bring a reference, already turned, to the sampling of the frames.

    A reference of the detector's pixels is repeated for super-resolution frames; one of finer
    sampling is averaged. So an EER movie takes its ``.gain`` at every sampling.

    Parameters
    ----------
    path
        Of the reference, for messages.
    reference : (ny, nx)
    shape : (ny, nx)
        Of the frames.
    counts
        Whether the values add up over the parts of a pixel, as those of a dark reference do.

    Raises
    ------
    FormatError
        If neither size is 1, 2 or 4 times the other.
    """
    ny, nx = reference.shape
    for factor in (1, 2, FINEST):
        if (ny * factor, nx * factor) == shape:
            fine = np.repeat(np.repeat(reference, factor, axis=0), factor, axis=1)
            return fine / np.float32(factor**2) if counts and factor > 1 else fine
        if (ny, nx) == (shape[0] * factor, shape[1] * factor):
            blocks = reference.reshape(shape[0], factor, shape[1], factor)
            combined = blocks.sum if counts else blocks.mean
            return np.asarray(combined(axis=(1, 3), dtype=np.float32))
    raise FormatError(
        path,
        f"{ny}×{nx} pixels after rotation, the movies have {shape[0]}×{shape[1]}",
        "give the reference of these movies or its rotation",
    )
