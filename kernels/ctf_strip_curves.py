"""How well each defocus explains a view's strips: curves of the gain in log likelihood.

The logarithm of the power is taken for a smooth background and log(1 + s·exp(−B k² / 2)·CTF²),
whose fringes fade as the window of the tiles lets them. The noise of the power is known from the
number of samples, so curves of different views can be added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.ctf import Ctf, coefficients
from kernels.ctf_strip_power import Power
from kernels.spectra import hann_autocorrelation

Floats = NDArray[np.float64]

# B in Å² and s at k = 0.
SHAPES = np.asarray([(b, s) for b in (0, 50, 100, 200, 400, 800, 1600) for s in (0.3, 1.5, 6.0)])
BACKGROUND_STEP = 0.04  # 1/Å: over less than this the background bends no way of its own
NEAR_PEAK = 2.0  # a curve is a parabola where it is less than this below its top


def background(k: Floats, weight: Floats, divided: bool = False) -> Floats:
    """Return smooth functions (rings, n) of the frequency, orthonormal under the weight.

    Fewer when the power has been `divided` by a background found over a wider range.
    """
    width = k[-1] - k[0]
    # A narrow range gets a stiffer background: else it could take in the few rings there are.
    degree = 1 if divided else int(np.clip(round(width / BACKGROUND_STEP), 2, 4))
    smooth = list(np.polynomial.legendre.legvander(2 * (k - k[0]) / width - 1, degree).T)
    if not divided:
        smooth.append(np.log(k))
    root = np.sqrt(weight)[:, None]
    return np.linalg.qr(np.stack(smooth, axis=1) * root)[0] / root


def over_background(power: Power, ctf: Ctf, shape: Floats) -> Power:
    """Divide the power of one view by the background that a fit to the whole range leaves."""
    smooth = background(power.k, power.weight)
    rings = expected_rings(power, ctf, shape)
    data, fit = (without(smooth, power.weight, values) for values in (power.logarithm[0], rings))
    amplitude = max(float((power.weight * data * fit).sum() / (power.weight * fit**2).sum()), 0.0)
    rest = data - amplitude * fit
    return replace(power, logarithm=(rest + amplitude * rings)[None], divided=True)


def expected_rings(power: Power, ctf: Ctf, shape: Floats) -> Floats:
    """Return the log power (rings,) of the rings of a CTF, without astigmatism."""
    a, b, c = coefficients(ctf)
    k = power.k
    along = a * ctf.defocus + b * k * k
    visible = contrast(4 * k * (along + b * k * k), power.length)
    return log_power(k * k * along + c, visible, strength(k, shape))


def without(smooth: Floats, weight: Floats, values: Floats) -> Floats:
    """Take the smooth part from values (..., rings)."""
    return values - ((values * weight) @ smooth) @ smooth.T


def contrast(slope: Floats, length: float) -> Floats:
    """Return the contrast that tiles of `length` Å leave to fringes cos 2φ.

    `slope` is the derivative of 2φ by k, in Å: the steeper, the more they fade.
    """
    return hann_autocorrelation(slope / (2 * np.pi * length))


def log_power(phase: Floats, visible: Floats, strength: Floats) -> Floats:
    """Return log(1 + `strength`·CTF²) of rings of a phase in radians and their contrast."""
    return np.asarray(np.log1p(0.5 * strength * (1 - visible * np.cos(2 * phase))))


def strength(k: Floats, shape: ArrayLike) -> Floats:
    """Return s·exp(−B k² / 2) of shapes (..., 2) at frequencies `k` (rings,) in 1/Å."""
    envelope, signal = np.moveaxis(np.asarray(shape, dtype=np.float64), -1, 0)
    return np.asarray(signal[..., None] * np.exp(-0.5 * envelope[..., None] * k * k))


@dataclass(frozen=True)
class Curves:
    """Gains of views over a grid of defoci.

    Attributes
    ----------
    defocus : (n,) float64
        In Å.
    correlation : (views, n, shapes) float64
        Of data and rings, −1 to 1.
    gain : (views, n, shapes) float64
        In log likelihood over no rings at all.
    excess : (views,) float64
        What is left by the best fit, relative to what the noise would leave.
    """

    defocus: Floats
    correlation: Floats
    gain: Floats
    excess: Floats

    def best(self, defocus: float) -> tuple[float, float, int]:
        """Return correlation, gain and shape of the first view at the defocus nearest to this."""
        at = int(np.abs(self.defocus - defocus).argmin())
        shape = int(self.gain[0, at].argmax())
        return float(self.correlation[0, at, shape]), float(self.gain[0, at, shape]), shape


def curves(
    power: Power,
    defocus: ArrayLike,
    optics: Ctf,
    excess: ArrayLike | None = None,
    shapes: Floats = SHAPES,
) -> Curves:
    """Compare rings of every defocus on a grid with the strips of views.

    Parameters
    ----------
    power : Power
    defocus : (n,)
        In Å.
    optics : Ctf
        Its defocus is not used.
    excess : (views,), optional
        Of an earlier comparison over the whole range; default: that of this one.
    shapes : (shapes, 2) float64
        B and s of the envelopes tried.
    """
    grid = np.asarray(defocus, dtype=np.float64)
    a, b, c = coefficients(optics)
    k, weight = power.k, power.weight
    along = a * grid[:, None] + b * k * k
    slope = 4 * k * (along + b * k * k)
    phase = k * k * along + c
    visible = contrast(slope, power.length)
    models = log_power(phase[:, None], visible[:, None], strength(k, shapes))
    smooth = background(k, weight, power.divided)
    models = without(smooth, weight, models)
    models /= np.sqrt((weight * models**2).sum(axis=-1, keepdims=True))
    data = without(smooth, weight, power.logarithm)
    norm = (weight * data**2).sum(axis=1)
    dots = np.tensordot(data * weight, models, axes=(1, 2))
    if excess is None:
        left = power.samples * (norm - np.maximum(dots, 0).max(axis=(1, 2)) ** 2)
        free = len(k) / power.rings_per_sample - smooth.shape[1] - 3
        excess = np.maximum(left / max(free, 1), 1)
    scale = 0.5 * power.samples / np.asarray(excess)
    return Curves(
        defocus=grid,
        correlation=dots / np.sqrt(norm)[:, None, None],
        gain=scale[:, None, None] * np.maximum(dots, 0) ** 2,
        excess=np.asarray(excess, dtype=np.float64),
    )


def peak(position: Floats, height: Floats) -> tuple[float, float]:
    """Return where a curve of log likelihood is highest, and its standard error.

    The error is infinite where the highest point is not a peak.
    """
    top = int(height.argmax())
    if top in (0, len(height) - 1):
        return float(position[top]), math.inf
    near = np.flatnonzero(height < height[top] - NEAR_PEAK)
    first = near[near < top].max(initial=-1) + 1
    last = near[near > top].min(initial=len(height))
    part = slice(min(first, top - 1), max(last, top + 2))
    x = position[part] - position[top]
    square, linear, _ = np.polyfit(x, height[part], 2)
    if square >= 0:
        return float(position[top]), math.inf
    middle = float(np.clip(-linear / (2 * square), x[0], x[-1]))
    return float(position[top]) + middle, 1 / math.sqrt(-2 * square)
