"""Views judge each other's spots: defects stay in place, the specimen moves, X-rays are alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from kernels.xray_spots import Spots, clustered, highest, joined
from kernels.xray_votes import (
    displacement,
    doubtful,
    find_defects,
    match,
    neighbours,
    of_the_specimen,
    reduce_view,
)
from kernels.xrays import find_spots

WIDTH = 1000
NONE = np.empty(0, np.int64)


def spots(*peaks, height=9.0, hit=True, bright=True):
    """Return spots of one pixel each, at (y, x)."""
    index = np.array([y * WIDTH + x for y, x in peaks], np.int64)
    n = len(index)
    return Spots(
        pixels=index,
        first=np.arange(n + 1),
        peak=index,
        height=np.full(n, height, np.float32),
        hit=np.full(n, hit),
        bright=np.full(n, bright),
        round=np.zeros(n, np.int64),
    )


def series(seed, views=5, size=768, shift=(11, -7)):
    """Return views of a specimen that moves by `shift` from each to the next, in noise."""
    rng = np.random.default_rng(seed)
    margin = 60
    field = ndimage.gaussian_filter(rng.standard_normal((size + 120, size + 120)), 8)
    field *= 8 / field.std()
    images = []
    for i in range(views):
        y, x = margin - i * shift[0], margin - i * shift[1]
        images.append(rng.poisson(np.maximum(40 + field[y : y + size, x : x + size], 1)))
    return np.array(images, np.float32)


def test_a_pixel_that_stands_out_in_a_quarter_of_the_views_is_a_defect():
    hot = [spots((5, 5), (40 + i, 9)) for i in range(3)]
    rest = [spots((100 + i, 50)) for i in range(9)]
    np.testing.assert_array_equal(find_defects(hot + rest), [5 * WIDTH + 5])
    assert find_defects(hot + rest + [spots((300, 50))]).size == 0
    assert find_defects([spots((5, 5))] * 2).size == 0  # two views cannot tell
    assert find_defects([]).size == 0


def test_bright_and_dark_do_not_add_up_to_a_defect():
    views = [spots((5, 5)), spots((5, 5)), spots((5, 5), bright=False, hit=False)]
    assert find_defects(views).size == 0
    assert find_defects([spots((5, 5), bright=False, hit=False)] * 3).size == 1


def test_neighbours_are_two_on_both_sides_of_those_used():
    assert neighbours(3, [0, 1, 3, 4, 6, 7]) == {0: 2, 1: 1, 4: 1, 6: 2}
    assert neighbours(0, [0, 1, 3]) == {1: 1, 3: 2}


def test_only_hits_with_spots_as_high_in_two_neighbours_are_doubtful():
    views = {
        0: spots((500, 500)),
        1: spots((510, 490), (800, 100)),
        2: spots((520, 480)),
        3: spots((530, 470), height=40.0),
    }
    found = doubtful(views, (WIDTH, WIDTH), NONE)
    assert found == {0: [0], 1: [0], 2: [0]}
    # Defects are no specimen, and what is overwhelmingly bright isn't either.
    assert doubtful(views, (WIDTH, WIDTH), np.array([510 * WIDTH + 490])) == {}


def test_what_moves_with_the_specimen_is_matched_and_what_does_not_is_not():
    images = series(1)
    shift = np.array([11, -7])
    place = np.array([400, 300])
    for i, image in enumerate(images):
        y, x = place + i * shift
        image[y : y + 2, x : x + 2] += 70
    images[1, 100, 600] += 80  # an X-ray
    images[2, 160, 560] += 80  # another
    found = [find_spots(image) for image in images]
    views = {i: part.spots for i, part in enumerate(found)}
    assert [int(view.hit.sum()) for view in views.values()] == [1, 2, 2, 1, 1]
    reduced = [reduce_view(part.clean) for part in found]
    factor = reduced[0][1]
    candidates = {}
    for i, hits in doubtful(views, images.shape[1:], NONE).items():
        for k in hits:
            candidates[i, k] = {}
            for j, apart in neighbours(i, list(views)).items():
                pair = (reduced[i][0], reduced[j][0])
                whole = displacement(pair)
                np.testing.assert_allclose(np.array(whole) * factor, shift * (j - i), atol=factor)
                candidates[i, k][j] = match(
                    views[i], k, views[j], pair, whole, apart, NONE, images.shape[2], factor
                )
    kept = of_the_specimen(candidates, {i: view.hit for i, view in views.items()})
    assert {view for view, _ in kept} == {0, 1, 2, 3, 4}
    for view, k in kept:
        y, x = np.divmod(views[view].peak[k], images.shape[2])
        assert np.abs((y, x) - place - view * shift).max() <= 1


def test_counterparts_that_go_themselves_do_not_count():
    hits = {i: np.array([True]) for i in range(5)}
    chain = {(i, 0): {j: ([0], 0.01) for j in (i - 1, i + 1) if 0 <= j < 5} for i in range(5)}
    # The ends have one counterpart only, so they go, and with them one after the other.
    assert of_the_specimen(chain, hits) == set()
    ends = {**hits, 0: np.array([False]), 4: np.array([False])}  # weak there: they stay anyway
    inner = {key: value for key, value in chain.items() if key[0] in (1, 2, 3)}
    assert of_the_specimen(inner, ends) == {(1, 0), (2, 0), (3, 0)}


def test_counterparts_among_many_spots_are_chance():
    weak = {i: np.array([i == 1]) for i in range(3)}
    for chance, kept in ((0.03, {(1, 0)}), (0.04, set())):
        assert of_the_specimen({(1, 0): {0: ([0], chance), 2: ([0], chance)}}, weak) == kept


def test_an_unknown_place_matches_nothing():
    flat = (np.zeros((64, 64), np.float32),) * 2
    nothing = ([], 1.0)
    here = spots((30, 30))
    assert match(here, 0, here, flat, (0, 0), 1, NONE, WIDTH, 4.0) == nothing
    image = np.random.default_rng(0).standard_normal((128, 128)).astype(np.float32)
    gone = match(here, 0, here, (image, image), (90, 0), 1, NONE, WIDTH, 1.0)
    assert gone == nothing  # moved out of the other view


def test_touching_pixels_are_one_cluster():
    parts = clustered(np.array([5, 6, WIDTH + 7, 3 * WIDTH, 4 * WIDTH - 1]), WIDTH)
    assert [parts.of(k).tolist() for k in range(len(parts))] == [
        [5, 6, WIDTH + 7],
        [3 * WIDTH],
        [4 * WIDTH - 1],
    ]


def test_the_highest_spots_stay_in_order():
    several = joined([spots((k, k), height=h) for k, h in enumerate((5.0, 9.0, 4.0, 7.0))])
    assert highest(several, 2).height.tolist() == [9.0, 7.0]
    assert highest(several, 9).peak.tolist() == several.peak.tolist()


@pytest.mark.parametrize("shape", [(300, 700), (1000, 257)])
def test_reduced_views_have_at_most_256_pixels(shape):
    small, factor = reduce_view(np.random.default_rng(0).random(shape).astype(np.float32))
    assert max(small.shape) <= 256
    assert factor == -(-max(shape) // 256)
    assert abs(small.mean()) < 1e-3
