"""Spoilt views stand out from the others, and good ones of difficult series do not."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.align_coarse import PairShift, neighbour_pairs
from kernels.view_cues import (
    blocked_shares,
    brightness,
    jumps,
    missing_detail,
    neighbours_of,
    trend,
    unusual_motion,
)

TILTS = np.arange(-69, 70, 3.0).tolist()
N = len(TILTS)
USED = [True] * N
BRIGHT = np.ones(N)
SECANT = 1 / np.cos(np.radians(TILTS))


def blocks(thickness=0.5, rows=12, columns=16):
    """Return the means in parts of views through a plate so many mean free paths thick."""
    means = 40 * np.exp(-np.broadcast_to(thickness, (rows, columns))[None] * SECANT[:, None, None])
    return means * np.random.default_rng(0).normal(1, 0.01, means.shape)


def test_a_trend_follows_the_path_of_the_beam_and_no_outlier():
    values = 3 - 0.4 * SECANT + 0.2 * np.tan(np.radians(TILTS))
    spoilt = values.copy()
    spoilt[[2, 3, 4, 30]] = 50
    np.testing.assert_allclose(trend(spoilt, TILTS, USED), values, atol=1e-3)


def test_a_trend_of_few_views_is_their_median():
    np.testing.assert_allclose(trend(np.array([1.0, 9.0, 2.0]), [0, 3, 6], [True] * 3), 2)
    assert np.isnan(trend(np.array([1.0, 2.0]), [0, 3], [False] * 2)).all()


def test_neighbours_lie_on_both_sides_and_beyond_an_end_on_one():
    used = [True] * 9
    assert neighbours_of(4, used) == [2, 3, 5, 6]
    assert neighbours_of(0, used) == [1, 2, 3, 4]
    assert neighbours_of(7, used) == [4, 5, 6, 8]
    used[3] = False
    assert neighbours_of(4, used) == [1, 2, 5, 6]


def test_a_dim_view_is_told_by_the_tilts_around_though_high_tilts_are_dimmer():
    seen = blocks(1.0)
    seen[20] *= 0.4
    found = brightness(seen, TILTS, USED)
    assert found[20] == pytest.approx(0.4, abs=0.02)
    assert np.delete(found, 20).min() > 0.95


@pytest.mark.parametrize("view", [0, 5, N // 2, N - 1])
def test_a_bar_over_part_of_the_field_is_measured(view):
    seen = blocks()
    seen[view, :, :6] *= 0.05
    found = blocked_shares(seen, TILTS, USED)
    assert found[view] == pytest.approx(6 / 16, abs=0.01)
    assert np.delete(found, view).max() == 0


def test_a_bar_that_comes_in_with_the_tilt_is_found_in_all_its_views():
    seen = blocks()
    for i in range(8):
        seen[i, :, : 16 - 2 * i] *= 0.02
    np.testing.assert_allclose(blocked_shares(seen, TILTS, USED)[:8], 1 - np.arange(8) / 8)


def test_thick_parts_of_the_specimen_block_nothing_at_any_tilt():
    wedge = np.linspace(0.4, 1.4, 16)[None, :]  # mean free paths, across the field
    assert blocked_shares(blocks(wedge), TILTS, USED).max() == 0


def test_the_edge_of_an_aperture_is_no_fault_of_a_view():
    seen = blocks()
    seen[:, :2] *= 0.01
    assert blocked_shares(seen, TILTS, USED).max() == 0


def pairs_of(places, confidence=20.0, seed=0, field=(200, 240)):
    """Return pairs, and what they tell of content at `places` (n, 2), shares of the field."""
    pairs = neighbour_pairs(TILTS, USED)
    rng = np.random.default_rng(seed)
    told = []
    for r, m in pairs:
        dy, dx = (places[m] / [1, 1 / SECANT[m]] - places[r] / [1, 1 / SECANT[r]]) * field
        dx = dx / SECANT[r]
        told.append(PairShift(dy + rng.normal(0, 0.5), dx + rng.normal(0, 0.5), confidence))
    return pairs, told


@pytest.mark.parametrize("view", [0, 7, N // 2, N - 2])
@pytest.mark.parametrize("axis", [0.0, 85.0, -140.0])
def test_a_view_of_another_place_has_jumped(view, axis):
    places = np.cumsum(np.random.default_rng(3).normal(0, 0.01, (N, 2)), axis=0)
    places[view] += (0.0, 0.6)
    # The axis turns the jump: measured in the frame before it is.
    jump, match, across = jumps(*pairs_of(places, field=(240, 240)), TILTS, USED, axis, (240, 240))
    turned = max(abs(np.cos(np.radians(axis))), abs(np.sin(np.radians(axis))))
    assert jump[view] == pytest.approx(0.6 * turned, abs=0.06)
    assert np.delete(jump, view).max() < 0.1
    assert match[5] == across[5] == 20


def test_a_slow_walk_over_the_whole_field_is_no_jump():
    places = np.stack([np.zeros(N), np.linspace(-0.5, 0.5, N)], axis=1)
    jump, _, _ = jumps(*pairs_of(places), TILTS, USED, 0.0, (200, 240))
    assert np.nanmax(jump) < 0.1


def test_a_view_that_matches_nothing_has_no_jump_but_a_poor_match():
    pairs, told = pairs_of(np.zeros((N, 2)))
    rng = np.random.default_rng(5)
    told = [
        PairShift(*rng.uniform(-100, 100, 2), 4.5) if 9 in pair else shift
        for pair, shift in zip(pairs, told, strict=True)
    ]
    jump, match, across = jumps(pairs, told, TILTS, USED, 0.0, (200, 240))
    assert np.isnan(jump[9])
    assert (match[9], across[9]) == (4.5, 20)
    assert match[12] == 20


def test_no_pairs_tell_nothing():
    assert np.isnan(jumps([], [], TILTS, USED, 0.0, (9, 9))).all()


def detail(strength=0.9):
    """Return ratios, errors and noise per mean of views whose detail fades with the tilt."""
    rng = np.random.default_rng(2)
    ratios = 1 + strength * np.exp(-0.3 * (SECANT - 1))[:, None] * rng.normal(1, 0.02, (N, 6))
    return ratios, np.full((N, 6), 0.03), np.full(N, 0.85) * rng.normal(1, 0.003, N)


@pytest.mark.parametrize("view", [0, 4, N // 2, N - 1])
def test_detail_that_is_missing_in_one_direction_is_told(view):
    ratios, errors, noise = detail()
    ratios[view, 3] = 1.05
    missing, sigma = missing_detail(ratios, errors, noise, BRIGHT, TILTS, USED)
    assert missing[view] > 0.85
    assert sigma[view] > 8
    assert np.delete(missing, view).max() < 0.25


def test_a_view_smoothed_with_its_noise_is_told():
    ratios, errors, noise = detail()
    noise[11] *= 0.05
    missing, _ = missing_detail(ratios, errors, noise, BRIGHT, TILTS, USED)
    assert missing[11] > 1
    assert np.delete(missing, 11).max() < 0.25


def test_noise_that_is_not_of_counts_says_nothing():
    ratios, errors, _ = detail()
    noise = np.random.default_rng(4).normal(0, 100, N)
    assert missing_detail(ratios, errors, noise, BRIGHT, TILTS, USED)[0].max() < 0.25


def test_a_dim_view_is_not_taken_for_a_blurred_one():
    ratios, errors, noise = detail()
    ratios[9] = 1 + 0.4 * (ratios[9] - 1)
    bright = np.where(np.arange(N) == 9, 0.4, 1.0)
    assert missing_detail(ratios, errors, noise, bright, TILTS, USED)[0].max() < 0.25
    assert missing_detail(ratios, errors, noise, BRIGHT, TILTS, USED)[0][9] > 0.5


def test_ice_without_detail_is_not_judged():
    ratios, errors, noise = detail(0.05)
    ratios[7] = 1.0
    missing, sigma = missing_detail(ratios, errors, noise, BRIGHT, TILTS, USED)
    assert np.isnan(missing).all()
    assert np.isnan(sigma).all()


def test_views_left_out_have_no_say():
    ratios, errors, noise = detail()
    used = [i % 3 != 0 for i in range(N)]
    ratios[::3] = 1.0
    missing, _ = missing_detail(ratios, errors, noise, BRIGHT, TILTS, used)
    assert np.isnan(missing[::3]).all()
    assert np.nanmax(missing) < 0.25


def test_motion_is_compared_with_the_usual_one():
    totals = [3.0] * 10 + [2948.0, None]
    times = unusual_motion(totals, [True] * 12)
    assert times[10] == pytest.approx(2948 / 3)
    assert np.isnan(times[11])
    still = unusual_motion([0.0] * 6 + [1.0], [True] * 7)
    assert still.max() == 0.5
