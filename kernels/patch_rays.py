"""Smear deformed views into a volume, and project columns of it as a deformed view sees them.

As `kernels.matching_rays`, but what a view sees of a voxel is displaced by (dx, dy), which depend
on the voxel's x and y: the specimen had moved when the view was taken. Smearing and projecting
use the same weights, one being the adjoint of the other, so that a view's own share is taken out
of the volume exactly. Volumes are (z, x, y), views (x, y), lengths in voxels; centres lie at
index n // 2. Host work (Numba).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.geometry import across

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Rays:
    """Where a view sees the voxels of a volume.

    Attributes
    ----------
    tilt : float
        Degrees.
    dx, dy : (nx, ny) float32
        Displacement of the voxels of each column along the view's x and y [pixels].
    """

    tilt: float
    dx: Image
    dy: Image


@dataclass(frozen=True)
class Column:
    """Part of a volume, over its whole depth, with soft edges.

    Attributes
    ----------
    x, y : int
        Index of the first voxel.
    window_x, window_y : (mx,), (my,) float32
        Weights along the two axes.
    """

    x: int
    y: int
    window_x: Image
    window_y: Image


def smear_bent(feature: Image, rays: Rays, out: Image) -> None:
    """Back-project one view into a volume, adding in place.

    Parameters
    ----------
    feature : (width, ny) float32
        View in the aligned frame, transposed.
    rays : Rays
    out : (nz, nx, ny) float32
        Planes of the volume.
    """
    c, s = across(rays.tilt)
    _smear(feature, c, s, rays.dx, rays.dy, 0, len(out), out)


def smear_planes(feature: Image, rays: Rays, start: int, stop: int, out: Image) -> None:
    """As `smear_bent`, but only into the planes `start` to `stop`: threads share a volume."""
    c, s = across(rays.tilt)
    _smear(feature, c, s, rays.dx, rays.dy, start, stop, out)


@dataclass(frozen=True)
class Dense:
    """Voxels that exceed a threshold, and where a view sees them.

    Attributes
    ----------
    value : (n,) float32
        By how much.
    index : (n, 3) int16
        x, y, z.
    place : (n, 2) float32
        Index x, y in the view.
    shape : (nz, nx, ny)
        Of the volume.
    """

    value: Image
    index: NDArray[np.int16]
    place: Image
    shape: tuple[int, int, int]


def dense_voxels(volume: Image, own: Image, rays: Rays, scale: float, threshold: float) -> Dense:
    """Find what exceeds a threshold in a volume, one view's own share taken out first.

    Parameters
    ----------
    volume : (nz, nx, ny) float32
        Sum of smeared views.
    own : (width, ny) float32
        The view's feature, as it was smeared.
    rays : Rays
        Of this view.
    scale : float
        The volume is multiplied by it.
    threshold : float
        Then counts what exceeds this.
    """
    c, s = across(rays.tilt)
    nz, nx, ny = volume.shape
    # Below this no voxel can exceed the threshold, whatever its own share.
    least = np.float32(threshold / scale + float(own.min()))
    room = int((volume > least).sum())
    dense = Dense(
        np.empty(room, np.float32),
        np.empty((room, 3), np.int16),
        np.empty((room, 2), np.float32),
        (nz, nx, ny),
    )
    numbers = (c, s, np.float32(scale), np.float32(threshold), least)
    n = _find(volume, own, numbers, rays.dx, rays.dy, dense.value, dense.index, dense.place)
    return Dense(dense.value[:n], dense.index[:n], dense.place[:n], dense.shape)


def project_column(
    dense: Dense, column: Column, shape: tuple[int, int]
) -> tuple[Image, NDArray[np.float64]]:
    """Project the dense voxels of a column as their view sees them.

    Parameters
    ----------
    dense : Dense
    column : Column
    shape : (width, ny)
        Of the view.

    Returns
    -------
    image : shape float32
        0 beside the column.
    centre : (4,) float64
        Mean x, y, z of what was projected, from the volume's centre [voxels], and its sum.
    """
    image, sums = np.zeros(shape, np.float32), np.zeros(4)
    windows = (column.x, column.y, column.window_x, column.window_y)
    _splat(dense.value, dense.index, dense.place, *windows, image, sums)
    if sums[3] > 0:
        nz, nx, ny = dense.shape
        sums[:3] = sums[:3] / sums[3] - (nx // 2, ny // 2, nz // 2)
    return image, sums


@njit(nogil=True, cache=True, fastmath=True)
def _smear(feature: Any, c: Any, s: Any, dx: Any, dy: Any, start: Any, stop: Any, out: Any) -> None:
    nz, nx, ny = out.shape
    width = feature.shape[0]
    for z in range(start, stop):
        for x in range(nx):
            place = np.float32((x - nx // 2) * c + (z - nz // 2) * s + width // 2)
            if place < -width or place > 2 * width:
                continue
            row, along, down = out[z, x], dx[x], dy[x]
            for y in range(ny):
                u, v = place + along[y], np.float32(y) + down[y]
                i, j = int(np.floor(u)), int(np.floor(v))
                if 0 <= i < width - 1 and 0 <= j < ny - 1:
                    u -= np.float32(i)
                    v -= np.float32(j)
                    first = feature[i, j] + v * (feature[i, j + 1] - feature[i, j])
                    second = feature[i + 1, j] + v * (feature[i + 1, j + 1] - feature[i + 1, j])
                    row[y] += first + u * (second - first)


@njit(nogil=True, cache=True, fastmath=True)
def _find(
    volume: Any, own: Any, numbers: Any, dx: Any, dy: Any, value: Any, index: Any, places: Any
) -> Any:
    nz, nx, ny = volume.shape
    width = own.shape[0]
    c, s, scale, threshold, least = numbers
    n = 0
    for z in range(nz):
        for x in range(nx):
            place = np.float32((x - nx // 2) * c + (z - nz // 2) * s + width // 2)
            row = volume[z, x]
            for y in range(ny):
                if row[y] <= least:
                    continue
                u, v = place + dx[x, y], np.float32(y) + dy[x, y]
                i, j = int(np.floor(u)), int(np.floor(v))
                if i < 0 or i >= width - 1 or j < 0 or j >= ny - 1:
                    continue
                a, b = u - np.float32(i), v - np.float32(j)
                first = own[i, j] + b * (own[i, j + 1] - own[i, j])
                second = own[i + 1, j] + b * (own[i + 1, j + 1] - own[i + 1, j])
                above = (row[y] - first - a * (second - first)) * scale - threshold
                if above > 0:
                    value[n], places[n, 0], places[n, 1] = above, u, v
                    index[n, 0], index[n, 1], index[n, 2] = x, y, z
                    n += 1
    return n


@njit(nogil=True, cache=True, fastmath=True)
def _splat(
    value: Any,
    index: Any,
    places: Any,
    x0: Any,
    y0: Any,
    window_x: Any,
    window_y: Any,
    out: Any,
    sums: Any,
) -> None:
    mx, my = window_x.shape[0], window_y.shape[0]
    for k in range(value.shape[0]):
        a, b = index[k, 0] - x0, index[k, 1] - y0
        if a < 0 or a >= mx or b < 0 or b >= my:
            continue
        weight = value[k] * window_x[a] * window_y[b]
        u, v = places[k, 0], places[k, 1]
        i, j = int(u), int(v)
        u -= np.float32(i)
        v -= np.float32(j)
        one = np.float32(1)
        out[i, j] += weight * (one - u) * (one - v)
        out[i, j + 1] += weight * (one - u) * v
        out[i + 1, j] += weight * u * (one - v)
        out[i + 1, j + 1] += weight * u * v
        for m in range(3):
            sums[m] += weight * index[k, m]
        sums[3] += weight
