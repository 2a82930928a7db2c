"""Planted defects and hits are found; specimen, gold and carbon edges are left alone."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from kernels.bad_pixels import find_bad_pixels, find_spikes
from kernels.detector import replace_pixels

SIZE = 640
FACTOR = 1.7  # value of one event


@cache
def specimen(seed=0):
    """Return a carbon edge with fringes, gold of 9 to 37 pixels' radius, texture; mean about 1."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((SIZE, SIZE))
    edge = (x + 0.3 * y - 0.4 * SIZE) / 8
    image = np.where(edge < 0, 0.6, 1 + 0.25 * np.exp(-(edge**2)) * np.cos(3 * edge))
    for _ in range(8):
        (row, column), radius = rng.uniform(20, SIZE - 20, 2), rng.choice([9, 18, 37])
        image = np.where(np.hypot(y - row, x - column) < radius, 0.25 * image, image)
    texture = gaussian_filter(rng.standard_normal((SIZE, SIZE)), 1.5)
    return np.clip(gaussian_filter(image, 0.6) * (1 + 0.04 * texture / texture.std()), 0, None)


def counts(sensitivity, events, seed=1, image=None):
    rng = np.random.default_rng(seed)
    scene = specimen() if image is None else image
    return (rng.poisson(scene * sensitivity * events) * FACTOR).astype(np.float32)


def even():
    return np.ones((SIZE, SIZE))


@pytest.mark.parametrize("events", [0.2, 1.4, 10, 60, 600, 6000])
@pytest.mark.parametrize("seed", [0, 1])
def test_specimen_gold_and_carbon_are_no_defects(events, seed):
    total = counts(even(), events, image=specimen(seed))
    assert not find_bad_pixels(total).any()
    assert not find_spikes(total).any()


@pytest.mark.parametrize(
    ("factor", "events"), [(20, 1.4), (5, 10), (3, 60), (0, 60), (0.1, 200), (1.6, 600)]
)
def test_hot_and_dead_pixels_are_found(on, factor, events):
    rng = np.random.default_rng(2)
    rows, columns = rng.integers(0, SIZE, (2, 50))
    sensitivity = even()
    sensitivity[rows, columns] = factor
    scene = np.ones((SIZE, SIZE))
    bad = find_bad_pixels(on(counts(sensitivity, events, image=scene)))
    assert bad[rows, columns].mean() > 0.95
    bad[rows, columns] = False
    assert bad.sum() <= 1  # a neighbour at most


@pytest.mark.parametrize("factor", [0.0, 4.0])
@pytest.mark.parametrize("size", [(2, 2), (3, 3), (2, 5), (4, 4)])
def test_clusters_are_found_whole(factor, size):
    sensitivity = even()
    for row, column in [(0, 0), (101, 333), (400, 500), (SIZE - size[0], 17)]:
        sensitivity[row : row + size[0], column : column + size[1]] = factor
    bad = find_bad_pixels(counts(sensitivity, 100, image=np.ones((SIZE, SIZE))))
    assert bad[sensitivity != 1].mean() > 0.95
    assert bad[sensitivity == 1].sum() <= 2


@pytest.mark.parametrize(("factor", "events"), [(0.0, 0.4), (0.0, 2), (1.3, 20), (0.8, 60)])
@pytest.mark.parametrize("width", [1, 3])
def test_bad_columns_and_rows_are_found_in_sums_of_few_events(factor, events, width):
    for turn in (np.asarray, np.transpose):
        sensitivity = even()
        sensitivity[:, 200 : 200 + width] = factor
        sensitivity[:, 0] = factor
        bad = turn(find_bad_pixels(counts(turn(sensitivity), events)))
        assert bad[:, 200 : 200 + width].all()
        assert bad[:, 0].all()
        assert bad[sensitivity == 1].mean() < 1e-4


def test_of_a_column_bad_in_part_the_rest_is_kept():
    sensitivity = even()
    sensitivity[:256, 300] = 0
    bad = find_bad_pixels(counts(sensitivity, 5))
    assert bad[:256, 300].all()
    assert not bad[384:, 300].any()


def test_noisy_pixels_of_the_right_mean_are_found_by_their_variance(on):
    rng = np.random.default_rng(3)
    rows, columns = rng.integers(0, SIZE, (2, 30))
    total, squares = np.zeros((2, SIZE, SIZE), np.float32)
    count = 60
    for _ in range(count):
        frame = rng.poisson(1.5, (SIZE, SIZE)).astype(np.float32)
        frame[rows, columns] = rng.poisson(0.15, 30) * 10
        total += frame
        squares += frame * frame
    assert find_bad_pixels(on(total))[rows, columns].mean() < 0.5
    bad = find_bad_pixels(on(total), on(squares), count)
    assert bad[rows, columns].mean() > 0.95
    bad[rows, columns] = False
    assert bad.mean() < 1e-5


def test_after_replacement_hardly_a_pixel_is_left_beyond_six_deviations():
    rng = np.random.default_rng(4)
    sensitivity = even()
    wild = rng.random((SIZE, SIZE)) < 2e-3
    sensitivity[wild] = rng.choice([0.0, 3.0, 30.0], wild.sum())
    sensitivity[:, 77] = 2.0
    total = counts(sensitivity, 60, image=np.ones((SIZE, SIZE)))
    fixed = replace_pixels(total, find_bad_pixels(total), rng)

    def beyond(image):
        return np.mean(np.abs(image - 60 * FACTOR) > 6 * np.sqrt(60) * FACTOR)

    assert beyond(total) > 2e-3
    assert beyond(fixed) <= 1e-4


def test_hits_of_single_frames_are_found_and_counts_kept(on):
    rng = np.random.default_rng(5)
    frame = counts(even(), 0.3)
    clean = frame.copy()
    rows, columns = rng.integers(5, SIZE - 5, (2, 20))
    for row, column in zip(rows, columns, strict=True):
        frame[row : row + 2, column : column + 2] += rng.integers(25, 90)
    hit = find_spikes(on(frame))
    np.testing.assert_array_equal(hit, frame != clean)


def test_the_statistics_of_one_frame_serve_another():
    from kernels.tiles import measure_tiles

    first, second = counts(even(), 0.3, seed=6), counts(even(), 0.3, seed=7)
    second[300, 200] = 60
    hit = find_spikes(second, measure_tiles(first))
    np.testing.assert_array_equal(hit, find_spikes(second))
    assert np.argwhere(hit).tolist() == [[300, 200]]


def test_dark_and_empty_sums_have_no_defects():
    assert not find_bad_pixels(np.zeros((200, 300), np.float32)).any()
    assert not find_spikes(np.zeros((200, 300), np.float32)).any()
    assert not find_bad_pixels(counts(even(), 0.01)).any()


def test_the_argument_stays_as_it_is():
    total = counts(even(), 10)
    before = total.copy()
    find_bad_pixels(total, total * total, 8)
    find_spikes(total)
    np.testing.assert_array_equal(total, before)


def test_squares_need_a_count_and_the_same_shape():
    total = np.ones((64, 64), np.float32)
    for squares, count in ((total, None), (total, 1), (total[1:], 8)):
        with pytest.raises(ValueError, match=f"of {count} frames with a sum"):
            find_bad_pixels(total, squares, count)
