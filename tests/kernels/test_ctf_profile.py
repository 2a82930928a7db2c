"""One-dimensional averages: equal phase, local correlation, resolution."""

from __future__ import annotations

import numpy as np
import pytest
from ctf_images import phase_of

from kernels.ctf import Ctf
from kernels.ctf_profile import CtfProfile, equiphase_profile, fitted_resolution

FREQUENCY = np.linspace(1 / 30, 1 / 5, 240)
ANGLES = np.radians(np.arange(7.5, 180, 15))[:, None]


def astigmatic(half: float, noise: float = 0.0, limit: float = 1.0) -> CtfProfile:
    """Return the profile of twelve sectors with rings up to the frequency `limit`."""
    ctf = Ctf(20000 + half, 20000 - half, 20.0)
    k2 = FREQUENCY[None, :] ** 2 * np.ones_like(ANGLES)
    rings = np.sin(phase_of(ctf, k2, k2 * np.cos(2 * ANGLES), k2 * np.sin(2 * ANGLES))) ** 2
    rng = np.random.default_rng(1)
    data = np.where(limit > FREQUENCY, rings - 0.5, 0.0) + noise * rng.normal(size=rings.shape)
    local = 20000 + half * np.cos(2 * (ANGLES - np.radians(20)))
    weight = np.full(rings.shape, noise**-2 if noise else 1.0)
    equal = FREQUENCY * np.sqrt(local / 20000)
    return equiphase_profile(data, rings - 0.5, weight, equal, FREQUENCY, ctf)


def test_average_along_equal_phase_keeps_the_contrast_that_the_plain_one_loses() -> None:
    profile = astigmatic(1000.0)
    high = FREQUENCY > 1 / 9
    mean = np.sin(phase_of(Ctf(2e4, 2e4), FREQUENCY**2, 0.0, 0.0)) ** 2 - 0.5
    assert profile.average[high].std() < 0.5 * mean[high].std()
    # Cs bends the phase a little otherwise than a scale of the frequency does.
    assert profile.equiphase[high].std() > 0.9 * mean[high].std()
    inner = (FREQUENCY > 1 / 25) & (FREQUENCY < 1 / 5.5)
    assert np.corrcoef(profile.equiphase[inner], mean[inner])[0, 1] > 0.97


def test_without_astigmatism_the_averages_are_the_same() -> None:
    profile = astigmatic(0.0)
    np.testing.assert_allclose(profile.equiphase, profile.average, atol=0.01)
    np.testing.assert_allclose(profile.fit, profile.equiphase, atol=1e-9)
    assert profile.correlation[5:-5].min() > 0.99


def test_noise_is_the_standard_deviation_of_the_average() -> None:
    noise = 0.8
    profile = astigmatic(600.0, noise)
    inner = slice(20, -20)
    rest = (profile.equiphase - profile.fit)[inner] / profile.noise[inner]
    # Linear sharing between neighbours makes the scatter a little less than of plain sums.
    assert 0.6 < rest.std() < 1.1


def test_correlation_falls_where_the_rings_end_and_the_resolution_is_there() -> None:
    profile = astigmatic(300.0, 0.4, limit=1 / 8)
    assert profile.correlation[FREQUENCY < 1 / 9].min() > 0.66
    assert np.median(profile.correlation[FREQUENCY > 1 / 6.5]) < 0.5
    assert fitted_resolution(profile) == pytest.approx(8, abs=0.7)
    whole = astigmatic(300.0, 0.4)
    assert fitted_resolution(whole) < 5.6


def with_correlation(values: np.ndarray) -> CtfProfile:
    empty = np.zeros(len(values))
    return CtfProfile(FREQUENCY[: len(values)], empty, empty, empty, values, empty)


def test_resolution_goes_by_the_rules_of_ctffind() -> None:
    k = 1 / FREQUENCY
    good = np.full(240, 0.9)
    assert fitted_resolution(with_correlation(good)) == pytest.approx(5)
    good[150:] = 0.45  # below 0.5 after points above 0.66
    assert fitted_resolution(with_correlation(good)) == pytest.approx(k[150])
    fair = np.full(240, 0.6)  # never above 0.66: only 0.1 ends it
    fair[150:] = 0.45
    assert fitted_resolution(with_correlation(fair)) == pytest.approx(5)
    fair[180:] = 0.05
    assert fitted_resolution(with_correlation(fair)) == pytest.approx(k[180])


def test_what_never_correlates_is_fitted_to_the_start_of_the_range() -> None:
    assert fitted_resolution(with_correlation(np.zeros(240))) >= 18
    assert fitted_resolution(with_correlation(np.full(240, -0.3))) >= 18
