"""Counts of a few movies, summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import UnusableData
from tasks.formats.eer import count_raw_frames
from tasks.formats.movies import Movie, file_kind, open_movie
from tasks.formats.mrc import write_stack


@dataclass(frozen=True)
class Piece:
    """Frames of a file, in pixels of the detector if it is EER.

    Attributes
    ----------
    path : Path
    first : int
        Frame of the file that is the first used, from 0.
    frames : int, optional
        How many are used; all by default.
    grouping : int, optional
        Raw EER frames in a frame; all in one by default. They are read one at a time anyway.
    """

    path: Path
    first: int = 0
    frames: int | None = None
    grouping: int | None = None

    def opened(self) -> Movie:
        """Open the file; nothing but headers is read."""
        grouping = self.grouping
        if grouping is None and file_kind(self.path) == "eer":
            grouping = count_raw_frames(self.path)
        return open_movie(self.path, eer_fractions=grouping)


def sum_movies(pieces: Sequence[Piece], shape: tuple[int, int], target: Path) -> dict[str, Any]:
    """Sum the frames of some movies, one frame at a time, into a file of one image.

    Parameters
    ----------
    pieces : sequence of Piece
    shape : (ny, nx)
        That the frames must have.
    target : Path
        Written in MRC mode 2: sums up to 16 million counts are exact.

    Returns
    -------
    dict
        Number of frames.

    Raises
    ------
    UnusableData
        If a movie has frames of another size or values that are not numbers.
    """
    total, frames = np.zeros(shape, np.float32), 0
    for piece in pieces:
        movie = piece.opened()
        if (movie.ny, movie.nx) != shape:
            raise UnusableData(
                f"{piece.path}: frames of {movie.ny}×{movie.nx} pixels, the other movies have "
                f"{shape[0]}×{shape[1]}: give movies of one detector and binning"
            )
        last = movie.n_frames if piece.frames is None else piece.first + piece.frames
        for i in range(piece.first, last):
            np.add(total, movie.frame(i), out=total, casting="unsafe")
        if not np.isfinite(total).all():
            raise UnusableData(
                f"{piece.path}: holds values that are not numbers (NaN or infinite): "
                "copy it again, or leave it out"
            )
        frames += last - piece.first
    write_stack(target, total[None], 1.0)
    return {"frames": frames}
