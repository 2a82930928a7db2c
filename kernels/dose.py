"""Weights by exposure: radiation damage takes fine detail first (Grant & Grigorieff, 2015).

doi:10.7554/eLife.06980
"""

from __future__ import annotations

from collections.abc import Sequence

from kernels.arrays import Array, namespace
from kernels.fourier import Shape, frequencies, irfft2, rfft2

# Critical exposure a·k^b + c [e/Å²], k in 1/Å, at 300 kV. The paper prints three digits; these
# are the values of its program.
A, B, C = 0.24499, -1.6649, 2.8141
VOLTAGE_RATIO = {300: 1.0, 200: 0.8}  # the voltages of the paper


def critical_exposure(k: Array, voltage: float, *, ratio: float | None = None) -> Array:
    """Return the exposure [e/Å²] that leaves 1/e of the power at spatial frequency `k`.

    Parameters
    ----------
    k : Array
        Spatial frequency [1/Å]; infinite exposure at 0.
    voltage : float
        300 or 200 kV; others need `ratio`.
    ratio : float, optional
        Critical exposure relative to that at 300 kV, instead of the paper's (1 or 0.8).

    Raises
    ------
    ValueError
        For another voltage without `ratio`.
    """
    scale = _voltage_ratio(voltage, ratio)
    xp = namespace(k)
    positive = xp.where(k > 0, k, xp.ones_like(k))
    return xp.where(k > 0, scale * (A * positive**B + C), xp.full_like(k, float("inf")))


def exposure_weights(
    shape: Shape,
    pixel_size: float,
    exposure: float,
    voltage: float,
    like: Array,
    *,
    ratio: float | None = None,
) -> Array:
    """Return the amplitude left, exp(−D / 2 N_c(k)), on the half spectrum of an image.

    Parameters
    ----------
    shape : (ny, nx)
        Of the image.
    pixel_size : float
        [Å]
    exposure : float
        Accumulated exposure D at the end of the image, prior exposure included [e/Å²].
    voltage : float
        300 or 200 kV; others need `ratio`.
    like : Array
        Decides namespace and device.
    ratio : float, optional
        See `critical_exposure`.

    Returns
    -------
    (ny, nx // 2 + 1) float32
        1 at zero frequency: the mean is kept.

    Raises
    ------
    ValueError
        If `exposure` is negative or `pixel_size` not positive, or for an unknown voltage.
    """
    if not exposure >= 0:
        raise ValueError(f"exposure is {exposure} e/Å², it must be at least 0")
    if not pixel_size > 0:
        raise ValueError(f"pixel size is {pixel_size} Å, it must be positive")
    xp = namespace(like)
    ky, kx = frequencies(shape, like, pixel_size)
    critical = critical_exposure(xp.sqrt(ky * ky + kx * kx), voltage, ratio=ratio)
    return xp.exp(-0.5 * exposure / critical)


def series_strength(
    shape: Shape,
    pixel_size: float,
    exposures: Sequence[float],
    voltage: float,
    like: Array,
    *,
    ratio: float | None = None,
) -> Array:
    """Return √(Σ q² / N), what the weights q of N views leave of white noise in their sum.

    Views divided by it keep, added up, the noise that they would have without weights; constant
    weights cancel.

    Parameters
    ----------
    exposures : sequence of float
        Of the views that are added up [e/Å²].
    shape, pixel_size, voltage, like, ratio
        As of `exposure_weights`.

    Returns
    -------
    (ny, nx // 2 + 1) float32
        1 at zero frequency.

    Raises
    ------
    ValueError
        If there are no exposures, or as by `exposure_weights`.
    """
    if not exposures:
        raise ValueError("no exposures: the strength of a series needs one view at least")
    xp = namespace(like)
    # The square of a weight is that of twice the exposure.
    squares = [
        exposure_weights(shape, pixel_size, 2 * exposure, voltage, like, ratio=ratio)
        for exposure in exposures
    ]
    total = squares[0]
    for square in squares[1:]:
        total = total + square
    return xp.sqrt(total / len(exposures))


def view_weights(
    shape: Shape,
    pixel_size: float,
    exposure: float,
    voltage: float,
    like: Array,
    *,
    ratio: float | None = None,
    others: Sequence[float] = (),
) -> Array:
    """Return what the half spectrum of a view of a series is multiplied by.

    Parameters
    ----------
    others : sequence of float
        Exposures of all views of the series, this one included, to keep the noise of their sum
        (`series_strength`); empty: the noise falls with the signal.
    shape, pixel_size, exposure, voltage, like, ratio
        As of `exposure_weights`, whose errors it raises.

    Returns
    -------
    (ny, nx // 2 + 1) float32
        1 at zero frequency.
    """
    weights = exposure_weights(shape, pixel_size, exposure, voltage, like, ratio=ratio)
    if others:
        floor = namespace(like).finfo(weights.dtype).tiny
        strength = series_strength(shape, pixel_size, others, voltage, like, ratio=ratio)
        weights = weights / namespace(like).maximum(strength, strength * 0 + floor)
    return weights


def weight_image(
    image: Array,
    exposure: float,
    pixel_size: float,
    voltage: float,
    *,
    ratio: float | None = None,
    others: Sequence[float] = (),
) -> Array:
    """Weight an image (ny, nx) float32 by its accumulated exposure; the mean is kept.

    The other parameters, and errors, are those of `view_weights`.
    """
    shape = (image.shape[-2], image.shape[-1])
    weights = view_weights(shape, pixel_size, exposure, voltage, image, ratio=ratio, others=others)
    return irfft2(rfft2(image) * weights, shape)


def _voltage_ratio(voltage: float, ratio: float | None) -> float:
    if ratio is None:
        ratio = VOLTAGE_RATIO.get(round(voltage))
    if ratio is None:
        raise ValueError(
            f"no critical exposure is known at {voltage} kV, only at 300 and 200: give its ratio "
            "to that at 300 kV"
        )
    if not ratio > 0:
        raise ValueError(f"ratio of critical exposures is {ratio}, it must be positive")
    return ratio
