"""Grey levels of images: robust mean and deviation, and how views are brought to common ones."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from kernels.arrays import Array, asarray_like, namespace

CLIP = 6.0  # deviations: what lies farther out is a hit, a bead or an edge of the grid
ROUNDS = 5


@dataclass(frozen=True)
class Levels:
    """Mean and standard deviation of an image's pixels, without its outliers."""

    mean: float
    deviation: float


def measure_levels(image: Array) -> Levels:
    """Return the levels of an image without pixels farther than `CLIP` deviations from the mean.

    Parameters
    ----------
    image : (ny, nx) float32
    """
    xp = namespace(image)
    pixels = image.shape[0] * image.shape[1]
    # Differences from a value near the mean: squares of the values themselves would cancel.
    start = float(xp.sum(image, dtype=xp.float64)) / pixels
    values = image - asarray_like(np.float32(start), image)
    square = values * values
    mean, variance = 0.0, float(xp.sum(square, dtype=xp.float64)) / pixels
    kept = pixels
    for _ in range(ROUNDS):
        if not variance > 0:
            break
        reach = asarray_like(np.float32(CLIP * sqrt(variance)), image)
        inside = xp.abs(values - asarray_like(np.float32(mean), image)) <= reach
        count = int(xp.sum(xp.astype(inside, xp.int64)))
        if count == kept:
            break
        kept = count
        zero = asarray_like(np.float32(0), image)
        mean = float(xp.sum(xp.where(inside, values, zero), dtype=xp.float64)) / count
        squares = float(xp.sum(xp.where(inside, square, zero), dtype=xp.float64)) / count
        variance = max(0.0, squares - mean**2)
    return Levels(start + mean, sqrt(variance))


def scale_to(levels: Levels, deviation: float, like: Levels | None = None) -> float:
    """Return the factor that gives an image the wanted deviation.

    Parameters
    ----------
    levels : Levels
        Of the image.
    deviation : float
        Wanted.
    like : Levels, optional
        Of a view in good order, for one that is dark or left out: it is scaled up no more than that
        view is, for otherwise its noise would look like a specimen.

    Returns
    -------
    float
        1 where an image has no deviation.
    """
    own = deviation / levels.deviation if levels.deviation > 0 else 1.0
    if like is None:
        return own
    return min(own, deviation / like.deviation if like.deviation > 0 else 1.0)


def normalise(image: Array, levels: Levels, mean: float, scale: float = 1.0) -> Array:
    """Return the image with its levels moved to `mean` and stretched by `scale` around it.

    Parameters
    ----------
    image : (ny, nx) float32
    levels : Levels
        Of the image.
    mean : float
        Wanted.
    scale : float
        From `scale_to`, or 1 to shift the values only.
    """
    centre, factor, target = (
        asarray_like(np.float32(value), image) for value in (levels.mean, scale, mean)
    )
    return (image - centre) * factor + target
