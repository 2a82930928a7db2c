"""How well each defocus explains a view's strips: curves of the gain in log likelihood.

The logarithm of the power is taken for a smooth background and log(1 + s·exp(−B k² / 2)·CTF²),
whose fringes fade as the window of the tiles lets them. The noise of the power is known from the
number of samples, so curves of different views can be added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernels.ctf import Ctf, coefficients
from kernels.ctf_strips import WedgeSpectra, read_rings, same_phase
from kernels.spectra import hann_autocorrelation

Floats = NDArray[np.float64]

# B in Å² and s at k = 0.
SHAPES = np.asarray([(b, s) for b in (0, 50, 100, 200, 400, 800, 1600) for s in (0.3, 1.5, 6.0)])
# Power of neighbouring frequencies of a Hann-windowed tile is correlated, (2/3)² and (1/6)²:
# this many rings, at a spacing of one over the window, are one independent measurement.
CORRELATED = 1 + 2 * (4 / 9 + 1 / 36)
BACKGROUND_STEP = 0.04  # 1/Å: over less than this the background bends no way of its own
LEAST_RINGS = 12
BETTER = 0.05  # relative to the defocus: by so much another assumption must be nearer
NEAR_PEAK = 2.0  # a curve is a parabola where it is less than this below its top


@dataclass(frozen=True)
class Power:
    """Rotational averages of a series in the fitted range.

    Attributes
    ----------
    k : (rings,) float64
        In 1/Å.
    logarithm : (views, rings) float64
    weight : (rings,) float64
        Pixels in each average.
    samples : (views,) float64
        Independent samples for each of those pixels.
    length : float
        Side of a tile in Å.
    rings_per_sample : float
    divided : bool
        By the background.
    """

    k: Floats
    logarithm: Floats
    weight: Floats
    samples: Floats
    length: float
    rings_per_sample: float
    divided: bool = False

    def to(self, end: float) -> Power:
        """Return the part up to the frequency `end`, in 1/Å, of no less than a few rings."""
        n = max(int(np.searchsorted(self.k, end)) + 1, LEAST_RINGS)
        return replace(self, k=self.k[:n], logarithm=self.logarithm[:, :n], weight=self.weight[:n])

    def of(self, views: ArrayLike) -> Power:
        """Return that of some views."""
        chosen = np.asarray(views, dtype=np.intp)
        return replace(self, logarithm=self.logarithm[chosen], samples=self.samples[chosen])


def in_range(wedges: WedgeSpectra, pixel: float, resolutions: tuple[float, float]) -> slice:
    """Return the rings of a resolution range in Å, cut at 95 % of the Nyquist frequency.

    Raises
    ------
    ValueError
        If fewer than 12 rings are in range.
    """
    length = wedges.box * pixel
    high = min(length / resolutions[1], 0.95 * wedges.box / 2, wedges.power.shape[1] - 1)
    first, last = math.ceil(length / resolutions[0]), math.floor(high)
    if last - first < LEAST_RINGS:
        raise ValueError(
            f"{max(last - first, 0)} rings between {resolutions[0]} and {length / high:.1f} Å, "
            f"expected {LEAST_RINGS}: use a larger box than {wedges.window}"
        )
    return slice(first, last)


def averaged(
    series: Sequence[WedgeSpectra],
    pixel: float,
    resolutions: tuple[float, float],
    ctfs: Sequence[Ctf],
) -> Power:
    """Average the wedges of each view where the phase of its CTF is the same.

    Where another assumption of the first search is nearer to a view's defocus than that of its
    wedges, its rotational average is taken.
    """
    rows = []
    for view, ctf in zip(series, ctfs, strict=True):
        away = np.abs(np.log(np.append(view.trial_defocus, view.defocus) / ctf.defocus))
        trial = int(away.argmin())
        if trial < len(view.trial_defocus) and away[trial] < away[-1] - BETTER:
            rows.append(view.trial_power[trial])
        elif ctf.astigmatism == 0:
            rows.append(ring_average(view))
        else:
            rows.append(_equiphase(view, pixel, ctf))
    return _power(series, rows, pixel, resolutions)


def assumed(
    series: Sequence[WedgeSpectra], pixel: float, resolutions: tuple[float, float]
) -> tuple[Power, NDArray[np.intp], Floats]:
    """Return all rotational averages for a first search: power, view and defocus of each row."""
    rows = [
        (number, float(defocus), average)
        for number, view in enumerate(series)
        for defocus, average in zip(
            np.append(view.trial_defocus, view.defocus),
            [*view.trial_power, ring_average(view)],
            strict=True,
        )
    ]
    owner = np.asarray([number for number, _, _ in rows])
    power = _power(series, [average for _, _, average in rows], pixel, resolutions)
    return (
        replace(power, samples=power.samples[owner]),
        owner,
        np.asarray([defocus for _, defocus, _ in rows]),
    )


def ring_average(view: WedgeSpectra) -> Floats:
    """Return the rotational average (rings,) of a view's wedges."""
    total = np.maximum(view.count.sum(axis=0), 1)
    return np.asarray((view.power * view.count).sum(axis=0) / total)


def _power(
    series: Sequence[WedgeSpectra],
    rows: Sequence[Floats],
    pixel: float,
    resolutions: tuple[float, float],
) -> Power:
    first = series[0]
    within = in_range(first, pixel, resolutions)
    count = first.count.sum(axis=0)
    k2 = (first.k2 * first.count).sum(axis=0) / np.maximum(count, 1)
    return Power(
        k=np.sqrt(k2[within]) / pixel,
        logarithm=np.log(np.stack(rows)[:, within]),
        weight=count[within],
        samples=np.asarray([view.samples for view in series]),
        length=first.window * pixel,
        rings_per_sample=CORRELATED * first.box / first.window,
    )


def _equiphase(view: WedgeSpectra, pixel: float, ctf: Ctf) -> Floats:
    sectors, rings = view.power.shape
    middle = 180 / sectors * (np.arange(sectors) + 0.5)
    offsets = [ctf.defocus_along(float(angle)) - ctf.defocus for angle in middle]
    power, count = np.zeros(rings), np.zeros(rings)
    positions = same_phase(rings, view.box, pixel, offsets, ctf)
    for row, number, position in zip(view.power, view.count, positions, strict=True):
        power += read_rings(row * number, position)
        count += read_rings(number, position)
    return power / np.maximum(count, 1e-9)


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
    return log_power(
        k * k * along + c, 4 * k * (along + b * k * k), strength(k, shape), power.length
    )


def without(smooth: Floats, weight: Floats, values: Floats) -> Floats:
    """Take the smooth part from values (..., rings)."""
    return values - ((values * weight) @ smooth) @ smooth.T


def log_power(phase: Floats, slope: Floats, strength: Floats, length: float) -> Floats:
    """Return log(1 + `strength`·CTF²) of rings of a phase in radians.

    `slope` is the derivative of twice the phase by k: what is steep fades in a tile of `length` Å.
    """
    fringe = 1 - hann_autocorrelation(slope / (2 * np.pi * length)) * np.cos(2 * phase)
    return np.asarray(np.log1p(0.5 * strength * fringe))


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
    models = log_power(phase[:, None], slope[:, None], strength(k, shapes), power.length)
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
