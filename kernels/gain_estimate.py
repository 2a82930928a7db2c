"""A gain reference and the bad pixels of a detector, from the counts of many movies.

Host work: once per data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from kernels.illumination import OUTLIER, illumination

DEAD, HOT = 0.5, 2.0  # sensitivities relative to the illumination, beyond which a pixel is bad

Image = NDArray[np.float32]


@dataclass(frozen=True)
class GainEstimate:
    """A gain made from movies.

    Attributes
    ----------
    gain : (ny, nx) float32
        Mean 1; multiplied with counts.
    defects : (ny, nx) bool
        Pixels that no gain can mend.
    noise : float
        Relative standard error of a pixel; infinite when there is one sum only.
    structure : float
        Relative standard deviation of the pattern itself, noise deducted. A gain with more noise
        than structure does harm.
    """

    gain: Image
    defects: NDArray[np.bool_]
    noise: float
    structure: float


def estimate_gain(sums: Sequence[Image]) -> GainEstimate:
    """Make a gain from the counts of many movies.

    In each pixel the sums that lie far from the median of all are left out: X-rays, and
    specimen that stood still in one sum. An uneven beam enters the gain, which then evens it out.

    Parameters
    ----------
    sums : sequence of (ny, nx)
        Counts, less any dark reference, summed over the frames of n groups of movies, best of
        different places on the specimen. From n = 3 on outliers can be told.

    Returns
    -------
    GainEstimate

    Raises
    ------
    ValueError
        If the sums hold no electrons or values that are not finite.
    """
    counts = np.array([np.mean(each, dtype=np.float64) for each in sums])
    if not (np.isfinite(counts).all() and counts.sum() > 0):
        raise ValueError(f"the mean counts are {counts.tolist()}, expected positive numbers")
    used = [index for index, count in enumerate(counts) if count > 0]
    value = np.empty(sums[0].shape, np.float32)
    error = np.empty_like(value)
    for start in range(0, len(value), 128):  # rows, so that little memory is taken besides
        part = slice(start, start + 128)
        here = np.stack([np.asarray(sums[i][part], dtype=np.float32) for i in used])
        value[part], error[part] = _combine(here, counts[used])
    beam = illumination(value, np.isfinite(value))
    even = value / beam
    defects = _defects(even)
    good = ~defects
    noise = sqrt(float(np.mean(error[good], dtype=np.float64))) if len(used) > 1 else inf
    deviation = even[good] - 1
    structure = sqrt(max(float(np.mean(np.square(deviation), dtype=np.float64)) - noise**2, 0))
    gain = np.float32(1) / np.where(good, value, beam)
    return GainEstimate(gain / np.mean(gain), defects, noise, structure)


def _defects(even: Image) -> NDArray[np.bool_]:
    """Return where no counts are or far from 1 of their share, also in view of the noise."""
    low, middle, high = np.quantile(even[:: 1 + len(even) // 1000], [0.01, 0.5, 0.99])
    least = OUTLIER * (high - low) / 4.65
    odd = (even < DEAD) | (even > HOT)
    return (even <= 0) | (odd & (np.abs(even - middle) > least))


def rectangles(mask: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Return rectangles x, y, width, height that cover a mask (ny, nx) exactly.

    Runs along x that repeat in the following rows become one rectangle.
    """
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded, axis=1)
    growing: dict[tuple[int, int], tuple[int, int]] = {}
    found = []
    starts, stops = np.argwhere(steps == 1), np.argwhere(steps == -1)
    for (y, x), (_, end) in zip(starts.tolist(), stops.tolist(), strict=True):
        top, height = growing.get((x, end - x), (y, 0))
        if top + height != y:
            found.append((x, top, end - x, height))
            top, height = y, 0
        growing[x, end - x] = (top, height + 1)
    found += [(x, top, width, height) for (x, width), (top, height) in growing.items()]
    return sorted(found, key=lambda one: (one[1], one[0]))


def _combine(values: Image, counts: NDArray[np.float64]) -> tuple[Image, Image]:
    """Return the mean of values relative to `counts`, outliers left out, and its variance."""
    scale = counts[:, None, None].astype(np.float32)
    values = values / scale
    centre = np.median(values, axis=0)
    away = np.abs(values - centre)
    # Of Poisson counts the spread grows as the root of the expected value.
    away /= np.sqrt(np.maximum(centre, 0.01))
    usual = 1.4826 * np.median(away, axis=(1, 2), keepdims=True)
    weight = np.where(away <= OUTLIER * np.maximum(usual, 1e-6), scale, np.float32(0))
    weight /= np.maximum(np.sum(weight, axis=0), np.float32(1e-30))
    mean = np.sum(weight * values, axis=0)
    kept = np.sum(weight > 0, axis=0)
    variance = np.sum(np.square(weight * (values - mean)), axis=0) * kept / np.maximum(kept - 1, 1)
    return mean.astype(np.float32), variance.astype(np.float32)
