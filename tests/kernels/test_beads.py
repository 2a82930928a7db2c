from dataclasses import replace

import numpy as np
import pytest
from bead_series import bead_points, displaced, draw, tilted_views
from scipy.spatial import cKDTree

from kernels.bead_centre import centre_beads
from kernels.bead_find import bead_boxes, bead_template, find_beads, measured_diameter
from kernels.bead_select import best_spread, surfaces_of
from kernels.bead_track import link, link_again
from kernels.bundle import solve
from kernels.bundle_model import Model
from kernels.geometry import View, aligned_from_raw, fit_points, project, tilted
from kernels.tracks import Tracks

SIZE, PIXEL = 320, 8.0
FIELD = (SIZE * PIXEL, SIZE * PIXEL)
TILTS = np.arange(-60.0, 61, 6)


@pytest.fixture(scope="module")
def series():
    rng = np.random.default_rng(4)
    views = tilted_views(rng, TILTS)
    points = bead_points(rng, 16, 1050, 1200)
    images = [draw(rng, points, v, SIZE, PIXEL) for v in views]
    return rng, points, views, images


def near(places, others):
    return cKDTree(others).query(places)[0]


def inside(points, view, margin=60.0):
    raw = project(points, view)
    return raw, (np.abs(raw) < SIZE * PIXEL / 2 - margin).all(axis=1)


def misfit(points, views, found):
    raw = np.stack([project(points, v) for v in views])
    seen = (np.abs(raw) < SIZE * PIXEL / 2).all(axis=2)
    kept = seen.sum(axis=0) >= 6
    fitted = fit_points(raw[:, kept], seen[:, kept], found)
    apart = np.array(
        [
            aligned_from_raw(r[kept], v) - tilted(fitted, v)[:, :2]
            for r, v in zip(raw, found, strict=True)
        ]
    )
    return float(np.sqrt((apart[seen[:, kept]] ** 2).sum(axis=-1).mean()))


