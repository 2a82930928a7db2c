"""Reduction by any factor: what stays in place, what must vanish, what must stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kernels.arrays import to_host
from kernels.fourier import bin_images
from kernels.reduce import FILTERS, reduce_image, reduced_places, reduced_shape

On = Callable[[Any], Any]
FACTORS = (1.0001, 1.37, 1.5, 2.0, 2.5, 2.71828, 3.0, 4.0, 6.3)


def blob(shape: tuple[int, int], y: float, x: float, sigma: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2)).astype(np.float32)


def place(image: np.ndarray, y: float, x: float, sigma: float) -> np.ndarray:
    """Return where a blob is, by its centroid in a Gaussian window that moves with it."""
    rows, columns = np.indices(image.shape)
    for _ in range(30):
        window = image * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
        y += 2 * ((rows * window).sum() / window.sum() - y)
        x += 2 * ((columns * window).sum() / window.sum() - x)
    return np.array([y, x])


@pytest.mark.parametrize("kernel", FILTERS)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("shape", [(160, 161), (159, 176)])
def test_a_blob_stays_in_place_from_the_centre_pixel(
    kernel: str, factor: float, shape: tuple[int, int]
) -> None:
    from_centre = np.array([13.3, -21.7])
    image = blob(shape, *(np.array(shape) // 2 + from_centre), 2.5 * factor)
    out = reduce_image(image, factor, kernel)
    expected = np.array(out.shape) // 2 + from_centre / factor
    found = place(out.astype(np.float64), *expected, 2.5)
    np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("kernel", FILTERS)
@pytest.mark.parametrize("factor", FACTORS)
def test_size_type_and_mean_hold_at_any_size(kernel: str, factor: float) -> None:
    rng = np.random.default_rng(int(100 * factor))
    for _ in range(4):
        shape = tuple(rng.integers(24, 130, 2))
        image = rng.normal(10, 3, shape).astype(np.float32)
        before = image.copy()
        out = reduce_image(image, factor, kernel)
        assert out.dtype == np.float32
        assert out.shape == reduced_shape(shape, factor) == tuple(int(n / factor) for n in shape)
        assert out.mean(dtype=np.float64) == pytest.approx(image.mean(dtype=np.float64), rel=1e-6)
        np.testing.assert_array_equal(image, before)
        for n, m in zip(shape, out.shape, strict=True):
            places = reduced_places(n, factor)
            assert places[m // 2] == n // 2
            assert (places > -0.5 - factor).all()
            assert (places < n - 0.5 + factor).all()


@pytest.mark.parametrize("factor", [2.0, 3.0, 4.0])
def test_a_wave_above_the_new_nyquist_frequency_vanishes(factor: float) -> None:
    n = 240
    for cycles in range(int(n / (2 * factor)) + 1, n // 2, 7):
        wave = np.cos(2 * np.pi * cycles / n * np.arange(n) + 0.4)
        for image in (np.tile(wave, (60, 1)), np.tile(wave[:, None], (1, 60))):
            out = reduce_image(image.astype(np.float32), factor)
            assert out.var() < 1e-4 * image.var()  # −40 dB


@pytest.mark.parametrize("factor", [1.5, 2.0, 2.71828, 4.0])
@pytest.mark.parametrize("size", [511, 512])
def test_detail_that_is_too_fine_leaves_no_noise_at_any_factor(factor: float, size: int) -> None:
    rng, whole = np.random.default_rng(0), 1024
    ky, kx = np.fft.fftfreq(whole)[:, None], np.fft.rfftfreq(whole)[None, :]
    fine = np.maximum(np.abs(ky), kx) > 0.55 / factor
    image = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(whole, whole))) * fine, (whole, whole))
    image = image[:size, :size].astype(np.float32)  # which is not periodic
    out = reduce_image(image, factor)
    margin = round(32 / factor)  # a window's edges are broken waves, whatever the method
    assert out[margin:-margin, margin:-margin].var() < 1e-4 * image.var()


@pytest.mark.parametrize("factor", [1.5, 2.0, 2.71828, 4.0])
def test_a_wave_below_it_keeps_its_amplitude(factor: float) -> None:
    n, frequency = 1000, 0.9 / (2 * factor)
    image = np.tile(np.cos(2 * np.pi * frequency * np.arange(n)), (40, 1)).astype(np.float32)
    row = reduce_image(image, factor)[5]
    expected = np.cos(2 * np.pi * frequency * reduced_places(n, factor))
    np.testing.assert_allclose(row[40:-40], expected[40:-40], atol=0.03)


@pytest.mark.parametrize("factor", [2.0, 2.3, 4.0])
def test_a_gradient_makes_no_rims(factor: float) -> None:
    n = 400
    image = np.tile(np.linspace(0, 100, n), (n, 1)).astype(np.float32)
    for turned in (False, True):
        out = reduce_image(image.T if turned else image, factor)
        row = (out.T if turned else out)[30]
        expected = reduced_places(n, factor) * 100 / (n - 1)
        # Plain Fourier cropping overshoots by 9 % of the step between the two ends.
        np.testing.assert_allclose(row, expected - expected.mean() + row.mean(), atol=0.2)


def test_inside_of_an_image_that_fits_it_is_plain_fourier_cropping() -> None:
    rng, shape = np.random.default_rng(3), (240, 360)
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
    kept = (np.minimum(np.abs(ky), kx) > 0.03) & (np.maximum(np.abs(ky), kx) < 0.49 / 3)
    image = np.fft.irfft2(np.fft.rfft2(rng.normal(size=shape)) * kept, shape).astype(np.float32)
    inner = (slice(16, -16), slice(16, -16))  # slopes are taken out at the edges
    ours, plain = (reduce(image, 3)[inner] for reduce in (reduce_image, bin_images))
    np.testing.assert_allclose(ours, plain, atol=0.01 * plain.std())


@pytest.mark.parametrize("kernel", FILTERS)
@pytest.mark.parametrize("factor", [1.5, 2.0, 2.71828])
def test_every_array_namespace_gives_the_same(on: On, kernel: str, factor: float) -> None:
    image = np.random.default_rng(4).normal(8, 2, (64, 83)).astype(np.float32)
    out = to_host(reduce_image(on(image), factor, kernel))
    np.testing.assert_allclose(out, reduce_image(image, factor, kernel), atol=1e-5)


def test_factor_one_returns_the_image() -> None:
    image = np.random.default_rng(5).normal(size=(20, 21)).astype(np.float32)
    np.testing.assert_array_equal(reduce_image(image, 1.0), image)


@pytest.mark.parametrize(
    ("shape", "factor", "kernel", "message"),
    [
        ((2, 8, 8), 2, "fourier", "3 axes, expected 2"),
        ((8, 8), 0.5, "fourier", r"binning is 0\.5, it must be at least 1"),
        ((8, 8), float("nan"), "fourier", "binning is nan"),
        ((8, 8), 9, "fourier", "binning 9 leaves nothing of 8×8"),
        ((8, 8), 2, "gauss", "filter is 'gauss', expected one of fourier, box"),
    ],
)
def test_what_cannot_be_reduced_is_refused(
    shape: tuple[int, ...], factor: float, kernel: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        reduce_image(np.zeros(shape, np.float32), factor, kernel)
