"""Projection of a slab of the tomogram into aligned views: the exact adjoint of back-projection.

A pixel is the sum of the voxels in whose back-projection it counts, with the same weights:
``⟨project(v), p⟩ = ⟨v, backproject(p)⟩``. So SIRT and SART (`iterative`) converge to what they
should. NumPy arrays take the Numba body of `project_cpu`, CuPy arrays ``cuda/project.cu``; both
are tested against `reference_project`, which serves every other namespace.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kernels.arrays import Array, asarray_like, cuda_module, device, is_cupy, is_numpy, namespace
from kernels.backproject import EDGE, Projection, Vector, fixed_point

# Must be ROWS of cuda/project.cu, and a block of threads along the columns there.
CUDA_ROWS, CUDA_THREADS = 8, 128


def project(
    volume: Array,
    projection: Projection,
    shape: tuple[int, int],
    *,
    z_start: int = 0,
    weights: ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    """Sum, for each pixel of the views, the weighted voxels of a slab that appear there.

    Parameters
    ----------
    volume : (nz, ny, nx) float32
        A slab, finite.
    projection : Projection
        Of the whole box; as `backproject` takes it.
    shape : (rows, columns)
        Of the views; rows is ny, unless rows move.
    z_start : int
        Index in the whole box of the slab's first plane.
    weights : (n_views,), optional
        Factor of each view; default 1.
    out : (n_views, rows, columns) float32, optional
        Added to in place and returned, instead of a new array: slab after slab of a volume.

    Returns
    -------
    (n_views, rows, columns) float32, where `volume` lives

    Raises
    ------
    ValueError
        If sizes or dtypes do not agree.
    """
    factors = _checked(volume, projection, shape, weights, out)
    if not (is_numpy(volume) or is_cupy(volume)):
        return reference_project(
            volume, projection, shape, z_start=z_start, weights=weights, out=out
        )
    xp = namespace(volume)
    views = out
    if views is None:
        views = xp.zeros((len(factors), *shape), dtype=xp.float32)
    slab = xp.ascontiguousarray(volume)
    if is_cupy(volume):
        launch = cuda_launch(slab, projection, factors, views, z_start)
        cuda_module("project").get_function("project")(*launch)
        return views
    from kernels import project_cpu  # Numba takes half a second to import

    shifts = projection.row_shifts(z_start + np.arange(volume.shape[0]))
    kinds, kind = np.unique(shifts, axis=0, return_inverse=True)
    for i, row_shifts in enumerate(kinds):
        chosen = np.flatnonzero(kind.ravel() == i)
        of = projection.only(chosen)
        part = views if len(kinds) == 1 else views[chosen]
        vectors = (of.x, of.z, of.offset)
        project_cpu.accumulate(part, slab, vectors, factors[chosen], row_shifts, z_start)
        if len(kinds) > 1:
            views[chosen] = part
    return views


def cuda_launch(
    volume: Array, projection: Projection, weights: Vector, views: Array, z_start: int
) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[Any, ...]]:
    """Return grid, block and arguments of the CUDA kernel, arrays living where `volume` does."""
    n_views, n_rows, columns = views.shape
    # Views fastest but for columns: they read the same rows of the volume from the L2 cache.
    grid = (-(-columns // CUDA_THREADS), n_views, -(-n_rows // CUDA_ROWS))
    factors = asarray_like(weights.astype(np.float32), volume)
    planes = z_start + np.arange(volume.shape[0])
    arguments = (volume, views, *fixed_point(projection, planes, volume), factors)
    sizes = (n_rows, columns, *volume.shape, z_start)
    return grid, (CUDA_THREADS, 1, 1), (*arguments, *map(np.int32, sizes))


def reference_project(
    volume: Array,
    projection: Projection,
    shape: tuple[int, int],
    *,
    z_start: int = 0,
    weights: ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    """Do what `project` does, by matrices, in any array-API namespace."""
    factors = _checked(volume, projection, shape, weights, out)
    xp = namespace(volume)
    nz, ny, nx = volume.shape
    n_rows, columns = shape
    shifts = projection.row_shifts(z_start + np.arange(nz))
    views = []
    for i in range(len(factors)):
        view = xp.zeros(shape, dtype=xp.float32, device=device(volume))
        for k in range(nz):
            places = projection.x[i] * np.arange(nx) + (
                projection.z[i] * (z_start + k) + projection.offset[i]
            )
            across = asarray_like(hats(places, columns) * factors[i], volume, xp.float32)
            plane = volume[k, ...] @ across
            if shifts.any() or n_rows != ny:
                down = hats(np.arange(ny) + shifts[i, k], n_rows)
                plane = asarray_like(down.T, volume, xp.float32) @ plane
            view = view + plane
        views.append(view)
    result = xp.stack(views)
    if out is None:
        return result
    out[...] = out + result
    return out


def hats(places: Vector, length: int) -> Vector:
    """Return (n_places, length): weights of pixels in the linear interpolation at `places`."""
    inside = (places >= -EDGE) & (places <= length - 1 + EDGE)
    distance = np.abs(places[:, None] - np.arange(length))
    return np.where(inside[:, None], np.maximum(1 - distance, 0), 0)


def _checked(
    volume: Array,
    projection: Projection,
    shape: tuple[int, int],
    weights: ArrayLike | None,
    out: Array | None,
) -> Vector:
    """Raise where sizes disagree; return the weights as a vector."""
    n_views = len(projection.x)
    factors = np.ones(n_views) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(factors) != n_views:
        raise ValueError(f"{len(factors)} weights for {n_views} views")
    if shape[1] < 2:
        raise ValueError(f"views are {shape[1]} column wide, interpolation needs at least 2")
    if volume.shape[1] != shape[0] and projection.row_z is None:
        raise ValueError(f"slab has {volume.shape[1]} rows along y, the views have {shape[0]}")
    if volume.dtype != namespace(volume).float32:
        raise ValueError(f"volume is {volume.dtype}, not float32")
    expected = (n_views, *shape)
    if out is not None and (out.shape != expected or out.dtype != volume.dtype):
        raise ValueError(f"out is {out.shape} {out.dtype}, not {expected} float32")
    if out is not None and (is_numpy(out) or is_cupy(out)) and not out.flags.c_contiguous:
        raise ValueError("out is not C-contiguous: pass a whole array or views of one")
    return factors
