"""How large a specimen's particles are, from what neighbouring views have in common.

Two views a few degrees apart show the same particles, and noise of their own: their cross-spectrum
along the tilt axis, where parallax does not blur it, is the particles' mean power, weighted with
the squares of their masses, times the CTF². At low resolution it falls as that of balls, and what a
defocus does there is known well enough without knowing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import pi, sqrt

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEEPEST = 35.0  # degrees of views that are compared
COARSEST, FINEST = 600.0, 55.0  # Å: of the spectrum that is fitted
PARALLAX = 300.0  # Å: what is coarser across the tilt axis counts
DEFOCUS = 35_000.0  # Å where it is not known
WAVELENGTH, CONTRAST = 0.0197, 0.08  # Å, of 300 kV, and of the amplitude
RADII = np.arange(10.0, 201.0, 2.5)  # Å
LEAST_SIGNAL = 6.0  # standard errors
SPREAD = 0.15  # standard deviation of the balls' radii: a power without zeros
UNCERTAIN = 0.4  # of the radius: particles are no balls; rods of four balls lie 0.8 deeper


@dataclass(frozen=True)
class Size:
    """Radius of a sphere that scatters like the particles, and its standard error [Å]."""

    radius: float
    error: float


def particle_size(
    rows: NDArray[np.float32],
    tilts: Sequence[float],
    pixel_size: float,
    defocus: float = DEFOCUS,
) -> Size | None:
    """Measure the particles' radius in aligned views; None where they have too little in common.

    Parameters
    ----------
    rows : (n_views, ny, nx) float32
        Aligned views, tilt axis along y; filters along x do no harm.
    tilts : (n_views,)
        Ascending [degrees].
    pixel_size : float
        [Å]
    defocus : float
        Of the views, about [Å].
    """
    chosen = [i for i, tilt in enumerate(tilts) if abs(tilt) <= STEEPEST]
    if len(chosen) < 4:
        return None
    _, ny, nx = rows.shape
    k = scipy.fft.fftfreq(ny, pixel_size)[1 : ny // 2]
    columns = max(2, int(nx * pixel_size / PARALLAX) + 1)
    window = (np.hanning(ny)[:, None] * np.hanning(nx)).astype(np.float32)
    spectra = []
    for i in chosen:
        image = rows[i] - rows[i].mean()
        across = scipy.fft.rfft(image * window, axis=1)[:, 1:columns]
        spectra.append(scipy.fft.fft(across, axis=0))
    pairs = np.array([(a * b.conj()).real.mean(axis=1) for a, b in pairwise(spectra)])
    # Up and down the axis, an odd and an even part.
    power = 0.5 * (pairs[:, 1 : ny // 2] + pairs[:, :0:-1][:, : len(k)])
    band = (k > 1 / COARSEST) & (k < 1 / FINEST)
    power, k = power[:, band], k[band]
    if len(k) < 8:
        return None
    mean = power.mean(axis=0)
    ctf = np.sin(pi * WAVELENGTH * defocus * k**2 + CONTRAST) ** 2
    models = ctf * _balls(k)
    # Neighbouring pairs share a view, and all of them the particles: the scatter about the
    # best model is the measure of what a value is worth, and goes with the value.
    weights = np.ones(len(k))
    best, fit, cost = 0, models[0], np.zeros(len(RADII))
    for _ in range(6):
        heights = (models * weights) @ mean / np.maximum((models**2) @ weights, 1e-300)
        cost = ((mean - heights[:, None] * models) ** 2) @ weights
        best = int(cost.argmin())
        fit = np.maximum(heights[best], 0) * models[best]
        spread = float(np.median(np.abs(mean - fit))) + 1e-300
        weights = 1 / (spread**2 + (0.3 * fit) ** 2)
        weights /= weights.max()
    rest = mean - fit
    noise = sqrt(float(weights @ rest**2) / max(weights.sum(), 1e-9))
    signal = float((weights * fit) @ fit) / max(noise * sqrt(float((weights * fit) @ fit)), 1e-300)
    if signal < LEAST_SIGNAL or best in (0, len(RADII) - 1):
        return None
    near = np.flatnonzero(cost < cost[best] * (1 + 4 / len(k)))
    half = 0.5 * float(RADII[near.max()] - RADII[near.min()])
    radius = float(RADII[best])
    return Size(radius, sqrt(max(half / 2, 2.5) ** 2 + (UNCERTAIN * radius) ** 2))


def _balls(k: Floats) -> Floats:
    """Return the power (radii, k) of balls of about `RADII`, in squared volumes of the mean one."""
    total = np.zeros((len(RADII), len(k)))
    for off in np.linspace(-1.5, 1.5, 13):
        size = 1 + SPREAD * off
        q = 2 * pi * k * RADII[:, None] * size
        amplitude = size**3 * 3 * (np.sin(q) - q * np.cos(q)) / q**3
        total += np.exp(-0.5 * off**2) * amplitude**2
    return total
