"""Back-projection of aligned, filtered views into a slab of the tomogram.

Rows run across the tilt axis, so every volume row y is made of the views' rows y alone; the
views may therefore be split along y, and the volume along y or z. NumPy arrays take the Numba
body of `backproject_cpu`, CuPy arrays ``cuda/backproject.cu``; both are tested against
`reference_backproject`, which serves every other namespace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.arrays import Array, asarray_like, cuda_module, device, is_cupy, is_numpy, namespace
from kernels.geometry import View, tilt_rotation

Shape = tuple[int, int, int]
Vector = NDArray[np.float64]

# Must be ROWS of cuda/backproject.cu, and a block of threads along x there.
CUDA_ROWS, CUDA_THREADS = 8, 128


@dataclass(frozen=True)
class Projection:
    """Where a voxel appears: in column ``x · ix + z · iz + offset`` of each view.

    ix and iz are the voxel's indices in the whole box, whatever slab of it is computed.

    Attributes
    ----------
    x, z, offset : (n_views,) float64
        In pixels of the view per voxel, and in pixels.
    """

    x: Vector
    z: Vector
    offset: Vector


def aligned_projection(
    views: Sequence[View],
    shape: Shape,
    columns: int,
    pixel_size: float = 1.0,
    centre: tuple[float, float] = (0.0, 0.0),
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

    Raises
    ------
    ValueError
        If a view has x-axis tilt, which mixes rows.
    """
    for view in views:
        if view.x_tilt:
            raise ValueError(f"x-axis tilt is {view.x_tilt}°: row by row it must be 0")
    rotations = np.array([tilt_rotation(view) for view in views])
    x, z = rotations[:, 0, 0], rotations[:, 0, 2]
    x0 = centre[0] / pixel_size - shape[2] // 2
    z0 = centre[1] / pixel_size - shape[0] // 2
    return Projection(x, z, columns // 2 + x * x0 + z * z0)


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

    Values are interpolated linearly along x. A view in which a voxel lies outside the columns
    [0, nx − 1] adds nothing to it: filtered views have mean zero.

    Parameters
    ----------
    views : (n_views, ny, columns) float32
        Aligned and filtered (`wbp.filter_views`), finite.
    projection : Projection
        Of the whole box.
    shape : (nz, ny, nx)
        Of the slab; ny is that of the views.
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
    if is_numpy(views):
        from kernels import backproject_cpu  # Numba takes half a second to import

        volume = np.empty(shape, dtype=np.float32) if out is None else out
        rows = np.ascontiguousarray(views)
        vectors = (projection.x, projection.z, projection.offset)
        backproject_cpu.accumulate(volume, rows, vectors, factors, z_start, add=out is not None)
        return volume
    if not is_cupy(views):
        return reference_backproject(
            views, projection, shape, z_start=z_start, weights=weights, out=out
        )
    xp = namespace(views)
    volume = xp.zeros(shape, dtype=xp.float32) if out is None else out
    launch = cuda_launch(xp.ascontiguousarray(views), projection, factors, volume, z_start)
    cuda_module("backproject").get_function("backproject")(*launch)
    return volume


def cuda_launch(
    views: Array, projection: Projection, weights: Vector, volume: Array, z_start: int
) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[Any, ...]]:
    """Return grid, block and arguments of the CUDA kernel, arrays living where `views` does."""
    nz, ny, nx = volume.shape
    # y slowest: all that one set of rows needs, all planes long, then stays in the L2 cache.
    grid = (-(-nx // CUDA_THREADS), nz, -(-ny // CUDA_ROWS))
    fixed = [
        asarray_like(np.rint(np.asarray(vector) * 2.0**32).astype(np.int64), views)
        for vector in (projection.x, projection.z, projection.offset)
    ]
    factors = asarray_like(weights.astype(np.float32), views)
    sizes = (views.shape[0], views.shape[2], nz, ny, nx, z_start)
    arguments = (views, volume, *fixed, factors, *map(np.int32, sizes))
    return grid, (CUDA_THREADS, 1, 1), arguments


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
    columns = views.shape[2]
    x, z = np.arange(nx), np.arange(z_start, z_start + nz)[:, None]
    total = xp.zeros((ny, nz * nx), dtype=xp.float32, device=device(views))
    for i in range(views.shape[0]):
        column = (projection.x[i] * x + (projection.z[i] * z + projection.offset[i])).ravel()
        inside = (column >= 0) & (column <= columns - 1)
        left = np.clip(np.floor(column), 0, columns - 2).astype(np.int64)
        right = factors[i] * inside * (column - left)
        index = asarray_like(left, views)
        total = total + (
            xp.take(views[i, ...], index, axis=1)
            * asarray_like((factors[i] * inside - right).astype(np.float32), views)
            + xp.take(views[i, ...], index + 1, axis=1)
            * asarray_like(right.astype(np.float32), views)
        )
    volume = xp.permute_dims(xp.reshape(total, (ny, nz, nx)), (1, 0, 2))
    if out is None:
        return xp.asarray(volume, copy=True)
    out[...] = out + volume
    return out


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
    if shape[1] != ny:
        raise ValueError(f"slab has {shape[1]} rows along y, the views have {ny}")
    if views.dtype != namespace(views).float32:
        raise ValueError(f"views are {views.dtype}, not float32")
    if out is not None and (out.shape != shape or out.dtype != views.dtype):
        raise ValueError(f"out is {out.shape} {out.dtype}, not {shape} float32")
    if out is not None and (is_numpy(out) or is_cupy(out)) and not out.flags.c_contiguous:
        raise ValueError("out is not C-contiguous: pass a whole array or planes of one")
    return factors
