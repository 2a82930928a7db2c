import numpy as np
import pytest

from kernels import correlate, fourier


def scene(seed=0, size=96):
    noise = np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32)
    ky, kx = fourier.frequencies((size, size), noise)
    return fourier.irfft2(fourier.rfft2(noise) * np.exp(-((ky**2 + kx**2) / 0.02)), (size, size))


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.3, -7.6), (-20.25, 11.5)])
def test_the_displacement_of_the_moving_image_is_found(on, shift):
    image = on(scene())
    moved = fourier.shift_images(image, *shift)
    spectra = fourier.rfft2(image), fourier.rfft2(moved)
    peak = correlate.find_peak(correlate.cross_correlation(*spectra, (96, 96)))
    assert (peak.dy, peak.dx) == pytest.approx(shift, abs=0.02)
    assert peak.sharpness > 10


def test_only_the_allowed_distance_is_searched():
    image = scene()
    spectra = fourier.rfft2(image), fourier.rfft2(fourier.shift_images(image, 0, 30))
    peak = correlate.find_peak(correlate.cross_correlation(*spectra, (96, 96)), max_shift=10)
    assert np.hypot(peak.dy, peak.dx) <= 11


def test_unrelated_images_have_no_sharp_peak():
    spectra = fourier.rfft2(scene(1)), fourier.rfft2(scene(2))
    assert correlate.find_peak(correlate.cross_correlation(*spectra, (96, 96))).sharpness < 6


def test_a_weight_filters_the_product():
    image = scene()
    spectrum = fourier.rfft2(image)
    none = correlate.cross_correlation(spectrum, spectrum, (96, 96), weight=0 * abs(spectrum))
    assert not none.any()
