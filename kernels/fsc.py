"""Fourier shell correlation of two volumes, by sums that may be added up over parts."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def shell_products(
    one: NDArray[np.float32], other: NDArray[np.float32], shells: int
) -> tuple[Floats, Floats, Floats]:
    """Return Σ Re(A B*), Σ |A|², Σ |B|² in shells of the spectra of two parts of volumes.

    Parameters
    ----------
    one, other : (nz, ny, nx)
        Their means are taken out; they fade out towards their edges.
    shells : int
        From 0 to the Nyquist frequency, both included.

    Returns
    -------
    three (shells,) float64
    """
    window = np.ones((1, 1, 1), dtype=np.float32)
    for axis, n in enumerate(one.shape):
        form = [1, 1, 1]
        form[axis] = n
        window = window * np.hanning(n + 2)[1:-1].astype(np.float32).reshape(form)
    a, b = (scipy.fft.rfftn((v - v.mean(dtype=np.float64)) * window) for v in (one, other))
    square = np.zeros((1, 1, 1))
    for axis, n in enumerate(one.shape):
        form = [1, 1, 1]
        k = scipy.fft.rfftfreq(n) if axis == 2 else scipy.fft.fftfreq(n)
        form[axis] = len(k)
        square = square + (k**2).reshape(form)
    shell = np.rint(np.sqrt(square) * 2 * (shells - 1)).astype(np.int64).ravel()
    # Half a spectrum: what has a mirror image counts twice.
    twice = np.full(a.shape[2], 2.0)
    twice[0] = 1.0
    if one.shape[2] % 2 == 0:
        twice[-1] = 1.0

    def summed(values: NDArray[np.float32]) -> Floats:
        weights = (values.astype(np.float64) * twice).ravel()
        return np.asarray(np.bincount(shell, weights, shells)[:shells], dtype=np.float64)

    return summed((a * b.conj()).real), summed(np.abs(a) ** 2), summed(np.abs(b) ** 2)
