"""What the views of one tilt series tell about each other's CTF.

A series is one specimen in one microscope: defocus drifts slowly from view to view and follows the
stage with the tilt, astigmatism hardly changes, and a phase plate charges slowly. How much, the
series itself tells: the sizes of these changes are those under which its fits are most likely.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr

from kernels.ctf_fit import CtfFit
from kernels.ctf_likelihood import Gaussian

Floats = NDArray[np.float64]

# Gains in log likelihood that noise alone hardly reaches, in a free search and in one that other
# views narrow.
FREE_EVIDENCE = 16.0
NARROW_EVIDENCE = 9.0
POOREST_RESOLUTION = 25.0  # Å
STAGE = 25.0  # degrees of tilt over which what the stage does to the defocus changes
OUTLIER = 4.5  # standard deviations from what the other views expect
LEAST_VIEWS = 4
SYSTEMATIC = 4.0  # Å: what no spread shows, such as where within its thickness a specimen scatters
ASTRAY = 4.0  # standard deviations between a fit and the other views that flag it


@dataclass(frozen=True)
class Changes:
    """Sizes that changes between views may have, from which the series chooses.

    Attributes
    ----------
    walk : sequence of float
        Standard deviation of the drift from one view to the next acquired.
    stage : sequence of float
        Of what is a smooth function of the tilt.
    scatter : sequence of float
        Of what each view has by itself.
    """

    walk: Sequence[float]
    stage: Sequence[float]
    scatter: Sequence[float]


DEFOCUS = Changes((10, 30, 60, 120, 250), (0, 150, 400, 1000), (10, 30, 60, 120, 300, 700, 1500))
ASTIGMATISM = Changes((1, 5, 15), (0,), (5, 20))  # the lens has nothing to do with the tilt
PHASE = Changes((0.01, 0.03, 0.1), (0,), (0.01, 0.05, 0.2))


@dataclass(frozen=True)
class Expected:
    """What the other views expect of each view.

    Attributes
    ----------
    mean, sigma : (quantities, n_views) float64
        NaN and infinite where fewer than four views can tell.
    used : (n_views,) bool
        Views that agree with the others.
    """

    mean: Floats
    sigma: Floats
    used: NDArray[np.bool_]

    def prior(self, quantity: int, view: int) -> Gaussian | None:
        """Return the prior of one quantity of one view, or None."""
        if not math.isfinite(self.sigma[quantity, view]):
            return None
        return Gaussian(float(self.mean[quantity, view]), float(self.sigma[quantity, view]))


def expected_of_others(
    values: ArrayLike,
    errors: ArrayLike,
    trusted: ArrayLike,
    order: ArrayLike,
    tilts: ArrayLike,
    changes: Changes,
) -> Expected:
    """Predict every view from the others.

    A Gaussian process with a random walk over the acquisition, a smooth function of the tilt and
    scatter is conditioned on all views but one; the sizes of the three maximise the marginal
    likelihood. Views that the others contradict are left out.

    Parameters
    ----------
    values, errors : (quantities, n_views)
        Fits and their standard errors; the quantities are independent but change alike.
    trusted : (n_views,) bool
        Which fits may be used at all.
    order : (n_views,)
        Acquisition order.
    tilts : (n_views,)
        In degrees.
    changes : Changes
        To choose from.

    Raises
    ------
    ValueError
        If the arrays do not belong to the same views.

    References
    ----------
    .. [1] C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning (2006),
       equations 5.8 and 5.12.
    """
    value, error = np.atleast_2d(values).astype(float), np.atleast_2d(errors).astype(float)
    place, angle = np.asarray(order, dtype=float), np.asarray(tilts, dtype=float)
    used = np.asarray(trusted, dtype=bool).copy()
    n = value.shape[1]
    if error.shape != value.shape or not place.shape == angle.shape == used.shape == (n,):
        raise ValueError(f"{value.shape} values, {error.shape} errors, {place.shape} views")
    used &= np.isfinite(error).all(axis=0) & np.isfinite(value).all(axis=0)
    kernels = _kernels(place, angle, changes)
    while used.sum() >= LEAST_VIEWS:
        covariance = _likeliest(value[:, used], error[:, used], kernels[:, used][:, :, used])
        mean, sigma = _left_out(value, error, used, kernels[covariance])
        away = np.abs(value - mean) / np.sqrt(sigma**2 + error**2)
        worst = np.where(used, away.max(axis=0), 0.0)
        # All that are about as bad go at once; those that they spoilt may agree without them.
        if worst.max() <= OUTLIER:
            return Expected(mean, sigma, used)
        used &= worst < max(OUTLIER, 0.7 * worst.max())
    nothing = np.full(value.shape, np.nan)
    return Expected(nothing, np.full(value.shape, np.inf), used)


def _kernels(order: Floats, tilts: Floats, changes: Changes) -> Floats:
    """Return the covariance between views (choices, n, n) for every choice of sizes."""
    steps = np.abs(order[:, None] - order)
    alike = np.exp(-0.5 * ((tilts[:, None] - tilts) / STAGE) ** 2)
    own = np.eye(len(order))
    return np.stack(
        [
            # A random walk from anywhere: −½ of its squared steps, beside any constant.
            -0.5 * walk**2 * steps + stage**2 * alike + scatter**2 * own
            for walk, stage, scatter in product(changes.walk, changes.stage, changes.scatter)
        ]
    )


def _likeliest(values: Floats, errors: Floats, kernels: Floats) -> int:
    """Return which covariance makes the values most likely, whatever their common constant."""
    n = values.shape[1]
    # Differences from the mean, in an orthonormal basis: the constant drops out.
    basis = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, : n - 1]]))[0][:, 1:]
    total = np.zeros(len(kernels))
    for value, error in zip(values, errors, strict=True):
        covariance = basis.T @ (kernels + np.diag(error**2)) @ basis
        rest = basis.T @ value
        _, size = np.linalg.slogdet(covariance)
        solved = np.linalg.solve(
            covariance, np.broadcast_to(rest, (len(kernels), n - 1))[..., None]
        )
        total -= 0.5 * (size + solved[..., 0] @ rest)
    return int(total.argmax())


def _left_out(
    values: Floats, errors: Floats, used: NDArray[np.bool_], kernel: Floats
) -> tuple[Floats, Floats]:
    """Return mean and deviation of each view's truth given the others that are used."""
    mean, sigma = np.empty_like(values), np.empty_like(values)
    n = values.shape[1]
    for row, (value, error) in enumerate(zip(values, errors, strict=True)):
        for i in range(n):
            others = used.copy()
            others[i] = False
            m = int(others.sum())
            inner = kernel[np.ix_(others, others)] + np.diag(error[others] ** 2)
            # Kriging with an unknown constant: one more row that keeps the weights' sum at 1.
            system = np.block([[inner, np.ones((m, 1))], [np.ones((1, m)), np.zeros((1, 1))]])
            right = np.append(kernel[i, others], 1.0)
            weights = np.linalg.solve(system, right)
            mean[row, i] = weights[:m] @ value[others]
            variance = kernel[i, i] - weights @ right
            sigma[row, i] = math.sqrt(max(float(variance), 1e-12))
    return mean, sigma


