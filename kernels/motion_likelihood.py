"""Likelihood of the frames' places in a movie.

Every pair of frames counts. With coefficients F_g of unit power, S the specimen's part of it and
N = 1 − S, the log-likelihood of the places s_g of a patch is Σ_k w |Σ_g F_g exp(2πi k·s_g)|² with
w = S / (N (N + n S)): the maximum over a Gaussian specimen. S is the cross-power of the frames in
rings, so that Thon rings, resolution and dose find their weight by themselves, times a factor
for each patch, so that patches with nothing in them hardly count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from kernels.arrays import Array, asarray_like, namespace, to_host
from kernels.motion_spectra import Samples, ring_mean

Floats = NDArray[np.float64]

RING_SIGNIFICANCE = 2.0  # standard deviations from which a ring's cross-power is signal
RING_SMOOTHING = 1.5  # rings
LEAST_PATCH = 0.05  # of the average patch's specimen power
MODEL_ERROR = 0.45  # Å: what one displacement leaves out of a field that varies in the patch
MOST_POWER = 0.95


@dataclass(frozen=True)
class Weights:
    """Weight and expected specimen power of each coefficient, (patches, m), and scale (patches,).

    `scale` is the share of a patch's coefficients that count as independent.
    """

    weight: NDArray[np.float32]
    power: NDArray[np.float32]
    scale: Floats


@dataclass(frozen=True)
class Slope:
    """Likelihood at given places.

    Attributes
    ----------
    gradient : (n, patches, 2)
        Of the log-likelihood [1/Å].
    information : (patches, 2, 2)
        Expected, for each pair of frames [1/Å²].
    value : float
        Log-likelihood.
    """

    gradient: Floats
    information: Floats
    value: float


def turned(samples: Samples, places: Floats) -> list[Array]:
    """Return the coefficients with their patches moved back by `places` (n, patches, 2) [Å]."""
    like = samples.spectra[0]
    xp = namespace(like)
    waves = asarray_like(samples.waves, like)
    turned = []
    for spectrum, place in zip(samples.spectra, places, strict=True):
        phase = asarray_like(place.astype(np.float32), like) @ waves
        turned.append(spectrum * (xp.cos(phase) + 1j * xp.sin(phase)))
    return turned


def cross_power(aligned: list[Array]) -> NDArray[np.float32]:
    """Return the mean product of two frames (patches, m), in units of the noise."""
    n = len(aligned)
    cross = squared(sum(aligned)) - sum(squared(f) for f in aligned)
    return np.asarray(to_host(cross) / (n * (n - 1)), dtype=np.float32)


def evaluate(samples: Samples, weights: Weights, aligned: list[Array]) -> Slope:
    """Return the likelihood and its slope where `samples` have been `turned` to `aligned`."""
    like = aligned[0]
    xp = namespace(like)
    waves = asarray_like(np.ascontiguousarray(samples.waves.T), like)
    total = sum(aligned)
    counted = weights.weight * weights.scale[:, None].astype(np.float32)
    conjugate = xp.conj(total) * asarray_like(counted, like)
    gradient = np.stack([-2 * to_host(xp.imag(f * conjugate) @ waves) for f in aligned])
    ky, kx = samples.waves
    squares = np.stack([ky * ky, ky * kx, kx * kx], axis=1)
    yy, yx, xx = (2 * (counted * weights.power) @ squares).T.astype(np.float64)
    information = np.moveaxis(np.array([[yy, yx], [yx, xx]]), -1, 0)
    value = float(xp.sum(xp.real(total * conjugate)))
    return Slope(gradient.astype(np.float64), information, value)


def likelihood_weights(samples: Samples, power: NDArray[np.floating]) -> Weights:
    """Return the weights for a specimen of `power` (patches, m) where the noise has 1 − power."""
    power = np.clip(power, 0, MOST_POWER).astype(np.float32)
    weight = power / ((1 - power) * (1 - power + samples.count * power))
    return Weights(weight, power, samples.scale)


def measured_weights(
    samples: Samples, cross: NDArray[np.float32], b_factor: float = 0.0
) -> Weights:
    """Return the weights for the specimen seen in `cross` (patches, m), ring by ring."""
    n, ring = samples.count, samples.ring
    members = np.bincount(ring).astype(float)
    counted = gaussian_filter1d(members, RING_SMOOTHING)
    spread = counted * 2 * np.sqrt(np.pi) * RING_SMOOTHING * samples.scale.sum()
    spread = 1 / np.sqrt(n * (n - 1) * np.maximum(spread, 1))
    factor = np.ones(len(samples.scale))
    for _ in range(2 if len(factor) > 1 else 1):  # the rings need the factors, and they the rings
        share = samples.scale * factor
        mean = share @ cross / (share @ factor)
        profile = gaussian_filter1d(ring_mean(mean, ring) * members, RING_SMOOTHING)
        profile = profile / np.maximum(counted, 1)
        clear = profile > RING_SIGNIFICANCE * spread
        power = np.where(clear, profile - spread**2 / np.where(clear, profile, 1), 0)[ring]
        weight = likelihood_weights(samples, power[None, :]).weight[0].astype(np.float64)
        if len(factor) > 1 and clear.any():
            factor = _patch_factors(samples, cross, power, weight)
    weights = likelihood_weights(samples, factor[:, None] * power)
    if b_factor:
        fall = np.exp(-b_factor * samples.frequency**2 / 4).astype(np.float32)
        weights = replace(weights, weight=weights.weight * fall)
    if len(factor) == 1:
        return weights
    squared = (samples.waves.astype(np.float64) ** 2).sum(axis=0)
    precision = n * samples.scale * ((weights.weight * weights.power) @ squared)
    scale = samples.scale / (1 + MODEL_ERROR**2 * precision)
    return replace(weights, scale=scale)


def _patch_factors(
    samples: Samples, cross: NDArray[np.float32], power: Floats, weight: Floats
) -> Floats:
    """Return each patch's specimen power relative to the average, drawn to 1 as noise asks."""
    n, norm = samples.count, float(power @ weight)
    factor = (cross @ weight) / norm
    variance = (weight @ weight) / (n * (n - 1)) / norm**2 / samples.scale
    true = max(float((np.square(factor - 1) - variance).mean()), 1e-3)
    return np.maximum(1 + (factor - 1) * true / (true + variance), LEAST_PATCH)


def squared(values: Array) -> Array:
    """Return the squared modulus, without the root that ``abs`` takes."""
    xp = namespace(values)
    return xp.real(values) ** 2 + xp.imag(values) ** 2
