"""Back-projection in which each voxel takes, of every view, the image corrected at its defocus.

Of a view there are as many images as planes cross the volume (`kernels.ctf_planes`); a voxel reads
the nearest, or the two around its level, blended. Of each image only those columns are kept that
voxels read (`kernels.plane_images`). All else is as in `kernels.backproject`, whose sums this one
has too where every view has one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.arrays import Array, asarray_like, cuda_module, device, is_cupy, is_numpy, namespace
from kernels.backproject import CUDA_ROWS, CUDA_THREADS, Projection, Shape, fixed_point
from kernels.ctf_planes import Planes
from kernels.fine_rows import fine_columns
from kernels.plane_images import Layout

Vector = NDArray[np.float64]

# A level so little above the middle of two planes goes down, whatever rounding makes of it.
TIE = 1e-6


def first_images(planes: Planes) -> NDArray[np.int64]:
    """Return the index of each view's first image among those of all views, (n_views + 1,)."""
    return np.concatenate([[0], np.cumsum(planes.count)]).astype(np.int64)


def pack(images: Array, layout: Layout) -> list[Array]:
    """Return the columns kept of whole images, (n_images, rows, columns), plane by plane."""
    xp = namespace(images)
    packed = []
    for level in layout.levels:
        parts = [
            images[int(i), :, int(layout.first[i]) : int(layout.first[i] + layout.count[i])]
            for i in layout.of_plane(int(level))
        ]
        empty = xp.zeros((0, images.shape[1]), dtype=xp.float32, device=device(images))
        packed.append(xp.concat([empty, *(xp.permute_dims(p, (1, 0)) for p in parts)], axis=0))
    return packed


def unpack(packed: Sequence[Array], layout: Layout, columns: int) -> Array:
    """Return whole images, (n_images, rows, columns), 0 where no column is kept."""
    xp = namespace(packed[0])
    every = xp.concat(list(packed), axis=0)
    rows, like = packed[0].shape[1], device(packed[0])
    images = []
    for first, count, place in zip(layout.first, layout.count, layout.place, strict=True):
        kept = every[int(first + place) : int(first + place + count), :]
        before = xp.zeros((int(first), rows), dtype=xp.float32, device=like)
        after = xp.zeros((columns - int(first + count), rows), dtype=xp.float32, device=like)
        images.append(xp.permute_dims(xp.concat([before, kept, after], axis=0), (1, 0)))
    return xp.stack(images)


def backproject_planes(
    packed: Sequence[Array],
    layout: Layout,
    columns: int,
    projection: Projection,
    planes: Planes,
    shape: Shape,
    *,
    y_middle: float,
    z_start: int = 0,
    weights: ArrayLike | None = None,
    fine: bool = False,
) -> Array:
    """Sum, for each voxel of a slab, the values of the views where it appears, at its defocus.

    Parameters
    ----------
    packed : sequence of (columns kept, rows) float32
        Aligned, corrected and filtered; one for each plane of the layout.
    layout : Layout
        Of them, made for the whole box.
    columns : int
        Width of the views.
    projection : Projection
        Of the whole box.
    planes : Planes
        Likewise.
    shape : (nz, ny, nx)
        Of the slab; ny is that of the views, unless rows move (`Projection.of_rows`).
    y_middle : float
        Index iy in the whole box for which levels are computed: the middle of the slab. With
        x-axis tilt α a row off by d has a defocus off by d sin α cos θ, which is small.
    z_start : int
        Index in the whole box of the slab's first plane.
    weights : (n_views,), optional
        Factor of each view; default 1.
    fine : bool
        Whether columns are coefficients of splines (`kernels.fine_rows`), twice as many samples of
        which are read.

    Returns
    -------
    (nz, ny, nx) float32, where `packed` lives

    Raises
    ------
    ValueError
        If sizes do not agree.
    """
    n_views = len(projection.x)
    factors = np.ones(n_views) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(planes.x) == len(factors) == n_views:
        raise ValueError(f"{n_views} projections, {len(planes.x)} planes, {len(factors)} weights")
    if len(layout.images) != planes.count.sum():
        raise ValueError(f"{len(layout.images)} images for {planes.count.sum()} planes of views")
    kept = [layout.columns_of_plane(int(level)) for level in layout.levels]
    if [part.shape[0] for part in packed] != kept:
        raise ValueError(f"columns are {[part.shape[0] for part in packed]}, the layout has {kept}")
    if columns < 2:
        raise ValueError(f"images are {columns} column wide, at least 2 are needed")
    rows = packed[0].shape[1]
    if shape[1] != rows and projection.row_z is None:
        raise ValueError(f"slab has {shape[1]} rows along y, the views have {rows}")
    if is_numpy(packed[0]):
        return _on_cpu(
            packed, layout, columns, projection, planes, shape, y_middle, z_start, factors, fine
        )
    if fine:
        levels = layout.levels.tolist()
        packed = [layout.fine_plane(n, part) for n, part in zip(levels, packed, strict=True)]
        layout, projection, columns = layout.fine(), projection.fine(), fine_columns(columns)
    if is_cupy(packed[0]):
        xp = namespace(packed[0])
        volume = xp.zeros(shape, dtype=xp.float32)
        every = xp.ascontiguousarray(xp.concatenate(list(packed), axis=0).T)
        launch = cuda_launch(
            every, layout, columns, projection, planes, factors, volume, y_middle, z_start
        )
        cuda_module("backproject_planes").get_function("backproject_planes")(*launch)
        return volume
    images = unpack(packed, layout, columns)
    return reference_backproject_planes(
        images, projection, planes, shape, y_middle=y_middle, z_start=z_start, weights=weights
    )


