"""One-dimensional view of a fit to strips: data, fit, their local correlation, the noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.ctf import Ctf
from kernels.ctf_profile import CtfProfile, local_correlation
from kernels.ctf_strip_curves import background, expected_rings, without
from kernels.ctf_strip_power import Power

Floats = NDArray[np.float64]


def strip_profile(power: Power, plain: Power, ctf: Ctf, shape: Floats) -> CtfProfile:
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
    return CtfProfile(
        frequency=k,
        average=average,
        equiphase=data,
        fit=max(scale, 0.0) * fit,
        correlation=local_correlation(data, fit, k, ctf),
        noise=1 / np.sqrt(np.maximum(pixels, 1)),
    )
