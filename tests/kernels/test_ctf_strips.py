"""Wedges of a view's tiles: which tiles are used, and where their zeros come to lie."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.ctf import Ctf, phase_aberration
from kernels.ctf_strips import (
    measure_wedges,
    read_rings,
    same_phase,
    strip_tiles,
    trial_defoci,
)
from kernels.spectra import PolarSpectra, polar_spectra

OFFSETS = [-30000.0, -5000.0, -900.0, 0.0, 900.0, 5000.0, 19000.0]


def noise(size: int = 256, seed: int = 0) -> PolarSpectra:
    image = np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32)
    return polar_spectra(image, 128, padding=1.0, sectors=4)[0]


@pytest.mark.parametrize(
    ("tolerances", "used"),
    [((2000.0, 20000.0), [1, 2, 3, 4, 5, 6]), ((2000.0, 0.0), [2, 3, 4]), ((100.0, 0.0), [3])],
)
def test_tiles_within_the_tolerances_are_used(
    tolerances: tuple[float, float], used: list[int]
) -> None:
    assert strip_tiles(OFFSETS, *tolerances).tolist() == used


def test_innermost_tiles_are_used_when_none_is_within_the_tolerances() -> None:
    assert strip_tiles([-800.0, 800.0, 2000.0], 200.0, 0.0).tolist() == [0, 1]


@pytest.mark.parametrize("offset", [-6000.0, 0.0, 9000.0])
def test_rings_are_read_where_the_phase_is_the_same(offset: float) -> None:
    view, box, pixel = Ctf(25000.0, 25000.0, phase_shift=40.0), 400, 2.5
    here = np.arange(20, 150)
    there = same_phase(200, box, pixel, [offset], view)[0][here]
    np.testing.assert_allclose(
        phase_aberration(there / (box * pixel), view.with_offset(offset)),
        phase_aberration(here / (box * pixel), view),
        rtol=1e-9,
    )


def test_rings_between_two_are_read_linearly() -> None:
    power = np.asarray([[1.0, 3.0, 7.0, 9.0], [0.0, 0.0, 4.0, 0.0]])
    read = read_rings(power, np.asarray([0.0, 0.5, 1.75, 2.0]))
    assert read.tolist() == [[1.0, 2.0, 6.0, 7.0], [0.0, 0.0, 3.0, 4.0]]


def test_level_of_white_noise_is_kept() -> None:
    polar = noise()
    n = len(polar.power)
    wedges = measure_wedges(polar, np.linspace(-3000, 3000, n), 5.0, Ctf(3e4, 3e4), None, [2e4])
    assert wedges.power.shape == (4, polar.power.shape[2])
    assert (wedges.power * wedges.count).sum() / wedges.count.sum() == pytest.approx(1, abs=0.02)
    assert wedges.trial_power.shape == (1, polar.power.shape[2])
    assert wedges.samples == pytest.approx(n / polar.redundancy)


def test_tiles_that_are_not_used_do_not_matter() -> None:
    polar = noise()
    offsets = np.zeros(len(polar.power))
    some = measure_wedges(polar, offsets, 5.0, Ctf(3e4, 3e4), [0, 2])
    loud = polar.power.copy()
    loud[1] *= 100
    changed = PolarSpectra(**{**vars(polar), "power": loud})
    same = measure_wedges(changed, offsets, 5.0, Ctf(3e4, 3e4), [0, 2])
    np.testing.assert_array_equal(some.power, same.power)
    # Used, it counts as much as the others.
    all_, outshone = (
        measure_wedges(p, offsets, 5.0, Ctf(3e4, 3e4)).power for p in (polar, changed)
    )
    np.testing.assert_allclose(outshone / outshone.mean(), all_ / all_.mean(), rtol=1e-4)


def test_wider_views_try_more_defoci() -> None:
    narrow, wide = (
        trial_defoci(1e4, 4e4, np.asarray([-reach, reach]), 200.0) for reach in (200, 1500)
    )
    assert len(narrow) < len(wide) <= 12
    assert all(1e4 < trial < 4e4 for trial in wide)
    assert np.diff(wide).min() > 0


@pytest.mark.parametrize(
    ("tolerances", "message"), [((0.0, 1.0), "tolerances are 0.0"), ((1.0, -1.0), "-1.0 Å")]
)
def test_impossible_tolerances_are_refused(tolerances: tuple[float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strip_tiles(OFFSETS, *tolerances)


def test_impossible_tiles_are_refused() -> None:
    polar = noise()
    with pytest.raises(ValueError, match="expected one for each tile"):
        strip_tiles([])
    with pytest.raises(ValueError, match="offsets for"):
        measure_wedges(polar, [0.0], 5.0, Ctf(3e4, 3e4))
    empty = PolarSpectra(**{**vars(polar), "power": np.zeros_like(polar.power)})
    with pytest.raises(ValueError, match="no tile has power"):
        measure_wedges(empty, np.zeros(len(polar.power)), 5.0, Ctf(3e4, 3e4))
