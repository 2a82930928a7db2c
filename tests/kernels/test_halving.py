from __future__ import annotations

import numpy as np
import pytest

from kernels.halving import halved, measured


@pytest.mark.parametrize("shape", [(2, 2, 2), (4, 6, 8), (5, 7, 9), (3, 2, 1030)])
def test_each_voxel_is_the_mean_of_eight(shape: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    nz, ny, nx = (n // 2 for n in shape)
    cut = volume[: 2 * nz, : 2 * ny, : 2 * nx].astype(np.float64)
    means = cut.reshape(nz, 2, ny, 2, nx, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(halved(volume), means, atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_statistics_are_those_of_all_voxels(offset: float) -> None:
    volume = np.random.default_rng(1).normal(offset, 2, (3, 37, 129)).astype(np.float32)
    found, wide = measured(volume), volume.astype(np.float64)
    assert found["sum"] == pytest.approx(wide.sum(), abs=2e-6 * np.abs(wide).sum())
    assert found["squares"] == pytest.approx(np.square(wide).sum(), rel=2e-6)
    assert (found["minimum"], found["maximum"]) == (volume.min(), volume.max())


def test_not_a_number_is_seen() -> None:
    volume = np.ones((2, 2, 2), dtype=np.float32)
    volume[1, 1, 0] = np.nan
    assert np.isnan(measured(volume)["sum"])
