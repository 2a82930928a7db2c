"""Tracks of beads as results store them: one table, one row for each bead in a view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kernels.tracks import Tracks
from tasks.alignment import Gold, gold_of
from tasks.parameters import Aligned
from tasks.result import Result

if TYPE_CHECKING:  # which draws what is stored here
    from tasks.work import Work

# Columns of the array "tracks"; those that an alignment knows come last.
COLUMNS = ("view", "bead", "x_A", "y_A", "sigma_A")
SOLVED = ("residual_x_A", "residual_y_A", "weight")

Floats = NDArray[np.float64]


def write_tracks(
    result: Result, tracks: Tracks, points: Floats, solved: Floats | None = None
) -> None:
    """Write ``tracks`` (m, 5 or 8) and ``points`` (n, 3), X, Y, Z [Å].

    Views and beads count from 0; x and y from the raw image's centre pixel.
    """
    table = np.column_stack([tracks.view, tracks.point, tracks.xy, tracks.sigma])
    if solved is not None:
        table = np.column_stack([table, solved])
    for name, values in (("tracks", table), ("points", points)):
        shape = tuple(max(1, n) for n in values.shape)
        array = result.create_array(name, values.shape, shape, dtype="float64", by_units=False)
        if values.size:
            array[:] = values
    result.array("tracks").attrs["columns"] = [*COLUMNS, *(SOLVED if solved is not None else ())]


def read_tracks(result: Result, n_views: int) -> tuple[Tracks, Floats]:
    """Return the tracks and the points that `write_tracks` wrote."""
    table, points = np.asarray(result.array("tracks")[:]), np.asarray(result.array("points")[:])
    return (
        Tracks(
            table[:, 0].astype(np.int64),
            table[:, 1].astype(np.int64),
            np.ascontiguousarray(table[:, 2:4]),
            np.ascontiguousarray(table[:, 4]),
            n_views,
            len(points),
        ),
        points,
    )


def read_solved(result: Result) -> Floats:
    """Return residuals x, y [Å] and weights of the tracks of an alignment, (m, 3)."""
    return np.asarray(result.array("tracks")[:])[:, 5:8]


def gold_in_view(work: Work, parameters: Aligned, index: int) -> Gold | None:
    """Return the beads to be taken out of a view, None where that is not asked, or not known."""
    if not parameters.erase_gold or work.record.views[index].excluded is not None:
        return None
    return gold_of(work.input("align"), index, work.image_pixel_size)
