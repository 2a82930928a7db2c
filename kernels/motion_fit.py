"""Smooth motion of a movie that maximises the posterior of its frames' places.

Motion is a sum of functions of the place in the frame, each with a course in time. A Gaussian
prior makes the courses smooth; its width, one for each spatial order, is learnt by maximising the
evidence (MacKay, Neural Comput. 4:415, 1992), so that functions without support vanish. RELION's
polishing has such priors trained beforehand (Zivanov et al. 2019, doi:10.1107/S205225251801463X).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.motion_likelihood import (
    Floats,
    Weights,
    cross_power,
    evaluate,
    measured_weights,
    turned,
)
from kernels.motion_spectra import Samples

# Of the prior's precision, that on first differences relative to that on second ones.
STIFFNESS = 0.1
WIDTHS = (0.01, 30.0)  # Å, of second differences
BURST = 2.0  # more of second differences in the first frames, where the beam sets things moving
BURST_SHARE = 0.2  # of the movie, in which that fades
LONGEST_STEP = 10.0  # Å
TOLERANCE = 0.02  # Å
ROUNDS = 8
LEARNING_ROUNDS = 12


@dataclass(frozen=True)
class Motion:
    """A maximum of the posterior.

    Attributes
    ----------
    coefficients : (n, functions, 2)
        Places [Å], mean zero over the frames.
    uncertainty : (n,)
        Standard error per axis of the first function's course [Å].
    widths : (orders,)
        Learnt root-mean-square second difference of each order [Å].
    significance : float
        Summed cross-power in standard deviations of noise.
    evidence : float
        Gain in log-likelihood by the functions beyond the first, less what their freedom gains
        on noise (Laplace approximation).
    """

    coefficients: Floats
    uncertainty: Floats
    widths: Floats
    significance: float
    evidence: float


def fit(
    samples: Samples,
    basis: Floats,
    orders: NDArray[np.intp],
    start: Floats,
    widths: Floats,
    weights: Weights | None = None,
    b_factor: float = 0.0,
    removed: Floats | None = None,
) -> Motion:
    """Maximise the posterior of smooth motion by Fisher scoring.

    Parameters
    ----------
    samples : Samples
    basis : (patches, functions)
        Value of each function in each patch; the first one is 1.
    orders : (functions,)
        Functions of the same order share a width; the first one's is 0.
    start : (n, functions, 2)
        Where to begin [Å].
    widths : (orders,)
        First guess [Å].
    weights : Weights, optional
        By default measured again in every round.
    b_factor : float
        Further weight exp(−B k² / 4) on top of what is measured [Å²].
    removed : (n, 2), optional
        Places by which the samples are moved back already [Å].

    Returns
    -------
    Motion
        At rest and of significance 0 where no ring holds a signal.
    """
    n, functions = samples.count, basis.shape[1]
    modes, stiffness = _modes(n)
    coefficients = start - start.mean(axis=0)
    offset = np.zeros((n, 1, 2)) if removed is None else removed[:, None, :]
    widths = widths.astype(np.float64)
    if weights is None:
        places = np.einsum("pk,nka->npa", basis, coefficients) - offset
        first = measured_weights(samples, cross_power(turned(samples, places)), b_factor)
        seen = first.power.max(axis=0) > 0
        if not seen.any():
            return Motion(np.zeros_like(coefficients), np.full(n, np.inf), widths, 0.0, 0.0)
        samples = samples.kept(seen)
    for _ in range(ROUNDS):
        places = np.einsum("pk,nka->npa", basis, coefficients) - offset
        aligned = turned(samples, places)
        cross = cross_power(aligned)
        used = weights or measured_weights(samples, cross, b_factor)
        slope = evaluate(samples, used, aligned)
        gradient = np.einsum("pk,npa,nj->jka", basis, slope.gradient, modes)
        information = np.einsum("pk,pl,pab->kalb", basis, basis, slope.information)
        information = n * information.reshape(2 * functions, 2 * functions)
        old = np.einsum("nka,nj->jka", coefficients, modes).reshape(n - 1, -1)
        pull = old @ information + gradient.reshape(n - 1, -1)
        new, variance, prior, widths = _posterior(information, pull, stiffness, orders, widths)
        step = np.abs(modes @ (new - old)).max()
        new = old + (new - old) * min(1.0, LONGEST_STEP / max(float(step), 1e-9))
        coefficients = (modes @ new).reshape(n, functions, 2)
        if step < TOLERANCE:
            break
    return Motion(
        coefficients=coefficients,
        uncertainty=np.sqrt((modes**2) @ variance[:, :2].mean(axis=1)),
        widths=widths,
        significance=_significance(used, cross, n),
        evidence=_evidence(samples, used, basis, coefficients, offset, prior, information),
    )


def _modes(n: int) -> tuple[Floats, Floats]:
    """Return the courses (n, n − 1) in which the prior is diagonal, and its precisions."""
    first, second = (np.diff(np.eye(n), order, axis=0) for order in (1, 2))
    burst = 1 + BURST * np.exp(-np.arange(n - 1) / (BURST_SHARE * n))
    first, second = first / burst[:, None], second / burst[: n - 2, None]
    precision, modes = np.linalg.eigh(second.T @ second + STIFFNESS * first.T @ first)
    return modes[:, 1:], precision[1:]


def _posterior(
    information: Floats,
    pull: Floats,
    stiffness: Floats,
    orders: NDArray[np.intp],
    widths: Floats,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the coefficients of the modes, their variance, the prior's precision and widths."""
    group = np.repeat(orders, 2)
    learnt = len(stiffness) > 2
    for _ in range(LEARNING_ROUNDS if learnt else 1):
        prior = stiffness[:, None] / widths[group] ** 2
        covariance = np.linalg.inv(information + prior[:, :, None] * np.eye(len(group)))
        mean = np.einsum("jkl,jl->jk", covariance, pull)
        variance = np.einsum("jkk->jk", covariance)
        if learnt:
            member = group == np.arange(len(widths))[:, None]
            energy = member @ (stiffness[:, None] * mean**2).sum(axis=0)
            free = member @ (1 - prior * variance).sum(axis=0)
            widths = np.clip(np.sqrt(energy / np.maximum(free, 1e-9)), *WIDTHS)
    return mean, variance, prior, widths


def _significance(weights: Weights, cross: NDArray[np.float32], n: int) -> float:
    weight = weights.weight.astype(np.float64)
    power = weights.scale @ (weight * cross).sum(axis=1) * np.sqrt(n * (n - 1))
    noise = np.sqrt(weights.scale @ (weight**2).sum(axis=1))
    return float(power / noise) if noise > 0 else 0.0


def _evidence(
    samples: Samples,
    weights: Weights,
    basis: Floats,
    coefficients: Floats,
    offset: Floats,
    prior: Floats,
    information: Floats,
) -> float:
    """Return the gain in log-evidence by all functions but the first."""
    if basis.shape[1] == 1:
        return 0.0
    n = samples.count
    values = []
    for ways in (slice(None), slice(1)):
        places = np.einsum("pk,nka->npa", basis[:, ways], coefficients[:, ways]) - offset
        values.append(evaluate(samples, weights, turned(samples, places)).value)
    modes, _ = _modes(n)
    local = np.einsum("nka,nj->jka", coefficients[:, 1:], modes).reshape(n - 1, -1)
    precision = prior[:, 2:]
    whole = information[2:, 2:] + precision[:, :, None] * np.eye(precision.shape[1])
    freedom = np.linalg.slogdet(whole)[1].sum() - np.log(precision).sum()
    return float(values[0] - values[1] - ((precision * local**2).sum() + freedom) / 2)
