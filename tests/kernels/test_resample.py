"""Resampling into the aligned frame: planted places, exact cases, sharpness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import array_api_strict
import numpy as np
import pytest

from kernels.arrays import to_host
from kernels.dose import exposure_weights
from kernels.fourier import irfft2, rfft2
from kernels.geometry import View, raw_from_aligned
from kernels.resample import Field, resample, resample_view, sampling

On = Callable[[Any], Any]
PIXEL = 2.7


def blob(shape: tuple[int, int], y: float, x: float, sigma: float = 3.0) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2)).astype(np.float32)


def centroid(image: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(image.shape)
    return np.array([(rows * image).sum(), (columns * image).sum()]) / image.sum()


@pytest.mark.parametrize("binning", [1, 2])
@pytest.mark.parametrize(
    "view",
    [
        View(0.0, 85.3, 21.0, -34.0, 1.002),
        View(30.0, -94.7, -11.0, 8.0),
        View(-60.0, 2.0, 5.5, 40.0, 0.998),
    ],
)
def test_a_blob_lands_where_geometry_says(on: On, view: View, binning: int) -> None:
    aligned = np.array([[37.0, -51.0]])  # x′, y′ in Å
    x, y = raw_from_aligned(aligned, view)[0] / PIXEL
    raw = blob((129, 120), 129 // 2 + y, 120 // 2 + x)
    out = to_host(resample_view(on(raw), view, PIXEL, (100, 110), binning, fill=0.0))
    expected = np.array([100 // 2, 110 // 2]) + aligned[0, ::-1] / (PIXEL * binning)
    assert out.dtype == np.float32
    np.testing.assert_allclose(centroid(out), expected, atol=0.01)


def test_no_rotation_and_no_shift_return_the_image(on: On) -> None:
    image = np.random.default_rng(0).normal(size=(40, 37)).astype(np.float32)
    out = resample_view(on(image), View(0.0, 0.0), PIXEL, (40, 37))
    np.testing.assert_allclose(to_host(out), image, atol=1e-5)


def test_a_quarter_turn_moves_pixels_exactly(on: On) -> None:
    image = np.random.default_rng(1).normal(size=(41, 41)).astype(np.float32)
    out = to_host(resample_view(on(image), View(0.0, 90.0), PIXEL, (41, 41)))
    # (x, y) = R(90°)(x′, y′) = (−y′, x′)
    np.testing.assert_allclose(out, image.T[::-1, :], atol=1e-5)


def test_outside_of_the_raw_image_is_its_mean_or_the_given_value(on: On) -> None:
    image = np.random.default_rng(2).normal(5, 1, size=(32, 32)).astype(np.float32)
    view = View(0.0, 0.0, shift_x=20 * PIXEL)
    out = to_host(resample_view(on(image), view, PIXEL, (32, 32)))
    np.testing.assert_allclose(out[:, 13:], image.mean(), rtol=1e-6)
    np.testing.assert_allclose(out[:, :12], image[:, 20:], atol=1e-5)
    given = to_host(resample_view(on(image), view, PIXEL, (32, 32), fill=-3.0))
    assert (given[:, 13:] == -3).all()


def test_the_compiled_loop_equals_the_plain_one() -> None:
    image = np.random.default_rng(3).normal(size=(60, 71)).astype(np.float32)
    matrix, offset = sampling(View(10.0, 85.3, 9.0, -4.0), PIXEL, (60, 71), (80, 66))
    strict = array_api_strict.asarray(image, device=array_api_strict.Device("device1"))
    plain = to_host(resample(strict, matrix, offset, (80, 66)))
    np.testing.assert_allclose(resample(image, matrix, offset, (80, 66)), plain, atol=2e-5)


@pytest.mark.parametrize(("frequency", "kept"), [(0.25, 0.995), (0.35, 0.97)])
def test_fine_detail_is_kept(frequency: float, kept: float) -> None:
    n = 400
    phase = 2 * np.pi * frequency * np.arange(n)
    wave = np.tile(np.cos(phase), (6, 1)).astype(np.float32)
    matrix = np.eye(2)
    found = []
    for part in np.arange(0, 1, 0.1):
        out = resample(wave, matrix, (0.0, part), (6, n - 1))[2]
        found.append(2 * np.mean(out * np.exp(-1j * (phase[:-1] + 2 * np.pi * frequency * part))))
    assert abs(np.mean(found)) > kept


def test_magnification_and_rotation_undo_one_another(on: On) -> None:
    raw = blob((128, 128), 60, 75, sigma=4)
    view = View(0.0, 37.0, 12.0, -7.0, 1.01)
    there = resample_view(on(raw), view, PIXEL, (128, 128), fill=0.0)
    x, y = -raw_from_aligned([[0.0, 0.0]], replace(view, axis=0.0, magnification=1.0))[0]
    back = replace(view, axis=-37.0, magnification=1 / 1.01, shift_x=0.0, shift_y=0.0)
    x, y = raw_from_aligned([[x, y]], back)[0]
    again = to_host(
        resample_view(there, replace(back, shift_x=x, shift_y=y), PIXEL, (128, 128), fill=0.0)
    )
    np.testing.assert_allclose(again, raw, atol=1e-4)


def test_the_image_is_left_as_it_was() -> None:
    image = np.random.default_rng(4).normal(size=(20, 20)).astype(np.float32)
    before = image.copy()
    resample_view(image, View(0.0, 12.0), PIXEL, (20, 20))
    np.testing.assert_array_equal(image, before)


def test_a_stack_is_refused_with_the_number_of_axes() -> None:
    with pytest.raises(ValueError, match="3 axes, expected 2"):
        resample(np.zeros((2, 8, 8), np.float32), np.eye(2), (0, 0), (8, 8))


def wavy(shape: tuple[int, int], step: int) -> Field:
    y, x = (np.arange((n - 1) // step + 2) * step / n for n in shape)
    rows, columns = np.meshgrid(y, x, indexing="ij")
    nodes = np.stack([2 * np.sin(3 * rows) - columns, 3 * rows * columns], axis=-1)
    return Field(nodes.astype(np.float32), step)


def test_a_field_moves_the_places_and_the_compiled_loop_equals_the_plain_one() -> None:
    image = np.random.default_rng(5).normal(size=(60, 71)).astype(np.float32)
    matrix, offset = sampling(View(10.0, 85.3, 9.0, -4.0), PIXEL, (60, 71), (80, 66))
    field = wavy((80, 66), 7)
    strict = array_api_strict.asarray(image, device=array_api_strict.Device("device1"))
    plain = to_host(resample(strict, matrix, offset, (80, 66), field=field))
    found = resample(image, matrix, offset, (80, 66), field=field)
    np.testing.assert_allclose(found, plain, atol=2e-5)
    # A field that is the same everywhere is a shift of the places.
    shift = np.array([0.3, -1.7])
    same = Field(np.broadcast_to(shift, field.nodes.shape).astype(np.float32), 7)
    moved = resample(image, matrix, offset + matrix @ shift, (80, 66), fill=0.0)
    by_field = resample(image, matrix, offset, (80, 66), fill=0.0, field=same)
    np.testing.assert_allclose(by_field, moved, atol=1e-5)


def test_nodes_that_do_not_cover_the_result_are_refused() -> None:
    image = np.zeros((20, 20), np.float32)
    with pytest.raises(ValueError, match=r"nodes are \(4, 4, 2\), expected \(5, 4\)"):
        resample(image, np.eye(2), (0, 0), (25, 20), field=wavy((20, 20), 8))


def test_weights_are_applied_before_interpolation(on: On) -> None:
    image = np.random.default_rng(6).normal(size=(48, 50)).astype(np.float32)
    weights = exposure_weights((48, 50), PIXEL, 40.0, 300.0, image)
    matrix, offset = sampling(View(10.0, 85.3, 9.0, -4.0), PIXEL, (48, 50), (44, 46))
    before = irfft2(rfft2(image) * weights, (48, 50))
    expected = resample(before, matrix, offset, (44, 46), fill=0.0)
    found = resample(on(image), matrix, offset, (44, 46), fill=0.0, weights=on(weights))
    np.testing.assert_allclose(to_host(found), expected, atol=2e-5)
