"""X-rays go, beads and noise stay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import poisson

from kernels import arrays, xrays
from kernels.xray_scan import around, limits
from kernels.xrays import fill_spots, find_spots


@dataclass(frozen=True)
class Scene:
    clean: np.ndarray
    image: np.ndarray
    hits: np.ndarray  # label of each hit, 0 elsewhere
    beads: np.ndarray  # True on beads and their rims


def scene(seed, *, size=512, hits=100, beads=12, dose=5.5, lowest=8.0):
    """Return Poisson noise on uneven ice with dark beads, and spikes of 1 to 12 pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    mean = dose * (1 + 0.15 * np.sin(x / 90) * np.cos(y / 70) + 0.1 * x / size)
    near = np.zeros((size, size), bool)
    for _ in range(beads):
        cy, cx = rng.uniform(20, size - 20, 2)
        distance = np.hypot(y - cy, x - cx)
        mean = mean * np.where(distance < rng.uniform(4, 12), 0.3, 1)
        near |= distance < 22
    clean = rng.poisson(mean).astype(np.float32)
    image, labels = clean.copy(), np.zeros((size, size), int)
    occupied = near.copy()
    label = 0
    while label < hits:
        count = int(rng.integers(1, 13))
        cluster = [tuple(rng.integers(0, size, 2))]
        while len(cluster) < count:  # compact: next to a pixel, and within 3 of the first
            py, px = cluster[rng.integers(len(cluster))]
            new = (py + rng.integers(-1, 2), px + rng.integers(-1, 2))
            if new not in cluster and np.hypot(*np.subtract(new, cluster[0])) <= 3:
                cluster.append(new)
        rows, columns = np.array(cluster).T
        if min(rows.min(), columns.min()) < 0 or max(rows.max(), columns.max()) >= size:
            continue
        box = np.s_[
            max(rows.min() - 8, 0) : rows.max() + 9, max(columns.min() - 8, 0) : columns.max() + 9
        ]
        if occupied[box].any():
            continue
        label += 1
        image[rows, columns] += rng.uniform(lowest, 100) * np.sqrt(mean[rows, columns])
        labels[rows, columns] = label
        occupied[box] |= labels[box] == label
    return Scene(clean, image, labels, near)


SCENES = [scene(seed) for seed in range(4)]


@dataclass(frozen=True)
class Erased:
    image: np.ndarray
    mask: np.ndarray
    hits: int


def erase(image, **criteria):
    """Erase the hits of a view judged alone."""
    found = find_spots(image, **criteria)
    hits = found.spots.chosen(found.spots.hit)
    mask = np.zeros(found.clean.shape, bool)
    mask.reshape(-1)[hits.pixels] = True
    return Erased(found.clean, mask, len(hits))


def test_recall_and_precision_are_99_percent():
    found = hit = flagged = right = 0
    for case in SCENES:
        erased = erase(case.image)
        seen = np.unique(case.hits[erased.mask & (case.hits > 0)])
        found, hit = found + len(seen), hit + case.hits.max()
        flagged, right = flagged + erased.mask.sum(), right + (case.hits[erased.mask] > 0).sum()
    assert found / hit >= 0.99
    assert right / flagged >= 0.99


def test_every_pixel_of_a_hit_goes():
    case = scene(11, lowest=12.0)
    erased = erase(case.image)
    assert (erased.mask & (case.hits > 0)).sum() >= 0.99 * (case.hits > 0).sum()


def test_beads_are_unchanged():
    for case in SCENES:
        np.testing.assert_array_equal(erase(case.image).image[case.beads], case.image[case.beads])


def test_a_hit_on_a_bead_goes_and_the_bead_stays():
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:300, :300]
    bead = np.hypot(y - 150, x - 150) < 14
    clean = rng.poisson(np.where(bead, 4, 16)).astype(np.float32)
    image = clean.copy()
    image[149:151, 150] += 36  # 9 deviations of the ice, whose counts lie between
    erased = erase(image)
    assert erased.mask[149:151, 150].all()
    assert erased.mask.sum() <= 4
    assert erased.image[erased.mask].max() < 12


