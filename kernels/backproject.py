"""Back-projection of aligned, filtered views into a slab of the tomogram.

Rows run across the tilt axis, so every volume row y is made of the views' rows y alone, or, with
x-axis tilt, of two adjacent rows; the volume may therefore be split along y or z. NumPy
arrays take the Numba body of `backproject_cpu`, CuPy arrays ``cuda/backproject.cu``; both are
tested against `reference_backproject`, which serves every other namespace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.arrays import Array, asarray_like, cuda_module, device, is_cupy, is_numpy, namespace
from kernels.geometry import View, tilt_rotation

Shape = tuple[int, int, int]
Vector = NDArray[np.float64]

# Must be ROWS of cuda/backproject.cu, and a block of threads along x there.
CUDA_ROWS, CUDA_THREADS = 8, 128
# Likewise the outermost column [pixels]; EDGE of the CUDA sources.
EDGE = 1e-6


@dataclass(frozen=True)
class Projection:
    """Where a voxel appears: in column ``x · ix + z · iz + offset`` of each view.

    The row is ``iy``, or ``iy + row_z · iz + row_offset`` where the specimen is tilted about x.
    ix, iy and iz are the voxel's indices in the whole box, whatever slab of it is computed.

    Attributes
    ----------
    x, z, offset : (n_views,) float64
        In pixels of the view per voxel, and in pixels.
    row_z, row_offset : (n_views,) float64, optional
        Likewise; None when all rows stay what they are.
    """

    x: Vector
    z: Vector
    offset: Vector
    row_z: Vector | None = None
    row_offset: Vector | None = None

    def row_shifts(self, planes: ArrayLike) -> Vector:
        """Return (n_views, nz) float64: row in a view − iy, in planes iz of the whole box."""
        iz = np.asarray(planes, dtype=np.float64)
        if self.row_z is None or self.row_offset is None:
            return np.zeros((len(self.x), iz.size))
        # Rounding errors must not put the outermost row of a plane outside.
        return np.round(self.row_z[:, None] * iz + self.row_offset[:, None], 6)

    def rows_needed(self, start: int, stop: int, planes: ArrayLike) -> tuple[int, int]:
        """Return [first, last) of the views' rows that voxels of rows [start, stop) need.

        They may lie outside of the views.
        """
        shifts = self.row_shifts(planes)
        return start + int(np.floor(shifts.min())), stop + int(np.ceil(shifts.max()))

    def of_rows(self, start: int, first: int) -> Projection:
        """Return that of a slab from row `start` of the box on, given views from `first` on."""
        if self.row_offset is None:
            if start != first:
                raise ValueError(f"rows {start} … of the box come from the same of the views")
            return self
        return replace(self, row_offset=self.row_offset + (start - first))

    def fine(self) -> Projection:
        """Return that into views sampled twice as finely along x (`kernels.fine_rows`)."""
        return replace(self, x=2 * self.x, z=2 * self.z, offset=2 * self.offset)

    def only(self, chosen: NDArray[np.int64]) -> Projection:
        """Return that of the `chosen` views, indices."""
        vectors = (self.x, self.z, self.offset, self.row_z, self.row_offset)
        return Projection(*[None if v is None else v[chosen] for v in vectors])  # type: ignore[arg-type]


def aligned_projection(
    views: Sequence[View],
    shape: Shape,
    columns: int,
    pixel_size: float = 1.0,
    centre: tuple[float, float] = (0.0, 0.0),
    rows: int | None = None,
) -> Projection:
    """Return the projection of a box into aligned views (tilt axis along y, through n // 2).

    Parameters
    ----------
    views : sequence of View
        Only the tilts count: axis, shift and magnification were undone by aligning.
    shape : (nz, ny, nx)
        Of the whole box.
    columns : int
        Width of the aligned views [pixels]; a pixel is as large as a voxel.
    pixel_size : float
        In Å.
    centre : (X, Z)
        Specimen coordinates of the box's centre voxel (index n // 2) [Å].
    rows : int, optional
        Height of the views [pixels], which were resampled into the specimen's rows
        (`resample.resample_view` with ``rows=True``): with x-axis tilt they must be.

    Raises
    ------
    ValueError
        If a view has x-axis tilt, which mixes aligned rows, and no `rows` are given.

    Notes
    -----
    Along Y alone a point moves by (R01, R11) in a view, R being `geometry.tilt_rotation`. Rows
    v of the resampled view run across it: (x′, y′) = (u + v · R01, v · R11). There a point is at
    v = Y + Z · R12 / R11, whatever the tilt angle, and u does not depend on Y: rows are still
    independent, each plane's shifted by its own amount.
    """
    for view in views:
        if view.x_tilt and rows is None:
            raise ValueError(f"x-axis tilt is {view.x_tilt}°: views must have the specimen's rows")
    rotations = np.array([tilt_rotation(view) for view in views])
    row_z = rotations[:, 1, 2] / rotations[:, 1, 1]
    x, z = rotations[:, 0, 0], rotations[:, 0, 2] - rotations[:, 0, 1] * row_z
    x0 = centre[0] / pixel_size - shape[2] // 2
    z0 = centre[1] / pixel_size - shape[0] // 2
    offset = columns // 2 + x * x0 + z * z0
    height = shape[1] if rows is None else rows
    if not row_z.any() and height == shape[1]:
        return Projection(x, z, offset)
    return Projection(x, z, offset, row_z, height // 2 - shape[1] // 2 + row_z * z0)


def backproject(
    views: Array,
    projection: Projection,
    shape: Shape,
    *,
    z_start: int = 0,
    weights: ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    """Sum, for each voxel of a slab, the weighted values of the views where it appears.

    Values are interpolated linearly along x, and along y where rows move. A view in which a
    voxel lies outside the columns [0, nx − 1], or outside the rows, adds nothing to it: filtered
    views have mean zero.

    Parameters
    ----------
    views : (n_views, rows, columns) float32
        Aligned and filtered (`wbp.filter_views`), finite.
    projection : Projection
        Of the whole box.
    shape : (nz, ny, nx)
        Of the slab; ny is that of the views, unless rows move (`Projection.of_rows`).
    z_start : int
        Index in the whole box of the slab's first plane.
    weights : (n_views,), optional
        Factor of each view, such as `wbp.angular_steps`; default 1.
    out : (nz, ny, nx) float32, optional
        Added to in place and returned, instead of a new array. C-contiguous.

    Returns
    -------
    (nz, ny, nx) float32, where `views` lives

    Raises
    ------
    ValueError
        If sizes or dtypes do not agree.
    """
    factors = _checked(views, projection, shape, weights, out)
    if not (is_numpy(views) or is_cupy(views)):
        return reference_backproject(
            views, projection, shape, z_start=z_start, weights=weights, out=out
        )
    xp = namespace(views)
    rows = xp.ascontiguousarray(views)
    if is_cupy(views):
        volume = xp.zeros(shape, dtype=xp.float32) if out is None else out
        launch = cuda_launch(rows, projection, factors, volume, z_start)
        cuda_module("backproject").get_function("backproject")(*launch)
        return volume
    from kernels import backproject_cpu  # Numba takes half a second to import

    shifts = projection.row_shifts(z_start + np.arange(shape[0]))
    kinds, kind = np.unique(shifts, axis=0, return_inverse=True)
    # Where rows move, not all voxels are written.
    volume = out if out is not None else (np.zeros if kinds.any() else np.empty)(shape, np.float32)
    for i, row_shifts in enumerate(kinds):
        # One kind, unless the x-axis tilt changes from view to view.
        chosen = np.flatnonzero(kind.ravel() == i)
        of = projection.only(chosen)
        backproject_cpu.accumulate(
            volume,
            rows if len(chosen) == len(rows) else rows[chosen],
            (of.x, of.z, of.offset),
            factors[chosen],
            row_shifts,
            z_start,
            add=out is not None or i > 0,
        )
    return volume


def cuda_launch(
    views: Array, projection: Projection, weights: Vector, volume: Array, z_start: int
) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[Any, ...]]:
    """Return grid, block and arguments of the CUDA kernel, arrays living where `views` does."""
    nz, ny, nx = volume.shape
    # y slowest: all that one set of rows needs, all planes long, then stays in the L2 cache.
    grid = (-(-nx // CUDA_THREADS), nz, -(-ny // CUDA_ROWS))
    arguments = (views, volume, *fixed_point(projection, z_start + np.arange(nz), views))
    factors = asarray_like(weights.astype(np.float32), views)
    sizes = (*views.shape, nz, ny, nx, z_start)
    return grid, (CUDA_THREADS, 1, 1), (*arguments, factors, *map(np.int32, sizes))


def fixed_point(projection: Projection, planes: ArrayLike, like: Array) -> tuple[Array, ...]:
    """Return x, z, offset and the row shifts of planes as 32.32 fixed-point numbers, for CUDA."""
    vectors = (projection.x, projection.z, projection.offset, projection.row_shifts(planes))
    return tuple(
        asarray_like(np.rint(np.asarray(vector) * 2.0**32).astype(np.int64), like)
        for vector in vectors
    )


def reference_backproject(
    views: Array,
    projection: Projection,
    shape: Shape,
    *,
    z_start: int = 0,
    weights: ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    """Do what `backproject` does, plainly and slowly, in any array-API namespace."""
    factors = _checked(views, projection, shape, weights, out)
    xp = namespace(views)
    nz, ny, nx = shape
    n_rows, columns = views.shape[1:]
    x, z = np.arange(nx), np.arange(z_start, z_start + nz)[:, None]
    shifts = projection.row_shifts(z[:, 0])
    volume = xp.zeros(shape, dtype=xp.float32, device=device(views))
    for i in range(views.shape[0]):
        column = (projection.x[i] * x + (projection.z[i] * z + projection.offset[i])).ravel()
        taken = _lerp(views[i, ...], column, columns, factors[i], 1)
        planes = xp.permute_dims(xp.reshape(taken, (n_rows, nz, nx)), (1, 0, 2))
        if shifts.any() or ny != n_rows:
            planes = xp.stack(
                [
                    _lerp(planes[k, ...], np.arange(ny) + shifts[i, k], n_rows, 1.0, 0)
                    for k in range(nz)
                ]
            )
        volume = volume + planes
    if out is None:
        return volume
    out[...] = out + volume
    return out


def _lerp(image: Array, places: Vector, length: int, factor: float, axis: int) -> Array:
    """Return `factor` × an image (2-D) at `places` along an axis; 0 outside [0, length − 1]."""
    xp = namespace(image)
    inside = (places >= -EDGE) & (places <= length - 1 + EDGE)
    near = np.clip(np.floor(places), 0, max(length - 2, 0)).astype(np.int64)
    right = factor * inside * (places - near)
    left = factor * inside - right
    form = (1, -1) if axis else (-1, 1)
    return sum(
        xp.take(image, asarray_like(index, image), axis=axis)
        * asarray_like(weight.astype(np.float32).reshape(form), image)
        for index, weight in ((near, left), (np.minimum(near + 1, length - 1), right))
    )


def _checked(
    views: Array,
    projection: Projection,
    shape: Shape,
    weights: ArrayLike | None,
    out: Array | None,
) -> Vector:
    """Raise where sizes disagree; return the weights as a vector."""
    n_views, ny, columns = views.shape
    factors = np.ones(n_views) if weights is None else np.asarray(weights, dtype=np.float64)
    lengths = [len(v) for v in (projection.x, projection.z, projection.offset, factors)]
    if lengths != [n_views] * 4:
        raise ValueError(
            f"projection (x, z, offset) and weights have lengths {lengths} for {n_views} views"
        )
    if columns < 2:
        raise ValueError(f"views are {columns} column wide, interpolation needs at least 2")
    if shape[1] != ny and projection.row_z is None:
        raise ValueError(f"slab has {shape[1]} rows along y, the views have {ny}")
    if views.dtype != namespace(views).float32:
        raise ValueError(f"views are {views.dtype}, not float32")
    if out is not None and (out.shape != shape or out.dtype != views.dtype):
        raise ValueError(f"out is {out.shape} {out.dtype}, not {shape} float32")
    if out is not None and (is_numpy(out) or is_cupy(out)) and not out.flags.c_contiguous:
        raise ValueError("out is not C-contiguous: pass a whole array or planes of one")
    return factors
