"""Grey levels: measured through outliers, reached exactly, never stretched for a dark view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kernels.arrays import to_host
from kernels.normalise import Levels, measure_levels, normalise, scale_to

On = Callable[[Any], Any]


def noise(mean: float, deviation: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, deviation, (120, 130)).astype(np.float32)


def test_levels_of_plain_noise_are_mean_and_deviation(on: On) -> None:
    image = noise(1000, 3)
    found = measure_levels(on(image))
    assert found.mean == pytest.approx(image.mean(dtype=np.float64), rel=1e-7)
    assert found.deviation == pytest.approx(image.std(dtype=np.float64), rel=1e-5)


def test_hits_and_beads_do_not_count(on: On) -> None:
    image = noise(20, 2)
    clean = measure_levels(image)
    image[10:14, 20:24] = 5000
    image[60:75, 60:75] = -30
    found = measure_levels(on(image))
    assert found.mean == pytest.approx(clean.mean, abs=0.02)
    assert found.deviation == pytest.approx(clean.deviation, rel=0.01)


def test_single_electrons_of_a_dim_view_count() -> None:
    image = np.random.default_rng(1).poisson(0.1, (400, 400)).astype(np.float32)
    found = measure_levels(image)
    assert found.mean == pytest.approx(0.1, rel=0.02)
    assert found.deviation == pytest.approx(np.sqrt(0.1), rel=0.03)


def test_the_wanted_levels_are_reached(on: On) -> None:
    image = noise(57, 4)
    levels = measure_levels(on(image))
    out = to_host(normalise(on(image), levels, 10.0, scale_to(levels, 2.0)))
    assert out.dtype == np.float32
    assert out.mean(dtype=np.float64) == pytest.approx(10, rel=1e-6)
    assert out.std(dtype=np.float64) == pytest.approx(2, rel=1e-5)
    shifted = to_host(normalise(on(image), levels, 10.0))
    np.testing.assert_allclose(shifted - image, 10 - levels.mean, atol=1e-4)


@pytest.mark.parametrize(("dark", "good"), [(0.3, 2.0), (5.0, 100.0), (0.01, 0.5)])
def test_a_dark_view_is_scaled_up_no_more_than_a_good_one(dark: float, good: float) -> None:
    target = 1.0
    scale = scale_to(Levels(0.1, dark), target, Levels(50.0, good))
    assert scale * dark == pytest.approx(target * dark / good)


def test_a_view_that_is_too_bright_is_still_scaled_down() -> None:
    assert scale_to(Levels(900.0, 30.0), 1.0, Levels(50.0, 2.0)) == pytest.approx(1 / 30)


def test_an_image_of_one_value_keeps_it(on: On) -> None:
    image = np.full((20, 20), 4.0, np.float32)
    levels = measure_levels(on(image))
    assert levels == Levels(4.0, 0.0)
    np.testing.assert_array_equal(
        to_host(normalise(on(image), levels, 1.0, scale_to(levels, 1))), 1
    )