@dataclass(frozen=True)
class Handedness:
    """On which side a positive tilt adds underfocus (design §4).

    Attributes
    ----------
    hand : {+1, -1, 0}
        0: the series cannot tell.
    confidence : float
        Probability of the likelier sign, 0.5 to 1.
    evidence : float
        Log likelihood for +1 minus that for −1, summed over the views.
    """

    hand: Literal[1, -1, 0]
    confidence: float
    evidence: float


FLAT = 2.0  # degrees: below it a tilt shows no defocus gradient
SURE = 0.99
LEAST_STEEP = 3  # views that can agree on a hand
CLEAR_SLOPE = 4.0  # standard errors


def handedness(positive: ArrayLike, negative: ArrayLike, tilts: ArrayLike) -> Handedness:
    """Decide the hand from fits of every view with the defocus gradient of either sign.

    Parameters
    ----------
    positive, negative : (n_views,)
        Gain in log likelihood of each view's fit with the gradient of hand +1 and of hand −1.
    tilts : (n_views,)
        In degrees; views below 2° are left out.

    Returns
    -------
    Handedness
        The hand is 0 below 99 % confidence.
    """
    angles = np.asarray(tilts, dtype=np.float64)
    steep = np.abs(angles) >= FLAT
    gain = (np.asarray(positive, dtype=np.float64) - np.asarray(negative))[steep]
    total = float(gain.sum())
    # The likelihood's own word, and that of the views' agreement: gains that grow with the tilt,
    # against their scatter around that. The more doubtful of the two counts.
    likely = 1 / (1 + math.exp(-min(abs(total), 50.0)))
    confidence = min(likely, _agreement(gain, np.tan(np.radians(np.abs(angles[steep])))))
    return Handedness(_sign(total) if confidence >= SURE else 0, confidence, total)


