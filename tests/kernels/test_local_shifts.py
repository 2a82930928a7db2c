from __future__ import annotations

import numpy as np
import pytest

from kernels.deformation import Deformation, displacements, seen_displacements
from kernels.geometry import View, midplane_points, raw_from_aligned
from kernels.local_shifts import fit_local_shifts

HALF = 2000.0
VIEWS = [View(float(t), 85.0, 30.0, -20.0) for t in range(-60, 61, 6)]
TIMES = np.random.default_rng(1).permutation(np.linspace(0, 1, len(VIEWS))).tolist()


def rows(made: Deformation, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    axis = np.linspace(-0.8, 0.8, 4) * HALF
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    view, places, shifts = [], [], []
    for i, v in enumerate(VIEWS):
        points = midplane_points(raw_from_aligned(grid, v), v)
        view += [i] * len(grid)
        places.append(grid)
        shifts.append(
            seen_displacements(made, points, TIMES[i], v) + rng.normal(0, noise, (16, 2)) + (5, -3)
        )
    return np.array(view), np.concatenate(places), np.concatenate(shifts)


@pytest.mark.parametrize("outliers", [0, 30])
def test_a_deformation_is_found_in_local_shifts(outliers: int) -> None:
    rng = np.random.default_rng(4)
    made = Deformation(rng.normal(0, 20, (3, 9, 2)) * [[[1.0]], [[1.0]], [[2.0]]], HALF)
    view, places, shifts = rows(made, 1.0)
    shifts[rng.choice(len(shifts), outliers, replace=False)] += 400
    moved, bent = fit_local_shifts(VIEWS, TIMES, view, places, shifts, 16, HALF)
    assert bent is not None
    assert 0.8 * 2**0.5 < bent.residual < 1.1 * 2**0.5  # the noise
    points = rng.uniform(-0.7, 0.7, (50, 3)) * HALF
    apart = displacements(bent.deformation, points, 1.0) - displacements(made, points, 1.0)
    assert np.sqrt((apart**2).sum(axis=1).mean()) < 3
    assert moved[0] != VIEWS[0]


def test_few_patches_tell_no_deformation() -> None:
    view, places, shifts = np.zeros(3, int), np.zeros((3, 2)), np.ones((3, 2))
    assert fit_local_shifts(VIEWS, TIMES, view, places, shifts, 3, HALF) == (VIEWS, None)
