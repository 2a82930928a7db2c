"""Planted motion is found, dark movies stay still, and the sums add up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import scipy.fft

from kernels import arrays
from kernels.ctf import Ctf, ctf_2d
from kernels.fourier import frequencies, shift_images
from kernels.motion import estimate_shifts, sum_frames

PIXEL = 1.35  # Å
DRIFT = np.linspace(0, 1, 8)[:, None] * [3.1, -2.3]
BURST = (1 - np.exp(-np.arange(8) / 1.2))[:, None] * [2.5, 3.5]


def specimen(size, rng, contrast):
    """Return a texture with a power-law spectrum under a CTF, rms `contrast` about one."""
    ky, kx = frequencies((size, size), np.zeros(1, np.float32), PIXEL)
    k = np.hypot(ky, kx) + 1e-9
    amplitude = ctf_2d(ky, kx, Ctf(40000, 40000, 0.0)) / k * np.exp(-200 * k**2 / 4)
    amplitude = amplitude * (1 - np.exp(-((k * 800) ** 2)))
    texture = scipy.fft.irfft2(scipy.fft.rfft2(rng.standard_normal((size, size))) * amplitude)
    return (1 + texture * contrast / texture.std()).astype(np.float32)


def movie(size, shifts, *, dose, seed=0, contrast=0.04, gain=1.0):
    """Return Poisson frames of a texture that reaches beyond the frame and moves by `shifts`."""
    rng = np.random.default_rng(seed)
    margin = 32
    whole = specimen(size + 2 * margin, rng, contrast)
    frames = []
    for dy, dx in shifts:
        seen = shift_images(whole, dy, dx)[margin:-margin, margin:-margin]
        frames.append(rng.poisson(np.maximum(seen, 0.05) * dose * PIXEL**2) * gain)
    return np.asarray(frames, dtype=np.float32)


def error(found, true):
    """Return the root-mean-square error per axis, free of a common offset [pixels]."""
    difference = found - true
    return float(np.sqrt(((difference - difference.mean(axis=0)) ** 2).mean()))


@pytest.mark.parametrize("motion", [DRIFT, BURST], ids=["drift", "burst"])
def test_motion_is_found_to_a_tenth_of_a_pixel_in_bright_frames(motion):
    found = estimate_shifts(movie(512, motion, dose=5.0), PIXEL)
    assert found.reliable
    assert error(found.shifts, motion) < 0.1


@pytest.mark.parametrize("motion", [DRIFT, BURST], ids=["drift", "burst"])
def test_motion_is_found_in_frames_of_a_tomogram(motion):
    found = estimate_shifts(movie(1024, motion, dose=0.375, seed=3), PIXEL)
    assert found.reliable
    assert error(found.shifts, motion) < 0.4


def test_high_tilt_with_half_the_electrons_keeps_within_a_pixel():
    frames = movie(1024, DRIFT, dose=0.19, contrast=0.03, seed=4)
    found = estimate_shifts(frames, PIXEL)
    assert found.reliable
    assert error(found.shifts, DRIFT) < 1.0
    assert error(found.shifts, DRIFT) < error(np.zeros_like(DRIFT), DRIFT)


def test_stated_uncertainty_is_that_of_the_errors():
    normalised = []
    for seed in range(6):
        found = estimate_shifts(movie(512, BURST, dose=1.0, seed=seed), PIXEL)
        difference = found.shifts - BURST
        difference -= difference.mean(axis=0)
        normalised.append(difference / found.uncertainty[:, None])
    assert 0.7 < np.sqrt(np.mean(np.square(normalised))) < 1.5


@pytest.mark.parametrize("columns", [0.0, 0.01], ids=["pixels", "pixels and columns"])
def test_residual_gain_error_does_not_hold_the_motion_back(columns):
    rng = np.random.default_rng(9)
    gain = 1 + 0.01 * rng.standard_normal((512, 512)) + columns * rng.standard_normal((1, 512))
    gain = gain * np.linspace(0.9, 1.1, 512)[:, None]
    clean = estimate_shifts(movie(512, BURST, dose=1.5, seed=5), PIXEL)
    fixed = estimate_shifts(movie(512, BURST, dose=1.5, seed=5, gain=gain), PIXEL)
    assert error(fixed.shifts, clean.shifts) < 0.05
    slope = np.polyfit(BURST.ravel(), fixed.shifts.ravel(), 1)[0]
    assert slope == pytest.approx(1, abs=0.06)


def test_hot_pixels_and_xrays_do_not_hold_the_motion_back():
    frames = movie(512, BURST, dose=1.5, seed=5)
    clean = estimate_shifts(frames, PIXEL)
    rng = np.random.default_rng(1)
    spoilt = frames.copy()
    spoilt[:, rng.integers(0, 512, 50), rng.integers(0, 512, 50)] = 300
    for frame in spoilt:
        frame[rng.integers(0, 512, 20), rng.integers(0, 512, 20)] += 1000
    assert error(estimate_shifts(spoilt, PIXEL).shifts, clean.shifts) < 0.05


def test_a_large_steady_drift_is_within_the_first_search():
    motion = np.linspace(0, 1, 8)[:, None] * [25.0, 15.0]
    found = estimate_shifts(movie(512, motion, dose=1.5, seed=6), PIXEL)
    assert error(found.shifts, motion) < 0.3


def test_first_frame_is_the_reference():
    assert np.all(estimate_shifts(movie(256, DRIFT, dose=5.0), PIXEL).shifts[0] == 0)


@pytest.mark.parametrize("seed", range(6))
def test_a_dark_movie_stays_still_and_is_flagged(seed):
    rng = np.random.default_rng(seed)
    frames = rng.poisson(0.005, (8, 512, 512)).astype(np.float32)
    found = estimate_shifts(frames, PIXEL)
    assert not found.reliable
    assert np.all(found.shifts == 0)


def test_an_empty_movie_stays_still_and_is_flagged():
    found = estimate_shifts(np.zeros((4, 128, 128), np.float32), PIXEL)
    assert not found.reliable
    assert np.all(found.shifts == 0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_movies_are_aligned(count):
    found = estimate_shifts(movie(256, DRIFT[::3][:count], dose=8.0), PIXEL)
    assert found.shifts.shape == (count, 2)
    assert error(found.shifts, DRIFT[::3][:count]) < 0.2


def test_frames_may_be_oblong_and_of_odd_size():
    motion = BURST[::2]
    frames = movie(420, motion, dose=5.0)[:, :301, :]
    assert error(estimate_shifts(frames, PIXEL).shifts, motion) < 0.15


def test_every_namespace_finds_the_same(on):
    frames = movie(256, BURST, dose=5.0)
    here = estimate_shifts(frames, PIXEL)
    there = estimate_shifts([on(frame) for frame in frames], PIXEL)
    np.testing.assert_allclose(there.shifts, here.shifts, atol=0.02)


def test_frames_are_read_once_and_left_unchanged():
    frames = movie(256, DRIFT, dose=5.0)
    before = frames.copy()
    reads = []

    def once() -> Iterator[np.ndarray]:
        for i, frame in enumerate(frames):
            reads.append(i)
            yield frame

    estimate_shifts(once(), PIXEL)
    sum_frames(once(), DRIFT)
    assert reads == [*range(8), *range(8)]
    np.testing.assert_array_equal(frames, before)


def smooth_image(size, rng):
    ky, kx = frequencies((size, size), np.zeros(1, np.float32))
    low = np.hypot(ky, kx) < 0.2
    image = scipy.fft.irfft2(scipy.fft.rfft2(rng.standard_normal((size, size))) * low)
    return (5 + image).astype(np.float32)


def test_the_sum_undoes_the_displacement(on):
    image = smooth_image(64, np.random.default_rng(0))
    frames = [on(shift_images(image, dy, dx)) for dy, dx in DRIFT]
    full = arrays.to_host(sum_frames(frames, DRIFT).full)
    assert full.dtype == np.float32
    np.testing.assert_allclose(full, 8 * image, atol=2e-4)


def test_binning_keeps_mean_and_centre(on):
    image = np.zeros((64, 64), np.float32)
    image[32, 32] = 64.0
    sums = sum_frames([on(image)] * 2, np.zeros((2, 2)), binning=2)
    full = arrays.to_host(sums.full)
    assert full.shape == (32, 32)
    assert np.unravel_index(full.argmax(), full.shape) == (16, 16)
    assert full.mean() == pytest.approx(2 * image.mean(), rel=1e-5)


def test_binned_sum_moves_by_binned_displacements():
    image = smooth_image(128, np.random.default_rng(1))
    frames = [shift_images(image, dy, dx) for dy, dx in DRIFT]
    still = sum_frames([image] * 8, np.zeros((8, 2)), binning=2).full
    np.testing.assert_allclose(sum_frames(frames, DRIFT, binning=2).full, still, atol=2e-4)


def test_odd_is_the_first_and_third_frame_and_odd_plus_even_is_full(on):
    frames = [np.full((16, 16), value, np.float32) for value in (1, 10, 100)]
    sums = sum_frames([on(frame) for frame in frames], np.zeros((3, 2)))
    odd, even, full = (arrays.to_host(s) for s in (sums.odd, sums.even, sums.full))
    np.testing.assert_allclose(odd, 101, rtol=1e-6)
    np.testing.assert_allclose(even, 10, rtol=1e-6)
    np.testing.assert_array_equal(full, odd + even)


def test_filters_weight_each_frame():
    frames = [np.full((16, 16), value, np.float32) for value in (1, 10)]
    filters = [np.full((16, 9), weight, np.float32) for weight in (1.0, 0.5)]
    full = sum_frames(frames, np.zeros((2, 2)), filters=filters).full
    np.testing.assert_allclose(full, 6, rtol=1e-6)


def test_counts_that_disagree_are_refused():
    frames = np.zeros((3, 16, 16), np.float32)
    with pytest.raises(ValueError, match="3 frames for 4 shifts"):
        sum_frames(frames, np.zeros((4, 2)))
    with pytest.raises(ValueError, match="more frames than the 2 shifts"):
        sum_frames(frames, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="1 filters for 3 shifts"):
        sum_frames(frames, np.zeros((3, 2)), filters=[np.ones((16, 9), np.float32)])


def test_frames_that_differ_in_shape_are_refused():
    frames = [np.zeros((16, 16), np.float32), np.zeros((16, 20), np.float32)]
    with pytest.raises(ValueError, match=r"a frame is \(16, 20\), the first one is \(16, 16\)"):
        estimate_shifts(frames, PIXEL)
    with pytest.raises(ValueError, match="the movie has no frames"):
        estimate_shifts([], PIXEL)
