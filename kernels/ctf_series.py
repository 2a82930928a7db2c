"""What the views of one tilt series tell about each other's CTF: priors, failures, handedness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.ctf import Ctf
from kernels.ctf_fit import CtfFit, CtfPrior

Floats = NDArray[np.float64]

# Gains in log likelihood that noise alone hardly reaches, in a free search and in one that other
# views narrow: 120 fits of white noise gave at most 10.9 and 6.4, 90 % below 6.6 and 3.2.
FREE_EVIDENCE = 14.0
NARROW_EVIDENCE = 6.0
POOREST_RESOLUTION = 25.0  # Å
NEIGHBOURHOOD = 20.0  # degrees of tilt over which views resemble each other
LEAST_DEFOCUS_SIGMA = 1000.0  # Å: what focusing between views changes
LEAST_ASTIGMATISM_SIGMA = 100.0  # Å
FLAT = 10.0  # degrees: below it a tilt shows no defocus gradient


@dataclass(frozen=True)
class ViewCtf:
    """The CTF decided for one view.

    Attributes
    ----------
    ctf : Ctf
        Of the fit, or of the other views where the fit failed.
    reliable : bool
    problem : str
        Why the fit was not taken; empty when it was.
    uncertainty : float
        Of the mean defocus, in Å.
    """

    ctf: Ctf
    reliable: bool
    problem: str
    uncertainty: float


@dataclass(frozen=True)
class Handedness:
    """On which side a positive tilt adds underfocus (design §4).

    Attributes
    ----------
    hand : {+1, -1, 0}
        0: the series cannot tell.
    confidence : float
        Probability, 0 to 1, that views of random sign would agree less.
    evidence : float
        Log likelihood for +1 minus that for −1, summed over the views.
    """

    hand: int
    confidence: float
    evidence: float


def expected_ctf(fits: Sequence[CtfFit], tilts: ArrayLike) -> list[CtfPrior]:
    """Return for each view what the other views make of its CTF.

    Defocus and astigmatism are medians over the views with clear rings, those of similar tilt
    counting most. Where fewer than three have clear rings, the defocus is that for which all first
    searches together give most evidence.

    Parameters
    ----------
    fits : sequence of CtfFit
        Of the views, each fitted alone over the same search range; no excluded or dark views.
    tilts : (n_views,)
        In degrees.

    Returns
    -------
    list of CtfPrior
        For a second `fit_ctf` of each view.

    Raises
    ------
    ValueError
        If there are no fits, or not one tilt for each.
    """
    angles = np.asarray(tilts, dtype=np.float64)
    if not fits or angles.shape != (len(fits),):
        raise ValueError(f"{angles.shape} tilts for {len(fits)} fits, expected one for each")
    evidence = np.asarray([fit.evidence for fit in fits])
    found = np.asarray([(fit.ctf.defocus, *fit.astigmatism) for fit in fits])
    errors = np.asarray([fit.astigmatism_uncertainty for fit in fits])
    priors = []
    for i, angle in enumerate(angles):
        weight = np.where(evidence >= FREE_EVIDENCE, evidence, 0.0)
        weight *= np.exp(-np.abs(angles - angle) / NEIGHBOURHOOD)
        weight[i] = 0.0
        if np.count_nonzero(weight) < 3:
            priors.append(CtfPrior(_joint_defocus(fits), 3 * LEAST_DEFOCUS_SIGMA))
            continue
        centre = np.asarray([_median(column, weight) for column in found.T])
        away = np.abs(found - centre)
        spread = 1.4826 * np.asarray([_median(column, weight) for column in away.T])
        # What the fits' own errors do not explain, and the error of the median.
        error = _median(errors, weight)
        count = weight.sum() ** 2 / (weight**2).sum()
        own = max(float(spread[1:] @ spread[1:]) / 2 - error**2, 0.0) + 1.6 * error**2 / count
        priors.append(
            CtfPrior(
                float(centre[0]),
                max(2 * float(spread[0]), LEAST_DEFOCUS_SIGMA),
                (float(centre[1]), float(centre[2])),
                max(math.sqrt(own), LEAST_ASTIGMATISM_SIGMA),
            )
        )
    return priors


def settle(fits: Sequence[CtfFit], priors: Sequence[CtfPrior]) -> list[ViewCtf]:
    """Take each view's fit, or what the other views expect where the fit failed.

    Parameters
    ----------
    fits : sequence of CtfFit
        Of the views, each fitted with its prior.
    priors : sequence of CtfPrior
        From `expected_ctf`.
    """
    settled = []
    for fit, prior in zip(fits, priors, strict=True):
        away = abs(fit.ctf.defocus - prior.defocus)
        problem = ""
        if fit.evidence < NARROW_EVIDENCE:
            problem = f"no clear rings: evidence {fit.evidence:.1f}, below {NARROW_EVIDENCE:.0f}"
        elif fit.fit_resolution > POOREST_RESOLUTION:
            problem = f"fitted only to {fit.fit_resolution:.0f} Å"
        elif away > 3 * prior.defocus_sigma and fit.evidence < FREE_EVIDENCE:
            problem = f"defocus {fit.ctf.defocus:.0f} Å, {away:.0f} Å from that of other views"
        ctf = _prior_ctf(fit.ctf, prior) if problem else fit.ctf
        uncertainty = prior.defocus_sigma if problem else fit.uncertainty
        settled.append(ViewCtf(ctf, not problem, problem, uncertainty))
    return settled


def handedness(positive: ArrayLike, negative: ArrayLike, tilts: ArrayLike) -> Handedness:
    """Decide the hand from fits of every view with offsets of either sign.

    Parameters
    ----------
    positive, negative : (n_views,)
        Evidence of each view's fit with the tiles' offsets for hand +1 and for hand −1.
    tilts : (n_views,)
        In degrees; views below 10° are left out.

    Returns
    -------
    Handedness
        The hand is 0 below 99 % confidence.
    """
    steep = np.abs(np.asarray(tilts, dtype=np.float64)) >= FLAT
    gain = (np.asarray(positive, dtype=np.float64) - np.asarray(negative))[steep]
    total, spread = float(gain.sum()), float(np.sqrt((gain**2).sum()))
    # Were the sign of each view's gain a coin's, total / spread would have variance 1.
    confidence = math.erf(abs(total) / spread / math.sqrt(2)) if spread > 0 else 0.0
    hand = int(math.copysign(1, total)) if confidence >= 0.99 else 0
    return Handedness(hand, confidence, total)


def _joint_defocus(fits: Sequence[CtfFit]) -> float:
    grid = fits[0].search_defocus
    total = np.zeros_like(grid)
    for fit in fits:
        near = np.abs(fit.search_defocus[None, :] - grid[:, None]) <= LEAST_DEFOCUS_SIGMA
        total += np.where(near, fit.search_evidence[None, :], 0.0).max(axis=1)
    best = np.flatnonzero(total >= total.max() - 1e-9)
    return float(grid[best].mean())


def _median(values: Floats, weight: Floats) -> float:
    order = np.argsort(values)
    running = np.cumsum(weight[order])
    return float(values[order[np.searchsorted(running, 0.5 * running[-1])]])


def _prior_ctf(ctf: Ctf, prior: CtfPrior) -> Ctf:
    p, q = prior.astigmatism
    half = 0.5 * math.hypot(p, q)
    return replace(
        ctf,
        defocus_u=prior.defocus + half,
        defocus_v=prior.defocus - half,
        astigmatism_angle=math.degrees(0.5 * math.atan2(q, p)),
    )
