"""Correction in strips against the exact CTF of every point, and of every column of pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from kernels import arrays
from kernels.ctf import Ctf, ctf_2d
from kernels.ctf_correct import MODES, Correction
from kernels.ctf_slope import (
    Slope,
    ctf_in_aligned,
    lay_strips,
    slope_in_aligned,
    slope_in_raw,
    step_of_width,
)
from kernels.ctf_strip_correct import correct_strips, reference_correct_strips
from kernels.geometry import View, aligned_from_raw, defocus_offset, midplane_points

SHAPE, PIXEL = (150, 160), 3.0
VIEW = Ctf(12000.0, 11000.0, 31.0)
STEEP = Slope(3.0, -0.8, 120.0)


def noise(shape=SHAPE, seed=1):
    values = 5 + np.random.default_rng(seed).standard_normal(shape)
    return values.astype(np.float32)


def patch(size, seed=1):
    """Noise that has faded out where what lies beyond the edges could come in."""
    faded = np.clip(np.minimum(np.arange(size), np.arange(size)[::-1]) / 20 - 2.0, 0, 1)
    smooth = gaussian_filter(noise((size, size), seed) - 5, 1.2)
    return (5 + smooth * faded * faded[:, None]).astype(np.float32)


def corrected(image, ctf, slope, step=300.0, mode="flip", blend=1.0, **more):
    strips = lay_strips(image.shape, PIXEL, slope, step, blend)
    return correct_strips(image, ctf, PIXEL, slope, strips, Correction(mode, **more))


def imaged(points, ctf, slope, shape=SHAPE):
    """Return points (x, y from the centre pixel [pixels]), each imaged by its own exact CTF."""
    ky, kx = np.fft.fftfreq(shape[0], PIXEL)[:, None], np.fft.rfftfreq(shape[1], PIXEL)[None]
    spectrum = np.zeros((shape[0], shape[1] // 2 + 1), np.complex128)
    for x, y in points:
        offset = slope.middle + PIXEL * (slope.x * x + slope.y * y)
        row, column = y + shape[0] // 2, x + shape[1] // 2
        turn = np.exp(-2j * np.pi * PIXEL * (ky * row + kx * column))
        # Rounded off, so that a point is not an aliased jump.
        spread = np.exp(-2 * (np.pi * 0.6 * PIXEL) ** 2 * (ky**2 + kx**2))
        spectrum -= turn * spread * ctf_2d(ky, kx, ctf.with_offset(offset))
    return np.fft.irfft2(spectrum, shape).astype(np.float32)


POINTS = [(-46, 20), (45, -30), (2, 31), (-20, -38), (30, 9)]


def heights(image):
    return np.array([image[y + SHAPE[0] // 2, x + SHAPE[1] // 2] for x, y in POINTS])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("blend", [1.0, 0.4, 0.0])
def test_equals_the_plain_reference(on, mode, blend):
    strips = lay_strips(SHAPE, PIXEL, STEEP, 250.0, blend)
    assert len(strips.offsets) > 5
    how = (VIEW, PIXEL, STEEP, strips, Correction(mode, first_peak_intact=mode != "flip"), 24)
    expected = reference_correct_strips(noise(), *how)
    found = arrays.to_host(correct_strips(on(noise()), *how))
    # float32 cannot tell on which side of a seam, or which sign at a zero, a rare value lies.
    far = np.abs(found - expected) > 1e-5 * np.abs(expected).max()
    assert found.dtype == np.float32
    assert far.mean() < (2e-3 if blend == 0 else 1e-9)


def put_together(image, pixel, slope, step, blend):
    """Return an image cut into strips, and put together, of which none is corrected."""
    strips = lay_strips(image.shape, pixel, slope, step, blend)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kernels.ctf_strip_correct.correct_spectrum", lambda spectrum, *_: spectrum)
        return correct_strips(image, VIEW, pixel, slope, strips, Correction("flip"), 16)


@pytest.mark.parametrize("axis", [0.0, 90.0, 180.0, -90.0])
@pytest.mark.parametrize("step", [150.0, 300.0])
def test_no_column_is_lost_or_doubled_where_strips_end_on_pixels(on, axis, step):
    shape = (24, 1024) if axis in (0.0, 180.0) else (1024, 24)
    image, slope = on(noise(shape)), slope_in_raw(View(30.0, axis), 1)
    found = arrays.to_host(put_together(image, 1.35, slope, step, 0.0))
    np.testing.assert_allclose(found, noise(shape), atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([0.0, 45.0, 90.0, -180.0]) | st.floats(-180, 180),
    st.sampled_from([-60.0, 30.0, 45.0]) | st.floats(0.1, 75),
    st.integers(2, 40),
    st.sampled_from([0.0, 1e-9, 0.5, 1.0]) | st.floats(0, 1),
    st.integers(20, 70),
)
def test_weights_of_every_pixel_add_up_to_one(axis, tilt, parts, blend, width):
    image, slope = noise((21, width)), slope_in_raw(View(tilt, axis), -1)
    step = slope.steepness * PIXEL * width / parts
    np.testing.assert_allclose(put_together(image, PIXEL, slope, step, blend), image, atol=1e-4)


@pytest.mark.parametrize("axis", [0.0, 85.3, -140.0])
def test_tilted_points_come_back_as_with_the_exact_ctf_of_each(axis):
    slope = slope_in_raw(View(75.0, axis), 1)
    image = imaged(POINTS, VIEW, slope)
    got = heights(corrected(image, VIEW, slope, 100.0, "multiply"))
    # Multiplied by its own CTF twice, a point's height is the mean of spread · CTF².
    exact = [heights(_twice(p, VIEW, slope))[i] for i, p in enumerate(POINTS)]
    np.testing.assert_allclose(got, exact, rtol=0.004)
    flat = heights(corrected(image, VIEW, Slope(0, 0), 200.0, "multiply"))
    assert np.abs(flat / exact - 1).max() > 0.05


def _twice(point, ctf, slope):
    x, y = point
    own = ctf.with_offset(slope.middle + PIXEL * (slope.x * x + slope.y * y))
    ky, kx = np.fft.fftfreq(SHAPE[0], PIXEL)[:, None], np.fft.rfftfreq(SHAPE[1], PIXEL)[None]
    image = imaged([point], ctf, slope)
    return np.fft.irfft2(np.fft.rfft2(image) * -ctf_2d(ky, kx, own), SHAPE)


def test_the_error_falls_with_the_square_of_the_distance_of_strips():
    slope, image = Slope(3.5, 0.0), noise((64, 150))
    exact = np.empty(image.shape)
    for column in range(150):  # one strip for each column of pixels
        offset = slope.x * PIXEL * (column - 75)
        flat = lay_strips(image.shape, PIXEL, Slope(0, 0, offset), 1.0)
        one = correct_strips(
            image, VIEW, PIXEL, Slope(0, 0, offset), flat, Correction("multiply"), 60
        )
        exact[:, column] = one[:, column]
    errors, width = [], slope.x * PIXEL * 149
    for parts in (4, 8, 16):
        strips = lay_strips(image.shape, PIXEL, slope, width / parts)
        found = correct_strips(image, VIEW, PIXEL, slope, strips, Correction("multiply"), 60)
        errors.append(np.std(found - exact))
    assert errors[0] < 0.1 * np.std(exact)
    assert 3.6 < errors[0] / errors[1] < 4.4
    assert 3.6 < errors[1] / errors[2] < 4.4


def test_a_view_of_one_defocus_is_the_whole_image_corrected_once():
    image = patch(192)
    found = corrected(image, VIEW, Slope(0, 0, 350.0), mode="multiply")
    ky, kx = np.fft.fftfreq(192, PIXEL)[:, None], np.fft.rfftfreq(192, PIXEL)[None]
    factor = -ctf_2d(ky, kx, VIEW.with_offset(350.0))
    plain = image.mean() + np.fft.irfft2(np.fft.rfft2(image - image.mean()) * factor)
    np.testing.assert_allclose(found, plain, atol=2e-3)


@pytest.mark.parametrize("hand", [1, -1])
@pytest.mark.parametrize("view", [View(40.0, 85.3, 300.0, -200.0, 1.02, 3.0), View(-50.0, 10.0)])
def test_the_slope_is_that_of_points_on_the_midplane(hand, view):
    places = np.array([[0.0, 0.0], [500.0, 0.0], [0.0, 500.0], [-400.0, 700.0]])
    expected = defocus_offset(midplane_points(places, view), view, hand)
    raw = slope_in_raw(view, hand)
    np.testing.assert_allclose(places @ [raw.x, raw.y], expected, atol=1e-6)
    aligned = slope_in_aligned(view, hand)
    seen = aligned_from_raw(places, view)
    np.testing.assert_allclose(seen @ [aligned.x, aligned.y] + aligned.middle, expected, atol=1e-6)


def test_hand_and_tilt_say_which_side_is_more_underfocused():
    slope = slope_in_raw(View(45.0, 0.0), 1)
    assert (slope.x, slope.y) == (pytest.approx(1.0), pytest.approx(0.0))
    assert slope_in_raw(View(-45.0, 0.0), 1).x == pytest.approx(-1.0)
    assert slope_in_raw(View(45.0, 0.0), -1).x == pytest.approx(-1.0)
    assert slope_in_raw(View(45.0, 90.0), 1).y == pytest.approx(1.0)
    pretilted = slope_in_raw(View(40.0, 0.0), 1, (5.0, 0.0))
    assert pretilted.x == pytest.approx(1.0)


def test_the_wrong_hand_is_worse_than_the_right_one():
    slope = slope_in_raw(View(75.0, 30.0), 1)
    image = imaged(POINTS, VIEW, slope)
    right = heights(corrected(image, VIEW, slope))
    wrong = heights(corrected(image, VIEW, slope_in_raw(View(75.0, 30.0), -1)))
    assert (right > 1.04 * wrong).all()
    assert right.mean() > 1.15 * wrong.mean()


@pytest.mark.parametrize("turn", [1, 3])
def test_a_turned_image_with_turned_astigmatism_is_the_turned_correction(turn):
    # Aligned, a view whose tilt axis lies along ∓x is the raw one turned back by ±90°.
    image, view = patch(191), View(75.0, 90.0 * turn)  # odd: turns about its centre pixel
    strong = replace(VIEW, defocus_v=6000.0)
    turned = np.ascontiguousarray(np.rot90(image, turn))  # rows go up: clockwise
    raw = corrected(image, strong, slope_in_raw(view, 1), mode="multiply")
    slope = slope_in_aligned(view, 1)
    aligned = corrected(turned, ctf_in_aligned(strong, view), slope, mode="multiply")
    np.testing.assert_allclose(np.rot90(aligned, -turn), raw, atol=2e-3)
    unturned = corrected(turned, strong, slope, mode="multiply")
    assert np.std(np.rot90(unturned, -turn) - raw) > 0.25 * np.std(raw)


def test_a_phase_plate_is_corrected_for():
    plate = replace(VIEW, phase_shift=90.0)
    slope = Slope(1.0, 0.0)
    image = imaged(POINTS, plate, slope)
    right = heights(corrected(image, plate, slope, mode="multiply"))
    wrong = heights(corrected(image, VIEW, slope, mode="multiply"))
    assert (right > 0).all()
    assert right.mean() > 2 * np.abs(wrong).mean()


def test_the_mean_stays_and_a_ramp_makes_no_edge():
    ramp = np.add.outer(np.linspace(90, 110, 150), np.zeros(160)).astype(np.float32)
    found = corrected(ramp, VIEW, STEEP)
    assert found.mean() == pytest.approx(100, abs=0.3)
    assert np.abs(found - ramp).max() < 2.0


@pytest.mark.parametrize("blend", [1.0, 0.3, 0.0])
def test_strips_cover_the_image_and_are_no_further_apart_than_asked(blend):
    strips = lay_strips(SHAPE, PIXEL, STEEP, 400.0, blend)
    assert strips.step <= 400.0
    np.testing.assert_allclose(np.diff(strips.offsets), strips.step)
    corners = [
        STEEP.middle + PIXEL * (STEEP.x * (x - 80) + STEEP.y * (y - 75))
        for x in (0, 159)
        for y in (0, 149)
    ]
    beyond = 0.5 * (1 - blend) * strips.step
    assert strips.offsets[0] == pytest.approx(min(corners) + beyond)
    assert strips.offsets[-1] == pytest.approx(max(corners) - beyond)
    one = lay_strips(SHAPE, PIXEL, Slope(0, 0, 70.0), 400.0, blend)
    assert one.offsets.tolist() == [70.0]


def test_a_width_of_strips_is_a_difference_of_defocus():
    assert step_of_width(20, PIXEL, Slope(0.3, 0.4)) == pytest.approx(30.0)
    assert step_of_width(20, PIXEL, Slope(0, 0)) == float("inf")


def test_impossible_strips_are_refused():
    with pytest.raises(ValueError, match="distance of 0 Å"):
        lay_strips(SHAPE, PIXEL, STEEP, 0)
    with pytest.raises(ValueError, match=r"blended over 1\.5"):
        lay_strips(SHAPE, PIXEL, STEEP, 100, 1.5)
