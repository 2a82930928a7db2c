"""Tilt offset: the angle by which the specimen's mid-plane is tilted when the stage says 0.

An offset α adds to all tilt angles. It turns the specimen as a whole, so projections alone cannot
tell it; what can is that the specimen is a slab. Sources, each with its own standard error:

* the beam is weakened by the slab's length along it, ln I = a − (T/Λ) / cos(θ + α);
* matter fills a slab: its depth, sheared by the right slope, has the narrowest profile;
* the defocus rises over the slab's plane (the pre-tilt that the CTF step measures).

`combine` takes those that agree; where they do not, or where none is good enough, the offset is
undetermined. It is never looked for beyond ± `LARGEST`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LARGEST = 15.0  # degrees
# A combined standard error above this is no determination [degrees].
WORST = 0.7
# Estimates further apart than so many of their standard errors contradict each other; and where one
# is no determination by itself: few objects decided it, and its error is no better known than that
# (Student's t of 7 degrees of freedom has beyond 4.5 what the normal law has beyond 3).
APART, APART_OF_WORSE = 3.0, 4.5
# Never believed to be better [degrees]: uneven illumination, specimens that are no slabs.
FLOORS = {"intensity": 0.3, "matter": 0.3, "defocus": 0.3}
# A loss by the slab that stands out by less, in standard errors, tells nothing.
LEAST_LOSS = 5.0
STEP = 0.1  # of the search [degrees]


@dataclass(frozen=True)
class Estimate:
    """One estimate of the offset.

    Attributes
    ----------
    source : str
        What it rests on: intensity, matter or defocus.
    angle, error : float
        The offset and its standard error [degrees].
    """

    source: str
    angle: float
    error: float


@dataclass(frozen=True)
class Offset:
    """The offset of a series.

    Attributes
    ----------
    angle, error : float or None
        None: undetermined [degrees].
    estimates : tuple of Estimate
        All that were at hand.
    reason : str
        What decided.
    """

    angle: float | None
    error: float | None
    estimates: tuple[Estimate, ...]
    reason: str


def combine(estimates: Sequence[Estimate]) -> Offset:
    """Join estimates that agree, or say why the offset is undetermined."""
    known = tuple(
        Estimate(e.source, e.angle, float(np.hypot(e.error, FLOORS.get(e.source, 0.0))))
        for e in estimates
    )
    if not known:
        return Offset(None, None, (), "nothing tells it")
    told = ", ".join(f"{e.source} {e.angle:+.1f} ± {e.error:.1f}°" for e in known)
    good = [e for e in known if e.error <= WORST]
    if not good:
        return Offset(None, None, known, f"not well enough: {told}")
    for e in known:
        for other in known:
            limit = APART if max(e.error, other.error) <= WORST else APART_OF_WORSE
            if abs(e.angle - other.angle) > limit * np.hypot(e.error, other.error):
                return Offset(None, None, known, f"contradictory: {told}")
    weights = np.array([e.error**-2 for e in known])
    angle = float(weights @ [e.angle for e in known] / weights.sum())
    if abs(angle) > LARGEST:
        return Offset(None, None, known, f"beyond ±{LARGEST:g}°: {told}")
    return Offset(angle, float(weights.sum() ** -0.5), known, told)


def from_intensity(
    means: Sequence[float], tilts: Sequence[float], times: Sequence[float]
) -> Estimate | None:
    """Estimate the offset from how the slab weakens the beam.

    Parameters
    ----------
    means : (n,)
        Mean intensity of each view, of one exposure; views in doubt left out.
    tilts : (n,)
        Stage angles [degrees].
    times : (n,)
        Of the exposures, 0 to 1: the beam may drift in proportion.

    Returns
    -------
    Estimate or None
        None where the intensities do not show a slab: too few views, no loss, or the best
        offset lies at the end of the range.

    Notes
    -----
    Tukey's weights leave out views behind a grid bar. The error is that of the linearised fit,
    from the residuals' spread, at least what the drift's curvature may do.
    """
    values, angles = np.asarray(means, dtype=np.float64), np.asarray(tilts, dtype=np.float64)
    time = np.asarray(times, dtype=np.float64)
    if len(values) < 8 or values.min() <= 0:
        return None
    logs = np.log(values)
    weights = np.ones(len(logs))
    offsets = np.arange(-LARGEST, LARGEST + STEP / 2, STEP)

    def design(offset: float) -> Floats:
        length = 1 / np.cos(np.radians(np.clip(angles + offset, -85, 85)))
        return np.column_stack([np.ones(len(logs)), -length, time, time**2])

    best, fit = 0.0, np.zeros(4)
    for _ in range(10):
        costs = []
        for offset in offsets:
            a, root = design(offset), np.sqrt(weights)
            fit = np.linalg.lstsq(a * root[:, None], logs * root, rcond=None)[0]
            costs.append(float((weights * (logs - a @ fit) ** 2).sum()))
        best = float(offsets[int(np.argmin(costs))])
        a, root = design(best), np.sqrt(weights)
        fit = np.linalg.lstsq(a * root[:, None], logs * root, rcond=None)[0]
        rest = logs - a @ fit
        spread = max(1.4826 * float(np.median(np.abs(rest))), 1e-6)
        new = (1 - np.minimum(np.abs(rest) / (5 * spread), 1) ** 2) ** 2
        if np.abs(new - weights).max() < 1e-3:
            break
        weights = new
    if abs(best) > LARGEST - 2 * STEP:
        return None
    slope = (design(best + STEP) - design(best - STEP)) @ fit / (2 * STEP)
    columns = np.column_stack([design(best), slope]) * np.sqrt(weights)[:, None]
    freedom = max(1.0, weights.sum() - 5)
    variance = float((weights * rest**2).sum()) / freedom
    covariance = np.linalg.pinv(columns.T @ columns) * variance
    if fit[1] < LEAST_LOSS * np.sqrt(covariance[1, 1]):
        return None
    # The last step to the minimum, between those that were tried.
    step = float((np.linalg.pinv(columns) @ (rest * np.sqrt(weights)))[4])
    best += float(np.clip(step, -STEP, STEP))
    return Estimate("intensity", best, float(np.sqrt(covariance[4, 4])))
