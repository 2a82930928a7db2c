"""X-rays go, beads and noise stay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from kernels import arrays
from kernels.xrays import erase


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


def test_recall_and_precision_are_99_percent():
    found = hit = flagged = right = 0
    for number, case in enumerate(SCENES):
        erased = erase(case.image, np.random.default_rng(number))
        seen = np.unique(case.hits[erased.mask & (case.hits > 0)])
        found, hit = found + len(seen), hit + case.hits.max()
        flagged, right = flagged + erased.mask.sum(), right + (case.hits[erased.mask] > 0).sum()
    assert found / hit >= 0.99
    assert right / flagged >= 0.99


def test_every_pixel_of_a_hit_goes():
    case = scene(11, lowest=12.0)
    erased = erase(case.image, np.random.default_rng(0))
    assert (erased.mask & (case.hits > 0)).sum() >= 0.99 * (case.hits > 0).sum()


def test_beads_are_unchanged():
    for case in SCENES:
        erased = erase(case.image, np.random.default_rng(0))
        np.testing.assert_array_equal(erased.image[case.beads], case.image[case.beads])


def test_pixels_outside_the_mask_are_unchanged_and_the_argument_too():
    case = SCENES[0]
    before = case.image.copy()
    erased = erase(case.image, np.random.default_rng(0))
    np.testing.assert_array_equal(erased.image[~erased.mask], case.image[~erased.mask])
    np.testing.assert_array_equal(case.image, before)
    assert erased.image.dtype == np.float32


def test_a_second_pass_changes_nothing():
    for number, case in enumerate(SCENES):
        once = erase(case.image, np.random.default_rng(number))
        twice = erase(once.image, np.random.default_rng(99))
        assert twice.hits == 0
        np.testing.assert_array_equal(twice.image, once.image)


@pytest.mark.parametrize("dose", [1.0, 3.0, 30.0])
def test_noise_alone_is_never_taken_for_a_hit(dose):
    image = np.random.default_rng(3).poisson(dose, (1000, 1000)).astype(np.float32)
    assert erase(image, np.random.default_rng(0)).hits == 0


def test_filled_pixels_look_like_their_surroundings():
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:800, :800]
    plane = 50 + 0.02 * x - 0.01 * y
    image = (plane + 2 * rng.standard_normal((800, 800))).astype(np.float32)
    image[20::40, 20::40] += 100
    image[21::40, 20::40] += 60
    erased = erase(image, rng)
    assert erased.hits == 400
    residual = (erased.image - plane)[erased.mask]
    assert abs(residual.mean()) < 0.25
    assert residual.std() == pytest.approx(2, rel=0.15)


def test_wide_bright_features_stay():
    image = np.random.default_rng(5).poisson(10, (400, 400)).astype(np.float32)
    y, x = np.mgrid[:400, :400]
    image += 60 * np.exp(-((y - 200) ** 2 + (x - 200) ** 2) / (2 * 12**2)).astype(np.float32)
    image[:, 300:306] += 60
    assert erase(image, np.random.default_rng(0)).hits == 0


def test_a_giant_hit_goes_only_when_it_is_overwhelming():
    image = np.random.default_rng(6).poisson(10, (400, 400)).astype(np.float32)
    y, x = np.mgrid[:400, :400]
    image[np.hypot(y - 100, x - 100) < 6.5] += 12 * np.sqrt(10)
    image[np.hypot(y - 300, x - 300) < 6.5] += 50 * np.sqrt(10)
    erased = erase(image, np.random.default_rng(0))
    assert erased.hits == 1
    assert erased.mask[300, 300]
    assert not erased.mask[100, 100]


def test_hits_at_the_corner_go():
    image = np.random.default_rng(7).poisson(10, (150, 230)).astype(np.float32)
    image[0, 0] = image[149, 229] = image[0, 229] = 200
    erased = erase(image, np.random.default_rng(0))
    assert erased.hits == 3
    assert erased.image.max() < 40


def test_flat_images_are_harmless():
    assert erase(np.full((64, 64), 3, np.float32), np.random.default_rng(0)).hits == 0


def test_the_same_seed_fills_the_same(on):
    case = SCENES[0]
    here = erase(case.image, np.random.default_rng(8))
    there = erase(on(case.image), np.random.default_rng(8))
    np.testing.assert_array_equal(arrays.to_host(there.image), here.image)
    np.testing.assert_array_equal(arrays.to_host(there.mask), here.mask)
    assert there.hits == here.hits


def test_impossible_criteria_are_refused():
    image = np.zeros((64, 64), np.float32)
    with pytest.raises(ValueError, match=r"peak criterion is 3, it must be above 4\.0"):
        erase(image, np.random.default_rng(0), peak=3)
    with pytest.raises(ValueError, match="patch is 5 pixels"):
        erase(image, np.random.default_rng(0), patch=5)
