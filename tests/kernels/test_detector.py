"""Gain, dark and defects do to a frame what they say."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import arrays
from kernels.detector import correct_frame, orient_reference, replace_pixels

RNG = np.random.default_rng(0)


def test_dark_is_subtracted_before_the_gain_multiplies(on):
    raw = RNG.integers(0, 255, (6, 8)).astype(np.uint8)
    gain = RNG.uniform(0.8, 1.2, (6, 8))
    dark = RNG.uniform(0, 20, (6, 8)).astype(np.float32)
    corrected = arrays.to_host(correct_frame(on(raw), on(gain), on(dark)))
    assert corrected.dtype == np.float32
    np.testing.assert_allclose(corrected, (raw - dark) * gain, rtol=1e-5, atol=1e-4)


def test_a_frame_without_references_only_becomes_float32(on):
    raw = RNG.integers(-100, 100, (6, 8)).astype(np.int16)
    corrected = arrays.to_host(correct_frame(on(raw)))
    assert corrected.dtype == np.float32
    np.testing.assert_array_equal(corrected, raw)


def test_a_frame_made_with_a_gain_becomes_even_again():
    gain = RNG.uniform(0.5, 2.0, (16, 16)).astype(np.float32)
    np.testing.assert_allclose(correct_frame(100 / gain, gain), 100, rtol=1e-6)


def test_references_of_another_shape_are_refused():
    frame = np.zeros((6, 8), np.float32)
    with pytest.raises(ValueError, match=r"gain reference is \(8, 6\), the frame \(6, 8\)"):
        correct_frame(frame, gain=np.ones((8, 6), np.float32))
    with pytest.raises(ValueError, match="dark reference"):
        correct_frame(frame, dark=np.ones((3, 4), np.float32))


# One bright pixel at x = 3, y = 1 of a frame 2 high and 5 wide, y counted upwards from row 0.
# A quarter turn counter-clockwise takes (x, y) to (−y, x), here to x = 2 − 1 − y, y = x.
@pytest.mark.parametrize(
    ("rotation", "flip", "shape", "x", "y"),
    [
        (0, "none", (2, 5), 3, 1),
        (1, "none", (5, 2), 0, 3),
        (2, "none", (2, 5), 1, 0),
        (3, "none", (5, 2), 1, 1),
        (0, "up-down", (2, 5), 3, 0),
        (0, "left-right", (2, 5), 1, 1),
        (1, "up-down", (5, 2), 0, 1),
        (1, "left-right", (5, 2), 1, 3),
        (3, "up-down", (5, 2), 1, 3),
    ],
)
def test_a_reference_turns_then_flips(on, rotation, flip, shape, x, y):
    reference = np.zeros((2, 5), np.float32)
    reference[1, 3] = 1
    turned = arrays.to_host(orient_reference(on(reference), rotation, flip))
    expected = np.zeros(shape, np.float32)
    expected[y, x] = 1
    np.testing.assert_array_equal(turned, expected)


def test_four_quarter_turns_and_two_flips_are_nothing():
    reference = RNG.standard_normal((4, 7))
    turned = reference
    for _ in range(4):
        turned = orient_reference(turned, 1)
    np.testing.assert_array_equal(turned, reference)
    for flip in ("up-down", "left-right"):
        flipped = orient_reference(orient_reference(reference, 0, flip), 0, flip)
        np.testing.assert_array_equal(flipped, reference)


def test_the_eight_orientations_of_a_square_reference_differ():
    reference = RNG.standard_normal((3, 3))
    seen = {
        orient_reference(reference, rotation, flip).tobytes()
        for rotation in range(4)
        for flip in ("none", "up-down", "left-right")
    }
    assert len(seen) == 8


def test_unknown_orientations_are_refused():
    with pytest.raises(ValueError, match="rotation is 90 quarter turns"):
        orient_reference(np.zeros((2, 2)), 90)
    with pytest.raises(ValueError, match="flip is 'x'"):
        orient_reference(np.zeros((2, 2)), 0, "x")


def test_bad_pixels_become_copies_of_good_ones_nearby(on):
    image = np.arange(30 * 40, dtype=np.float32).reshape(30, 40)
    mask = np.zeros((30, 40), bool)
    mask[5, 7] = mask[0, 0] = mask[20:23, 10:14] = mask[:, 39] = True
    out = arrays.to_host(replace_pixels(on(image), mask, np.random.default_rng(1)))
    np.testing.assert_array_equal(out[~mask], image[~mask])
    assert not np.isin(out[mask], image[mask]).any()
    y, x = np.divmod(out[mask].astype(int), 40)
    distance = np.hypot(y - np.argwhere(mask)[:, 0], x - np.argwhere(mask)[:, 1])
    assert distance.max() < 8


def test_replaced_pixels_keep_the_statistics_of_counts():
    rng = np.random.default_rng(2)
    image = rng.poisson(0.5, (400, 400)).astype(np.float32)
    mask = rng.random((400, 400)) < 0.1
    image[mask] = 1000
    filled = replace_pixels(image, mask, rng)[mask]
    assert filled.mean() == pytest.approx(0.5, abs=0.03)
    assert filled.var() == pytest.approx(0.5, abs=0.04)


def test_replacing_leaves_the_argument_alone_and_repeats_with_the_seed():
    image = RNG.standard_normal((20, 20)).astype(np.float32)
    before = image.copy()
    mask = RNG.random((20, 20)) < 0.2
    first = replace_pixels(image, mask, np.random.default_rng(5))
    second = replace_pixels(image, mask, np.random.default_rng(5))
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(replace_pixels(image, mask & False, RNG), image)


def test_masks_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"the mask is \(2, 3\), the image \(3, 2\)"):
        replace_pixels(np.zeros((3, 2)), np.zeros((2, 3), bool), RNG)
    with pytest.raises(ValueError, match="all 6 pixels are bad"):
        replace_pixels(np.zeros((2, 3)), np.ones((2, 3), bool), RNG)
