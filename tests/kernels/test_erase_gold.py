import numpy as np
import pytest
from bead_series import draw
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.erase_gold import erase_discs
from kernels.geometry import View, project

SIZE, PIXEL = 192, 5.0


def sloping(rng, sigma=4.0):
    y, x = np.indices((SIZE, SIZE))
    return (100 + 0.2 * x - 0.1 * y + rng.normal(0, sigma, (SIZE, SIZE))).astype(np.float32)


def test_a_disc_gets_level_slope_and_noise_of_its_surroundings():
    rng = np.random.default_rng(1)
    plain = sloping(rng)
    spoilt = plain.copy()
    y, x = np.indices(plain.shape)
    disc = (y - 90) ** 2 + (x - 70) ** 2 <= 12**2
    spoilt[disc] = 20
    filled = erase_discs(spoilt, [[70.0, 90.0]], 12.5)
    expected = 100 + 0.2 * x - 0.1 * y
    left = (filled - expected)[disc]
    assert abs(left.mean()) < 1.0
    assert left.std() == pytest.approx(4.0, rel=0.1)
    outside = (y - 90) ** 2 + (x - 70) ** 2 > 12.5**2
    assert np.array_equal(filled[outside], spoilt[outside])


def test_the_same_seed_gives_the_same_pixels():
    image = sloping(np.random.default_rng(2))
    centres = [[50.0, 60.0], [120.5, 20.25]]
    a, b, c = (erase_discs(image, centres, 9.0, seed) for seed in (3, 3, 4))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-30, 220), st.floats(-30, 220)), max_size=25), st.floats(2, 25))
def test_discs_anywhere_leave_values_within_those_around(centres, radius):
    image = sloping(np.random.default_rng(5))
    filled = erase_discs(image, np.array(centres).reshape(-1, 2), radius)
    assert np.isfinite(filled).all()
    spread = np.ptp(image)
    assert image.min() - spread < filled.min() <= filled.max() < image.max() + spread


def test_beads_vanish_from_a_view():
    rng = np.random.default_rng(6)
    points = np.array([[x, y, 0.0] for x in (-300, 0, 260) for y in (-250, 40, 300)])
    points = np.concatenate([points, points[:1] + np.array([80.0, 30.0, 0.0])])  # two overlap
    view = View(0.0, 0.0)
    image = draw(rng, points, view, SIZE, PIXEL, fringe=0.0)
    clean = draw(rng, points[:0], view, SIZE, PIXEL)
    centres = project(points, view) / PIXEL + SIZE // 2
    filled = erase_discs(image, centres, 11.5)
    assert image.mean() < 0.97 * clean.mean()
    assert filled.mean() == pytest.approx(clean.mean(), rel=0.01)
    assert filled.std() == pytest.approx(clean.std(), rel=0.1)


def test_a_radius_of_nothing_is_refused():
    with pytest.raises(ValueError, match="radius of the discs is 0"):
        erase_discs(np.zeros((8, 8), np.float32), [[4.0, 4.0]], 0.0)
