"""The slow part of a frame is found whatever single pixels do."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.illumination import drawn_in, illumination, smooth_surface

SHAPE = (150, 211)
Y = ((2 * np.arange(SHAPE[0]) + 1) / SHAPE[0] - 1)[:, None]
X = ((2 * np.arange(SHAPE[1]) + 1) / SHAPE[1] - 1)[None, :]
BEAM = 10 * (1 - 0.3 * X + 0.1 * X * Y - 0.1 * Y**2 + 0.05 * X**2 * Y)
ALL = np.ones(SHAPE, bool)


def test_a_cubic_surface_is_found_but_for_the_width_of_the_blocks():
    found = smooth_surface(BEAM.astype(np.float32), ALL)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, BEAM, rtol=3e-3)


def test_noise_averages_out():
    rng = np.random.default_rng(0)
    found = smooth_surface(rng.poisson(BEAM).astype(np.float32), ALL)
    np.testing.assert_allclose(found, BEAM, rtol=0.05)


def test_bad_pixels_and_outliers_do_not_count():
    rng = np.random.default_rng(1)
    values = BEAM.astype(np.float32)
    good = rng.random(SHAPE) > 0.1
    values[~good] = np.nan
    values[rng.random(SHAPE) < 1e-3] = 1e6
    np.testing.assert_allclose(smooth_surface(values, good), BEAM, rtol=0.03)


def test_illumination_stays_positive():
    beam = (X + 0 * Y + 0.3).astype(np.float32)
    found = illumination(beam, ALL)
    assert found.min() == pytest.approx(0.05 * beam.mean(), rel=1e-4)
    np.testing.assert_allclose(found[:, -50:], beam[:, -50:], rtol=0.01)


def test_only_outliers_are_drawn_in():
    rng = np.random.default_rng(2)
    values = rng.standard_normal(SHAPE).astype(np.float32)
    spoiled = values.copy()
    spoiled[3, 4], spoiled[5, 6] = 1000, np.nan
    before = spoiled.copy()
    good = np.isfinite(spoiled)
    drawn = drawn_in(spoiled, good)
    np.testing.assert_array_equal(spoiled, before)
    assert drawn[3, 4] == pytest.approx(5, abs=0.2)
    assert drawn[5, 6] == pytest.approx(0, abs=0.05)
    kept = good & (np.abs(values) < 4.5)
    kept[3, 4] = False
    np.testing.assert_array_equal(drawn[kept], values[kept])
