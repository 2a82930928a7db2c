"""One-dimensional view of a CTF fit: averages along equal phase, local correlation, resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.ctf import Ctf, coefficients

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CtfProfile:
    """Profiles over the fitted range: power over the background, minus 1.

    Attributes
    ----------
    frequency : (n,) float64
        In 1/Å.
    average : (n,) float64
        Rotational average of the data.
    equiphase : (n,) float64
        Average along lines of equal CTF phase, on the frequency axis of the mean defocus.
    fit : (n,) float64
        The fitted rings, averaged as `equiphase`.
    correlation : (n,) float64
        Correlation of `equiphase` and `fit` in a window around each frequency.
    noise : (n,) float64
        Standard deviation of `equiphase`.
    """

    frequency: Floats
    average: Floats
    equiphase: Floats
    fit: Floats
    correlation: Floats
    noise: Floats


def equiphase_profile(
    data: Floats,
    fit: Floats,
    weight: Floats,
    k_equal: Floats,
    frequency: Floats,
    ctf: Ctf,
    width: float = 1.0,
) -> CtfProfile:
    """Average a view's rings along equal phase and compare them with the fit.

    Parameters
    ----------
    data, fit : (m, n)
        Power over the background minus 1, of any number of sectors and groups of tiles.
    weight : (m, n)
        Independent samples in each value.
    k_equal : (m, n)
        Frequency at which the mean defocus gives the same phase as each sample, in 1/Å.
    frequency : (n,)
        In 1/Å, evenly spaced.
    ctf : Ctf
        Its mean defocus belongs to `frequency`.
    width : float
        Neighbouring frequencies whose noise is the same: so much less of it is independent.
    """
    n = len(frequency)
    average = (data * weight).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-9)
    position = (k_equal - frequency[0]) / (frequency[1] - frequency[0])
    within = (position >= 0) & (position <= n - 1)
    position = np.clip(position, 0, n - 1.001)
    floor = position.astype(np.intp)
    upper = position - floor
    sums = np.zeros((3, n))
    for index, share in ((floor, 1 - upper), (floor + 1, upper)):
        part = (weight * within * share).ravel()
        for row, values in enumerate((part, part * data.ravel(), part * fit.ravel())):
            sums[row] += np.bincount(index.ravel(), weights=values, minlength=n)
    count = np.maximum(sums[0], 1e-9)
    equiphase, rings = sums[1] / count, sums[2] / count
    correlation = local_correlation(equiphase, rings, frequency, ctf)
    return CtfProfile(frequency, average, equiphase, rings, correlation, 1 / np.sqrt(count * width))


def local_correlation(data: Floats, fit: Floats, frequency: Floats, ctf: Ctf) -> Floats:
    """Return the correlation of two profiles (n,) in a window around each frequency.

    Parameters
    ----------
    data, fit : (n,)
    frequency : (n,)
        In 1/Å, evenly spaced.
    ctf : Ctf
        Whose extrema set the widths of the windows.
    """
    # Windows as in CTFFIND4: wide enough for an extremum on each side, wider where the rings
    # are many and weak.
    a, b, c = coefficients(ctf)
    k2 = frequency**2
    phase = k2 * (a * ctf.defocus + b * k2) + c
    slope = np.maximum(np.abs(np.gradient(phase)), 1e-6)
    extrema = np.abs(phase - phase[0]) / (np.pi / 2)
    half = np.maximum(len(frequency) / 40, (1 + 0.1 * extrema) * (np.pi / 2) / slope)
    found = np.zeros(len(frequency))
    for i, width in enumerate(np.ceil(half).astype(np.int64)):
        window = slice(max(i - width, 0), i + width + 1)
        x, y = _level(data[window]), _level(fit[window])
        norm = (x**2).sum() * (y**2).sum()
        found[i] = (x * y).sum() / np.sqrt(norm) if norm > 0 else 0.0
    return found


def _level(values: Floats) -> Floats:
    """Take mean and slope from values: what is left are rings."""
    x = np.arange(len(values)) - 0.5 * (len(values) - 1)
    return values - values.mean() - x * ((x * values).sum() / max((x**2).sum(), 1.0))


def fitted_resolution(profile: CtfProfile) -> float:
    """Return the resolution [Å] to which the fit follows the data, as CTFFIND4 decides it.

    It is where the local correlation falls below 0.1 after more than three points above, or below
    0.5 after more than three above 0.66; the end of the range when it never does.
    """
    weak = strong = 0
    skipped = len(profile.frequency) // 10
    for k, value in zip(profile.frequency[skipped:], profile.correlation[skipped:], strict=True):
        if (weak > 3 and value < 0.1) or (strong > 3 and value < 0.5):
            return float(1 / k)
        weak += value > 0.1
        strong += value > 0.66
    return float(1 / (profile.frequency[-1] if weak > 3 else profile.frequency[skipped]))
