"""One-dimensional view of a fit to strips: data, fit, their local correlation, the noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.ctf import Ctf, coefficients
from kernels.ctf_strip_curves import background, expected_rings, without
from kernels.ctf_strip_power import Power

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StripProfile:
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
    noise : (n,) float64
        Standard deviation of `equiphase`.
    """

    frequency: Floats
    average: Floats
    equiphase: Floats
    fit: Floats
    correlation: Floats
    noise: Floats


def strip_profile(power: Power, plain: Power, ctf: Ctf, shape: Floats) -> StripProfile:
    """Return the profiles of one view.

    Parameters
    ----------
    power, plain : Power
        Of one view: averaged where the phase is the same, and over rings.
    ctf : Ctf
    shape : (2,)
        B and s of the envelope.
    """
    k, weight = power.k, power.weight
    rings = expected_rings(power, ctf, shape)
    smooth = background(k, weight)
    average, data, fit = (
        without(smooth, weight, values)
        for values in (plain.logarithm[0], power.logarithm[0], rings)
    )
    scale = float((weight * data * fit).sum() / (weight * fit**2).sum())
    pixels = weight * power.samples[0] * power.rings_per_sample
    return StripProfile(
        frequency=k,
        average=average,
        equiphase=data,
        fit=max(scale, 0.0) * fit,
        correlation=_local_correlation(data, fit, k, ctf),
        noise=1 / np.sqrt(np.maximum(pixels, 1)),
    )


def _local_correlation(data: Floats, fit: Floats, frequency: Floats, ctf: Ctf) -> Floats:
    """Correlate two profiles (n,) in windows of a fringe and a half around each frequency."""
    a, b, c = coefficients(ctf)
    k2 = frequency**2
    phase = k2 * (a * ctf.defocus + b * k2) + c
    slope = np.maximum(np.abs(np.gradient(phase)), 1e-6)
    half = np.maximum(np.ceil(0.75 * np.pi / slope), len(frequency) / 40)
    found = np.zeros(len(frequency))
    for i, width in enumerate(half.astype(np.intp)):
        window = slice(max(i - width, 0), i + width + 1)
        x, y = data[window] - data[window].mean(), fit[window] - fit[window].mean()
        norm = float((x**2).sum() * (y**2).sum())
        found[i] = (x * y).sum() / np.sqrt(norm) if norm > 0 else 0.0
    return found


def fitted_resolution(profile: StripProfile) -> float:
    """Return the resolution [Å] to which the fit follows the data.

    It is where the local correlation falls below one half for good: for longer than it had been
    above it before.
    """
    above = np.where(profile.correlation >= 0.5, 1, -1)
    last = int(np.cumsum(above).argmax())
    return float(1 / profile.frequency[last])
