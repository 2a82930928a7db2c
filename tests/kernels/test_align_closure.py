"""Links and their closure: wherever a view lies it is found, or said not to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from coarse_series import AXIS, PIXEL, SHAPE, TILTS, errors, flat_views

from kernels.align_closure import Closure, close_links
from kernels.align_coarse import PairShift, aligned_shape, move_view, neighbour_pairs, stretch
from kernels.align_links import (
    centred_view,
    link_magnifications,
    link_views,
    peaks_of,
    solve_magnifications,
    stretch_matrix,
)
from kernels.geometry import View, raw_from_aligned
from kernels.resample import resample

On = Callable[[Any], Any]
FRAME = aligned_shape(SHAPE, AXIS)


def tie(images: np.ndarray, axis: float = AXIS) -> tuple[list[View], Closure]:
    views = [View(t, axis) for t in TILTS]
    pairs = neighbour_pairs(TILTS, [True] * len(TILTS))
    centred = {
        i: centred_view(image, view, PIXEL, FRAME)
        for i, (image, view) in enumerate(zip(images, views, strict=True))
    }
    closure = close_links(pairs, link_views(centred, pairs), TILTS, FRAME)
    moves = closure.shifts * PIXEL
    return [move_view(v, dy, dx) for v, (dy, dx) in zip(views, moves, strict=True)], closure


def views_at(places: np.ndarray) -> list[View]:
    """Views whose content is displaced by (x, y) in the aligned frame [Å]."""
    views = [View(t, AXIS) for t in TILTS]
    return [move_view(v, y, x) for v, (x, y) in zip(views, places, strict=True)]


def test_a_series_that_drifts_by_a_twentieth_of_its_field_a_view_is_found_at_once() -> None:
    # Over the whole series the field moves by its own size.
    steps = np.arange(len(TILTS))[:, None] - 10
    truth = views_at(steps * (-30.0, 60.0))
    found, closure = tie(flat_views(truth, 0))
    assert closure.tied.all()
    assert (closure.agreeing == 1).all()
    assert np.sqrt((errors(found, truth) ** 2).mean()) < 5.0  # half a pixel


@pytest.mark.parametrize("jump", [(0.0, 400.0), (-350.0, 0.0), (250.0, -300.0)])
def test_a_view_displaced_by_a_third_of_the_field_is_found(jump: tuple[float, float]) -> None:
    places = np.random.default_rng(1).uniform(-60, 60, (len(TILTS), 2))
    places[14] += jump
    truth = views_at(places)
    found, closure = tie(flat_views(truth, 1))
    assert closure.tied.all()
    assert errors(found, truth).max() < 8.0


@pytest.mark.parametrize("kind", ["noise", "blank", "elsewhere"])
def test_a_view_of_nothing_is_named_and_harms_no_other(kind: str) -> None:
    truth = views_at(np.random.default_rng(2).uniform(-60, 60, (len(TILTS), 2)))
    images = flat_views(truth, 2)
    other = flat_views(truth, 77)[6]
    noise = np.random.default_rng(9).normal(size=SHAPE)
    images[6] = {"noise": noise, "blank": np.full(SHAPE, 3.0), "elsewhere": other}[kind]
    found, closure = tie(images)
    others = [i for i in range(len(TILTS)) if i != 6]
    assert closure.tied[others].all()
    assert not closure.tied[6]
    assert closure.confidence[6] == 0
    kept = ([found[i] for i in others], [truth[i] for i in others])
    assert np.sqrt((errors(*kept) ** 2).mean()) < 4.0


def test_a_series_of_noise_is_tied_nowhere() -> None:
    images = np.random.default_rng(3).normal(size=(len(TILTS), *SHAPE)).astype(np.float32)
    _, closure = tie(images)
    assert closure.tied.sum() < 4
    assert np.isfinite(closure.shifts).all()


def exact(tilts: list[float], places: np.ndarray) -> tuple[list[tuple[int, int]], list[PairShift]]:
    """Links as they should be, of places (y, x) of the untilted specimen [pixels]."""
    pairs = neighbour_pairs(tilts, [True] * len(tilts))
    moves = [(places[m] - places[r]) * (1, stretch(tilts[r])) for r, m in pairs]
    return pairs, [PairShift(float(dy), float(dx), 8.0) for dy, dx in moves]


def test_lower_peaks_that_close_loops_beat_the_highest_ones() -> None:
    tilts = [float(t) for t in range(-30, 31, 5)]
    rng = np.random.default_rng(4)
    places = rng.uniform(-50, 50, (len(tilts), 2))
    places -= places[6]
    pairs, true = exact(tilts, places)
    wrong = [PairShift(*rng.uniform(-200, 200, 2), 12.0) for _ in true]
    # Two links in three have a false peak that is higher than the true one.
    offers = [(f, t) if k % 3 else (t, f) for k, (t, f) in enumerate(zip(true, wrong, strict=True))]
    closure = close_links(pairs, offers, tilts, (400, 400))
    scales = np.stack([np.ones(len(tilts)), [stretch(t) for t in tilts]], axis=1)
    np.testing.assert_allclose(closure.shifts, places * scales, atol=1e-6)
    assert closure.tied.all()
    assert closure.residual < 1e-6


def test_a_view_whose_links_contradict_is_told_by_their_share() -> None:
    tilts = [float(t) for t in range(-30, 31, 5)]
    pairs, true = exact(tilts, np.zeros((13, 2)))
    rng = np.random.default_rng(5)
    offers = [
        (PairShift(*rng.uniform(60, 150, 2), 12.0),) if 4 in pair and pair != (5, 4) else (link,)
        for pair, link in zip(pairs, true, strict=True)
    ]
    closure = close_links(pairs, offers, tilts, (400, 400))
    assert closure.agreeing[4] < 0.5
    assert (np.delete(closure.agreeing, 4) > 0.5).all()
    np.testing.assert_allclose(np.delete(closure.shifts, 4, axis=0), 0, atol=1e-6)


def test_a_link_says_where_the_moving_view_lies(on: On) -> None:
    images = []
    for tilt, (y, x) in ((10.0, (0.0, 0.0)), (40.0, (20.0, 30.0))):
        shift = raw_from_aligned([[x, y]], View(tilt, AXIS))[0]
        images.append(flat_views([View(tilt, AXIS, *shift)], 3, 0.1)[0])
    views = {
        i: centred_view(on(image), View(tilt, AXIS), PIXEL, FRAME)
        for i, (image, tilt) in enumerate(zip(images, (10.0, 40.0), strict=True))
    }
    best = link_views(views, [(0, 1)])[0][0]
    assert best.dy == pytest.approx(2.0, abs=0.15)
    assert best.dx == pytest.approx(3.0 * stretch(10) / stretch(40), abs=0.15)
    assert best.confidence > 8


@pytest.mark.parametrize("length", [64, 65])
@pytest.mark.parametrize("ratio", [0.85, 1.0, 1.12])
def test_stretching_by_a_matrix_is_resampling(length: int, ratio: float) -> None:
    rng = np.random.default_rng(6)
    image = flat_views([View(0.0, 0.0)], 6, 0.0)[0][:length, :length]
    image = image * np.hanning(length) * np.hanning(length)[:, None]
    image = image.astype(np.float32) + 0 * rng.normal()
    offset = np.array([0.0, (1 - ratio) * (length // 2)])
    expected = resample(image, np.diag([1.0, ratio]), offset, (length, length), fill=0.0)
    np.testing.assert_allclose(image @ stretch_matrix(length, ratio), expected, atol=2e-3)


def test_peaks_lie_apart_and_only_near_the_guess() -> None:
    correlation = np.zeros((160, 160), np.float32)
    correlation += np.random.default_rng(7).normal(size=(160, 160)) * 0.01
    correlation[10, 20], correlation[12, 22], correlation[-30, 5] = 5, 4, 3
    noise = np.ones((20, 20))
    first, second, *_ = peaks_of(correlation, noise, None, 4.0)
    assert round(first.dx) == 20
    assert (round(second.dy), round(second.dx)) == (-30, 5)
    (near, *_) = peaks_of(correlation, noise, (-28.0, 4.0, 6.0), 4.0)
    assert (round(near.dy), round(near.dx)) == (-30, 5)


def test_magnifications_come_back() -> None:
    tilts = (-6.0, 0.0, 6.0, 12.0)
    sizes = np.array([1.0, 1.008, 0.994, 1.0])
    truth = [View(t, AXIS, magnification=m) for t, m in zip(tilts, sizes, strict=True)]
    images = flat_views(truth, 8)
    centred = {
        i: centred_view(image, replace(view, magnification=1.0), PIXEL, FRAME)
        for i, (image, view) in enumerate(zip(images, truth, strict=True))
    }
    pairs = neighbour_pairs(tilts, [True] * 4)
    ratios = link_magnifications(centred, pairs, [(0.0, 0.0, 5.0)] * len(pairs))
    found = solve_magnifications(pairs, ratios, 4)
    np.testing.assert_allclose(found / np.median(sizes), sizes, atol=0.004)
