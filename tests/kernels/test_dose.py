"""Exposure weights agree with Grant & Grigorieff (2015)."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import arrays
from kernels.dose import critical_exposure, exposure_weights, weight_image

K = [0.05, 0.10, 0.20, 0.30]


def test_critical_exposure_at_300_kv(on):
    critical = arrays.to_host(critical_exposure(on(np.array(K)), 300))
    np.testing.assert_allclose(critical, [38.726, 14.139, 6.386, 4.632], atol=5e-4)


def test_zero_frequency_is_never_damaged(on):
    critical = arrays.to_host(critical_exposure(on(np.zeros(1, np.float32)), 300))
    assert np.all(np.isinf(critical))
    assert critical.dtype == np.float32


@pytest.mark.parametrize(
    ("voltage", "exposure", "k", "expected"),
    [
        (300, 60, K, [0.4609, 0.1198, 0.0091, 0.0015]),
        (300, 123, K[:3], [0.2043, 0.0129, 0.0001]),
        (200, 60, K[:3], [0.3797, 0.0705, 0.0028]),
    ],
)
def test_weights_at_the_golden_frequencies(on, voltage, exposure, k, expected):
    shape = (200, 200)  # 1 Å pixels: column i of row 0 is i / 200 per Å
    weights = exposure_weights(shape, 1.0, exposure, voltage, on(np.zeros(1, np.float32)))
    row = arrays.to_host(weights)[0]
    assert row.dtype == np.float32
    columns = [round(value * 200) for value in k]
    np.testing.assert_allclose(row[columns], expected, atol=5e-5)


def test_weights_depend_on_distance_from_the_origin_alone():
    weights = exposure_weights((64, 128), 2.0, 30, 300, np.zeros(1, np.float32))
    assert weights[16, 0] == pytest.approx(weights[0, 32], rel=1e-6)
    assert weights[-16, 0] == weights[16, 0]
    assert weights[0, 0] == 1


def test_a_wave_is_attenuated_by_its_weight_and_the_mean_is_kept(on):
    x = np.arange(100)
    wave = np.broadcast_to(3 + np.cos(2 * np.pi * 10 * x / 100), (80, 100)).astype(np.float32)
    weighted = arrays.to_host(weight_image(on(wave), 60, 1.0, 300))
    np.testing.assert_allclose(weighted, 3 + 0.11984 * (wave - 3), atol=5e-5)
    assert weighted.dtype == np.float32


def test_no_exposure_changes_nothing():
    image = np.random.default_rng(0).standard_normal((33, 40)).astype(np.float32)
    np.testing.assert_allclose(weight_image(image, 0, 1.35, 300), image, atol=1e-6)


def test_exposures_multiply():
    like = np.zeros(1, np.float32)
    first, second, both = (
        exposure_weights((32, 32), 1.5, dose, 200, like) for dose in (10, 20, 30)
    )
    np.testing.assert_allclose(first * second, both, rtol=1e-5)


def test_other_voltages_need_a_ratio():
    k = np.array([0.1])
    with pytest.raises(ValueError, match="120 kV, only at 300 and 200"):
        critical_exposure(k, 120)
    assert critical_exposure(k, 120, ratio=0.5) == pytest.approx(14.139 / 2, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exposure": -1.0}, "exposure is -1.0 e/Å²"),
        ({"exposure": float("nan")}, "exposure is nan"),
        ({"pixel_size": 0.0}, "pixel size is 0.0 Å"),
        ({"ratio": 0.0}, "ratio of critical exposures is 0.0"),
    ],
)
def test_impossible_values_are_refused(arguments, message):
    usual = {"exposure": 3.0, "pixel_size": 1.0, "voltage": 300, "ratio": None}
    with pytest.raises(ValueError, match=message):
        exposure_weights((8, 8), like=np.zeros(1, np.float32), **(usual | arguments))
