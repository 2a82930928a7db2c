"""The specimen's plane from gradients that were planted with their errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from kernels.ctf_fit import GradientFit
from kernels.ctf_plane import fit_plane
from kernels.geometry import View, defocus_gradient

TILTS = np.arange(-60.0, 61.0, 6.0)
VIEWS = [View(float(tilt), 85.3) for tilt in TILTS]


def measured(gradient: Sequence[float], covariance: np.ndarray) -> GradientFit:
    """Return a gradient as a view reports it."""
    information = np.linalg.inv(covariance)
    x, y = gradient
    return GradientFit((x, y), information, information @ np.asarray([x, y]))


def planted(
    pretilt: tuple[float, float], hand: int, seed: int | None = None, error: float = 0.05
) -> list[GradientFit]:
    """Return the gradients of a plane: without a seed exact."""
    rng = np.random.default_rng(seed)
    found = []
    for view in VIEWS:
        truth = np.asarray(defocus_gradient(view, hand, pretilt))
        root = error * (np.eye(2) + rng.uniform(-0.5, 0.5, (2, 2)))
        noise = root @ rng.normal(size=2) if seed is not None else 0.0
        found.append(measured((truth + noise).tolist(), root @ root.T))
    return found


@pytest.mark.parametrize("hand", [1, -1])
@pytest.mark.parametrize(
    "pretilt", [(0.0, 0.0), (8.5, 0.0), (0.0, -6.0), (-11.0, 4.0), (17.0, 9.0)]
)
def test_pretilt_is_recovered(pretilt: tuple[float, float], hand: int) -> None:
    plane = fit_plane(planted(pretilt, hand), VIEWS, hand)
    assert plane is not None
    assert plane.pretilt == pytest.approx(pretilt, abs=0.02)


def test_errors_are_those_of_the_scatter() -> None:
    truth = (7.0, -3.0)
    ratios = []
    for seed in range(60):
        plane = fit_plane(planted(truth, -1, seed), VIEWS, -1)
        assert plane is not None
        ratios.append((np.asarray(plane.pretilt) - truth) / plane.errors)
        assert max(plane.errors) < 1
    assert 82 < np.sum(np.square(ratios)) < 165  # chi-square, 120 degrees of freedom: 99 %


@pytest.mark.parametrize("hand", [1, -1])
def test_slope_is_one_with_the_right_hand_and_minus_one_with_the_other(hand: int) -> None:
    gradients = planted((0.0, 0.0), hand, 3)
    right, wrong = (fit_plane(gradients, VIEWS, h) for h in (hand, -hand))
    assert right is not None
    assert abs(right.slope - 1) < 3 * right.slope_error < 0.1
    if wrong is not None:
        assert wrong.slope == pytest.approx(-right.slope)


def test_slope_is_what_the_images_show_of_the_tilt() -> None:
    half = [
        measured((0.5 * np.asarray(defocus_gradient(v, 1))).tolist(), 0.01 * np.eye(2))
        for v in VIEWS
    ]
    plane = fit_plane(half, VIEWS, 1)
    assert plane is not None
    assert plane.slope == pytest.approx(0.5)


def test_a_pretilt_of_five_degrees_leaves_the_slope_near_one() -> None:
    plane = fit_plane(planted((5.0, 3.0), 1), VIEWS, 1)
    assert plane is not None
    assert plane.slope == pytest.approx(1, abs=0.1)  # tan(θ + α) is not tan θ + a constant


def test_without_information_there_is_no_plane() -> None:
    assert fit_plane([], [], 1) is None
    nothing = [GradientFit((0.3, 0.0), 1e-4 * np.eye(2), np.asarray([3e-5, 0.0]))] * 3
    assert fit_plane(nothing, VIEWS[9:12], 1) is None


def test_a_plane_beyond_25_degrees_is_not_claimed() -> None:
    assert fit_plane(planted((40.0, 0.0), 1)[:9], VIEWS[:9], 1) is None


def test_precise_views_outweigh_the_others() -> None:
    good = planted((6.0, 0.0), 1)
    bad = [measured((-0.4, 0.5), 100 * np.eye(2)) for _ in VIEWS]
    plane = fit_plane([*good, *bad], [*VIEWS, *VIEWS], 1)
    assert plane is not None
    assert plane.pretilt == pytest.approx((6.0, 0.0), abs=0.1)
