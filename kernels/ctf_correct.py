"""Correction of images for the contrast transfer function, by phase flip, multiplication, Wiener.

With ``h = (χ + asin A) / π`` (`kernels.ctf`), CTF = −sin πh: images are dark where matter is, and
stay so when they are multiplied by

* flip: −sign(CTF) = +1 where the whole part of h is even, else −1;
* multiply: −CTF = sin πh;
* wiener: −CTF / (CTF² + 1 / SNR), where ``SNR(k)`` falls with the frequency.

Of an image the phase is computed once; a plane at another defocus adds ``λ δ k²`` to h, so that
correcting for many planes costs one pass over the spectrum and one inverse transform each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import pi
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.arrays import Array, is_numpy, namespace
from kernels.ctf import Ctf, coefficients

Mode = Literal["flip", "multiply", "wiener"]
MODES: tuple[Mode, ...] = ("flip", "multiply", "wiener")

# sin πx = x (1 − x²) (c0 + c1 x² + …) on [−½, ½] to 2e-7: Chebyshev fit of sin πx / (x (1 − x²)).
SINE = tuple(
    np.float32(c)
    for c in np.polynomial.Chebyshev.interpolate(
        lambda q: np.sinc(np.sqrt(q)) * pi / (1 - q), 5, domain=[0, 0.25]
    )
    .convert(kind=np.polynomial.Polynomial)
    .coef
)


@dataclass(frozen=True)
class Correction:
    """How an image is corrected.

    Attributes
    ----------
    mode : {'flip', 'multiply', 'wiener'}
    snr : float
        Signal-to-noise ratio of the spectrum at k = 0, for 'wiener'.
    snr_falloff : float
        Frequency at which the ratio has fallen to 1/e of that [1/Å], for 'wiener'.
    first_peak_intact : bool
        Below the first maximum of |CTF| the factor is as there, so that low frequencies are not
        weakened; a flip has this by nature.
    """

    mode: Mode = "flip"
    snr: float = 10.0
    snr_falloff: float = 0.05
    first_peak_intact: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises
        ------
        ValueError
            If the mode is unknown, or a number not positive.
        """
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}, expected one of {', '.join(MODES)}")
        if not (self.snr > 0 and self.snr_falloff > 0):
            raise ValueError(f"SNR {self.snr} and its falloff {self.snr_falloff} must be positive")


def half_turns(ky: Array, kx: Array, ctf: Ctf) -> Array:
    """Return h = (χ + asin A) / π on a grid, modulo 2, astigmatism included.

    Parameters
    ----------
    ky, kx : (ny, 1) and (1, nx) float32
        Frequencies [1/Å], as of ``fourier.frequencies``.
    ctf : Ctf

    Returns
    -------
    (ny, nx) float32, where `kx` lives
        In [0, 2): of a hundred turns float32 keeps five digits less.
    """
    xp = namespace(ky, kx)
    a, b, c = (value / pi for value in coefficients(ctf))
    turn = np.radians(2 * ctf.astigmatism_angle)
    wide_y, wide_x = (xp.astype(k, xp.float64) for k in (ky, kx))
    ky2, kx2 = wide_y * wide_y, wide_x * wide_x
    k2 = ky2 + kx2
    along = 0.5 * a * ctf.astigmatism * float(np.cos(turn))
    across = a * ctf.astigmatism * float(np.sin(turn))
    h = k2 * (a * ctf.defocus + b * k2) + along * (kx2 - ky2) + across * wide_y * wide_x + c
    return xp.astype(h - 2 * xp.floor(h / 2), xp.float32)


def correct_spectrum(
    spectrum: Array,
    h: Array,
    ky: Array,
    kx: Array,
    offset: float,
    voltage: float,
    correction: Correction,
    peak: Ctf | None = None,
) -> Array:
    """Return the spectrum of an image corrected at a defocus `offset` Å larger than that of `h`.

    Parameters
    ----------
    spectrum : (ny, nx) complex64
        Of the image, or half of it.
    h : (ny, nx) float32
        Of `half_turns`.
    ky, kx : (ny, 1) and (1, nx) float32
        Frequencies [1/Å].
    offset : float
        Added to the defocus [Å].
    voltage : float
        [kV]
    correction : Correction
    peak : Ctf, optional
        Of the image, needed where the first peak is to stay intact.

    Returns
    -------
    (ny, nx) complex64
    """
    if is_numpy(spectrum):
        out = np.empty_like(spectrum)
        numbers, mode = numbers_of(offset, voltage, correction, peak)
        _correct(spectrum, h, ky.ravel() ** 2, kx.ravel() ** 2, numbers, mode, out)
        return out
    return spectrum * correction_factor(h, ky, kx, offset, voltage, correction, peak)


