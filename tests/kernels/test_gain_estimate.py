"""A gain made from movies: right within its noise, and what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from kernels.gain_estimate import estimate_gain, rectangles
from kernels.simulate import gain_reference

SHAPE = (160, 224)


def counts(gain, electrons, rng, groups=8):
    return [rng.poisson(electrons / groups / gain).astype(np.float32) for _ in range(groups)]


def test_the_planted_gain_is_found_within_the_noise_that_is_told():
    rng = np.random.default_rng(0)
    gain = gain_reference(SHAPE, rng)
    found = estimate_gain(counts(gain, 4000, rng))
    assert found.gain.dtype == np.float32
    assert found.gain.mean() == pytest.approx(1, abs=1e-5)
    assert not found.defects.any()
    error = np.std(found.gain / gain)
    assert error == pytest.approx(1 / np.sqrt(4000), rel=0.1)
    assert found.noise == pytest.approx(error, rel=0.1)
    smooth = scipy.ndimage.gaussian_filter(gain, 25)
    assert found.structure == pytest.approx(np.std(gain / smooth), rel=0.15)


def test_noise_beyond_the_structure_is_told():
    rng = np.random.default_rng(1)
    found = estimate_gain(counts(np.ones(SHAPE), 100, rng))
    assert found.noise == pytest.approx(0.1, rel=0.1)
    assert found.structure < 0.03


def test_xrays_and_what_stood_still_in_one_sum_are_left_out():
    rng = np.random.default_rng(2)
    gain = gain_reference(SHAPE, rng)
    sums = counts(gain, 4000, rng)
    for one in sums:
        y, x = rng.integers(0, SHAPE[0], 40), rng.integers(0, SHAPE[1], 40)
        one[y, x] += rng.integers(300, 3000, 40)
    sums[3][50:70, 80:100] *= 0.4  # a gold bead
    error = np.abs(estimate_gain(sums).gain / gain - 1)
    assert error.max() < 7 / np.sqrt(4000)
    mean = np.sum(sums, axis=0)
    assert np.abs(mean.mean() / mean / gain - 1).max() > 0.3


def test_dim_sums_weigh_little_and_empty_ones_nothing():
    rng = np.random.default_rng(3)
    gain = gain_reference(SHAPE, rng)
    sums = counts(gain, 4000, rng)
    sums[1] = rng.poisson(2 / gain).astype(np.float32)
    sums[2] = np.zeros(SHAPE, np.float32)
    error = np.std(estimate_gain(sums).gain / gain)
    assert error == pytest.approx(1 / np.sqrt(3002), rel=0.1)


def test_an_uneven_beam_is_evened_out():
    rng = np.random.default_rng(4)
    gain = gain_reference(SHAPE, rng)
    beam = np.exp(-0.5 * np.linspace(-1, 1, SHAPE[1])[None, :] ** 2)
    found = estimate_gain(counts(gain / beam, 8000, rng))
    assert not found.defects.any()
    assert np.std(found.gain * beam / gain) == pytest.approx(1 / np.sqrt(8000 * 0.8), rel=0.25)


def test_dead_hot_and_weak_pixels_are_defects_and_get_a_harmless_gain():
    rng = np.random.default_rng(5)
    gain = gain_reference(SHAPE, rng)
    planted = np.zeros(SHAPE, bool)
    planted[:, 30] = planted[11, 50:60] = planted[100:103, 200:204] = True
    sums = counts(gain, 4000, rng)
    for one in sums:
        one[:, 30] = 0
        one[11, 50:60] *= 20
        one[100:103, 200:204] *= 0.2
    found = estimate_gain(sums)
    np.testing.assert_array_equal(found.defects, planted)
    assert np.isfinite(found.gain).all()
    assert np.abs(found.gain[planted] - 1).max() < 0.2
    assert np.std((found.gain / gain)[~planted]) == pytest.approx(1 / np.sqrt(4000), rel=0.1)


def test_one_sum_makes_a_gain_of_unknown_noise():
    rng = np.random.default_rng(6)
    gain = gain_reference(SHAPE, rng)
    found = estimate_gain(counts(gain, 4000, rng, groups=1))
    assert found.noise == np.inf
    assert np.std(found.gain / gain) == pytest.approx(1 / np.sqrt(4000), rel=0.1)


@pytest.mark.parametrize("value", [0, np.nan])
def test_sums_without_numbers_are_refused(value):
    with pytest.raises(ValueError, match="expected positive numbers"):
        estimate_gain([np.full((8, 8), value, np.float32)])


def test_rectangles_cover_a_mask_exactly_and_do_not_overlap():
    rng = np.random.default_rng(7)
    for density in (0.0, 0.02, 0.5, 1.0):
        mask = rng.random((40, 31)) < density
        painted = np.zeros(mask.shape, int)
        for x, y, width, height in rectangles(mask):
            painted[y : y + height, x : x + width] += 1
        np.testing.assert_array_equal(painted, mask)


def test_a_dead_column_and_a_block_are_one_rectangle_each():
    mask = np.zeros((20, 30), bool)
    mask[:, 7] = mask[3:6, 20:24] = True
    assert rectangles(mask) == [(7, 0, 1, 20), (20, 3, 4, 3)]
