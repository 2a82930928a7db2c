"""Filters of the rows of aligned views, for weighted back-projection.

Scale: `ramp` is |k| in cycles per pixel and `angular_steps` are in radians, so that
`backproject` (filtered views, weights = angular steps) is a Riemann sum of the inverse Radon
transform. Views that hold line integrals of a density over lengths in pixels give that density
back, as far as there are views: a missing wedge takes its share of the amplitude. Divide by the
pixel size for lengths in Å.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from kernels.arrays import Array, asarray_like, is_numpy, namespace
from kernels.fourier import fast_size

Filter = NDArray[np.float32]

# IMOD's value of the ramp at frequency 0, in units of its first step; the ramp's kernel cut to
# the length of a row has 2/π² there.
RAMP_DC = 0.2

# IMOD's SIRT-like filter: relaxation per iteration, in cycles per pixel.
SIRT_RELAXATION = 0.00195

# Fall-off of IMOD's Hamming-like filter, as a part of the way from its start to Nyquist.
HAMMING_FALLOFF = 0.438


def padded_width(nx: int) -> int:
    """Return the even FFT length for rows of `nx` pixels: half as long again at least."""
    return fast_size(1.5 * nx)


def ramp(n: int, cutoff: float = 0.35, falloff: float = 0.05) -> Filter:
    """Return the ramp filter |k| with a Gaussian fall-off, of rows `n` pixels long.

    Parameters
    ----------
    n : int
        Length of the (padded) rows.
    cutoff : float
        Where the fall-off begins [cycles per pixel].
    falloff : float
        Its standard deviation [cycles per pixel]. This is IMOD's with FalloffIsTrueSigma; IMOD
        without it, and novaCTF, take √2 times narrower ones.

    Returns
    -------
    (n // 2 + 1,) float32
        In cycles per pixel, 0.2 / n at frequency 0 (as IMOD `tilt`).

    Raises
    ------
    ValueError
        If cutoff or fall-off are negative.
    """
    frequency = scipy.fft.rfftfreq(n)
    values = np.where(frequency == 0, RAMP_DC / n, frequency)
    return (values * fall_off(n, cutoff, falloff)).astype(np.float32)


def fall_off(n: int, cutoff: float, falloff: float) -> NDArray[np.float64]:
    """Return the factor (n // 2 + 1,) that `ramp` has: 1, and beyond `cutoff` a Gaussian.

    Raises
    ------
    ValueError
        If cutoff or fall-off are negative.
    """
    if cutoff < 0 or falloff < 0:
        raise ValueError(f"cutoff {cutoff} and fall-off {falloff} must not be negative")
    beyond = np.maximum(scipy.fft.rfftfreq(n) - cutoff, 0)
    if falloff > 0:
        return np.exp(-0.5 * (beyond / falloff) ** 2)
    return (beyond < 1e-9).astype(np.float64)


def exact(
    n: int, tilts: ArrayLike, thickness: float, cutoff: float = 0.35, falloff: float = 0.05
) -> Filter:
    """Return the exact filter [1]_ of each view, for a specimen of a given thickness.

    ``W_i(k) = 1 / (D · Σ_j max(0, 1 − k · D · |sin(θ_j − θ_i)|))``: in Fourier space a view fills
    a sheet 1 / D thick, and what several views measure is shared among them. Well above k = 1 / D
    it is the ramp times the angular step, and beyond the resolution that the views allow it is
    flat. Back-project with weights 1: the steps are in it.

    Parameters
    ----------
    n : int
        Length of the (padded) rows.
    tilts : (n_views,)
        Tilt angles in any order [degrees].
    thickness : float
        D, the diameter of what is reconstructed [pixels].
    cutoff, falloff : float
        As of `ramp`.

    Returns
    -------
    (n_views, 1, n // 2 + 1) float32
        At frequency 0 no more than the ramp has there (IMOD's limit).

    Raises
    ------
    ValueError
        If the thickness is not positive.

    References
    ----------
    .. [1] G. Harauz & M. van Heel, Optik 73:146 (1986)
    """
    if not thickness > 0:
        raise ValueError(f"thickness is {thickness} pixels, it must be positive")
    angles = np.radians(np.asarray(tilts, dtype=np.float64))
    apart = np.abs(np.sin(angles[:, None] - angles))
    frequency = scipy.fft.rfftfreq(n)
    overlap = np.stack(
        [np.maximum(0, 1 - thickness * k * apart).sum(axis=1) for k in frequency], axis=1
    )
    values = 1 / (thickness * overlap)
    values[:, 0] = np.minimum(values[:, 0], RAMP_DC * values[:, 1])
    return (values * fall_off(n, cutoff, falloff)).astype(np.float32)[:, None, :]


def log_intensity(image: Array, offset: float = 0.0, least: float = 0.01) -> Array:
    """Return the natural logarithm of ``image + offset``: line integrals of the attenuation.

    Values below the part `least` of the mean, which no specimen causes, are taken as that.
    Matter stays dark.

    Raises
    ------
    ValueError
        If the mean is not positive.
    """
    xp = namespace(image)
    shifted = image + offset
    mean = float(xp.mean(shifted))
    if not mean > 0:
        raise ValueError(f"mean is {mean:g} with offset {offset:g}: a logarithm needs more than 0")
    floor = xp.zeros_like(shifted) + least * mean
    return xp.log(xp.maximum(shifted, floor))


def hamming_like(n: int, start: float) -> Filter:
    """Return IMOD's Hamming-like ramp filter: falling off from `start` [cycles per pixel] on."""
    if not 0 <= start < 0.5:
        raise ValueError(f"Hamming-like filter starts at {start}, it must be in [0, 0.5)")
    return ramp(n, start, HAMMING_FALLOFF * (0.5 - start))


def sirt_like(n: int, iterations: int, relaxation: float = SIRT_RELAXATION) -> Filter:
    """Return the factor on a ramp filter that imitates SIRT after some iterations.

    ``g(k) = 1 − (1 − α / k)^(N′ + 0.3)`` for k ≥ α, else 1: low frequencies gain on high ones.
    N′ is IMOD's: N up to 15, then 0.8 and beyond 30 iterations 0.6 for each more.

    Parameters
    ----------
    n : int
        Length of the (padded) rows.
    iterations : int
        N, at least 1.
    relaxation : float
        α in cycles per pixel. With 0.00195 the filter depends on the binning, as IMOD's does.

    Returns
    -------
    (n // 2 + 1,) float32

    Raises
    ------
    ValueError
        If `iterations` is below 1.
    """
    if iterations < 1:
        raise ValueError(f"SIRT-like filter of {iterations} iterations: at least 1 is needed")
    exponent = np.interp(iterations, [0, 15, 30, 1030], [0, 15, 27, 627]) + 0.3
    frequency = np.maximum(scipy.fft.rfftfreq(n), relaxation)
    return (1 - (1 - relaxation / frequency) ** exponent).astype(np.float32)


def view_weights(tilts: ArrayLike, neighbours: int = 2) -> NDArray[np.float64]:
    """Return weights of mean 1, proportional to each view's local angular step.

    A view's step is the mean of the `neighbours` intervals on either side of it, the i-th with
    weight 1 / (i − 0.5) (IMOD's DENSWEIGHT): a gap in the series is filled by its neighbours.

    Parameters
    ----------
    tilts : (n_views,)
        Tilt angles in any order [degrees].

    Returns
    -------
    (n_views,) float64

    Raises
    ------
    ValueError
        If there are fewer than two different tilt angles.
    """
    angles = np.asarray(tilts, dtype=np.float64)
    order = np.argsort(angles)
    intervals = np.diff(angles[order])
    if not np.any(intervals > 0):
        raise ValueError(f"tilt angles {angles.tolist()} are not at least two different ones")
    sums, total = np.zeros(len(angles)), np.zeros(len(angles))
    for i in range(1, min(neighbours, len(intervals)) + 1):
        weight = 1 / (i - 0.5)
        sums[i:] += weight * intervals[: len(intervals) - i + 1]
        sums[:-i] += weight * intervals[i - 1 :]
        total[i:] += weight
        total[:-i] += weight
    weights = np.empty_like(angles)
    weights[order] = sums / total
    return weights / weights.mean()


def angular_steps(tilts: ArrayLike, neighbours: int = 2) -> NDArray[np.float64]:
    """Return the angle that each view stands for [radians]: `view_weights` × the mean step."""
    mean_step = np.ptp(np.asarray(tilts, dtype=np.float64)) / (np.size(tilts) - 1)
    return view_weights(tilts, neighbours) * np.radians(mean_step)


def filter_views(views: Array, row_filter: Filter) -> Array:
    """Multiply the Fourier transform of each row of aligned views by a filter.

    Rows are padded to the filter's length; the padding leads linearly from the mean of the last
    3 pixels to that of the first 3, so that the row has no jump where it wraps around.

    Parameters
    ----------
    views : (..., ny, nx) float32
    row_filter : (n // 2 + 1,), or (n_views, 1, n // 2 + 1)
        For even n ≥ nx, such as ``ramp(padded_width(nx))``.

    Returns
    -------
    (..., ny, nx) float32

    Raises
    ------
    ValueError
        If the filter is shorter than a row.
    """
    xp = namespace(views)
    nx, n = views.shape[-1], 2 * (row_filter.shape[-1] - 1)
    if n < nx:
        raise ValueError(f"filter is for rows of {n} pixels, the views have {nx}")
    factor = asarray_like(np.asarray(row_filter, dtype=np.float32), views)
    way = asarray_like(((np.arange(n - nx) + 1) / (n - nx + 1)).astype(np.float32), views)
    first = xp.mean(views[..., :3], axis=-1, keepdims=True)
    last = xp.mean(views[..., -3:], axis=-1, keepdims=True)
    rows = xp.concat([views, last + (first - last) * way], axis=-1)
    if is_numpy(views):
        return scipy.fft.irfft(scipy.fft.rfft(rows) * factor, n)[..., :nx]
    return xp.fft.irfft(xp.fft.rfft(rows) * factor, n=n)[..., :nx]
