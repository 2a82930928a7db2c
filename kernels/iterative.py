"""SIRT and SART: reconstructions whose projections come ever nearer to the views.

Each step compares the projections of the volume with a subset of the views and spreads the
differences back, with projector and back-projector the exact adjoints of each other [1]_:

    v ← v + λ C Aᵀ R (p − A v),   R = 1 / A 1,   C = 1 / Aᵀ 1

so that a ray's difference counts per length in the volume, and a voxel takes the mean of its
rays. With one subset this is SIRT, with as many subsets as views SART; between them ordered
subsets. Without x-axis tilt rows are independent of one another: slabs along y may be
reconstructed apart.

References
----------
.. [1] A. H. Andersen & A. C. Kak, Ultrasonic Imaging 6:81 (1984), doi:10.1016/0161-7346(84)90008-7
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Array, asarray_like, device, namespace
from kernels.backproject import Projection, Shape, backproject
from kernels.project import project

# A ray or voxel with less than this part of the largest sum of weights is left alone: a ray that
# grazes a corner of the box would give its whole difference to one voxel.
LEAST = 0.05


def reconstruct(
    views: Array,
    projection: Projection,
    shape: Shape,
    iterations: int,
    *,
    subsets: int = 1,
    relaxation: float = 1.0,
    positive: bool = False,
    mask: Array | None = None,
    start: Array | None = None,
    callback: Callable[[int, Array], None] | None = None,
) -> Array:
    """Reconstruct a volume iteratively.

    Parameters
    ----------
    views : (n_views, rows, columns) float32
        Aligned, not filtered, their background about 0.
    projection : Projection
        Of the box.
    shape : (nz, ny, nx)
        Of the box, or of a slab of its rows.
    iterations : int
        Passes over all views.
    subsets : int
        Steps of a pass, each with views far apart from one another: 1 is SIRT.
    relaxation : float
        λ, between 0 and 2.
    positive : bool
        Keep voxels ≥ 0 after each step: for bright matter.
    mask : (nz or 1, ny or 1, nx or 1) float32, optional
        0 where the volume is known to be empty, else 1.
    start : (nz, ny, nx) float32, optional
        Volume to go on from, left as it is and taken as 0 outside of the mask; 0 by default.
    callback : callable, optional
        Given the number of iterations done and the volume so far, which it must copy to keep.

    Returns
    -------
    (nz, ny, nx) float32, where `views` lives

    Raises
    ------
    ValueError
        If numbers are out of range or `start` has another size.
    """
    n_views = len(projection.x)
    if not 1 <= subsets <= n_views or iterations < 0 or not 0 < relaxation < 2:
        raise ValueError(
            f"{iterations} iterations of {subsets} subsets of {n_views} views with relaxation "
            f"{relaxation}: subsets are 1 to the number of views, relaxation is between 0 and 2"
        )
    if start is not None and tuple(start.shape) != tuple(shape):
        raise ValueError(f"start is {tuple(start.shape)}, the volume {tuple(shape)}")
    xp = namespace(views)
    steps = []
    for chosen in interleaved(projection, subsets):
        part = views if subsets == 1 else xp.take(views, asarray_like(chosen, views), axis=0)
        of = projection.only(chosen)
        steps.append((part, of, *normalisations(part, of, shape, mask)))
    if start is None:
        volume = xp.zeros(shape, dtype=xp.float32, device=device(views))
    else:
        volume = xp.asarray(start, copy=True) if mask is None else start * mask
    for iteration in range(1, iterations + 1):
        for part, of, per_ray, per_voxel in steps:
            difference = part - project(volume, of, part.shape[1:])
            difference *= per_ray
            update = backproject(difference, of, shape)
            update *= per_voxel * relaxation
            volume += update
            if positive:
                volume = xp.maximum(volume, xp.zeros_like(volume[:1, :1, :1]))
        if callback is not None:
            callback(iteration, volume)
    return volume


def interleaved(projection: Projection, subsets: int) -> list[NDArray[np.int64]]:
    """Return the views of each subset: every `subsets`-th by tilt angle, far from the one before.

    Subsets follow each other by the golden ratio, so that few of them cover all angles.
    """
    by_angle = np.argsort(np.arctan2(projection.z, projection.x), kind="stable")
    golden = np.arange(subsets) * (np.sqrt(5) - 1) / 2 % 1
    order = np.argsort(np.argsort(golden, kind="stable"), kind="stable")
    # In the order that the views have: one subset is then all views as they are.
    return [np.sort(by_angle[first::subsets]) for first in order]


def normalisations(
    views: Array, projection: Projection, shape: Shape, mask: Array | None
) -> tuple[Array, Array]:
    """Return R, to be multiplied with views, and C, with volumes; mask and empty rays are 0."""
    xp = namespace(views)
    n_views, rows, columns = views.shape
    # Where rows stay what they are one row tells of all.
    alone = projection.row_z is None and (mask is None or mask.shape[1] == 1)
    box = (shape[0], 1 if alone else shape[1], shape[2])
    frame = (1 if alone else rows, columns)
    ones = xp.ones(box, dtype=xp.float32, device=device(views))
    inside = ones if mask is None else ones * mask
    per_ray = _inverse(project(inside, projection, frame))
    full = xp.ones((n_views, *frame), dtype=xp.float32, device=device(views))
    per_voxel = _inverse(backproject(full, projection, box))
    return per_ray, per_voxel if mask is None else per_voxel * mask


def _inverse(sums: Array) -> Array:
    xp = namespace(sums)
    enough = sums > LEAST * xp.max(sums)
    return xp.where(enough, 1 / xp.where(enough, sums, 1 + 0 * sums), 0 * sums)
