"""What fills erased pixels: a plane through their surroundings, and noise from a place near by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BORDER = 3  # pixels around a cluster that tell what is underneath
HIGHEST = 3.5  # standard deviations; no pixel of noise filled in is further out
DRAWN_IN = 3.0  # standard deviations at which pixels of the border are cut: tails of the hit
NOISIER = 1.5  # factor by which the noise of a place near by may differ
NEAR = tuple(  # rows and columns from a cluster to where noise may come from [its sizes]
    (reach * np.sin(angle), reach * np.cos(angle))
    for reach in (1.5, 2.2, 3.0)
    for angle in np.arange(12) * (2 * np.pi / 12)
)

Image = NDArray[np.float32]
Flat = NDArray[np.int64]
Mask = NDArray[np.bool_]


def fill(image: Image, pixels: Flat, avoid: Mask | None = None) -> None:
    """Replace a cluster of pixels, in place.

    The noise is that of a place near by, so it has the spectrum and the distribution that noise
    has around there. Nothing is random: the same image is always filled the same.

    Parameters
    ----------
    image : (ny, nx) float32
    pixels : (n,) int64
        Flat indices of the cluster.
    avoid : (ny, nx) bool, optional
        Other pixels of no use.
    """
    y, x = np.divmod(pixels, image.shape[1])
    top, left = int(y.min()) - BORDER, int(x.min()) - BORDER
    size = int(y.max()) - top + BORDER + 1, int(x.max()) - left + BORDER + 1
    inside = np.zeros(size, dtype=np.bool_)
    inside[y - top, x - left] = True
    border = ndimage.binary_dilation(inside, np.ones((3, 3)), iterations=BORDER) & ~inside
    plane, deviation = _surroundings(image, border, top, left, avoid)
    smooth = plane[inside]
    for noise in _noise(image, inside, border, (top, left), avoid, deviation, int(pixels[0])):
        if np.abs(noise).max() <= HIGHEST * deviation:
            image[y, x] = _ordered(smooth + noise, inside, y - top, x - left)
            return
    image[y, x] = _ordered(smooth, inside, y - top, x - left)


def _ordered(values: NDArray[Any], inside: Mask, u: Flat, v: Flat) -> Image:
    """Return values, given in the order of the mask's pixels, in the order of u and v."""
    box = np.empty(inside.shape, dtype=np.float32)
    box[inside] = values
    return box[u, v]


def _surroundings(
    image: Image, border: Mask, top: int, left: int, avoid: Mask | None
) -> tuple[NDArray[np.float64], float]:
    """Return the plane through the border over the whole box, and the deviation from it."""
    ny, nx = image.shape
    u, v = np.nonzero(border)
    good = (u + top >= 0) & (u + top < ny) & (v + left >= 0) & (v + left < nx)
    u, v = u[good], v[good]
    if avoid is not None:
        good = ~avoid[u + top, v + left]
        u, v = u[good], v[good]
    if not u.size:
        return np.full(border.shape, float(np.median(image))), 0.0
    values = image[u + top, v + left].astype(np.float64)
    middle, apart = np.median(values), np.median(np.abs(values - np.median(values)))
    reach = DRAWN_IN * max(1.4826 * apart, values.std() / 2)
    values = np.clip(values, middle - reach, middle + reach)
    origin = u.mean(), v.mean()
    design = np.column_stack([np.ones(u.size), u - origin[0], v - origin[1]])
    plane, _, rank, _ = np.linalg.lstsq(design, values)
    if rank < 3 or u.size < 8:
        plane = np.array([values.mean(), 0.0, 0.0])
    rows, columns = (np.arange(n) - o for n, o in zip(border.shape, origin, strict=True))
    whole = plane[0] + plane[1] * rows[:, None] + plane[2] * columns[None, :]
    freedom = u.size / max(1, u.size - 3)
    deviation = float((values - design @ plane).std()) * np.sqrt(freedom)
    # A plane through the border of a corner must not shoot out over the cluster.
    return np.clip(whole, values.min(), values.max()), deviation


def _noise(
    image: Image,
    inside: Mask,
    border: Mask,
    corner: tuple[int, int],
    avoid: Mask | None,
    deviation: float,
    start: int,
) -> Iterator[NDArray[np.float64]]:
    """Yield the noise of places near by that are about as noisy, then that of wherever it is."""
    ny, nx = image.shape
    height, width = inside.shape
    other: list[NDArray[np.float64]] = []
    for k in range(len(NEAR)):
        up, right = NEAR[(start + k) % len(NEAR)]
        top = corner[0] + round(up * height)
        left = corner[1] + round(right * width)
        if top < 0 or left < 0 or top + height > ny or left + width > nx:
            continue
        box = np.s_[top : top + height, left : left + width]
        if avoid is not None and avoid[box].any():
            continue
        plane, there = _surroundings(image, border, top, left, None)
        noise = (image[box] - plane)[inside]
        if deviation / NOISIER <= there <= deviation * NOISIER:
            yield noise
        elif there > 0:
            other.append(noise * (deviation / there))
    yield from other
