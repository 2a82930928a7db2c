"""Tilt offset: planted ones come back with honest errors, and nothing is made up."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.specimen_plane import Depths, count_depths, fit_slab
from kernels.tilt_offset import Estimate, combine, from_intensity

TILTS = np.arange(-60.0, 61.0, 3.0)
TIMES = np.abs(TILTS) / 60


def means(offset: float, noise: float, seed: int = 1, loss: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    clean = 300 * np.exp(-loss / np.cos(np.radians(TILTS + offset)) - 0.02 * TIMES)
    return clean * (1 + noise * rng.normal(size=len(TILTS)))


@pytest.mark.parametrize("offset", [-12.0, -3.3, 0.0, 7.7])
def test_the_loss_of_intensity_tells_the_offset(offset: float) -> None:
    found = from_intensity(means(offset, 0.002), TILTS, TIMES)
    assert found is not None
    assert found.angle == pytest.approx(offset, abs=0.3)


def test_its_standard_error_is_honest() -> None:
    found = [from_intensity(means(4.0, 0.01, seed), TILTS, TIMES) for seed in range(40)]
    pulls = [(f.angle - 4.0) / f.error for f in found if f]
    assert len(pulls) == 40
    assert 0.6 < np.sqrt(np.mean(np.square(pulls))) < 1.6


def test_views_behind_a_grid_bar_do_not_move_it() -> None:
    values = means(5.0, 0.002)
    values[:4] *= 0.6
    found = from_intensity(values, TILTS, TIMES)
    assert found is not None
    assert found.angle == pytest.approx(5.0, abs=0.5)


def test_equal_intensities_and_noise_tell_nothing() -> None:
    assert from_intensity(means(0.0, 0.02, loss=0.0), TILTS, TIMES) is None
    assert from_intensity(np.full(41, 100.0), TILTS, TIMES) is None
    assert from_intensity(means(28.7, 0.002), TILTS, TIMES) is None  # beyond the range


def test_agreeing_estimates_are_joined() -> None:
    found = combine([Estimate("intensity", 4.0, 0.1), Estimate("matter", 4.6, 0.4)])
    assert found.angle == pytest.approx(4.2, abs=0.1)
    assert found.error is not None
    assert found.error < 0.3


@pytest.mark.parametrize(
    ("estimates", "why"),
    [
        ([], "nothing tells it"),
        ([Estimate("matter", 1.0, 2.0)], "not well enough"),
        ([Estimate("intensity", -9.0, 0.1), Estimate("matter", 0.3, 0.3)], "contradictory"),
        ([Estimate("intensity", -9.0, 0.1), Estimate("matter", 0.3, 1.5)], "contradictory"),
        ([Estimate("defocus", -28.7, 0.3)], "beyond"),
    ],
)
def test_what_is_in_doubt_is_undetermined(estimates: list[Estimate], why: str) -> None:
    found = combine(estimates)
    assert found.angle is None
    assert why in found.reason


def test_what_few_objects_decide_refutes_only_from_afar_what_is_well_known() -> None:
    found = combine([Estimate("intensity", 4.6, 0.05), Estimate("matter", 0.1, 1.2)])
    assert found.angle == pytest.approx(4.4, abs=0.2)
    assert found.error == pytest.approx(0.3, abs=0.05)


def slab_of(pitch: float, roll: float, number: int, seed: int, size: int = 1) -> Depths:
    """Return depths of matter in a slab 1200 Å thick, in pieces of `size` by `size` blocks."""
    rng = np.random.default_rng(seed)
    axis = (np.arange(18) - 8.5) * 250
    z = (np.arange(240) - 120) * 10.0
    counts = np.zeros((18, 18, 240))
    i, j = rng.integers(0, 19 - size, (2, number))
    depth = rng.uniform(-600, 600, number) + 60
    within = np.indices((size, size)).reshape(2, -1)
    i, j = ((a[:, None] + b).ravel() for a, b in zip((i, j), within, strict=True))
    depth = np.repeat(depth, size**2)
    depth += -np.tan(np.radians(pitch)) * axis[i] + np.tan(np.radians(roll)) * axis[j]
    np.add.at(counts, (i, j, np.rint(depth / 10).astype(int) + 120), 20)
    return Depths(counts, axis, axis, z)


@pytest.mark.parametrize(("pitch", "roll"), [(0.0, 0.0), (6.0, -1.0), (-9.3, 2.0)])
def test_the_slab_of_matter_is_found(pitch: float, roll: float) -> None:
    found = fit_slab(slab_of(pitch, roll, 3000, 2))
    assert found is not None
    assert found.pretilt[0] == pytest.approx(pitch, abs=0.4)
    assert found.pretilt[1] == pytest.approx(roll, abs=0.4)
    assert (found.high - found.low) == pytest.approx(1200 * 0.96, abs=80)
    assert (found.high + found.low) / 2 == pytest.approx(60, abs=30)


@pytest.mark.parametrize(("number", "size"), [(500, 1), (60, 5)])
def test_the_slabs_errors_are_honest(number: int, size: int) -> None:
    pulls = []
    for seed in range(12):
        found = fit_slab(slab_of(3.0, 0.0, number, seed, size))
        assert found is not None
        pulls.append((found.pretilt[0] - 3.0) / found.errors[0])
    assert 0.4 < np.sqrt(np.mean(np.square(pulls))) < 2.0


def test_too_little_matter_shows_no_slab() -> None:
    assert fit_slab(slab_of(0.0, 0.0, 60, 1)) is None


def test_dense_voxels_are_counted_where_they_are() -> None:
    volume = 0.01 * np.random.default_rng(1).normal(size=(40, 120, 100)).astype(np.float32)
    volume[29, 60 + 13, 50 - 26] = 1.0  # x = 130 Å, y = −260 Å, z = 90 Å
    found = count_depths(volume, 10.0, (100, 100))
    assert found.counts.sum() == 1
    i, j, k = (int(a[0]) for a in np.nonzero(found.counts))
    assert abs(found.x[i] - 130) <= 125
    assert abs(found.y[j] + 260) <= 125
    assert found.z[k] == 90
