"""Erase X-ray hits: small bright spots that no specimen makes.

A hit is a cluster of pixels above the surroundings by so many standard deviations, of small
extent, with an abrupt border (the criteria of IMOD's ccderaser). Gold beads are dark and large,
bright halos wide and soft: neither is touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kernels.arrays import Array, asarray_like, to_host

NORMAL_MAD = 1.4826  # standard deviation per median absolute deviation of a normal distribution
CLIP = 6.0  # standard deviations beyond which pixels do not count in the statistics
GROW = 4.0  # standard deviations down to which pixels join a hit
GIANT_RADIUS = 2.0  # times the usual radius, for hits of overwhelming height
BORDER = 2  # pixels around a hit that tell what was underneath
MAX_PASSES = 10


@dataclass(frozen=True)
class Erased:
    """An image without X-rays.

    Attributes
    ----------
    image : (ny, nx) float32
    mask : (ny, nx) bool
        True where pixels were replaced.
    hits : int
        Number of clusters.
    """

    image: Array
    mask: Array
    hits: int


def erase(
    image: Array,
    rng: np.random.Generator,
    *,
    peak: float = 8.0,
    difference: float = 6.0,
    max_radius: float = 4.2,
    big_difference: float = 19.0,
    patch: int = 100,
) -> Erased:
    """Replace X-ray hits by a plane through their border and noise as it is around.

    The search is repeated until it finds nothing, so erasing the result again changes nothing.
    It runs on the host whatever the namespace: connected clusters are few and irregular.

    Parameters
    ----------
    image : (ny, nx) float32
        Matter dark.
    rng : numpy.random.Generator
        Of the noise filled in.
    peak : float
        Height of a hit's highest pixel over the local mean [local standard deviations].
    difference : float
        Height of the same pixel over the mean of the hit's border [local standard deviations].
    max_radius : float
        Largest distance of a hit's pixels from its centre [pixels].
    big_difference : float
        Hits whose brightest quarter is on average this high over the border may be twice as
        wide [local standard deviations].
    patch : int
        Size of the areas for the local mean and deviation [pixels].

    Returns
    -------
    Erased

    Raises
    ------
    ValueError
        If `peak` is not above the 4 deviations to which hits grow, or `patch` is below 10.
    """
    if not peak > GROW:
        raise ValueError(f"peak criterion is {peak}, it must be above {GROW} standard deviations")
    if patch < 10:
        raise ValueError(f"patch is {patch} pixels, at least 10 are needed for its statistics")
    clean = np.array(to_host(image), dtype=np.float32)
    mask = np.zeros(clean.shape, dtype=np.bool_)
    count = 0
    for _ in range(MAX_PASSES):
        center, spread = _local_statistics(clean, patch)
        height = (clean - center) / spread
        hits = [
            pixels
            for pixels in _clusters(height, peak)
            if _is_hit(height, pixels, difference, max_radius, big_difference)
        ]
        if not hits:
            break
        found = np.zeros_like(mask)
        for pixels in hits:
            found[pixels] = True
        for pixels in hits:
            _fill(clean, found, pixels, rng)
        count += len(hits)
        mask |= found
    return Erased(asarray_like(clean, image), asarray_like(mask, image), count)


def _local_statistics(image: NDArray[np.float32], patch: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mean and standard deviation, hits left out, around every pixel, interpolated."""
    edges = [np.linspace(0, n, max(1, round(n / patch)) + 1).astype(int) for n in image.shape]
    rows, columns = (list(pairwise(e)) for e in edges)
    stride = max(1, patch // 50)  # 2500 pixels tell the deviation to 1.4 %
    means, spreads = np.empty((2, len(rows), len(columns)), dtype=np.float32)
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            values = image[top:bottom:stride, left:right:stride]
            distance = np.abs(values - np.median(values))
            deviation = NORMAL_MAD * np.median(distance)
            if deviation > 0:  # of counts it is a whole number and off by up to a third
                values = values[distance < CLIP * deviation]
            means[i, j] = values.mean()
            spreads[i, j] = values.std() or np.inf
    across = [_interpolation(e) for e in edges]
    finite = np.where(np.isfinite(spreads), spreads, np.float32(np.finfo(np.float32).max / 4))
    return across[0] @ means @ across[1].T, across[0] @ finite @ across[1].T


def _interpolation(edges: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the matrix (pixels, patches) of linear interpolation between patch centres."""
    centers = (edges[:-1] + edges[1:] - 1) / 2
    pixels = np.arange(edges[-1])
    unit = np.eye(len(centers))
    return np.column_stack([np.interp(pixels, centers, row) for row in unit]).astype(np.float32)


def _clusters(height: NDArray[Any], peak: float) -> list[tuple[NDArray[np.intp], ...]]:
    """Return the pixels of the clusters above GROW that reach `peak`."""
    labels, number = ndimage.label(height > GROW, structure=np.ones((3, 3)))
    reaching = np.unique(labels[height > peak])
    boxes = ndimage.find_objects(labels, max_label=number)
    clusters: list[tuple[NDArray[np.intp], ...]] = []
    for label in reaching:
        box = boxes[label - 1]
        y, x = np.nonzero(labels[box] == label)
        clusters.append((y + box[0].start, x + box[1].start))
    return clusters


def _border(
    shape: tuple[int, ...], pixels: tuple[NDArray[np.intp], ...]
) -> tuple[slice, slice, NDArray[np.bool_]]:
    """Return the box around a cluster, and in it the mask of the pixels around the cluster."""
    low = [max(0, int(p.min()) - BORDER) for p in pixels]
    high = [min(n, int(p.max()) + BORDER + 1) for n, p in zip(shape, pixels, strict=True)]
    inside = np.zeros((high[0] - low[0], high[1] - low[1]), dtype=np.bool_)
    inside[pixels[0] - low[0], pixels[1] - low[1]] = True
    around = ndimage.binary_dilation(inside, np.ones((3, 3)), iterations=BORDER) & ~inside
    return slice(low[0], high[0]), slice(low[1], high[1]), around


def _is_hit(
    height: NDArray[Any],
    pixels: tuple[NDArray[np.intp], ...],
    difference: float,
    max_radius: float,
    big_difference: float,
) -> bool:
    """Judge a cluster by its extent and by its border."""
    radius = float(np.hypot(*(p - (p.max() + p.min()) / 2 for p in pixels)).max())
    if radius > GIANT_RADIUS * max_radius:
        return False
    rows, columns, around = _border(height.shape, pixels)
    surroundings = height[rows, columns][around]
    below = float(surroundings.mean()) if surroundings.size else 0.0
    values = np.sort(height[pixels])
    if radius > max_radius:
        brightest = values[-max(1, len(values) // 4) :].mean()
        return bool(brightest - below > big_difference)
    return bool(values[-1] - below > difference)


def _fill(
    image: NDArray[np.float32],
    found: NDArray[np.bool_],
    pixels: tuple[NDArray[np.intp], ...],
    rng: np.random.Generator,
) -> None:
    """Write a plane through the good border pixels, plus their noise, into `image`."""
    rows, columns, around = _border(image.shape, pixels)
    around &= ~found[rows, columns]
    y, x = (p + s.start for p, s in zip(np.nonzero(around), (rows, columns), strict=True))
    if not y.size:
        image[pixels] = np.median(image)
        return
    values = image[y, x].astype(np.float64)
    origin = [float(p.mean()) for p in pixels]
    design = np.column_stack([np.ones(y.size), y - origin[0], x - origin[1]])
    plane, _, rank, _ = np.linalg.lstsq(design, values)
    if rank < 3:
        plane = np.array([values.mean(), 0, 0])
    noise = float((values - design @ plane).std())
    drawn = np.clip(rng.standard_normal(len(pixels[0])), -3, 3) * noise
    smooth = plane[0] + plane[1] * (pixels[0] - origin[0]) + plane[2] * (pixels[1] - origin[1])
    image[pixels] = smooth + drawn
