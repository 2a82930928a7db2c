"""Brute-force search of defocus, phase shift and astigmatism on the rings of one view."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.ctf import coefficients
from kernels.ctf_rings import Optics, Rings, contrast

Floats = NDArray[np.float64]

DAMPING = (0.0, 50.0, 150.0, 400.0, 1000.0)  # Å²: B of the envelopes exp(−B k²) that are tried
LEAST_DEFOCUS = 1000.0  # Å: below it the frequency scales of tiles lose their meaning
PEAKS = 3
APART = 600.0  # Å between peaks
WORTH = 0.65  # of the highest peak that another must reach to be tried
BLOCK = 16  # candidates that are treated at once
THINNED = 2  # rings, of which one is enough to find where to begin


@dataclass(frozen=True)
class Search:
    """The rotational average against rings of every defocus and phase shift.

    Attributes
    ----------
    defocus : (n,) float64
        [Å]
    phases : (m,) float64
        Additional phase shift [radians].
    evidence : (n, m) float64
        Gain in log likelihood over no rings, the best envelope taken.
    """

    defocus: Floats
    phases: Floats
    evidence: Floats


def check_ranges(resolutions: tuple[float, float], defocus: tuple[float, float]) -> None:
    """Raise ValueError unless resolutions fall and the defocus rises from at least 1000 Å.

    Parameters
    ----------
    resolutions, defocus : (float, float)
        Between which rings are fitted and the defocus is searched [Å].
    """
    if not resolutions[0] > resolutions[1] > 0:
        raise ValueError(
            f"resolutions are {resolutions[0]} to {resolutions[1]} Å, "
            "expected the larger number first"
        )
    if not LEAST_DEFOCUS <= defocus[0] < defocus[1]:
        raise ValueError(
            f"defocus range is {defocus[0]} to {defocus[1]} Å, "
            f"expected a range above {LEAST_DEFOCUS}"
        )


def search_rings(
    rings: Rings, gradient: tuple[float, float], optics: Optics, defocus: Floats, phases: Floats
) -> Search:
    """Correlate the rotational average with the rings of every candidate.

    Parameters
    ----------
    rings : Rings
    gradient : (float, float)
        Of the defocus over x′ and y′.
    optics : Optics
    defocus : (n,) float64
        Candidates [Å].
    phases : (m,) float64
        Candidates for the additional phase shift [radians].
    """
    weight = rings.weight.sum(axis=1)
    power = (rings.power * rings.weight).sum(axis=1) / np.maximum(weight, 1e-9)
    total = weight.sum(axis=0)
    pooled = (weight * power).sum(axis=0) / np.maximum(total, 1e-9)
    smooth = np.log(np.maximum(pooled, 1e-9))
    smooth = ((smooth * total) @ rings.radial.T) @ rings.radial
    rest = np.log(np.maximum(power, 1e-9)) - smooth
    energy = float((weight * rest**2).sum())
    a, b, c = coefficients(optics.ctf(0.0, 0.0, 0.0))
    k2 = rings.k**2
    envelopes = np.exp(-np.asarray(DAMPING)[:, None] * k2)
    best = np.zeros((len(defocus), len(phases)))
    turns = np.stack([np.cos(2 * phases), np.sin(2 * phases)])
    for first in range(0, len(defocus), BLOCK):
        some = slice(first, first + BLOCK)
        local = np.maximum(defocus[some, None] + rings.offsets(gradient), LEAST_DEFOCUS)[..., None]
        phase = 2 * (k2 * (a * local + b * k2) + c)
        seen = -contrast(rings.k, local, optics, rings.window)
        # cos 2(φ + e) is a sum of these two for every additional phase shift e.
        parts = np.stack([seen * np.cos(phase), -seen * np.sin(phase)])  # (2, block, groups, k)
        heavy = weight * parts
        dots = (heavy * rest).sum(axis=2) @ envelopes.T  # (2, block, dampings)
        squares = np.einsum("idgk,jdgk->ijdk", heavy, parts) @ (envelopes**2).T
        flat = (heavy.sum(axis=2)[:, :, None, :] * envelopes) @ rings.radial.T
        squares -= np.einsum("idbn,jdbn->ijdb", flat, flat)
        dot = np.einsum("ip,idb->dpb", turns, dots)
        norm = np.einsum("ip,ijdb,jp->dpb", turns, squares, turns)
        gain = np.maximum(dot, 0) ** 2 / np.maximum(norm, 1e-12 * energy)
        best[some] = 0.5 * gain.max(axis=2)
    # Samples of weight w have the variance 1/w of the logarithm: half the weighted sum of squares
    # that a model explains is its gain in log likelihood.
    return Search(defocus, phases, best)


def highest_peaks(search: Search, log_prior: ArrayLike = 0.0) -> list[tuple[float, float]]:
    """Return the (defocus, phase) of the best distinct candidates, best first."""
    height = (search.evidence + np.asarray(log_prior)).copy()
    peaks: list[tuple[float, float]] = []
    top = height.max()
    while len(peaks) < PEAKS and math.isfinite(height.max()):
        i, j = np.unravel_index(int(height.argmax()), height.shape)
        if peaks and height[i, j] < top - max(10.0, (1 - WORTH) * abs(top)):
            break
        peaks.append((float(search.defocus[i]), float(search.phases[j])))
        height[np.abs(search.defocus - search.defocus[i]) < APART] = -np.inf
    return peaks


def best_astigmatism(
    rings: Rings,
    gradient: tuple[float, float],
    optics: Optics,
    start: tuple[float, float],
    spread: float,
    centre: tuple[float, float],
    reach: Floats,
) -> tuple[float, float, float]:
    """Return the (defocus, p, q) that correlates best around a first defocus.

    Parameters
    ----------
    rings, gradient, optics
        As of `search_rings`.
    start : (float, float)
        Defocus [Å] and additional phase shift [radians].
    spread : float
        Of the defocus around the start [Å].
    centre : (float, float)
        Expected components p, q [Å].
    reach : (n,)
        Deviations of p and of q from it that are tried [Å].
    """
    defocus, extra = start
    thin = slice(None, None, THINNED)
    weight = rings.weight.sum(axis=0)[:, thin]
    data = np.log(np.maximum(_scaled(rings, defocus, rings.offsets(gradient)), 1e-9))[:, thin]
    k2, k2_cos, k2_sin, k = (v[..., thin] for v in (rings.k2, rings.k2_cos, rings.k2_sin, rings.k))
    a, b, c = coefficients(optics.ctf(0.0, 0.0, 0.0))
    seen = contrast(k, defocus, optics, rings.window) * np.exp(-100.0 * k**2)
    smooth = rings.radial[:, thin] * math.sqrt(THINNED)
    ring = weight.sum(axis=0)

    def rest(values: Floats) -> Floats:
        mean = (values * weight).sum(axis=0) / np.maximum(ring, 1e-9)
        return values - ((mean * ring) @ smooth.T) @ smooth

    data = weight * rest(data)
    best, chosen = -math.inf, (defocus, *centre)
    for shift in spread * np.asarray([-0.7, 0.0, 0.7]):
        middle = 2 * (a * (defocus + shift) * k2 + b * k2**2 + c + extra)
        for p in centre[0] + reach:
            along = middle + a * p * k2_cos
            for q in centre[1] + reach:
                model = rest(-seen * np.cos(along + a * q * k2_sin))
                value = (data * model).sum() / math.sqrt((weight * model**2).sum())
                if value > best:
                    best, chosen = float(value), (defocus + float(shift), float(p), float(q))
    return chosen


def _scaled(rings: Rings, defocus: float, offsets: Floats) -> Floats:
    """Return the mean power (sectors, rings) of the groups scaled to coincide at a defocus."""
    if not offsets.any():
        return np.asarray((rings.power * rings.weight).sum(axis=0)) / np.maximum(
            rings.weight.sum(axis=0), 1e-9
        )
    scale = np.sqrt(defocus / np.maximum(defocus + offsets, LEAST_DEFOCUS))[:, None]
    last = len(rings.k) - 1
    position = (rings.k * scale - rings.k[0]) / (rings.k[1] - rings.k[0])
    index = np.rint(np.clip(position, 0, last)).astype(np.intp)[:, None, :]
    power = np.take_along_axis(rings.power, np.broadcast_to(index, rings.power.shape), axis=2)
    return np.asarray((power * rings.weight).sum(axis=0)) / np.maximum(
        rings.weight.sum(axis=0), 1e-9
    )
