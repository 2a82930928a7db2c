"""The tilt axis by common lines."""

from __future__ import annotations

import numpy as np
import pytest
from coarse_series import AXIS, PIXEL, TILTS, dots

from kernels.align_axis import AxisEstimate, differs, estimate_axis, lines_of, trial_angles
from kernels.geometry import View


def thick_views(seed: int, noise: float = 0.5) -> np.ndarray:
    """Views of dots throughout a slab of 300 Å."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-3000, 3000, (3600, 3)) * (1, 1, 0.05)
    return np.stack([dots(points, View(t, AXIS), rng, noise, (240, 256)) for t in TILTS])


def estimate(images: np.ndarray, axis: float, search: float) -> AxisEstimate:
    angles = trial_angles(search)
    lines = [
        lines_of(image, View(t, axis), PIXEL, angles)
        for image, t in zip(images, TILTS, strict=True)
    ]
    return estimate_axis(lines, axis, angles)


@pytest.mark.parametrize("off", [-8.0, 0.0, 6.0])
def test_an_axis_near_the_given_one_is_found(off: float) -> None:
    found = estimate(thick_views(0), AXIS + off, 10)
    assert found.axis == pytest.approx(AXIS, abs=1.0)
    assert 0 < found.error < 0.5
    assert differs(found.axis, AXIS + off, found.error) == (abs(off) > 4)


@pytest.mark.parametrize("off", [-70.0, 33.0, 88.0])
def test_an_unknown_axis_is_found_but_for_half_a_turn(off: float) -> None:
    found = estimate(thick_views(1), AXIS + off, 90)
    assert (found.axis - AXIS + 90) % 180 - 90 == pytest.approx(0, abs=2.0)


def test_noise_has_a_large_error() -> None:
    images = np.random.default_rng(2).normal(size=(len(TILTS), 120, 128)).astype(np.float32)
    assert estimate(images, AXIS, 10).error > 1


def test_an_axis_off_by_half_a_turn_differs_in_nothing() -> None:
    assert not differs(-94.5, 85.3, 0.1)
    assert differs(-91.5, 85.3, 0.1)


def test_few_views_are_refused() -> None:
    with pytest.raises(ValueError, match="3 views, a tilt axis needs at least 5"):
        estimate_axis([np.ones((3, 4), complex)] * 3, 0.0, np.arange(3.0))