def _agreement(gain: Floats, growth: Floats) -> float:
    """Return the probability, 0.5 to 1, that gains (n,) grow as `growth` by no chance."""
    if len(gain) < LEAST_STEEP or not gain.any():
        return 0.5
    slope = (growth @ gain) / (growth @ growth)
    spread = float(((gain - slope * growth) ** 2).sum()) / (len(gain) - 1)
    if spread == 0:
        return 1.0
    away = abs(slope) * math.sqrt(growth @ growth / spread)
    return float(stdtr(len(gain) - 1, away))


def handedness_of_slope(slope: float, error: float) -> Handedness:
    """Decide the hand from the slope of the gradients over those of hand +1.

    Of views so little tilted that the gains with either hand are the same.

    Parameters
    ----------
    slope, error : float
        As of `kernels.ctf_plane.fit_slope`.
    """
    away = slope / error if error > 0 else 0.0
    confidence = 0.5 * (1 + math.erf(abs(away) / math.sqrt(2)))
    # The likelihood of a slope of +1 over that of −1.
    evidence = 2 * slope / error**2 if error > 0 else 0.0
    return Handedness(_sign(slope) if abs(away) > CLEAR_SLOPE else 0, confidence, evidence)


def _sign(value: float) -> Literal[1, -1]:
    return 1 if value > 0 else -1


def unrestrained(fit: CtfFit, priors: Mapping[str, Gaussian]) -> Floats:
    """Return the values that a view's rings alone would have, without the priors of its fit."""
    pull = [
        (value - priors[name].mean) / priors[name].sigma ** 2 if name in priors else 0.0
        for name, value in zip(fit.names, fit.values.tolist(), strict=True)
    ]
    return np.asarray(fit.values + fit.covariance @ np.asarray(pull))


def deviations(fit: CtfFit, priors: Mapping[str, Gaussian]) -> dict[str, float]:
    """Return the standard deviations of a view's values, its rings and priors together."""
    held = [priors[name].sigma ** -2 if name in priors else 0.0 for name in fit.names]
    covariance = np.linalg.pinv(np.linalg.pinv(fit.covariance) + np.diag(held))
    spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return dict(zip(fit.names, spread.tolist(), strict=True))


def why_failed(evidence: float, fit_resolution: float, away: float, narrow: bool) -> str:
    """Tell why a view's fit cannot be trusted; an empty string when it can.

    Parameters
    ----------
    evidence : float
        Its gain in log likelihood.
    fit_resolution : float
        [Å]
    away : float
        Standard deviations between its own defocus and that which the other views expect.
    narrow : bool
        Whether other views narrowed its search.
    """
    least = NARROW_EVIDENCE if narrow else FREE_EVIDENCE
    if evidence < least:
        return f"no clear rings: evidence {evidence:.1f}, below {least:.0f}"
    if fit_resolution > POOREST_RESOLUTION:
        return f"fitted only to {fit_resolution:.0f} Å"
    if away > ASTRAY:
        return f"its defocus is {away:.1f} standard deviations from that of other views"
    return ""
