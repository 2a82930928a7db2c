"""The CTF against golden numbers, analytic identities and its own conventions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kernels.arrays import to_host
from kernels.ctf import Ctf, ctf_1d, ctf_2d, phase_aberration, wavelength, zeros

On = Callable[[Any], Any]


def grid(n: int, pixel_size: float) -> tuple[np.ndarray, np.ndarray]:
    ky = np.fft.fftfreq(n, pixel_size).astype(np.float32)[:, None]
    kx = np.fft.rfftfreq(n, pixel_size).astype(np.float32)[None, :]
    return ky, kx


@pytest.mark.parametrize(
    ("voltage", "expected"), [(300, 0.0196875), (200, 0.0250793), (120, 0.0334922)]
)
def test_wavelength_is_codata(voltage: float, expected: float) -> None:
    assert wavelength(voltage) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("defocus", "resolutions"),
    [
        (39016.0, [28.03, 19.70, 16.06, 13.89, 12.42, 11.33]),
        (14649.0, [17.17, 12.06, 9.82, 8.49, 7.59, 6.92]),
    ],
)
def test_zeros_match_the_golden_numbers(defocus: float, resolutions: list[float]) -> None:
    found = 1 / zeros(Ctf(defocus, defocus), 1 / 2.7)
    np.testing.assert_allclose(
        found[:6], resolutions, atol=0.006
    )  # two decimals, Δf rounded to 1 Å


def test_zeros_are_counted_to_the_end() -> None:
    assert len(zeros(Ctf(39016.0, 39016.0), 1 / 2.7)) == 103
    assert len(zeros(Ctf(39016.0, 39016.0), 1 / 10.8)) == 6


@pytest.mark.parametrize(
    "ctf",
    [
        Ctf(20000.0, 18000.0, 30.0),
        Ctf(1200.0, 1200.0, cs=5.0),  # the phase turns round within the range
        Ctf(-5000.0, -5000.0),
        Ctf(15000.0, 15000.0, cs=0.0),
        Ctf(5000.0, 5000.0, phase_shift=90.0),
    ],
)
def test_zeros_are_all_the_sign_changes(ctf: Ctf) -> None:
    k = np.linspace(1e-4, 0.45, 400_001)
    change = np.flatnonzero(np.diff(np.sign(ctf_1d(k, ctf))))
    found = zeros(ctf, 0.45)
    assert len(found) == len(change) > 3
    np.testing.assert_allclose(found, k[change], atol=2e-6)


def test_ctf_is_negative_at_low_frequency_so_matter_is_dark() -> None:
    ctf = Ctf(30000.0, 30000.0)
    k = np.linspace(0, 0.99 * zeros(ctf, 0.1)[0], 50, dtype=np.float32)
    assert (ctf_1d(k, ctf) < 0).all()
    assert ctf_1d(k[:1], ctf)[0] == pytest.approx(-0.07)


def test_phase_is_the_textbook_formula() -> None:
    ctf = Ctf(21000.0, 19000.0, phase_shift=35.0)
    length, k = 0.0196874867, 0.17
    expected = math.pi * length * 20000 * k**2 - math.pi / 2 * 2.7e7 * length**3 * k**4
    found = phase_aberration(np.asarray([k]), ctf)[0]
    assert found == pytest.approx(expected + math.radians(35), rel=1e-6)


def test_astigmatism_angle_runs_counter_clockwise_from_x(on: On) -> None:
    ctf = Ctf(20000.0, 18000.0, 45.0)
    k = 0.05
    along, across = (
        to_host(ctf_2d(on(np.full((1, 1), ky)), on(np.full((1, 1), kx)), ctf))[0, 0]
        for ky, kx in [(k, k), (-k, k)]
    )
    radius = np.asarray([math.sqrt(2) * k])
    assert along == pytest.approx(ctf_1d(radius, Ctf(20000.0, 20000.0))[0], abs=1e-9)
    assert across == pytest.approx(ctf_1d(radius, Ctf(18000.0, 18000.0))[0], abs=1e-9)


def test_ctf_2d_is_ctf_1d_at_the_defocus_along_each_direction(on: On) -> None:
    ctf = Ctf(31000.0, 28500.0, 24.0)
    ky, kx = grid(48, 2.7)
    found = to_host(ctf_2d(on(ky), on(kx), ctf))
    assert found.dtype == np.float32
    assert found.shape == (48, 25)
    for row, column in [(3, 7), (40, 11), (0, 20), (24, 0), (30, 24)]:
        angle = math.degrees(math.atan2(ky[row, 0], kx[0, column]))
        radius = np.hypot(ky[row, 0], kx[0, column], dtype=np.float64)
        defocus = ctf.defocus_along(angle)
        expected = ctf_1d(np.asarray([radius]), Ctf(defocus, defocus))[0]
        assert found[row, column] == pytest.approx(expected, abs=1e-4)


def test_single_precision_holds_over_a_hundred_zeros(on: On) -> None:
    ctf = Ctf(39516.0, 38516.0, -70.0)
    ky, kx = grid(512, 1.35)
    found = to_host(ctf_2d(on(ky), on(kx), ctf))
    exact = ctf_2d(ky.astype(np.float64), kx.astype(np.float64), ctf)
    assert np.abs(found - exact).max() < 1e-3
    k = kx[0]
    assert np.abs(to_host(ctf_1d(on(k), ctf)) - ctf_1d(k.astype(np.float64), ctf)).max() < 1e-3


def test_arguments_are_left_as_they_were() -> None:
    ky, kx = grid(16, 2.0)
    before = ky.copy(), kx.copy()
    ctf_2d(ky, kx, Ctf(20000.0, 19000.0, 10.0))
    np.testing.assert_array_equal(ky, before[0])
    np.testing.assert_array_equal(kx, before[1])


def test_offset_moves_both_defoci() -> None:
    moved = Ctf(20000.0, 19000.0, 12.0, phase_shift=3.0).with_offset(500.0)
    assert moved == Ctf(20500.0, 19500.0, 12.0, phase_shift=3.0)
    assert moved.defocus == 20000.0
    assert moved.astigmatism == 1000.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"voltage": 0.0}, "voltage is 0.0 kV"),
        ({"amplitude_contrast": 7.0}, "amplitude contrast is 7.0"),
        ({"defocus_u": math.nan}, "defocus_u is nan"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ctf(**{"defocus_u": 20000.0, "defocus_v": 20000.0, **values})
