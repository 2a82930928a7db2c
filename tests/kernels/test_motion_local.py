"""A planted field of local motion is found where there is one, and none where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import scipy.fft
from scipy.ndimage import map_coordinates

from kernels.ctf import Ctf, ctf_2d
from kernels.fourier import frequencies
from kernels.motion_local import LocalField, estimate_motion, relion_coefficients, spread
from kernels.motion_patches import field_functions

PIXEL = 2.0  # Å
SIZE = 512
FRAMES = 8
COURSE = 1 - np.exp(-np.arange(FRAMES) / 2.5)
SHIFTS = COURSE[:, None] * [2.5, -1.5]
PLACES = np.meshgrid(*[(np.arange(-8, 9)) / 17] * 2, indexing="ij")


def bending(y, x):
    """Return displacement (8, 2, …): a drum that bends, seen askew, with no polynomial behind."""
    y, x = np.broadcast_arrays(y, x)
    drum = np.exp(-((y - 0.1) ** 2 + (x + 0.05) ** 2) / 0.2)
    turn = np.stack([3 * np.sin(2.5 * x), 5 * drum - 3 * np.sin(2 * y)])
    return COURSE.reshape(-1, *[1] * turn.ndim) * turn


def still(y, x):
    """Return no displacement (8, 2, …)."""
    return np.zeros((FRAMES, 2, *np.shape(y + x)))


@cache
def movie(field=bending, *, size=(SIZE, SIZE), dose=4.0, seed=0, gain=1.0):
    """Return Poisson frames of a texture under a CTF, displaced by `SHIFTS` and `field`."""
    rng = np.random.default_rng(seed)
    margin = 24
    shape = (size[0] + 2 * margin, size[1] + 2 * margin)
    ky, kx = frequencies(shape, np.zeros(1, np.float32), PIXEL)
    k = np.hypot(ky, kx) + 1e-9
    amplitude = ctf_2d(ky, kx, Ctf(30000, 30000, 0.0)) / k * np.exp(-200 * k**2 / 4)
    amplitude = amplitude * (1 - np.exp(-((k * 800) ** 2)))
    texture = scipy.fft.irfft2(scipy.fft.rfft2(rng.standard_normal(shape)) * amplitude, s=shape)
    texture = 1 + 0.04 * texture / texture.std()
    row, column = np.arange(size[0])[:, None], np.arange(size[1])[None, :]
    y, x = (row - size[0] // 2) / size[0], (column - size[1] // 2) / size[1]
    local = field(y, x)
    frames = []
    for shift, moved in zip(SHIFTS, local, strict=True):
        where = [
            row + margin - shift[0] - moved[0],
            column + margin - shift[1] - moved[1],
        ]
        seen = map_coordinates(texture, where, order=3)
        frames.append(rng.poisson(np.maximum(seen, 0.05) * dose * PIXEL**2) * gain)
    return np.asarray(frames, dtype=np.float32)


def errors(found, field=bending):
    """Return errors of the shifts and of the field, root-mean-square per axis [pixels]."""
    true = SHIFTS[:, :, None, None] + field(*PLACES)
    seen = found.shifts[:, :, None, None] + np.zeros_like(true)
    if found.local is not None:
        seen = seen + found.local.at(*PLACES)
    difference = seen - true
    difference = difference - difference.mean(axis=0)
    whole = difference.mean(axis=(2, 3), keepdims=True)
    return float(np.sqrt((whole**2).mean())), float(np.sqrt(((difference - whole) ** 2).mean()))


@cache
def found_bending():
    return estimate_motion(movie(), PIXEL)


def test_a_planted_field_is_found_with_the_shifts():
    found = found_bending()
    assert found.model == "local"
    whole, local = errors(found)
    assert whole < 0.06
    assert local < 0.12
    assert local < 0.25 * errors(estimate_motion(movie(), PIXEL, local=False))[1]


def test_the_field_is_found_in_frames_of_a_tomogram():
    found = estimate_motion(movie(size=(640, 640), dose=0.375, seed=1), PIXEL)
    assert found.model == "local"
    whole, local = errors(found)
    assert whole < 0.15
    assert local < 0.25


def test_the_field_has_the_frame_s_own_coordinates_in_oblong_odd_frames():
    found = estimate_motion(movie(size=(401, 655), dose=3.0, seed=2), PIXEL)
    assert max(errors(found)) < 0.12


def test_blocks_of_pixels_do_not_move_the_field():
    small = movie(dose=3.0)
    large = np.repeat(np.repeat(small, 3, axis=1), 3, axis=2)[:, 1:, :-1] / 9
    here, there = estimate_motion(small, PIXEL), estimate_motion(large, PIXEL / 3)
    assert there.model == "local"
    np.testing.assert_allclose(there.shifts / 3, here.shifts, atol=0.05)
    field = LocalField(there.local.coefficients / 3)
    assert max(errors(replace(there, shifts=there.shifts / 3, local=field))) < 0.15


def test_without_local_motion_there_is_no_field():
    models = [estimate_motion(movie(still, seed=s), PIXEL).model for s in range(3)]
    assert models == ["global"] * 3


def test_dim_frames_fall_back_to_shifts_and_dark_ones_to_rest():
    dim = estimate_motion(movie(dose=0.12), PIXEL)
    assert dim.model == "global"
    assert dim.local is None
    assert np.any(dim.shifts)
    dark = estimate_motion(movie(dose=0.002, seed=3), PIXEL)
    assert dark.model == "none"
    assert dark.significance < 9
    assert not np.any(dark.shifts)
    assert dark.local is None


def test_evidence_grows_with_the_signal():
    dim = estimate_motion(movie(dose=1.0), PIXEL)
    assert found_bending().evidence > dim.evidence > 2


def test_stated_uncertainty_is_that_of_the_errors():
    normalised = []
    for seed in range(5):
        found = estimate_motion(movie(size=(384, 384), dose=1.0, seed=seed), PIXEL)
        true = SHIFTS + bending(*PLACES).mean(axis=(2, 3))
        difference = found.shifts - true
        normalised.append((difference - difference.mean(axis=0)) / found.uncertainty[:, None])
    assert 0.6 < np.sqrt(np.mean(np.square(normalised))) < 1.5


def test_a_patch_full_of_signal_does_not_decide_for_the_whole_frame():
    frames = movie(seed=4).copy()
    frames[:, 40:90, 60:110] += 4 * (frames[:, 40:90, 60:110] - 4)
    assert errors(estimate_motion(frames, PIXEL))[1] < 0.25


def test_residual_gain_does_not_hold_the_field_back():
    rng = np.random.default_rng(9)
    gain = 1 + 0.01 * rng.standard_normal((SIZE, SIZE)) + 0.01 * rng.standard_normal(SIZE)
    fixed = estimate_motion(movie() * gain.astype(np.float32), PIXEL)
    assert max(errors(fixed)) < 0.15


def test_every_namespace_finds_the_same(on):
    frames = movie(dose=3.0)[:, 128:-128, 128:-128]
    here = estimate_motion(frames, PIXEL)
    there = estimate_motion([on(frame) for frame in frames], PIXEL)
    assert here.model == there.model == "local"
    np.testing.assert_allclose(there.shifts, here.shifts, atol=2e-3)
    np.testing.assert_allclose(there.local.at(*PLACES), here.local.at(*PLACES), atol=5e-3)


def test_frames_are_read_once_and_left_unchanged():
    frames = movie()
    before = frames.copy()
    reads = []

    def once() -> Iterator[np.ndarray]:
        for i, frame in enumerate(frames):
            reads.append(i)
            yield frame

    estimate_motion(once(), PIXEL)
    assert reads == list(range(FRAMES))
    np.testing.assert_array_equal(frames, before)


@pytest.mark.parametrize("groups", [(2, 2), (1, 2), (2, 4), (3, 3)])
def test_groups_of_frames_find_the_same_motion(groups):
    found = estimate_motion(movie(), PIXEL, group_global=groups[0], group_local=groups[1])
    assert found.shifts.shape == (FRAMES, 2)
    whole, local = errors(found)
    assert whole < 0.35
    assert local < 0.35


def test_any_frame_may_be_the_reference():
    middle = estimate_motion(movie(), PIXEL, reference_frame=4)
    first = found_bending()
    assert not np.any(middle.shifts[4])
    assert not np.any(middle.local.at(0.3, 0.2)[4])
    np.testing.assert_allclose(middle.shifts, first.shifts - first.shifts[4], atol=1e-9)
    assert not np.any(first.shifts[0])
    assert not np.any(first.local.coefficients[0])


def test_patches_and_b_factors_are_taken():
    few = estimate_motion(movie(), PIXEL, patches=(4, 3))
    assert max(errors(few)) < 0.2
    smooth = estimate_motion(movie(), PIXEL, b_factor_global=500.0, b_factor_local=500.0)
    assert max(errors(smooth)) < 0.2
    assert not np.array_equal(smooth.shifts, found_bending().shifts)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_movies_are_aligned(count):
    chosen = [0, 3, 7][:count]
    found = estimate_motion(movie(still)[chosen], PIXEL)
    assert found.model == "global"
    np.testing.assert_allclose(found.shifts, SHIFTS[chosen] - SHIFTS[0], atol=0.25)


def test_numbers_out_of_range_are_refused():
    frames = np.ones((3, 64, 64), np.float32)
    with pytest.raises(ValueError, match="the reference is frame 3 of 3"):
        estimate_motion(frames, PIXEL, reference_frame=3)
    with pytest.raises(ValueError, match="a group is of 0 frames"):
        estimate_motion(frames, PIXEL, group_local=0)
    with pytest.raises(ValueError, match="there are 0×3 patches"):
        estimate_motion(frames, PIXEL, patches=(0, 3))
    with pytest.raises(ValueError, match="the movie has no frames"):
        estimate_motion([], PIXEL)


def test_the_functions_have_no_mean_and_are_orthonormal():
    place = (np.arange(400) + 0.5) / 400 - 0.5
    values = field_functions(place[:, None], place[None, :], 9).reshape(-1, 9)
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(values.T @ values / len(values), np.eye(9), atol=1e-3)
    slopes = field_functions(np.array([0.0, 0.25]), np.array([0.0, -0.25]), 2)
    np.testing.assert_allclose(slopes, [[0, 0], [np.sqrt(3) / 2, -np.sqrt(3) / 2]])


def test_relion_s_polynomial_is_that_of_the_field():
    rng = np.random.default_rng(0)
    time = np.arange(6)[:, None] ** np.array([1, 2, 3])
    field = LocalField(np.einsum("nt,tka->nka", time, rng.normal(0, 0.1, (3, 5, 2))))
    coefficients = relion_coefficients(field).reshape(2, 6, 3)
    y, x = 0.31, -0.17
    space = np.array([1, x, x * x, y, y * y, x * y])
    found = np.einsum("ast,s,nt->na", coefficients, space, time)
    np.testing.assert_allclose(found[:, ::-1], field.at(y, x), atol=1e-9)


def test_courses_of_groups_are_drawn_straight_through_their_middles():
    np.testing.assert_allclose(spread(np.array([0.5, 2.5, 4.0]), 2, 5), [0, 1, 2, 3, 4])
    np.testing.assert_allclose(spread(np.array([[3.0, 1.0]]), 4, 3), [[3, 1]] * 3)