def test_pixels_outside_the_mask_are_unchanged_and_the_argument_too():
    case = SCENES[0]
    before = case.image.copy()
    erased = erase(case.image)
    np.testing.assert_array_equal(erased.image[~erased.mask], case.image[~erased.mask])
    np.testing.assert_array_equal(case.image, before)
    assert erased.image.dtype == np.float32


def test_a_second_pass_changes_nothing():
    for case in SCENES:
        once = erase(case.image)
        twice = erase(once.image)
        assert twice.hits == 0
        np.testing.assert_array_equal(twice.image, once.image)


def test_repeating_the_search_where_the_image_changed_is_as_good_as_everywhere(monkeypatch):
    expected = [find_spots(case.image) for case in SCENES]

    def everywhere(values, function):
        return np.ones_like(values) if values.dtype == bool else around(values, function)

    monkeypatch.setattr(xrays, "around", everywhere)
    for case, found in zip(SCENES, expected, strict=True):
        again = find_spots(case.image)
        np.testing.assert_array_equal(again.spots.pixels, found.spots.pixels)
        np.testing.assert_array_equal(again.clean, found.clean)


@pytest.mark.parametrize("dose", [0.1, 0.5, 1.0, 3.0, 30.0])
def test_noise_alone_is_never_taken_for_a_hit(dose):
    image = np.random.default_rng(3).poisson(dose, (1000, 1000)).astype(np.float32)
    assert erase(image).hits == 0
    gain = np.float32(0.37)  # and an offset: nothing is known of the units
    assert erase(gain * image - 5).hits == 0


def test_of_few_electrons_noise_gets_further():
    high, normal = limits(1e-9), limits(1e-9)[-1]
    assert normal == pytest.approx(6.0, abs=0.03)
    assert (np.diff(high) <= 0).all()
    events = 5.5
    at = np.interp(np.log(events), np.linspace(np.log(1e-3), np.log(1e5), len(high)), high)
    rare = [poisson.sf(np.ceil(events + (at + d) * events**0.5) - 1, events) for d in (-0.5, 0.5)]
    assert rare[0] > 1e-9 > rare[1]
    low = limits(1e-4, low=True)
    assert np.isinf(low[0])  # even no electron at all is nothing special
    assert low[-1] == pytest.approx(3.72, abs=0.03)


def test_filled_pixels_look_like_their_surroundings():
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:800, :800]
    plane = 50 + 0.02 * x - 0.01 * y
    image = (plane + 2 * rng.standard_normal((800, 800))).astype(np.float32)
    image[20::40, 20::40] += 100
    image[21::40, 20::40] += 60
    erased = erase(image)
    assert erased.hits == 400
    residual = (erased.image - plane)[erased.mask]
    assert abs(residual.mean()) < 0.25
    assert residual.std() == pytest.approx(2, rel=0.15)


def test_the_noise_that_fills_is_as_smooth_as_that_around():
    rng = np.random.default_rng(14)
    image = ndimage.gaussian_filter(rng.standard_normal((900, 900)), 1.0).astype(np.float32)
    deviation = image.std()
    neighbours = (image[:, 1:] * image[:, :-1]).mean() / image.var()
    places = [(i, j) for i in range(30, 880, 30) for j in range(30, 880, 30)]
    for i, j in places:
        image[i - 1 : i + 2, j - 2 : j + 2] += 40 * deviation
    erased = erase(image)
    assert erased.hits == len(places)
    filled = np.array([erased.image[i - 1 : i + 2, j - 2 : j + 2] for i, j in places])
    assert filled.std() == pytest.approx(deviation, rel=0.15)
    found = (filled[:, :, 1:] * filled[:, :, :-1]).mean() / filled.var()
    assert found == pytest.approx(neighbours, abs=0.12)


