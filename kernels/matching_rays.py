"""Smear views into a small volume and look at its dense part along a beam: the matching's pair.

The tilt axis runs along y, so every y is an independent plane problem. Volumes are stored
(z, x, y) and views (x, y), the untouched y last: every step is a sum of contiguous rows.
Lengths are in pixels and voxels of one size; centres lie at index n // 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.arrays import Array, asarray_like, device, is_numpy, namespace
from kernels.geometry import across


def smear(feature: Array, tilt: float, out: Array) -> None:
    """Back-project one view into a volume, adding in place.

    Parameters
    ----------
    feature : (nx, ny) float32
        View in the aligned frame, transposed.
    tilt : float
        Degrees.
    out : (nz, nx of the volume, ny) float32
        The volume that is added to.
    """
    c, s = across(tilt)
    if is_numpy(out):
        _smear(feature, c, s, out)
        return
    for z in range(out.shape[0]):
        out[z, ...] = out[z, ...] + _rows(feature, *_seen_from_volume(out, feature, c, s, z))


def dense_projection(
    volume: Array, own: Array | None, tilt: float, scale: float, threshold: float, width: int
) -> Array:
    """Project what exceeds a threshold in a volume, one view's own share taken out first.

    Parameters
    ----------
    volume : (nz, nx, ny) float32
        Sum of smeared views.
    own : (width, ny) float32 or None
        The view whose smeared share is subtracted, None to subtract nothing.
    tilt : float
        Of the projection, and of `own` [degrees].
    scale : float
        The volume is multiplied by it.
    threshold : float
        Then counts what exceeds this.
    width : int
        Length of the projection's x axis.

    Returns
    -------
    (width, ny) float32
    """
    c, s = across(tilt)
    shape = (width, volume.shape[2])
    if is_numpy(volume):
        result = np.zeros(shape, dtype=np.float32)
        share = result if own is None else own
        numbers = (np.float32(own is not None), np.float32(scale), np.float32(threshold))
        _project(volume, share, c, s, *numbers, result)
        return result
    xp = namespace(volume)
    total = xp.zeros(shape, dtype=volume.dtype, device=device(volume))
    for z in range(volume.shape[0]):
        plane = volume[z, ...]
        if own is not None:
            plane = plane - _rows(own, *_seen_from_volume(volume, own, c, s, z))
        plane = plane * scale - threshold
        plane = xp.where(plane > 0, plane, xp.zeros_like(plane))
        total = total + _rows(plane, *_seen_from_view(volume, width, c, s, z))
    return total


def _seen_from_volume(
    volume: Array, feature: Array, c: float, s: float, z: int
) -> tuple[NDArray[np.float64], int]:
    """Return where the voxels of plane `z` fall on the view's x axis, and its length."""
    nz, nx, _ = volume.shape
    width = int(feature.shape[0])
    return (np.arange(nx) - nx // 2) * c + (z - nz // 2) * s + width // 2, width


def _seen_from_view(
    volume: Array, width: int, c: float, s: float, z: int
) -> tuple[NDArray[np.float64], int]:
    """Return where the rays of a view meet plane `z` on the volume's x axis, and its length."""
    nz, nx, _ = volume.shape
    return (np.arange(width) - width // 2 - (z - nz // 2) * s) / c + nx // 2, int(nx)


def _rows(table: Array, places: NDArray[np.float64], length: int) -> Array:
    """Interpolate rows of a table (length, ny) linearly at `places`; 0 beyond its ends."""
    xp = namespace(table)
    first = np.floor(places)
    inside = (first >= 0) & (first < length - 1)
    fraction = places - first
    index = asarray_like(np.where(inside, first, 0).astype(np.int64), table)
    lower = asarray_like(((1 - fraction) * inside).astype(np.float32)[:, None], table)
    upper = asarray_like((fraction * inside).astype(np.float32)[:, None], table)
    return xp.take(table, index, axis=0) * lower + xp.take(table, index + 1, axis=0) * upper


@njit(nogil=True, cache=True, fastmath=True)
def _smear(feature: Any, c: Any, s: Any, out: Any) -> None:
    nz, nx, ny = out.shape
    width = feature.shape[0]
    for z in range(nz):
        for x in range(nx):
            place = (x - nx // 2) * c + (z - nz // 2) * s + width // 2
            i = int(np.floor(place))
            if i < 0 or i >= width - 1:
                continue
            upper = np.float32(place - i)
            lower = np.float32(1) - upper
            row, first, second = out[z, x], feature[i], feature[i + 1]
            for y in range(ny):
                row[y] += lower * first[y] + upper * second[y]


@njit(nogil=True, cache=True, fastmath=True)
def _project(
    volume: Any, own: Any, c: Any, s: Any, share: Any, scale: Any, threshold: Any, out: Any
) -> None:
    nz, nx, ny = volume.shape
    width = out.shape[0]
    none = np.float32(0)
    plane = np.empty((nx, ny), dtype=np.float32)
    for z in range(nz):
        for x in range(nx):
            place = (x - nx // 2) * c + (z - nz // 2) * s + width // 2
            i = int(np.floor(place))
            inside = share if 0 <= i < width - 1 else none
            i = min(max(i, 0), width - 2)
            upper = inside * np.float32(place - i)
            lower = inside - upper
            row, kept, first, second = volume[z, x], plane[x], own[i], own[i + 1]
            for y in range(ny):
                value = row[y] - (lower * first[y] + upper * second[y])
                kept[y] = max(value * scale - threshold, none)
        for x in range(width):
            place = (x - width // 2 - (z - nz // 2) * s) / c + nx // 2
            i = int(np.floor(place))
            if i < 0 or i >= nx - 1:
                continue
            upper = np.float32(place - i)
            lower = np.float32(1) - upper
            row, first, second = out[x], plane[i], plane[i + 1]
            for y in range(ny):
                row[y] += lower * first[y] + upper * second[y]
