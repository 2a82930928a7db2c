"""Counts of a few movies, summed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import UnusableData
from tasks.formats.mrc import open_frames, write_stack


def sum_movies(movies: Sequence[Path], shape: tuple[int, int], target: Path) -> dict[str, Any]:
    """Sum all frames of some movies, one frame at a time, into a file of one image.

    Parameters
    ----------
    movies : sequence of Path
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
    for path in movies:
        movie = open_frames(path)
        if (movie.ny, movie.nx) != shape:
            raise UnusableData(
                f"{path}: frames of {movie.ny}×{movie.nx} pixels, the other movies have "
                f"{shape[0]}×{shape[1]}: give movies of one detector and binning"
            )
        for i in range(movie.n_frames):
            np.add(total, movie.frame(i), out=total, casting="unsafe")
        if not np.isfinite(total).all():
            raise UnusableData(
                f"{path}: holds values that are not numbers (NaN or infinite): "
                "copy it again, or leave it out"
            )
        frames += movie.n_frames
    write_stack(target, total[None], 1.0)
    return {"frames": frames}
