"""What one image tells of its brightness and its detail."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.view_quality import SECTORS, block_means, measure_detail

PIXEL = 4.0


def noise(shape=(256, 320), seed=0):
    return np.random.default_rng(seed).normal(50, 7, shape).astype(np.float32)


def waves(shape, length, angle):
    """Return a wave of a length [pixels], its direction counter-clockwise from x [degrees]."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    phase = x * np.cos(np.radians(angle)) + y * np.sin(np.radians(angle))
    return np.cos(2 * np.pi * phase / length).astype(np.float32)


def test_white_noise_has_no_detail_in_any_direction(on):
    found = measure_detail(on(noise()), PIXEL)
    assert found.ratios.shape == (SECTORS,)
    assert np.all(np.abs(found.ratios - 1) < 4 * found.errors)
    assert np.all(found.errors < 0.06)


@pytest.mark.parametrize("angle", [15, 75, 135])
def test_detail_is_found_in_its_direction(on, angle):
    image = noise() + 3 * waves((256, 320), 6.0, angle)
    assert int(np.argmax(measure_detail(on(image), PIXEL).ratios)) == angle // 30


def test_the_scale_of_an_image_does_not_matter_to_detail_but_to_noise():
    image = noise() + waves((256, 320), 6.0, 40)
    one, ten = (measure_detail(image * scale, PIXEL) for scale in (1, 10))
    np.testing.assert_allclose(ten.ratios, one.ratios, rtol=1e-4)
    assert ten.noise == pytest.approx(100 * one.noise, rel=1e-4)


def test_the_noise_of_counts_is_told():
    counts = np.random.default_rng(1).poisson(9.0, (256, 256)).astype(np.float32)
    # The fade of the edges takes a tenth of it.
    assert 0.7 * 9 < measure_detail(counts, PIXEL).noise < 9


def test_an_empty_image_tells_nothing():
    found = measure_detail(np.zeros((64, 64), np.float32), PIXEL)
    assert found.noise == 0
    assert not found.ratios.any()


def test_a_hit_makes_no_detail():
    image = noise()
    image[100:103, 80:84] = 60000
    assert measure_detail(image, PIXEL).ratios.max() < 1.2


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="3 axes"):
        measure_detail(np.zeros((2, 8, 8), np.float32), PIXEL)
    with pytest.raises(ValueError, match="pixel of 0"):
        measure_detail(np.zeros((8, 8), np.float32), 0.0)


def test_blocks_have_their_means(on):
    image = np.kron(np.arange(24 * 18).reshape(18, 24), np.ones((10, 10))).astype(np.float32)
    means = block_means(on(image))
    np.testing.assert_allclose(means, np.arange(24 * 18).reshape(18, 24))


@pytest.mark.parametrize("shape", [(7, 5), (100, 30), (31, 1000)])
def test_blocks_cover_images_of_any_size(shape):
    means = block_means(np.full(shape, 3.0, np.float32))
    assert means.size >= 1
    np.testing.assert_allclose(means, 3.0)
