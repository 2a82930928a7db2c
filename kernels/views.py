"""Which views of a tilt series are dark: grid bar, contamination, closed shutter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEAR_UNTILTED = 20.0  # degrees: the views that may tell the brightness at 0°


@dataclass(frozen=True)
class DarkView:
    """A view that is darker than a specimen can make it.

    Attributes
    ----------
    index : int
        Into the sequences given.
    score : float
        mean / expected; 1 for a view as bright as expected.
    expected : float
        Mean that the view should have had.
    """

    index: int
    score: float
    expected: float


def expected_means(
    means: Sequence[float] | NDArray[np.float64], tilts: Sequence[float] | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean that each view should have: that at 0°, times cos(tilt).

    The mean at 0° is the median of mean / cos(tilt) of the untilted views (within 20°, or the
    three least tilted), those below half of the second brightest left out, so that dark views
    there, and one too bright, do not spoil it. A specimen thins the beam as
    exp(−t / (Λ cos(tilt))); cos(tilt) is a rough stand-in (EMPIAR-10164: 329 of 624 at 60°).

    Parameters
    ----------
    means : (n,)
        Mean of each view, in any unit, for the same exposure.
    tilts : (n,)
        Tilt angles [degrees].

    Returns
    -------
    (n,) float64

    Raises
    ------
    ValueError
        If the lengths differ, or a value is not finite.
    """
    means, tilts = np.asarray(means, dtype=np.float64), np.asarray(tilts, dtype=np.float64)
    if means.ndim != 1 or means.shape != tilts.shape:
        raise ValueError(f"{means.shape} means for {tilts.shape} tilts, one each is needed")
    if not (np.isfinite(means).all() and np.isfinite(tilts).all()):
        raise ValueError("means and tilts must be finite numbers")
    if not means.size:
        return means
    cosines = np.cos(np.radians(tilts))
    limit = max(NEAR_UNTILTED, np.sort(np.abs(tilts))[min(3, len(tilts)) - 1])
    near = np.abs(tilts) <= limit
    untilted = np.sort(means[near] / cosines[near])
    brightest = untilted[-2 if len(untilted) >= 5 else -1]  # one far too bright view may be there
    if brightest <= 0:  # all of them dark: any other view says more
        return np.asarray(max(float((means / cosines).max()), 0.0) * cosines)
    return np.asarray(np.median(untilted[untilted >= 0.5 * brightest]) * cosines)


def dark_views(
    means: Sequence[float] | NDArray[np.float64],
    tilts: Sequence[float] | NDArray[np.float64],
    threshold: float = 0.1,
) -> list[DarkView]:
    """Find the views whose mean is below `threshold` of what is expected.

    Parameters
    ----------
    means, tilts : (n,)
        As for `expected_means`.
    threshold : float
        Share of the expected mean, between 0 and 1.

    Returns
    -------
    list of DarkView
        In the order given; all views when none has any signal.

    Raises
    ------
    ValueError
        If `threshold` is outside 0…1, and as `expected_means`.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold}, it must lie between 0 and 1")
    expected = expected_means(means, tilts)
    return [
        DarkView(index=i, score=mean / hoped if hoped > 0 else 0.0, expected=hoped)
        for i, (mean, hoped) in enumerate(zip(map(float, means), expected.tolist(), strict=True))
        if hoped <= 0 or mean < threshold * hoped
    ]
