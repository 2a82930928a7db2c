"""Grey levels of images: robust mean and deviation, and how views are brought to common ones."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from kernels.arrays import Array, asarray_like, namespace

# Deviations: beyond are hits; two electrons in a pixel of a dim view are within.
CLIP = 8.0
ROUNDS = 5
SAMPLE = 1 << 16  # pixels that tell where the bulk of the values lies
BULK = (0.1, 0.9, 2.563)  # two quantiles, and their distance in deviations of Gaussian noise


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
    low, middle, high = _quantiles(image)
    # Differences from a value near the mean: squares of the values themselves would cancel.
    values = image - asarray_like(np.float32(middle), image)
    square, zero = values * values, asarray_like(np.float32(0), image)
    pixels = image.shape[0] * image.shape[1]
    mean, kept, deviation = 0.0, 0, (high - low) / BULK[2]
    if deviation == 0:  # most pixels of a dim view have no electron
        deviation = sqrt(float(xp.sum(square, dtype=xp.float64)) / pixels)
    for _ in range(ROUNDS):
        centre, reach = (asarray_like(np.float32(v), image) for v in (mean, CLIP * deviation))
        inside = xp.abs(values - centre) <= reach
        count = int(xp.sum(xp.astype(inside, xp.int64)))
        if count == kept:
            break
        kept = count
        mean = float(xp.sum(xp.where(inside, values, zero), dtype=xp.float64)) / count
        squares = float(xp.sum(xp.where(inside, square, zero), dtype=xp.float64)) / count
        deviation = sqrt(max(0.0, squares - mean**2))
    return Levels(middle + mean, deviation)


def _quantiles(image: Array) -> tuple[float, float, float]:
    """Return a low quantile, the median and a high quantile of a sample of the pixels."""
    step = max(1, int(sqrt(image.shape[0] * image.shape[1] / SAMPLE)))
    values = namespace(image).sort(namespace(image).reshape(image[::step, ::step], (-1,)))
    last = values.shape[0] - 1
    low, middle, high = (float(values[round(q * last)]) for q in (BULK[0], 0.5, BULK[1]))
    return low, middle, high


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
