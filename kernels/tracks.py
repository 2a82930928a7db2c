"""Tracks: where points of the specimen, beads or patches, were found in the raw views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tracks:
    """Observations of points, one a row; what is not seen in a view is simply missing.

    Attributes
    ----------
    view, point : (m,) int64
        Indices from 0.
    xy : (m, 2) float64
        Where the point appears in the raw view: x, y from the image's centre pixel
        (`kernels.geometry`) [Å].
    sigma : (m,) float64
        Standard error of each coordinate [Å].
    n_views, n_points : int
        Numbers of views and of points, seen or not.
    """

    view: NDArray[np.int64]
    point: NDArray[np.int64]
    xy: NDArray[np.float64]
    sigma: NDArray[np.float64]
    n_views: int
    n_points: int

    def __post_init__(self) -> None:
        """Check that the rows agree.

        Raises
        ------
        ValueError
            If lengths differ, or an index, a place or an error is impossible.
        """
        m = len(self.view)
        if not (len(self.point) == len(self.sigma) == m and self.xy.shape == (m, 2)):
            raise ValueError(
                f"{m} views, {len(self.point)} points, {self.xy.shape} places and "
                f"{len(self.sigma)} errors: expected as many"
            )
        for name, index, count in (
            ("view", self.view, self.n_views),
            ("point", self.point, self.n_points),
        ):
            if m and not (index.min() >= 0 and index.max() < count):
                raise ValueError(f"{name} index {index.min()} or {index.max()} of {count}")
        if not (np.isfinite(self.xy).all() and (self.sigma > 0).all()):
            raise ValueError("a place is not finite, or a standard error not positive")

    def chosen(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Tracks:
        """Return the observations in `rows`, a mask or indices; views and points stay numbered."""
        return Tracks(
            self.view[rows],
            self.point[rows],
            self.xy[rows],
            self.sigma[rows],
            self.n_views,
            self.n_points,
        )


def joined(parts: Sequence[Tracks]) -> Tracks:
    """Return the tracks of several kinds of points in the same views, points renumbered in order.

    Raises
    ------
    ValueError
        If the numbers of views differ, or there are no parts.
    """
    if len({part.n_views for part in parts}) != 1:
        raise ValueError(f"tracks of {[part.n_views for part in parts]} views: expected as many")
    before = np.cumsum([0, *(part.n_points for part in parts)])
    return Tracks(
        np.concatenate([part.view for part in parts]),
        np.concatenate([part.point + b for part, b in zip(parts, before, strict=False)]),
        np.concatenate([part.xy for part in parts]),
        np.concatenate([part.sigma for part in parts]),
        parts[0].n_views,
        int(before[-1]),
    )
