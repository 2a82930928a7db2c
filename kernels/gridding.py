"""The interpolation kernel of warping: Kaiser and Bessel's, six pixels wide.

Images are interpolated by a plain convolution, which fades high frequencies by a known
`response`; the sum of many warped images is divided by it once, at the end. For a given band of
frequencies the kernel leaves less error than a B-spline of the same width.
"""

from __future__ import annotations

from functools import cache
from math import pi

import numpy as np
from numpy.typing import NDArray
from scipy.special import j0

from kernels.arrays import Array, asarray_like
from kernels.fourier import Shape

TAPS = 6
TERMS = 5  # of each polynomial in the squared distance
WIDEST_BAND = 0.463  # cycles per pixel: nothing finite interpolates up to 0.5


@cache
def steepness(band: float) -> float:
    """Return the kernel's parameter β for frequencies up to `band` [cycles per pixel].

    Its spectrum ends a little before the first alias of the band begins, at 1 − band.
    """
    return 0.97 * pi * TAPS * (1 - min(band, WIDEST_BAND))


def kernel(distance: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """Return I₀(β √(1 − (2d / width)²)) − 1, which ends without a step at half the width.

    Beyond, it goes on smoothly, not with zeros.
    """
    inside = 1 - (2 * distance / TAPS) ** 2
    root = beta * np.sqrt(np.abs(inside))
    return np.where(inside > 0, np.i0(root), j0(root)) - 1  # I₀ of imaginary numbers is J₀


def polynomials(beta: float) -> NDArray[np.float32]:
    """Return the weights of the six pixels around a point as polynomials.

    For a point at `t` beyond the third of the six, s = t − ½ and z = s², pixel j = 0, 1, 2 has
    the weight even_j(z) + s · odd_j(z), and pixel 5 − j has even_j(z) − s · odd_j(z).

    Returns
    -------
    (3, 2, TERMS) float32
        Of pixel j, even and odd part, rising powers of z. Good to 1e-6 for s from −0.6 to 0.6.
    """
    # Chebyshev nodes; a little beyond ±½, so that a whole run of points may share its pixels.
    s = 0.6 * np.cos(pi * (np.arange(200) + 0.5) / 200)
    z = s * s
    powers = np.stack([z**k for k in range(TERMS)], axis=1)
    # Divided by their sum, the weights keep the mean everywhere.
    total = np.sum([kernel(j - 2.5 - s, beta) for j in range(TAPS)], axis=0)
    pixels = []
    for j in range(TAPS // 2):
        here, mirrored = (kernel(j - 2.5 - sign * s, beta) / total for sign in (1, -1))
        even, odd = (here + mirrored) / 2, (here - mirrored) / (2 * s)
        pixels.append([np.linalg.lstsq(powers, part)[0] for part in (even, odd)])
    return np.array(pixels, dtype=np.float32)


def response(shape: Shape, lengths: Shape, beta: float, like: Array) -> tuple[Array, Array]:
    """Return what the kernel leaves of each frequency of a half spectrum, as two factors.

    Parameters
    ----------
    shape : (ny, nx)
        Of the (cropped) image of the half spectrum.
    lengths : (ny, nx)
        Of the image before cropping, in pixels of the interpolation.
    beta : float
    like : Array
        Decides namespace and device.

    Returns
    -------
    (ny, 1) and (1, nx // 2 + 1) float32
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)
    distance = nodes * TAPS / 2
    profile = weights * kernel(distance, beta)
    profile /= profile.sum()
    waves = (np.fft.fftfreq(shape[0], 1 / shape[0]), np.arange(shape[1] // 2 + 1))
    factors = [
        (np.cos(2 * pi * np.abs(k)[:, None] / length * distance) @ profile).astype(np.float32)
        for k, length in zip(waves, lengths, strict=True)
    ]
    return asarray_like(factors[0][:, None], like), asarray_like(factors[1][None, :], like)
