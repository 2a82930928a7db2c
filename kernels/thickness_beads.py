"""Thickness and position of the slab from gold beads on its two surfaces."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.thickness import Estimate, Floats

Counts = NDArray[np.int64]

# Two layers that are uniformly filled between have 3.5 standard deviations between their halves;
# beads on surfaces have many more.
LEAST_SEPARATION = 6.0
STEEPEST = 0.36  # slope of the slab: 20°
TRIALS = 2000
COVERED = 0.9  # part of a layer's beads within the faces: of the rest, some are misplaced
TOLERANCE = 25.0  # Å that beads on a surface scatter at least, for their size and the ice's


def from_beads(
    points: ArrayLike, diameter: float = 0.0, z_error: float = 0.0, method: str = "beads"
) -> Estimate:
    """Fit two parallel planes to bead centres, one if they lie in one layer.

    Parameters
    ----------
    points : (n, 3)
        X, Y, Z of the beads' centres in the specimen frame [Å]; NaN rows are left out.
    diameter : float
        Of the beads, which the ice is taken to cover [Å]. 0: the slab ends at their centres.
    z_error : float
        Standard error of the beads' heights, no part of the scatter within a layer [Å].
    method : str

    Returns
    -------
    Estimate
        The ice covers all beads: its faces are where the outermost of each layer end. One layer
        only tells pitch and rise; fewer than five beads tell nothing.
    """
    beads = np.asarray(points, dtype=np.float64)
    beads = beads[np.isfinite(beads).all(axis=1)]
    if len(beads) < 5:
        return Estimate(method)
    two = _fit(beads, *_layers(beads, layers=2))
    one = _fit(beads, *_layers(beads, layers=1))
    slab, scatter, counts = two
    separated = slab[3] - slab[2] > LEAST_SEPARATION * scatter
    if not separated or counts.min() < 2:
        return _estimate(method, beads, one, diameter, z_error)
    return _estimate(method, beads, two, diameter, z_error)


def _layers(beads: Floats, layers: int) -> tuple[Floats, Floats]:
    """Return slopes a, b and heights of the layers, from the best of many planes by three beads.

    Best is the least sum of distances from the nearest layer, capped: some beads lie elsewhere.
    """
    rng = np.random.default_rng(0)
    best, found = np.inf, (np.zeros(2), np.zeros(layers))
    middle = beads.mean(axis=0)
    for _ in range(TRIALS):
        three = beads[rng.choice(len(beads), 3, replace=False)] - middle
        sides = three[1:, :2] - three[0, :2]
        if abs(np.linalg.det(sides)) < 1e-3 * np.abs(sides).max() ** 2:
            continue
        slopes = np.linalg.solve(sides, three[1:, 2] - three[0, 2])
        if np.abs(slopes).max() > STEEPEST:
            continue
        heights = np.sort(beads[:, 2] - beads[:, :2] @ slopes)
        levels = _levels(heights, layers)
        distance = np.abs(heights[:, None] - levels).min(axis=1)
        cost = np.minimum(distance, 4 * TOLERANCE).sum()
        if cost < best:
            best, found = cost, (slopes, levels)
    return found


def _levels(heights: Floats, layers: int) -> Floats:
    """Return the one or two levels, medians of what is nearest to each, of sorted heights."""
    if layers == 1:
        return np.array([np.median(heights)])
    n = len(heights)
    sums, squares = np.cumsum(heights), np.cumsum(heights**2)
    k = np.arange(1, n)
    within = (squares[:-1] - sums[:-1] ** 2 / k) + (
        squares[-1] - squares[:-1] - (sums[-1] - sums[:-1]) ** 2 / (n - k)
    )
    cut = int(np.argmin(within)) + 1
    return np.array([np.median(heights[:cut]), np.median(heights[cut:])])


def _fit(beads: Floats, slopes: Floats, levels: Floats) -> tuple[Floats, float, Counts]:
    """Refine by least squares, outliers weighed down; return (a, b, levels), scatter, counts."""
    fit = np.concatenate([slopes, levels])
    scatter, counts = TOLERANCE, np.zeros(len(levels), dtype=np.int64)
    for _ in range(20):
        heights = beads[:, 2] - beads[:, :2] @ fit[:2]
        label = np.abs(heights[:, None] - fit[2:]).argmin(axis=1)
        matrix = _design(beads, label, len(levels))
        residuals = beads[:, 2] - matrix @ fit
        scatter = max(1.4826 * float(np.median(np.abs(residuals))), TOLERANCE / 10)
        weights = np.maximum(0, 1 - (residuals / (4.7 * scatter)) ** 2)  # Tukey's, rooted
        fit = np.linalg.lstsq(matrix * weights[:, None], beads[:, 2] * weights, rcond=None)[0]
        counts = np.bincount(label[weights > 0], minlength=len(levels))
        fit[2:] = np.sort(fit[2:])
    return fit, scatter, counts


def _design(beads: Floats, label: Counts, layers: int) -> Floats:
    return np.column_stack([beads[:, :2], label[:, None] == np.arange(layers)]).astype(np.float64)


def _estimate(
    method: str,
    beads: Floats,
    fitted: tuple[Floats, float, Counts],
    diameter: float,
    z_error: float,
) -> Estimate:
    fit, scatter, _ = fitted
    layers = len(fit) - 2
    heights = beads[:, 2] - beads[:, :2] @ fit[:2]
    label = np.abs(heights[:, None] - fit[2:]).argmin(axis=1)
    near = np.abs(heights - fit[2:][label]) < 4.7 * scatter
    matrix = _design(beads[near], label[near], layers)
    freedom = max(len(matrix) - matrix.shape[1], 1)
    covariance = np.linalg.pinv(matrix.T @ matrix) * scatter**2 * len(matrix) / freedom
    degrees = np.degrees(1) * np.sqrt(np.diag(covariance)[:2])
    lean = {
        "pitch": float(-np.degrees(np.arctan(fit[0]))),
        "pitch_error": float(degrees[0]),
        "rise": float(np.degrees(np.arctan(fit[1]))),
        "rise_error": float(degrees[1]),
    }
    if layers == 1:
        return Estimate(method, **lean)
    along = 1 / sqrt(1 + fit[0] ** 2 + fit[1] ** 2)
    difference, mean = np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    levels = covariance[2:, 2:]
    outward = (heights - fit[2:][label])[near] * (2 * label[near] - 1)
    own = sqrt(max(0.0, 1 - z_error**2 / max(float(outward.var()), 1e-9)))
    beyond = float(np.quantile(outward, COVERED)) * own
    # How deep beads lie in the ice is not known to better than this.
    depth = sqrt(beyond**2 + (diameter / 4) ** 2)
    return Estimate(
        method,
        thickness=(float(difference @ fit[2:]) + 2 * beyond) * along + diameter,
        thickness_error=sqrt(difference @ levels @ difference + depth**2),
        centre=float(mean @ fit[2:]),
        centre_error=sqrt(mean @ levels @ mean),
        **lean,
    )