def numbers_of(
    offset: float, voltage: float, correction: Correction, peak: Ctf | None
) -> tuple[NDArray[np.float32], int]:
    """Return what the factor at a frequency k depends on, beside h.

    Returns
    -------
    numbers : (4,) float32
        What is added to h, per k² [Å²]; below which k² the factor is that of a CTF of −1 [1/Å²];
        1 / SNR at k = 0; the rise of its logarithm with k [Å].
    mode : int
        Place among `MODES`.
    """
    slope = coefficients(Ctf(0.0, 0.0, voltage=voltage))[0] / pi * offset
    limit = first_peak(peak, offset) if correction.first_peak_intact and peak else 0.0
    numbers = (slope, limit**2, 1 / correction.snr, 1 / correction.snr_falloff)
    return np.array(numbers, dtype=np.float32), MODES.index(correction.mode)


def first_peak(ctf: Ctf, offset: float) -> float:
    """Return the lowest frequency [1/Å] at which |CTF| is 1, at the mean defocus plus `offset`.

    0 where the phase begins beyond it, or never comes to it.
    """
    a, b, c = coefficients(replace(ctf, phase_shift=ctf.phase_shift % 180.0))
    defocus = ctf.defocus + offset
    if not (0 < c < pi / 2 and defocus > 0):
        return 0.0
    # b k⁴ + a Δf k² + c = ½π; b is negative or 0.
    slope, missing = a * defocus, pi / 2 - c
    discriminant = slope**2 + 4 * b * missing
    if discriminant < 0:
        return 0.0
    return float(np.sqrt(2 * missing / (slope + np.sqrt(discriminant))))


def correction_factor(
    h: Array, ky: Array, kx: Array, offset: float, voltage: float, correction: Correction,
    peak: Ctf | None = None,
) -> Array:  # fmt: skip
    """Return what `correct_spectrum` multiplies by, plainly, in any array namespace."""
    xp = namespace(h)
    numbers, _ = numbers_of(offset, voltage, correction, peak)
    slope, limit2, noise, falloff = (float(number) for number in numbers)
    k2 = ky * ky + kx * kx
    turned = h + k2 * slope
    if correction.mode == "flip":
        return _flip_factor(turned)
    value = xp.sin(turned * pi)
    value = xp.where(k2 < limit2, xp.ones_like(value), value)
    if correction.mode == "multiply":
        return value
    return value / (value * value + xp.exp(xp.sqrt(k2) * falloff) * noise)


def _flip_factor(turned: Array) -> Array:
    xp = namespace(turned)
    whole = xp.floor(turned)
    return 1 - 2 * (whole - 2 * xp.floor(whole / 2))


OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "fastmath": {"contract", "nnan", "ninf", "nsz", "reassoc"},
}


@njit(inline="always", **OPTIONS)  # type: ignore[untyped-decorator]
def weigh_row(h: Any, ky2: Any, kx2: Any, numbers: Any, mode: Any, out: Any) -> None:
    """Fill `out` with the factors of one row; `numbers` and `mode` are those of `numbers_of`."""
    slope, limit2, noise, falloff = numbers
    one, two, half = np.float32(1), np.float32(2), np.float32(0.5)
    c0, c1, c2, c3, c4, c5 = SINE
    if mode == 0:
        for x in range(out.size):
            whole = np.floor(h[x] + slope * (ky2 + kx2[x]))
            out[x] = one - two * (whole - two * np.floor(half * whole))
        return
    for x in range(out.size):
        k2 = ky2 + kx2[x]
        t = h[x] + slope * k2
        whole = np.floor(t + half)
        u = t - whole
        q = u * u
        series = c0 + q * (c1 + q * (c2 + q * (c3 + q * (c4 + q * c5))))
        value = u * (one - q) * series * (one - two * (whole - two * np.floor(half * whole)))
        out[x] = one if k2 < limit2 else value
    if mode == 2:
        for x in range(out.size):
            value = out[x]
            rise = np.exp(falloff * np.sqrt(ky2 + kx2[x]))
            out[x] = value / (value * value + noise * rise)


@njit(**OPTIONS)  # type: ignore[untyped-decorator]
def _correct(spectrum: Any, h: Any, ky2: Any, kx2: Any, numbers: Any, mode: Any, out: Any) -> None:
    factors = np.empty(h.shape[1], np.float32)
    for y in range(h.shape[0]):
        weigh_row(h[y], ky2[y], kx2, numbers, mode, factors)
        for x in range(h.shape[1]):
            out[y, x] = spectrum[y, x] * factors[x]