def _on_cpu(
    packed: Sequence[NDArray[np.float32]],
    layout: Layout,
    columns: int,
    projection: Projection,
    planes: Planes,
    shape: Shape,
    y_middle: float,
    z_start: int,
    factors: Vector,
    fine: bool,
) -> NDArray[np.float32]:
    from kernels import backproject_planes_cpu  # Numba takes half a second to import

    stops = None
    if fine:
        stops = [np.cumsum(layout.count[layout.of_plane(int(n))]) for n in layout.levels]
        layout, projection, columns = layout.fine(), projection.fine(), fine_columns(columns)
    volume = np.zeros(shape, np.float32)
    shifts = projection.row_shifts(z_start + np.arange(shape[0]))
    kinds, kind = np.unique(shifts, axis=0, return_inverse=True)
    starts = first_images(planes)
    for i, row_shifts in enumerate(kinds):
        chosen = np.flatnonzero(kind.ravel() == i)
        of = projection.only(chosen)
        backproject_planes_cpu.accumulate(
            volume,
            packed,
            layout.place,
            columns,
            (of.x, of.z, of.offset),
            (planes.x[chosen], planes.z[chosen], (planes.offset + planes.y * y_middle)[chosen]),
            (starts[:-1][chosen], planes.first[chosen], planes.count[chosen]),
            planes.blend,
            factors[chosen],
            row_shifts,
            z_start,
            stops,
        )
    return volume


def cuda_launch(
    every: Array,
    layout: Layout,
    columns: int,
    projection: Projection,
    planes: Planes,
    weights: Vector,
    volume: Array,
    y_middle: float,
    z_start: int,
) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[Any, ...]]:
    """Return grid, block and arguments of the CUDA kernel, arrays living where `every` does.

    `every` are all columns kept, (rows, columns kept): columns contiguous, as threads read them.
    """
    nz, ny, nx = volume.shape
    grid = (-(-nx // CUDA_THREADS), nz, -(-ny // CUDA_ROWS))
    levels = (
        np.rint(np.asarray(vector) * 2.0**32).astype(np.int64)
        for vector in (planes.x, planes.z, planes.offset + planes.y * y_middle - planes.first)
    )
    whole = (first_images(planes)[:-1].astype(np.int32), planes.count.astype(np.int32))
    tables = (asarray_like(table, every) for table in (*levels, *whole, layout.place))
    factors = asarray_like(weights.astype(np.float32), every)
    sizes = (len(weights), every.shape[0], columns, nz, ny, nx, z_start, int(planes.blend))
    arguments = (
        every,
        volume,
        *fixed_point(projection, z_start + np.arange(nz), every),
        *tables,
        factors,
        np.int64(every.shape[1]),
    )
    return grid, (CUDA_THREADS, 1, 1), (*arguments, *map(np.int32, sizes))


def reference_backproject_planes(
    images: Array,
    projection: Projection,
    planes: Planes,
    shape: Shape,
    *,
    y_middle: float,
    z_start: int = 0,
    weights: ArrayLike | None = None,
) -> Array:
    """Do what `backproject_planes` does, plainly and slowly, in any array-API namespace."""
    from kernels.backproject import reference_backproject

    xp = namespace(images)
    nz, _, nx = shape
    factors = np.ones(len(projection.x)) if weights is None else np.asarray(weights, np.float64)
    x, z = np.arange(nx), np.arange(z_start, z_start + nz)[:, None]
    volume = xp.zeros(shape, dtype=xp.float32, device=device(images))
    for view, start in enumerate(first_images(planes)[:-1]):
        level = planes.x[view] * x + planes.z[view] * z + planes.offset[view]
        level = np.clip(
            level + planes.y[view] * y_middle - planes.first[view], 0, planes.count[view] - 1
        )
        for plane in range(int(planes.count[view])):
            share = np.maximum(1 - np.abs(level - plane), 0)
            if not planes.blend:
                share = (np.ceil(level - 0.5 - TIE) == plane).astype(np.float64)
            if not share.any():
                continue
            one = np.array([view])
            part = reference_backproject(
                images[int(start) + plane : int(start) + plane + 1, ...],
                projection.only(one),
                shape,
                z_start=z_start,
                weights=factors[one],
            )
            volume = volume + part * asarray_like(share.astype(np.float32)[:, None, :], images)
    return volume
