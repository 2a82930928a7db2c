"""Deconvolution for viewing: the filter's formula, and a planted image that comes back."""

import numpy as np
import pytest

from kernels import arrays
from kernels.ctf import Ctf, ctf_1d
from kernels.deconvolve import assumed_snr, deconvolve, wiener

CTF = Ctf(30000.0, 30000.0)
PIXEL = 8.0


def test_the_assumed_snr_has_its_landmarks():
    np.testing.assert_allclose(assumed_snr(np.array([1 / 300]), 1, 1), [2000 * np.exp(-2 / 3)])
    np.testing.assert_allclose(assumed_snr(np.array([1 / 600]), 1, 1), [1000 * np.exp(-1 / 3)])
    ratio = assumed_snr(np.array([0.03]), 1, 0.5) / assumed_snr(np.array([0.02]), 1, 0.5)
    np.testing.assert_allclose(ratio, np.exp(-1))
    assert assumed_snr(np.array([0.0]))[0] == 0


def test_a_high_snr_divides_the_ctf_out_and_none_gives_nothing():
    k = np.array([0.004, 0.01, 0.02])
    found = wiener(k, CTF, np.full(3, 1e9), left=None)
    np.testing.assert_allclose(found * -ctf_1d(k, CTF), 1, atol=1e-3)
    assert not wiener(k, CTF, np.zeros(3), left=1.0).any()
    assert (wiener(k, CTF, np.ones(3), left=1.0) > 0).all()


@pytest.mark.parametrize("left", [0.0, 1.0, 2.0])
def test_what_a_correction_has_left_is_divided_out(left):
    k = np.array([0.004, 0.01, 0.02])
    found = wiener(k, CTF, np.full(3, 1e12), left=left)
    np.testing.assert_allclose(found * np.abs(ctf_1d(k, CTF)) ** left, 1, atol=1e-3)


@pytest.mark.parametrize("shape", [(96, 120), (40, 60, 52)])
def test_contrast_lost_to_the_ctf_comes_back(on, shape):
    grids = np.meshgrid(*[np.arange(n) - n // 2 for n in shape], indexing="ij")
    ball = -np.exp(-sum(g**2 for g in grids) / (2 * 4.0**2))
    k = np.sqrt(sum(f**2 for f in np.meshgrid(
        *[np.fft.fftfreq(n, PIXEL) for n in shape], indexing="ij"
    )))  # fmt: skip
    seen = np.fft.ifftn(np.fft.fftn(ball) * np.abs(ctf_1d(k, CTF))).real.astype(np.float32)
    found = arrays.to_host(deconvolve(on(seen), PIXEL, CTF, falloff=0.3, highpass=0))
    assert found.dtype == np.float32
    assert np.corrcoef(found.ravel(), ball.ravel())[0, 1] > 0.95
    assert (
        np.corrcoef(found.ravel(), ball.ravel())[0, 1]
        > np.corrcoef(seen.ravel(), ball.ravel())[0, 1]
    )
    assert np.unravel_index(found.argmin(), shape) == tuple(n // 2 for n in shape)
