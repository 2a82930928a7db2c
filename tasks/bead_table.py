"""Bead tables that a person has edited: rows deleted, moved and added, read as tracks again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kernels.tracks import Tracks
from tasks.errors import UnusableData
from tasks.formats.imod import read_points

BY_HAND = 1.5  # pixels: standard error of a place that a person has set
SAME = 0.01  # pixels: to which a table gives places


def tracks_from_table(
    path: Path,
    n_views: int,
    shape: tuple[int, int],
    pixel_size: float,
    before: Tracks | None = None,
) -> Tracks:
    """Read a bead table, CSV, as tracks.

    Parameters
    ----------
    path : Path
        As the export writes it: marker, view (from 1), x and y in pixels of the raw view from 0.
    n_views : int
    shape : (ny, nx)
        Of the raw views.
    pixel_size : float
        Of them [Å].
    before : Tracks, optional
        What was found: places that are still the same keep their standard errors.

    Raises
    ------
    FormatError, UnusableData
        Naming the file, the value and the remedy.
    """
    rows = read_points(path)
    if not rows:
        raise UnusableData(f"{path}: has no beads: give a table with a row for each bead and view")
    wrong = next((r for r in rows if not 1 <= r.view <= n_views), None)
    if wrong is not None:
        raise UnusableData(f"{path}: view {wrong.view} of {n_views}: correct the number")
    seen: set[tuple[int, int]] = set()
    for row in rows:
        if (row.marker, row.view) in seen:
            raise UnusableData(
                f"{path}: marker {row.marker} is twice in view {row.view}: delete one row"
            )
        seen.add((row.marker, row.view))
    markers = {marker: k for k, marker in enumerate(sorted({row.marker for row in rows}))}
    view = np.array([row.view - 1 for row in rows], dtype=np.int64)
    middle = np.array([shape[1] // 2, shape[0] // 2])
    xy = (np.array([(row.x_px, row.y_px) for row in rows]) - middle) * pixel_size
    sigma = np.array([row.sigma_px or BY_HAND for row in rows]) * pixel_size
    if before is not None and len(before.view):
        for k in range(len(rows)):  # a place that was moved by hand has no standard error any more
            same = before.view == view[k]
            apart = np.abs(before.xy[same] - xy[k]).max(axis=1) / pixel_size
            if len(apart) and apart.min() <= SAME:
                sigma[k] = before.sigma[same][np.argmin(apart)]
            else:
                sigma[k] = BY_HAND * pixel_size
    point = np.array([markers[row.marker] for row in rows], dtype=np.int64)
    return Tracks(view, point, xy, sigma, n_views, len(markers))
