"""What a CTF should look like in the tile spectra of one view, and what is there.

The logarithm of the mean power is a smooth background plus log(1 + s E(k) CTF²), with a signal to
noise ratio s and an envelope E. The background is a short series of smooth functions and is removed
from data and model alike, so that what is compared is not biased by it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.ctf import Ctf, coefficients
from kernels.spectra import PolarSpectra, hann_autocorrelation

Floats = NDArray[np.float64]
Shape = tuple[float, float]  # B in Å² of the envelope E = exp(−B k² / 2), and s at k = 0

SHAPES: tuple[Shape, ...] = tuple(
    (b, s) for b in (0.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1600.0) for s in (0.3, 1.5, 6.0)
)
# Power of neighbouring frequencies of a Hann-windowed tile is correlated, (2/3)² and (1/6)²:
# this many rings count as one independent measurement.
RINGS_PER_SAMPLE = 1 + 2 * (4 / 9 + 1 / 36)
LEAST_DEFOCUS = 1000.0  # Å: below it the frequency scales of tiles lose their meaning
BACKGROUND_STEP = 0.04  # 1/Å: over less than this the background bends no way of its own


class Rings:
    """The fitted rings of one view: samples, weights, background and the model on them.

    Arrays are (sectors, rings), or (rings,) for rotational averages. Defocus and the components
    p, q = (U − V)(cos 2α, sin 2α) of the astigmatism are in Å.

    Parameters
    ----------
    polar : PolarSpectra
    offsets : (n_tiles,) float64
        Defocus of each tile minus that of the view, in Å.
    pixel
        In Å.
    resolutions
        Least and greatest resolution that are fitted, in Å.
    optics : Ctf
        Its defocus is not used.

    Raises
    ------
    ValueError
        If fewer than 12 rings are in range, or a tile is empty.
    """

    def __init__(
        self,
        polar: PolarSpectra,
        offsets: Floats,
        pixel: float,
        resolutions: tuple[float, float],
        optics: Ctf,
    ) -> None:
        self.offsets = offsets
        self.box_length = polar.box * pixel
        low = self.box_length / resolutions[0]
        high = min(self.box_length / resolutions[1], 0.95 * polar.box / 2)
        self.first, self.last = math.ceil(low), math.floor(high)
        if self.last - self.first < 12:
            raise ValueError(
                f"{max(self.last - self.first, 0)} rings between {resolutions[0]} and "
                f"{self.box_length / high:.1f} Å, expected 12: use a larger box than {polar.box}"
            )
        self.weight = polar.count[:, self.first : self.last]
        within = (slice(None), slice(self.first, self.last))
        self.k2, self.k2_cos, self.k2_sin = (
            values[within] / pixel**2 for values in (polar.k2, polar.k2_cos, polar.k2_sin)
        )
        self.a, self.b, self.c = coefficients(optics)
        count = np.maximum(polar.count.sum(axis=0), 1)
        self.ring_k = np.arange(self.first, self.last) / self.box_length
        self.ring_weight = np.maximum(self.weight.sum(axis=0), 1)
        # Empty sectors of small rings take the ring's mean; they have no weight in the fit.
        ring = (polar.power * polar.count).sum(axis=1) / count
        power = np.where(polar.count > 0, polar.power, ring[:, None, :])
        level = ring[:, self.first : self.last].mean(axis=1)
        if not (np.isfinite(level).all() and (level > 0).all()):
            raise ValueError(
                "a tile has no power in the fitted range, expected an image with noise"
            )
        self.power = power / level[:, None, None]
        self.ring_power = ring / level[:, None]
        x = np.linspace(-1, 1, self.last - self.first)
        # A narrow range gets a stiffer background: else it could take in the two or three rings
        # there are, and half the defocus would fit as well.
        degree = int(np.clip(round((self.ring_k[-1] - self.ring_k[0]) / BACKGROUND_STEP), 2, 4))
        smooth = [*np.polynomial.legendre.legvander(x, degree).T, np.log(self.ring_k)]
        root = np.sqrt(self.ring_weight)[:, None]
        self.smooth = np.linalg.qr(np.stack(smooth, axis=1) * root)[0] / root
        self.samples = np.count_nonzero(self.weight) / RINGS_PER_SAMPLE

    def scaled(self, power: NDArray[np.float32], defocus: float) -> Floats:
        """Return the log mean power (..., rings), tiles scaled to coincide at `defocus`."""
        scale = np.sqrt(defocus / np.maximum(defocus + self.offsets, LEAST_DEFOCUS))
        position = scale[:, None] * np.arange(self.first, self.last)
        position = np.minimum(position, power.shape[-1] - 1.001)
        floor = position.astype(np.int64)
        rest = position - floor
        if power.ndim == 3:
            floor, rest = floor[:, None, :], rest[:, None, :]
        low = np.take_along_axis(power, floor, axis=-1)
        high = np.take_along_axis(power, floor + 1, axis=-1)
        return np.log((low + (high - low) * rest).mean(axis=0))

    def background(self, values: Floats) -> Floats:
        """Return the smooth part (..., rings) of `values` (..., sectors, rings)."""
        ring = (values * self.weight).sum(axis=-2) / self.ring_weight
        return ((ring * self.ring_weight) @ self.smooth) @ self.smooth.T

    def residual(self, values: Floats) -> Floats:
        """Take the smooth background from values (..., sectors, rings)."""
        return values - self.background(values)[..., None, :]

    def ring_residual(self, rings: Floats) -> Floats:
        """Take the smooth background from values (..., rings)."""
        return rings - ((rings * self.ring_weight) @ self.smooth) @ self.smooth.T

    def model(self, defocus: float, p: float, q: float, shape: Shape) -> Floats:
        """Return the expected rings (sectors, rings), background included."""
        along = defocus * self.k2 + 0.5 * (p * self.k2_cos + q * self.k2_sin)
        phase = self.a * along + self.b * self.k2**2 + self.c
        return self.shaped(np.cos(2 * phase), defocus, shape)

    def ring_model(self, defocus: float, shape: Shape) -> Floats:
        """Return the expected rings (rings,) without astigmatism."""
        k2 = self.ring_k**2
        phase = k2 * (self.a * defocus + self.b * k2) + self.c
        return self.shaped(np.cos(2 * phase), defocus, shape)

    def shaped(self, fringes: Floats, defocus: float, shape: Shape) -> Floats:
        """Return the log power of fringes cos 2φ, as the tile's window lets them be seen."""
        envelope, signal = shape
        slope = 2 * self.ring_k * (self.a * defocus + 2 * self.b * self.ring_k**2)
        contrast = hann_autocorrelation(slope / np.pi / self.box_length)
        strength = 0.5 * signal * np.exp(-0.5 * envelope * self.ring_k**2)
        return np.log1p(strength * (1 - contrast * fringes))

    def correlation(self, data: Floats, model: Floats) -> float:
        """Return the weighted correlation of two residuals (sectors, rings)."""
        dot = float((self.weight * data * model).sum())
        norm = float((self.weight * data**2).sum() * (self.weight * model**2).sum())
        return dot / math.sqrt(norm) if norm > 0 else 0.0


def evidence(correlation: ArrayLike, samples: float) -> Floats:
    """Return the gain in log likelihood that a correlation means; negative ones mean none."""
    positive = np.clip(correlation, 0, 1 - 1e-9)
    return -0.5 * samples * np.log1p(-(positive**2))
