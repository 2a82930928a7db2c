"""The quick tomogram of a specimen: coarse filtered views, and the variance of its planes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from kernels import wbp
from kernels.arrays import to_host
from kernels.backproject import aligned_projection, backproject
from kernels.fourier import Shape, bin_images
from kernels.geometry import View
from kernels.resample import Field, resample_view
from kernels.thickness_profile import (
    CLIP,
    Profiles,
    pair_profiles,
    quick_filter,
    without_gold,
)
from tasks.alignment import Gold
from tasks.chunks.device import on_device
from tasks.errors import UnusableData
from tasks.result import Result

# Filtered rows of the aligned views (view, y, x): goes with the units when the result is complete.
ROWS = "unit/rows"
# Mean contrast of the quick tomogram in its middle rows and columns, for people.
XZ, YZ = "xz", "yz"
MIDDLE = 0.1  # of the field that is averaged for them


def quick_views(
    source: Result,
    target: Result,
    jobs: Sequence[tuple[int, int, View, Field | None, Gold | None]],
    pixel_size: float,
    binning: int,
) -> dict[str, Any]:
    """Bring views into the aligned frame, coarse and without gold, and filter their rows.

    Parameters
    ----------
    source, target : Result
        With images (view, y, x), and with array `ROWS`.
    jobs : sequence of (index, place, view, field, gold)
        Of each view: its number in `source` and in `target`, deformation to undo, known beads.
    pixel_size : float
        Of the images [Å].
    binning : int
    """
    images, rows = source.images(), target.array(ROWS)
    shape = (rows.shape[1], rows.shape[2])
    voxel = pixel_size * binning
    turned = any(view.x_tilt for _, _, view, _, _ in jobs)
    row_filter = quick_filter(wbp.padded_width(shape[1]), voxel)
    for index, place, view, field, gold in jobs:
        image = np.asarray(images[index])
        if gold is not None:
            image = gold.without(image)
        mean = float(image.mean(dtype=np.float64))
        if not mean > 0:
            raise UnusableData(
                f"{source.series.name}: view {index + 1} has a mean of {mean:g}: contrast needs a "
                "positive one: exclude the view, or import movies with their background"
            )
        coarse = to_host(bin_images(on_device(image), binning))
        contrast = (coarse / np.float32(mean) - np.float32(1)).astype(np.float32)
        plain = on_device(without_gold(contrast, voxel))
        aligned = resample_view(plain, view, voxel, shape, fill=0.0, rows=turned, field=field)
        filtered = to_host(wbp.filter_views(aligned, row_filter))
        # Single things, as of dirt, must not outweigh all else.
        limit = CLIP * float(filtered.std())
        rows[place] = np.clip(filtered, -limit, limit)
    return {}


def measure_profiles(
    target: Result,
    views: Sequence[View],
    voxel: float,
    planes: int,
    tiles: tuple[int, int],
) -> dict[str, Any]:
    """Return the profiles of all tiles; write the middle slices `XZ` and `YZ`.

    One band of tiles is in memory at a time.
    """
    stored = target.array(ROWS)
    _, ny, nx = stored.shape
    turned = any(view.x_tilt for view in views)
    projection = aligned_projection(views, (planes, ny, nx), nx, voxel, rows=ny if turned else None)
    weights = wbp.angular_steps([view.tilt for view in views])
    xz, yz = np.zeros((planes, nx), np.float32), np.zeros((planes, ny), np.float32)
    wide = [max(1, round(MIDDLE * n / 2)) for n in (ny, nx)]
    middle = slice(nx // 2 - wide[1], nx // 2 + wide[1])
    counted = 0
    bands = []
    edges = np.linspace(0, ny, tiles[0] + 1).astype(int).tolist()
    for start, stop in pairwise(edges):
        first, last = projection.rows_needed(start, stop, np.arange(planes))
        first, last = max(first, 0), min(last, ny)
        rows = on_device(np.asarray(stored[:, first:last]))
        of = projection.of_rows(start, first) if turned else projection
        shape = (planes, stop - start, nx)
        volume = backproject(rows, of, shape, weights=weights)
        squares = backproject(rows**2, of, shape, weights=weights**2)
        middle_y = (start + stop - 1) / 2 - ny // 2
        bands.append(pair_profiles(volume, squares, voxel, tiles[1], middle_y * voxel))
        seen = to_host(volume)
        yz[:, start:stop] = seen[:, :, middle].mean(axis=2)
        near = slice(max(ny // 2 - wide[0] - start, 0), max(ny // 2 + wide[0] - start, 0))
        xz += seen[:, near].sum(axis=1)
        counted += seen[:, near].shape[1]
    for name, values in ((XZ, xz / max(counted, 1)), (YZ, yz)):
        array = target.create_array(name, values.shape, values.shape, by_units=False)
        array[:] = values
    profiles = Profiles.joined(bands)
    return {
        "values": profiles.values.tolist(),
        "x": profiles.x.tolist(),
        "y": profiles.y.tolist(),
        "z": profiles.z.tolist(),
    }


def memory_of_views(shape: Shape, views: int, aligned: Shape) -> int:
    """Return the most memory that `quick_views` takes [bytes]."""
    return 150_000_000 + 4 * (8 * shape[0] * shape[1] + 8 * aligned[0] * aligned[1]) + views


def memory_of_profiles(views: int, planes: int, rows: int, nx: int) -> int:
    """Return the most memory that `measure_profiles` takes for bands of `rows` rows [bytes]."""
    return 150_000_000 + rows * nx * 4 * (3 * views + 4 * planes)