def test_the_template_has_sum_0_and_length_1_and_is_dark():
    image, support = bead_template(10.0, 9.5)
    assert image.sum() == pytest.approx(0, abs=1e-9)
    assert (image**2).sum() == pytest.approx(1)
    assert image[support].min() == image[len(image) // 2, len(image) // 2]
    np.testing.assert_allclose(image, image.T, atol=1e-12)


@pytest.mark.parametrize("nominal", [70.0, 100.0, 140.0])
def test_beads_are_found_about_whatever_diameter_is_given(series, on, nominal):
    _, points, views, images = series
    found = total = false = 0
    for view, image in zip(views[::5], images[::5], strict=True):
        raw, seen = inside(points, view)
        candidates = find_beads(on(image), PIXEL, nominal)
        strong = candidates.xy[candidates.correlation > 0.5]
        found += (near(raw[seen], strong) < 30).sum()
        total += seen.sum()
        false += (near(strong, raw) > 60).sum()
    assert found >= 0.9 * total
    assert false <= 0.05 * total


def test_contamination_and_edges_are_no_beads():
    rng = np.random.default_rng(1)
    image = np.full((SIZE, SIZE), 60.0)
    y, x = np.indices(image.shape)
    image[:, :90] *= 0.6  # carbon
    image[np.hypot(y - 200, x - 200) < 28] *= 0.4  # ice of 450 Å
    image = rng.poisson(image).astype(np.float32)
    assert (find_beads(image, PIXEL, 100.0).correlation < 0.5).all()


def test_the_diameter_is_measured(series):
    _, points, views, images = series
    k = len(views) // 2
    raw, seen = inside(points, views[k], 200)
    boxes = bead_boxes(images[k], PIXEL, 300.0, raw[seen])
    assert measured_diameter(boxes, PIXEL, 130.0) == pytest.approx(100, rel=0.1)


def test_tracks_follow_beads_through_wrong_shifts(series):
    rng, points, views, images = series
    coarse = displaced(rng, views, 80.0)
    candidates = [find_beads(image, PIXEL, 100.0) for image in images]
    linked = link(candidates, coarse, 100.0, FIELD)
    assert linked.solution is not None
    often = sum(inside(points, v)[1].astype(int) for v in views) >= 10
    assert linked.tracks.n_points >= 0.9 * often.sum()
    # Each track is one bead, and none is of nothing.
    for j in range(linked.tracks.n_points):
        own = linked.tracks.point == j
        beads = []
        for v, place in zip(linked.tracks.view[own], linked.tracks.xy[own], strict=True):
            distance, bead = cKDTree(project(points, views[v])).query(place)
            assert distance < 40
            beads.append(int(bead))
        assert np.bincount(beads).max() >= 0.9 * len(beads)
    assert misfit(points, views, linked.solution.views) < 6
    again = link_again(candidates, linked.solution, 100.0, FIELD)
    assert len(again.tracks.view) >= 0.98 * len(linked.tracks.view)


def test_views_off_by_far_are_found_by_voting(series):
    rng, points, views, images = series
    coarse = displaced(rng, views, 20.0)
    coarse[3] = replace(coarse[3], shift_x=coarse[3].shift_x + 250)
    candidates = [find_beads(image, PIXEL, 100.0) for image in images]
    linked = link(candidates, coarse, 100.0, FIELD)
    assert linked.solution is not None
    assert misfit(points, views, linked.solution.views) < 6


def test_views_that_take_no_part_stay_without_tracks(series):
    rng, _, views, images = series
    candidates = [None if i == 2 else find_beads(im, PIXEL, 100.0) for i, im in enumerate(images)]
    linked = link(candidates, displaced(rng, views, 20.0), 100.0, FIELD)
    assert not (linked.tracks.view == 2).any()


def test_noise_is_never_linked_into_beads():
    rng = np.random.default_rng(2)
    views = tilted_views(rng, TILTS)
    nothing = np.zeros((0, 3))
    images = [draw(rng, nothing, v, SIZE, PIXEL, texture=0.08) for v in views]
    candidates = [find_beads(image, PIXEL, 100.0, least=0.2) for image in images]
    assert np.mean([len(c) for c in candidates]) > 20  # there is something to be misled by
    linked = link(candidates, views, 100.0, FIELD)
    assert linked.tracks.n_points == 0
    assert linked.solution is None


def centred_all(points, views, images, reach=15.0, offset=5.0, seed=5):
    rng = np.random.default_rng(seed)
    rows = []
    for i, (view, image) in enumerate(zip(views, images, strict=True)):
        raw = project(points, view)
        found = centre_beads(image, PIXEL, 100.0, raw + rng.normal(0, offset, raw.shape), reach)
        rows += [
            (i, j, *found.xy[j], found.sigma[j], *(found.xy[j] - raw[j]))
            for j in np.flatnonzero(np.isfinite(found.xy).all(axis=1))
        ]
    return np.array(rows)


def test_centres_are_as_good_as_stated(series):
    _, points, views, images = series
    rows = centred_all(points, views, images)
    seen = sum(int(inside(points, v)[1].sum()) for v in views)
    assert len(rows) >= 0.95 * seen
    errors = rows[:, 5:7] / rows[:, 4:5]
    assert np.median(np.abs(errors)) / 0.6745 == pytest.approx(1.0, abs=0.25)
    assert np.abs(np.median(rows[:, 5:7], axis=0)).max() < 0.15
    assert np.sqrt((rows[:, 5:7] ** 2).mean()) < 3


def test_solving_with_centres_aligns_to_a_small_part_of_a_pixel(series):
    rng, points, views, images = series
    rows = centred_all(points, views, images)
    view, point = rows[:, 0].astype(int), rows[:, 1].astype(int)
    tracks = Tracks(view, point, rows[:, 2:4], rows[:, 4], len(views), len(points))
    solution = solve(tracks, displaced(rng, views, 10.0), Model("all", "all", "grouped"))
    assert misfit(points, views, solution.views) < 0.15 * PIXEL


def test_overlapping_beads_do_not_draw_each_other():
    rng = np.random.default_rng(7)
    view = View(0.0, 0.0)
    points = np.array([[x, y, 0.0] for x in (-800, -300, 300, 800) for y in (-600, 0, 600)])
    close = points + np.array([95.0, 20.0, 0.0])
    everything = np.concatenate([points, close[:4]])
    image = draw(rng, everything, view, SIZE, PIXEL)
    found = centre_beads(image, PIXEL, 100.0, everything[:, :2].copy(), 15.0)
    errors = np.hypot(*(found.xy - everything[:, :2]).T)
    assert np.isfinite(errors).all()
    assert errors[[0, 1, 2, 3, 12, 13, 14, 15]].mean() < 2.5 * errors[4:12].mean()
    same = np.concatenate([points, points[:1] + np.array([30.0, 0.0, 0.0])])
    hidden = centre_beads(draw(rng, same, view, SIZE, PIXEL), PIXEL, 100.0, same[:, :2], 15.0)
    assert np.isnan(hidden.xy[[0, -1]]).all()  # one upon the other: neither is believed


def test_beads_at_the_edge_are_centred_from_what_is_there():
    rng = np.random.default_rng(8)
    view, edge = View(0.0, 0.0), SIZE * PIXEL / 2
    rows = np.linspace(-900, 900, 8)
    points = np.array([[x, y, 0.0] for x in (-edge + 70, 0.0, edge - 75) for y in rows])
    found = centre_beads(
        draw(rng, points, view, SIZE, PIXEL), PIXEL, 100.0, points[:, :2].copy(), 15.0
    )
    errors = found.xy - points[:, :2]
    cut = np.abs(points[:, 0]) > 100
    assert np.isfinite(errors[cut]).all()
    assert np.abs(errors[cut].mean(axis=0)).max() < 1.5
    assert np.sqrt((errors[cut] ** 2).mean()) < 3


def test_where_no_bead_is_none_is_centred_that_looks_like_one(series):
    rng, points, views, images = series
    k = len(views) // 2
    raw, seen = inside(points, views[k])
    places = rng.uniform(-1000, 1000, (200, 2))
    empty = places[near(places, raw) > 260][:20]
    found = centre_beads(images[k], PIXEL, 100.0, np.concatenate([raw, empty]), 15.0)
    assert (found.correlation[: len(raw)][seen] > 0.5).all()
    assert (found.correlation[len(raw) :] < 0.5).all()


def test_two_surfaces_are_told_apart_and_one_is_left_one():
    rng = np.random.default_rng(9)
    flat = np.column_stack([rng.uniform(-1000, 1000, (20, 2)), np.zeros(20)])
    tilt = flat[:, 0] * 0.05 - flat[:, 1] * 0.03
    sides = np.where(np.arange(20) % 3 == 0, 1, -1)
    both = flat + np.column_stack([np.zeros((20, 2)), tilt + 550 * sides + rng.normal(0, 25, 20)])
    found = surfaces_of(both)
    assert (found.side == sides).all()
    assert found.apart == pytest.approx(1100, abs=40)
    assert found.slope == pytest.approx((0.05, -0.03), abs=0.03)
    one = flat + np.column_stack([np.zeros((20, 2)), tilt + rng.normal(0, 25, 20)])
    assert surfaces_of(one).apart is None
    assert surfaces_of(both[:3]).apart is None


def test_the_best_spread_beads_cover_the_field_and_both_sides():
    rng = np.random.default_rng(10)
    points = rng.uniform(-1000, 1000, (60, 3))
    counts, side = rng.integers(20, 41, 60), np.where(np.arange(60) < 50, 1, -1)
    chosen = best_spread(points, counts, 12, side)
    assert len(set(chosen.tolist())) == 12
    assert 4 <= (side[chosen] < 0).sum() <= 8
    apart = np.linalg.norm(points[chosen, None, :2] - points[None, chosen, :2], axis=2)
    assert np.sort(apart, axis=1)[:, 1].min() > 150
