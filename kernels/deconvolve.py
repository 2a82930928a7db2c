"""Wiener-like deconvolution of tomograms, to be looked at: not for averaging.

The CTF at one defocus is divided out as far as an assumed spectral signal-to-noise ratio allows,
which falls exponentially with the frequency and to nothing below a high-pass [1]_.

References
----------
.. [1] D. Tegunov & P. Cramer, Nature Methods 16:1146 (2019), doi:10.1038/s41592-019-0580-y
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from kernels.arrays import Array, asarray_like, is_numpy, namespace
from kernels.ctf import Ctf, ctf_1d
from kernels.fourier import fast_size

FALLOFF_LENGTH = 200.0  # Å: with fall-off 1 the SNR is e times less for each 1/200 Å more


def assumed_snr(
    k: NDArray[np.float64], strength: float = 1.0, falloff: float = 1.0, highpass: float = 300.0
) -> NDArray[np.float64]:
    """Return ``10^(3·strength) · exp(−200 Å · falloff · k) · (1 − cos(π · min(1, highpass · k)))``.

    Parameters
    ----------
    k : any shape
        Spatial frequency [1/Å].
    strength, falloff : float
    highpass : float
        Where the high-pass ends [Å]; 0 for none.
    """
    rise = 1 - np.cos(np.pi * np.minimum(1, highpass * k)) if highpass > 0 else 2.0
    return 10 ** (3 * strength) * np.exp(-FALLOFF_LENGTH * falloff * k) * rise


def wiener(
    k: NDArray[np.float64], ctf: Ctf, snr: NDArray[np.float64], *, left: float | None
) -> NDArray[np.float64]:
    """Return ``T / (T² + 1 / SNR)``, T being −CTF, or the power `left` of its magnitude.

    The sign keeps matter dark (`kernels.ctf`). 0 where the SNR is. Of images whose phases were
    flipped 1 is left, of those multiplied by the CTF 2, of those that it was divided out of 0.
    """
    transfer = -np.asarray(ctf_1d(k, ctf))
    if left is not None:
        transfer = np.abs(transfer) ** left
    return transfer * snr / (transfer**2 * snr + 1)


def deconvolve(
    volume: Array,
    pixel_size: float,
    ctf: Ctf,
    *,
    strength: float = 1.0,
    falloff: float = 1.0,
    highpass: float = 300.0,
    left: float | None = 1.0,
) -> Array:
    """Deconvolve a tomogram or an image.

    Parameters
    ----------
    volume : (…, n) float32, two or three axes
    pixel_size : float
        [Å]
    ctf : Ctf
        At the middle of the specimen, untilted; its astigmatism is left out.
    strength, falloff, highpass
        As of `assumed_snr`.
    left : float or None
        As of `wiener`; None where the CTF has not been corrected.

    Returns
    -------
    Array like `volume`, of mean 0 unless there is no high-pass

    Notes
    -----
    Memory for four times the volume. Edges are padded by reflection, so that opposite ones do
    not ring into each other.
    """
    xp = namespace(volume)
    shape = volume.shape
    padded = volume
    for axis, n in enumerate(shape):
        more = min(fast_size(n + 32) - n, n)
        index = np.concatenate([np.arange(n), n - 1 - np.arange(more - more // 2)])
        index = np.concatenate([index, np.arange(more // 2)[::-1]])
        padded = xp.take(padded, asarray_like(index, volume), axis=axis)
    square = np.zeros(1)
    for axis, n in enumerate(padded.shape):
        last = axis == len(shape) - 1
        k = (scipy.fft.rfftfreq if last else scipy.fft.fftfreq)(n, pixel_size)
        square = square[..., None] + k**2 if axis else k**2
    # The filter is smooth in k: a table of it is exact to 1e-4 and quick.
    table = np.linspace(0, np.sqrt(square.max()) * 1.0001, 8192)
    snr = assumed_snr(table, strength, falloff, highpass)
    curve = wiener(table, ctf, snr, left=left)
    factor = np.interp(np.sqrt(square), table, curve).astype(np.float32)
    spectrum = scipy.fft.rfftn(padded) if is_numpy(volume) else xp.fft.rfftn(padded)
    spectrum = spectrum * asarray_like(factor, volume)
    if is_numpy(volume):
        whole = scipy.fft.irfftn(spectrum, padded.shape)
    else:
        whole = xp.fft.irfftn(spectrum, s=padded.shape, axes=tuple(range(len(shape))))
    return whole[tuple(slice(0, n) for n in shape)]
