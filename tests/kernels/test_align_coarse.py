"""Coarse alignment: planted shifts come back, bad views and dark views break nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kernels.align_coarse import (
    PairShift,
    aligned_shape,
    measure_pair,
    move_view,
    neighbour_pairs,
    prepare_view,
    solve_shifts,
)
from kernels.geometry import View, project, raw_from_aligned

On = Callable[[Any], Any]
PIXEL = 10.0
SHAPE = (120, 128)
AXIS = 85.3
TILTS = tuple(float(t) for t in range(-60, 61, 6))


def dots(points: np.ndarray, view: View, rng: np.random.Generator, noise: float) -> np.ndarray:
    """Dark dots of 30 Å radius where `view` sees `points`, in white noise."""
    image = noise * rng.normal(size=SHAPE)
    rows, columns = np.indices(SHAPE)
    for x, y in project(points, view) / PIXEL + (SHAPE[1] // 2, SHAPE[0] // 2):
        image -= np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 18)
    return image.astype(np.float32)


def flat_series(seed: int, noise: float = 0.3) -> tuple[list[View], np.ndarray]:
    """Views with random shifts up to 60 Å of dots in the plane Z = 0."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-900, 900, (60, 3)) * (1, 1, 0)
    views = [View(t, AXIS, *rng.uniform(-60, 60, 2)) for t in TILTS]
    return views, np.stack([dots(points, view, rng, noise) for view in views])


def align(
    images: np.ndarray, views: list[View], used: list[bool], rounds: int = 2
) -> tuple[list[View], np.ndarray]:
    shape = aligned_shape(SHAPE, AXIS)
    tilts = [view.tilt for view in views]
    pairs = neighbour_pairs(tilts, used)
    for _ in range(rounds):
        prepared = [prepare_view(i, v, PIXEL, shape) for i, v in zip(images, views, strict=True)]
        measured = [measure_pair(prepared[a], prepared[b]) for a, b in pairs]
        shifts, agreement = solve_shifts(pairs, measured, tilts)
        moves = shifts * PIXEL
        views = [move_view(v, dy, dx) for v, (dy, dx) in zip(views, moves, strict=True)]
    return views, agreement


def errors(found: list[View], truth: list[View], used: list[bool]) -> np.ndarray:
    """Differences of shift [Å], a common translation of the specimen taken out."""
    tilts = np.radians([view.tilt for view in truth])
    c, s = np.cos(np.radians(AXIS)), np.sin(np.radians(AXIS))
    raw = np.array(
        [(f.shift_x - t.shift_x, f.shift_y - t.shift_y) for f, t in zip(found, truth, strict=True)]
    )
    aligned = raw @ np.array([[c, s], [-s, c]]).T
    keep = np.array(used)
    aligned, tilts = aligned[keep], tilts[keep]
    along = np.stack([np.cos(tilts), np.sin(tilts)], axis=1)
    x = aligned[:, 0] - along @ np.linalg.lstsq(along, aligned[:, 0], rcond=None)[0]
    return np.hypot(x, aligned[:, 1] - aligned[:, 1].mean())


def test_planted_shifts_come_back() -> None:
    truth, images = flat_series(0)
    used = [True] * len(truth)
    found, agreement = align(images, [View(t, AXIS) for t in TILTS], used)
    assert np.sqrt((errors(found, truth, used) ** 2).mean()) < 2.0
    assert (agreement > 5).all()


def test_a_dark_view_is_left_alone_and_harms_no_other() -> None:
    truth, images = flat_series(1)
    images[0] = 0
    used = [False] + [True] * (len(truth) - 1)
    found, agreement = align(images, [View(t, AXIS) for t in TILTS], used)
    assert (found[0].shift_x, found[0].shift_y, agreement[0]) == (0, 0, 0)
    assert np.sqrt((errors(found, truth, used) ** 2).mean()) < 2.0


def test_an_empty_view_that_nobody_flagged_harms_no_other() -> None:
    truth, images = flat_series(2)
    images[6] = np.random.default_rng(9).normal(size=SHAPE)
    found, agreement = align(images, [View(t, AXIS) for t in TILTS], [True] * len(truth))
    others = [i != 6 for i in range(len(truth))]
    assert np.sqrt((errors(found, truth, others) ** 2).mean()) < 2.0
    assert agreement[6] < 0.5 * np.median(agreement)


def test_the_sign_of_a_pair_is_that_of_the_moving_view(on: On) -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(-500, 500, (30, 3)) * (1, 1, 0)
    prepared = []
    for tilt, (y, x) in ((10.0, (0.0, 0.0)), (40.0, (20.0, 30.0))):
        shift = raw_from_aligned([[x, y]], View(tilt, AXIS))[0]
        image = dots(points, View(tilt, AXIS, *shift), rng, 0.1)
        prepared.append(prepare_view(on(image), View(tilt, AXIS), PIXEL, (128, 120)))
    pair = measure_pair(*prepared)
    ratio = np.cos(np.radians(10)) / np.cos(np.radians(40))
    assert pair.dy == pytest.approx(2.0, abs=0.15)
    assert pair.dx == pytest.approx(3.0 * ratio, abs=0.15)
    assert pair.confidence > 8


def test_pairs_lead_outward_and_pass_over_unused_views() -> None:
    pairs = neighbour_pairs([-6, -3, 0, 3, 6], [True, True, True, False, True], reach=2)
    assert set(pairs) == {(1, 0), (2, 0), (2, 1), (1, 4), (2, 4)}


def test_one_wrong_pair_changes_no_shift() -> None:
    tilts = [0.0, 20.0, 40.0, 60.0]
    cosines = np.cos(np.radians(tilts))
    truth = np.array([[0, 0], [3, 5], [-2, 8], [6, -4]], float)
    pairs = neighbour_pairs(tilts, [True] * 4)
    measured = [
        PairShift(
            truth[v, 0] - truth[r, 0],
            truth[v, 1] * cosines[r] / cosines[v] - truth[r, 1],
            10.0,
        )
        for r, v in pairs
    ]
    measured[pairs.index((1, 3))] = PairShift(80.0, -90.0, 10.0)
    shifts, _ = solve_shifts(pairs, measured, tilts)
    np.testing.assert_allclose(shifts, truth, atol=0.2)


def test_moving_a_view_moves_its_content_in_the_aligned_frame() -> None:
    view = View(20.0, AXIS, 14.0, -3.0, 1.01)
    moved = move_view(view, 5.0, -2.0)
    expected = raw_from_aligned([[-2.0, 5.0]], view)
    np.testing.assert_allclose(raw_from_aligned([[0.0, 0.0]], moved), expected, atol=1e-12)


def test_the_frame_is_swapped_where_the_axis_lies_along_x() -> None:
    assert aligned_shape((3, 4), 85.3) == (4, 3)
    assert aligned_shape((3, 4), -94.7) == (4, 3)
    assert aligned_shape((3, 4), -3.0) == (3, 4)


def test_a_series_without_used_views_is_refused() -> None:
    with pytest.raises(ValueError, match="none of 2 views is used"):
        neighbour_pairs([0, 3], [False, False])
