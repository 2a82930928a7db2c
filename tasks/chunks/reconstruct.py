"""Reconstruction of one part of a tomogram: filtered rows of a view, a slab, a coarser level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels import wbp
from kernels.arrays import to_host
from kernels.backproject import aligned_projection, backproject
from kernels.fourier import Shape, bin_images
from kernels.geometry import View
from kernels.resample import Field, resample_view
from tasks.chunks.device import on_device
from tasks.chunks.dose import Weighting
from tasks.errors import UnusableData
from tasks.parameters import ReconstructParameters
from tasks.store import Result

# Voxels hold thousandths of the beam's relative contrast per voxel: numbers near 1, so that
# float16 keeps its eleven bits.
SCALE = 1000.0
# Filtered rows of the aligned views (view, y, x): goes with the units when the result is complete.
ROWS = "unit/rows"


def filter_view(
    source: Result,
    target: Result,
    index: int,
    place: int,
    view: View,
    pixel_size: float,
    binning: int,
    weighting: Weighting | None,
    parameters: ReconstructParameters,
    turned: bool = False,
    field: Field | None = None,
) -> dict[str, Any]:
    """Bring one view into the aligned frame as relative contrast, and filter its rows.

    Parameters
    ----------
    source : Result
        With images (view, y, x).
    target : Result
        With array `ROWS` (view, y, x) of the aligned, binned views.
    index, place : int
        Of the view in `source` and in `target`.
    view : View
    pixel_size : float
        Of the images [Å].
    binning : int
    weighting : Weighting or None
        By dose, unless the images have it.
    parameters : ReconstructParameters
    turned : bool
        Whether rows are those of a specimen with x-axis tilt.
    field : Field, optional
        Deformation to undo.
    """
    image = np.asarray(source.images()[index])
    mean = float(image.mean())
    if not mean > 0:
        raise UnusableData(
            f"{source.series.name}: view {index + 1} has a mean of {mean:g}: contrast needs a "
            "positive one: exclude the view, or import movies whose background is not subtracted"
        )
    contrast = on_device((image / np.float32(mean) - np.float32(1)) * np.float32(SCALE))
    rows = target.array(ROWS)
    ny, nx = rows.shape[1:]
    reduced, voxel = bin_images(contrast, binning), pixel_size * binning
    if weighting is not None:
        reduced = weighting.weighted(reduced, index, voxel)
    aligned = resample_view(reduced, view, voxel, (ny, nx), fill=0.0, rows=turned, field=field)
    padded = wbp.padded_width(nx)
    row_filter = wbp.ramp(padded, parameters.radial_cutoff, parameters.radial_falloff)
    if parameters.sirt_like_iterations:
        row_filter = row_filter * wbp.sirt_like(padded, parameters.sirt_like_iterations)
    if parameters.invert:
        row_filter = -row_filter
    rows[place] = to_host(wbp.filter_views(aligned, row_filter))
    return {}


def back_project_slab(
    target: Result,
    start: int,
    stop: int,
    views: Sequence[View],
    voxel: float,
    z_shift: float,
) -> dict[str, Any]:
    """Back-project rows `start` to `stop` of all views into those of level 0 of the tomogram."""
    stored, volume = target.array(ROWS), target.array("0")
    nz, ny, nx = volume.shape
    turned = any(view.x_tilt for view in views)
    projection = aligned_projection(
        views, (nz, ny, nx), stored.shape[2], voxel, (0.0, z_shift), rows=ny if turned else None
    )
    first, last = projection.rows_needed(start, stop, np.arange(nz))
    first, last = max(first, 0), min(last, ny)
    rows = on_device(np.asarray(stored[:, first:last]))
    weights = wbp.angular_steps([view.tilt for view in views])
    of = projection.of_rows(start, first) if turned else projection
    slab = backproject(rows, of, (nz, stop - start, nx), weights=weights)
    values = to_host(slab)
    volume[:, start:stop] = values.astype(volume.dtype, copy=False)
    return {
        "sum": float(values.sum(dtype=np.float64)),
        "squares": float(np.square(values, dtype=np.float64).sum()),
        "minimum": float(values.min()),
        "maximum": float(values.max()),
    }


def halve(target: Result, level: int, start: int, stop: int) -> dict[str, Any]:
    """Average 2×2×2 voxels of the level above into rows `start` to `stop` of `level`."""
    above, below = target.array(str(level - 1)), target.array(str(level))
    nz, _, nx = below.shape
    part = np.asarray(above[: 2 * nz, 2 * start : 2 * stop, : 2 * nx], dtype=np.float32)
    blocks = part.reshape(nz, 2, stop - start, 2, nx, 2)
    below[:, start:stop] = blocks.mean(axis=(1, 3, 5)).astype(below.dtype)
    return {}


def memory_of_view(shape: Shape, aligned: Shape) -> int:
    """Return the most memory that `filter_view` takes [bytes]."""
    return 100_000_000 + 4 * (6 * shape[0] * shape[1] + 8 * aligned[0] * aligned[1])


def memory_of_rows(rows: int, views: int, nz: int, nx: int) -> int:
    """Return the most memory that `back_project_slab` takes for `rows` rows [bytes].

    The views' rows twice (once re-ordered), the slab twice (once in the stored number type).
    """
    return 100_000_000 + rows * nx * 4 * (2 * views + 2 * nz)
