"""One-dimensional view of a CTF fit: averages along equal phase, local correlation, resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.ctf import Ctf, coefficients

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CtfProfile:
    """Profiles over the fitted range, background removed, in units of the log power.

    Attributes
    ----------
    frequency : (n,) float64
        In 1/Å.
    average : (n,) float64
        Rotational average of the data.
    equiphase : (n,) float64
        Average along lines of equal CTF phase, on the frequency axis of the mean defocus.
    fit : (n,) float64
        The fitted rings, scaled to the data.
    correlation : (n,) float64
        Correlation of `equiphase` and `fit` in a window around each frequency.
    samples : (n,) float64
        Pixels averaged in each point: its noise falls as 1/√samples.
    """

    frequency: Floats
    average: Floats
    equiphase: Floats
    fit: Floats
    correlation: Floats
    samples: Floats


def equiphase_profile(
    data: Floats, fit: Floats, weight: Floats, k_equal: Floats, frequency: Floats, ctf: Ctf
) -> CtfProfile:
    """Average a view's rings along equal phase and compare them with the fit.

    Parameters
    ----------
    data : (sectors, n)
        Log power without background.
    fit : (n,)
        Rings at the mean defocus, any scale.
    weight : (sectors, n)
        Pixels in each sample.
    k_equal : (sectors, n)
        Frequency at which the mean defocus gives the same phase as each sample, in 1/Å.
    frequency : (n,)
        In 1/Å, evenly spaced.
    ctf : Ctf
    """
    total = np.maximum(weight.sum(axis=0), 1)
    average = (data * weight).sum(axis=0) / total
    spacing = frequency[1] - frequency[0]
    position = np.clip((k_equal - frequency[0]) / spacing, 0, len(frequency) - 1.001)
    floor = position.astype(np.int64)
    upper = position - floor
    sums, counts = np.zeros(len(frequency)), np.zeros(len(frequency))
    for index, share in ((floor, 1 - upper), (floor + 1, upper)):
        np.add.at(sums, index, weight * share * data)
        np.add.at(counts, index, weight * share)
    equiphase = sums / np.maximum(counts, 1e-9)
    scale = (total * equiphase * fit).sum() / max((total * fit**2).sum(), 1e-30)
    scaled = max(scale, 0.0) * fit
    correlation = _local_correlation(equiphase, fit, frequency, ctf)
    return CtfProfile(frequency, average, equiphase, scaled, correlation, total)


def _local_correlation(data: Floats, fit: Floats, frequency: Floats, ctf: Ctf) -> Floats:
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
        x, y = data[window] - data[window].mean(), fit[window] - fit[window].mean()
        norm = (x**2).sum() * (y**2).sum()
        found[i] = (x * y).sum() / np.sqrt(norm) if norm > 0 else 0.0
    return found


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
