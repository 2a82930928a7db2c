"""The beam's share in a mean frame: what varies slowly across it. Host work, as in `gain`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ORDER = 3  # of the polynomial that passes for illumination
OUTLIER = 5.0  # pixels further out, in robust standard deviations, are drawn in to there

Image = NDArray[np.float32]


def illumination(values: Image, good: NDArray[np.bool_]) -> Image:
    """Return the illumination, kept positive."""
    level = np.float32(np.mean(values[good], dtype=np.float64))
    return np.maximum(smooth_surface(values, good), np.float32(0.05) * level)


def smooth_surface(values: Image, good: NDArray[np.bool_]) -> Image:
    """Fit a polynomial surface to the means of blocks, in which single pixels hardly count."""
    inside = drawn_in(values, good)
    edges = [np.unique(np.linspace(0, n, min(n, 24) + 1).astype(int)) for n in values.shape]

    def blocks(image: NDArray[np.generic]) -> NDArray[np.float64]:
        rows = np.add.reduceat(image, edges[0][:-1], axis=0, dtype=np.float64)
        return np.add.reduceat(rows, edges[1][:-1], axis=1)

    number = blocks(good)
    total = blocks(np.where(good, inside, np.float32(0)))
    y, x = ((e[:-1] + e[1:]) / n - 1 for e, n in zip(edges, values.shape, strict=True))
    powers = [(i, j) for i in range(ORDER + 1) for j in range(ORDER + 1 - i)]
    design = np.stack([np.outer(y**i, x**j).ravel() for i, j in powers], axis=1)
    weight = np.sqrt(number.ravel())
    wanted = total.ravel() / np.maximum(weight, 1)
    fitted = np.linalg.lstsq(design * weight[:, None], wanted, rcond=None)[0]
    coefficients = np.zeros((ORDER + 1, ORDER + 1))
    for (i, j), value in zip(powers, fitted, strict=True):
        coefficients[i, j] = value
    y, x = ((2 * np.arange(n) + 1) / n - 1 for n in values.shape)
    columns = coefficients @ np.vander(x, ORDER + 1, increasing=True).T
    rows = np.vander(y, ORDER + 1, increasing=True)
    return rows.astype(np.float32) @ columns.astype(np.float32)


def drawn_in(values: Image, good: NDArray[np.bool_]) -> Image:
    """Return the values with outliers drawn in, and the middle where they are not good."""
    sample = values[good]
    sample = sample[:: 1 + sample.size // 1_000_000]
    low, middle, high = np.quantile(sample, [0.01, 0.5, 0.99])
    spread = (high - low) / 4.65 or float(np.std(sample))
    drawn = np.clip(values, middle - OUTLIER * spread, middle + OUTLIER * spread)
    return np.where(good, drawn, middle).astype(np.float32)