def test_wide_bright_features_stay():
    image = np.random.default_rng(5).poisson(10, (400, 400)).astype(np.float32)
    y, x = np.mgrid[:400, :400]
    image += 60 * np.exp(-((y - 200) ** 2 + (x - 200) ** 2) / (2 * 12**2)).astype(np.float32)
    image[:, 300:306] += 60
    assert erase(image).hits == 0


def test_the_bright_side_of_an_edge_stays():
    y, x = np.mgrid[:1000, :1000]
    mean = np.where(x + 0.3 * y + 20 * np.sin(y / 30) > 650, 75, 25)
    image = np.random.default_rng(15).poisson(mean).astype(np.float32)
    assert erase(image).hits == 0


def test_a_giant_hit_goes_only_when_it_is_overwhelming():
    image = np.random.default_rng(6).poisson(10, (400, 400)).astype(np.float32)
    y, x = np.mgrid[:400, :400]
    image[np.hypot(y - 100, x - 100) < 6.5] += 12 * np.sqrt(10)
    image[np.hypot(y - 300, x - 300) < 6.5] += 50 * np.sqrt(10)
    erased = erase(image)
    assert erased.hits == 1
    assert erased.mask[300, 300]
    assert not erased.mask[100, 100]


def test_a_short_track_goes():
    image = np.random.default_rng(16).poisson(10, (300, 300)).astype(np.float32)
    for k in range(12):
        image[100 + k, 150 + k // 2] += 12 * np.sqrt(10)
    erased = erase(image)
    assert erased.hits == 1
    assert 11 <= erased.mask.sum() <= 16


def test_hits_at_the_corner_go():
    image = np.random.default_rng(7).poisson(10, (150, 230)).astype(np.float32)
    image[0, 0] = image[149, 229] = image[0, 229] = 200
    erased = erase(image)
    assert erased.hits == 3
    assert erased.image.max() < 40


def test_it_may_work_in_place_and_tells_the_extremes():
    case = SCENES[1]
    found = find_spots(case.image)
    assert found.before == (case.image.min(), case.image.max())
    assert found.after == (found.clean.min(), found.clean.max())
    image = case.image.copy()
    again = find_spots(image, out=image)
    assert again.clean is image
    np.testing.assert_array_equal(image, found.clean)
    assert (again.before, again.after) == (found.before, found.after)


def test_flat_images_are_harmless():
    assert erase(np.full((64, 64), 3, np.float32)).hits == 0


def test_hits_that_are_to_stay_are_left_and_defects_filled():
    image = np.random.default_rng(17).poisson(10, (300, 300)).astype(np.float32)
    image[50, 60] = image[200, 100] = 90
    found = find_spots(image)
    keep = found.spots.hit & (found.spots.peak == 50 * 300 + 60)
    assert keep.sum() == 1
    defects = np.array([7 * 300 + 8, 7 * 300 + 9, 120 * 300 + 30])
    clean = fill_spots(image, found.spots, keep, defects)
    assert clean[50, 60] == 90
    assert clean[200, 100] == found.clean[200, 100] < 30
    changed = np.flatnonzero(clean != image)
    assert set(changed) <= {200 * 300 + 100, *defects}
    assert len(changed) >= 3


def test_where_the_array_lives_changes_nothing(on):
    case = SCENES[0]
    here, there = find_spots(case.image), find_spots(on(case.image))
    np.testing.assert_array_equal(arrays.to_host(there.clean), here.clean)
    np.testing.assert_array_equal(there.spots.pixels, here.spots.pixels)


def test_impossible_criteria_are_refused():
    image = np.zeros((64, 64), np.float32)
    with pytest.raises(ValueError, match=r"peak criterion is 3, it must be above 6\.0"):
        find_spots(image, peak=3)
    with pytest.raises(ValueError, match="patch is 5 pixels"):
        find_spots(image, patch=5)
