"""Motion of whole frames is found, dark movies stay still, and the sums add up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import scipy.fft

from kernels import arrays
from kernels.ctf import Ctf, ctf_2d
from kernels.fourier import frequencies, shift_images
from kernels.motion_local import estimate_motion
from kernels.motion_sum import sum_frames

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
    found = estimate_motion(movie(512, motion, dose=5.0), PIXEL, local=False)
    assert found.model == "global"
    assert error(found.shifts, motion) < 0.1


@pytest.mark.parametrize("motion", [DRIFT, BURST], ids=["drift", "burst"])
def test_motion_is_found_in_frames_of_a_tomogram(motion):
    found = estimate_motion(movie(1024, motion, dose=0.375, seed=3), PIXEL, local=False)
    assert found.model == "global"
    assert error(found.shifts, motion) < 0.4


def test_high_tilt_with_half_the_electrons_keeps_within_a_pixel():
    frames = movie(1024, DRIFT, dose=0.19, contrast=0.03, seed=4)
    found = estimate_motion(frames, PIXEL, local=False)
    assert found.model == "global"
    assert error(found.shifts, DRIFT) < 1.0
    assert error(found.shifts, DRIFT) < error(np.zeros_like(DRIFT), DRIFT)


def test_stated_uncertainty_is_that_of_the_errors():
    normalised = []
    for seed in range(6):
        found = estimate_motion(movie(512, BURST, dose=1.0, seed=seed), PIXEL, local=False)
        difference = found.shifts - BURST
        difference -= difference.mean(axis=0)
        normalised.append(difference / found.uncertainty[:, None])
    assert 0.7 < np.sqrt(np.mean(np.square(normalised))) < 1.5


@pytest.mark.parametrize("columns", [0.0, 0.01], ids=["pixels", "pixels and columns"])
def test_residual_gain_error_does_not_hold_the_motion_back(columns):
    rng = np.random.default_rng(9)
    gain = 1 + 0.01 * rng.standard_normal((512, 512)) + columns * rng.standard_normal((1, 512))
    gain = gain * np.linspace(0.9, 1.1, 512)[:, None]
    clean = estimate_motion(movie(512, BURST, dose=1.5, seed=5), PIXEL, local=False)
    fixed = estimate_motion(movie(512, BURST, dose=1.5, seed=5, gain=gain), PIXEL, local=False)
    assert error(fixed.shifts, clean.shifts) < 0.05
    slope = np.polyfit(BURST.ravel(), fixed.shifts.ravel(), 1)[0]
    assert slope == pytest.approx(1, abs=0.06)


def test_hot_pixels_and_xrays_do_not_hold_the_motion_back():
    frames = movie(512, BURST, dose=1.5, seed=5)
    clean = estimate_motion(frames, PIXEL, local=False)
    rng = np.random.default_rng(1)
    spoilt = frames.copy()
    spoilt[:, rng.integers(0, 512, 50), rng.integers(0, 512, 50)] = 300
    for frame in spoilt:
        frame[rng.integers(0, 512, 20), rng.integers(0, 512, 20)] += 1000
    assert error(estimate_motion(spoilt, PIXEL, local=False).shifts, clean.shifts) < 0.05


@pytest.mark.parametrize("course", ["steady", "settling"])
def test_a_large_drift_is_within_the_first_search(course):
    time = np.linspace(0, 1, 8)
    shape = time if course == "steady" else (1 - np.exp(-3 * time)) / (1 - np.exp(-3))
    motion = shape[:, None] * [25.0, -35.0]
    found = estimate_motion(movie(512, motion, dose=1.5, seed=6), PIXEL, local=False)
    assert error(found.shifts, motion) < 0.3


def test_first_frame_is_the_reference():
    assert np.all(estimate_motion(movie(256, DRIFT, dose=5.0), PIXEL, local=False).shifts[0] == 0)


@pytest.mark.parametrize("seed", range(6))
def test_a_dark_movie_stays_still_and_is_flagged(seed):
    rng = np.random.default_rng(seed)
    frames = rng.poisson(0.005, (8, 512, 512)).astype(np.float32)
    found = estimate_motion(frames, PIXEL, local=False)
    assert found.model == "none"
    assert np.all(found.shifts == 0)


def test_an_empty_movie_stays_still_and_is_flagged():
    found = estimate_motion(np.zeros((4, 128, 128), np.float32), PIXEL, local=False)
    assert found.model == "none"
    assert np.all(found.shifts == 0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_movies_are_aligned(count):
    found = estimate_motion(movie(256, DRIFT[::3][:count], dose=8.0), PIXEL, local=False)
    assert found.shifts.shape == (count, 2)
    assert error(found.shifts, DRIFT[::3][:count]) < 0.2


def test_frames_may_be_oblong_and_of_odd_size():
    motion = BURST[::2]
    frames = movie(420, motion, dose=5.0)[:, :301, :]
    assert error(estimate_motion(frames, PIXEL, local=False).shifts, motion) < 0.15


def test_every_namespace_finds_the_same(on):
    frames = movie(256, BURST, dose=5.0)
    here = estimate_motion(frames, PIXEL, local=False)
    there = estimate_motion([on(frame) for frame in frames], PIXEL, local=False)
    np.testing.assert_allclose(there.shifts, here.shifts, atol=0.02)


def test_frames_are_read_once_and_left_unchanged():
    frames = movie(256, DRIFT, dose=5.0)
    before = frames.copy()
    reads = []

    def once() -> Iterator[np.ndarray]:
        for i, frame in enumerate(frames):
            reads.append(i)
            yield frame

    estimate_motion(once(), PIXEL, local=False)
    sum_frames(once(), DRIFT)
    assert reads == [*range(8), *range(8)]
    np.testing.assert_array_equal(frames, before)


def test_odd_is_the_first_and_third_frame_and_odd_plus_even_is_full(on):
    frames = [np.full((16, 16), value, np.float32) for value in (1, 10, 100)]
    sums = sum_frames([on(frame) for frame in frames], np.zeros((3, 2)))
    odd, even, full = (arrays.to_host(s) for s in (sums.odd, sums.even, sums.full))
    np.testing.assert_allclose(odd, 101, rtol=1e-6)
    np.testing.assert_allclose(even, 10, rtol=1e-6)
    np.testing.assert_array_equal(full, odd + even)


def test_counts_that_disagree_are_refused():
    frames = np.zeros((3, 16, 16), np.float32)
    with pytest.raises(ValueError, match="3 frames for 4 shifts"):
        sum_frames(frames, np.zeros((4, 2)))
    with pytest.raises(ValueError, match="more frames than the 2 shifts"):
        sum_frames(frames, np.zeros((2, 2)))


def test_frames_that_differ_in_shape_are_refused():
    frames = [np.zeros((16, 16), np.float32), np.zeros((16, 20), np.float32)]
    with pytest.raises(ValueError, match=r"a frame is \(16, 20\), the first one is \(16, 16\)"):
        estimate_motion(frames, PIXEL, local=False)
    with pytest.raises(ValueError, match="the movie has no frames"):
        estimate_motion([], PIXEL, local=False)
