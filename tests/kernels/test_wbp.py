import numpy as np
import pytest

from kernels import arrays, wbp
from kernels.backproject import aligned_projection, backproject
from kernels.geometry import View

FREQUENCIES = np.array([0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5])

# algorithms.md §3, made with IMOD's formula in double precision.
SIRT_LIKE = {
    5: [0.92718, 0.68325, 0.41941, 0.19010, 0.09911, 0.05060, 0.02918, 0.02050],
    8: [0.98347, 0.83476, 0.57321, 0.28121, 0.15079, 0.07810, 0.04531, 0.03191],
    15: [0.99948, 0.96380, 0.79187, 0.45591, 0.26014, 0.13921, 0.08193, 0.05803],
    30: [1.0, 0.99732, 0.93923, 0.66244, 0.41586, 0.23470, 0.14146, 0.10119],
}


def at(values, frequencies):
    """The filter's values at multiples of 1/1000 cycles per pixel, for n = 1000."""
    return values[np.rint(np.asarray(frequencies) * 1000).astype(int)]


@pytest.mark.parametrize("iterations", SIRT_LIKE)
def test_sirt_like_has_the_golden_values(iterations):
    values = at(wbp.sirt_like(1000, iterations), FREQUENCIES)
    np.testing.assert_allclose(values, SIRT_LIKE[iterations], rtol=0, atol=5.1e-6)


def test_more_than_30_iterations_count_for_0_6_each():
    values = wbp.sirt_like(1000, 40)
    expected = 1 - (1 - 0.00195 / 0.1) ** (27 + 6 + 0.3)
    np.testing.assert_allclose(at(values, [0.1]), expected, rtol=1e-6)
    assert values[0] == 1


def test_the_ramp_is_the_frequency_with_a_fifth_of_a_step_at_zero():
    values = wbp.ramp(200)
    np.testing.assert_allclose(values[1:71], np.arange(1, 71) / 200, rtol=1e-6)
    np.testing.assert_allclose(values[0], 0.2 / 200, rtol=1e-6)


@pytest.mark.parametrize(
    ("falloff", "golden"), [(0.05, [0.6065, 0.1353, 0.0111]), (0.035, [0.3604, 0.0169, 0.0001])]
)
def test_the_falloff_is_a_gaussian_of_true_sigma(falloff, golden):
    frequencies = np.array([0.40, 0.45, 0.50])
    values = at(wbp.ramp(1000, 0.35, falloff), frequencies) / frequencies
    np.testing.assert_allclose(values, golden, atol=5.1e-5)


def test_no_falloff_cuts_off_sharply():
    values = wbp.ramp(100, 0.35, 0)
    assert values[35] > 0
    assert not values[36:].any()


def test_the_hamming_like_filter_falls_off_from_its_start():
    start, frequency = 0.2, 0.35
    expected = frequency * np.exp(-0.5 * (0.15 / (0.438 * 0.3)) ** 2)
    values = wbp.hamming_like(1000, start)
    np.testing.assert_allclose(at(values, [0.2, frequency]), [0.2, expected], rtol=1e-5)


def test_even_tilts_weigh_the_same_and_each_stands_for_its_step():
    tilts = np.arange(-60, 61, 3)
    np.testing.assert_allclose(wbp.view_weights(tilts), 1, rtol=1e-12)
    np.testing.assert_allclose(wbp.angular_steps(tilts), np.radians(3), rtol=1e-12)


def test_views_beside_a_gap_weigh_more_whatever_their_order():
    tilts = np.array([-6, -3, 0, 6, 9, 12, 15, 18])  # 3° is missing
    weights = wbp.view_weights(tilts)
    # The view at 0°: intervals 6 and 3 beside it, then 3 and 3, with weights 2 and 2/3.
    ratio = (2 * (3 + 6) + (3 + 3) * 2 / 3) / (2 * 2 + 2 * 2 / 3) / 3
    np.testing.assert_allclose(weights[2] / weights[-1], ratio, rtol=1e-12)
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-12)
    shuffled = np.random.default_rng(0).permutation(len(tilts))
    np.testing.assert_allclose(wbp.view_weights(tilts[shuffled]), weights[shuffled])


def test_filtering_a_periodic_wave_multiplies_it_by_the_filter(on):
    # n = nx: there is no padding, so a wave of whole periods stays one.
    n, cycles = 64, 5
    row = np.cos(2 * np.pi * cycles * np.arange(n) / n).astype(np.float32)
    views = np.tile(row, (2, 3, 1))
    filtered = wbp.filter_views(on(views), wbp.ramp(n))
    assert filtered.dtype == arrays.namespace(filtered).float32
    np.testing.assert_allclose(arrays.to_host(filtered), views * cycles / n, atol=1e-6)


def test_a_slope_makes_no_bright_rims(on):
    # Unpadded, the jump from one end to the other is as large as the slope itself.
    views = np.tile(np.linspace(0, 100, 200, dtype=np.float32), (1, 4, 1))
    padded = wbp.filter_views(on(views), wbp.ramp(wbp.padded_width(200)))
    bare = wbp.filter_views(on(views), wbp.ramp(200))
    assert np.abs(arrays.to_host(padded)).max() < 0.3 * np.abs(arrays.to_host(bare)).max()


def ball_views(tilts, size, radius, centre):
    """Line integrals of a ball of density 1, its centre at (X, Y, Z) from n // 2 [pixels]."""
    X, Y, Z = centre
    grid = np.arange(size) - size // 2
    views = []
    for tilt in np.radians(tilts):
        x = X * np.cos(tilt) + Z * np.sin(tilt)
        square = radius**2 - (grid[:, None] - Y) ** 2 - (grid - x) ** 2
        views.append(2 * np.sqrt(np.maximum(square, 0)))
    return np.array(views, dtype=np.float32)


@pytest.mark.parametrize("tilts", [np.arange(-89, 91, 1.0), np.arange(-88.5, 91, 1.5)])
def test_views_all_around_give_the_density_back(tilts):
    size, radius, centre = 96, 18, (9, 4, -7)
    views = ball_views(tilts, size, radius, centre)
    filtered = wbp.filter_views(views, wbp.ramp(wbp.padded_width(size)))
    shape = (size, size, size)
    projection = aligned_projection([View(tilt, 0) for tilt in tilts], shape, size)
    volume = backproject(filtered, projection, shape, weights=wbp.angular_steps(tilts))
    z, y, x = np.ogrid[:size, :size, :size]
    x, y, z = (axis - size // 2 - c for axis, c in zip((x, y, z), centre, strict=True))
    distance = np.sqrt(x**2 + y**2 + z**2)
    inside, outside = volume[distance < radius - 4], volume[(distance > 22) & (distance < 30)]
    np.testing.assert_allclose(inside.mean(), 1, atol=0.01)
    np.testing.assert_allclose(outside.mean(), 0, atol=0.01)
    assert inside.std() < 0.01


def test_the_exact_filter_of_views_that_hardly_overlap_is_the_ramp_times_the_step():
    # A triangle as wide as 1 / (k D) on angles 1° apart, sin taken as the angle itself.
    tilts, n, thickness = np.arange(-90, 90, 1.0), 400, 100
    values = wbp.exact(n, tilts, thickness, 0.5)
    frequency = np.arange(10, 60) / n  # k D from 2.5 to 15
    expected = frequency * np.radians(1)
    for view in values[::45, 0]:
        np.testing.assert_allclose(view[10:60], expected, rtol=0.05)
    # Beyond 1 / (D sin 1°), of which there is nothing here, or for few views, it is flat.
    few = wbp.exact(n, [-40, 0, 40], thickness, 0.5)
    np.testing.assert_allclose(few[:, 0, 10:201], 1 / thickness, rtol=1e-6)


def test_the_exact_filter_shares_what_equal_views_measure():
    once = wbp.exact(200, [-30, 0, 30], 50)
    twice = wbp.exact(200, [-30, 0, 0, 30], 50)
    np.testing.assert_allclose(twice[1, 0, 60:], once[1, 0, 60:] / 2, rtol=1e-6)
    np.testing.assert_allclose(twice[1], twice[2])
    assert (twice[1, 0, 1:] < once[1, 0, 1:]).all()


def test_the_exact_filter_gives_the_density_back():
    # Its triangles are an approximation: low frequencies, below 1 / D, come out somewhat low.
    tilts = np.arange(-89, 91, 2.0)
    size, radius = 64, 12
    views = ball_views(tilts, size, radius, (5, 0, -4))
    filtered = wbp.filter_views(views, wbp.exact(wbp.padded_width(size), tilts, 45, 0.35))
    shape = (size, size, size)
    projection = aligned_projection([View(tilt, 0) for tilt in tilts], shape, size)
    volume = backproject(filtered, projection, shape)
    z, y, x = np.ogrid[:size, :size, :size]
    distance = np.sqrt((x - 37) ** 2 + (y - 32) ** 2 + (z - 28) ** 2)
    np.testing.assert_allclose(volume[distance < radius - 4].mean(), 1, atol=0.1)
    np.testing.assert_allclose(volume[(distance > 16) & (distance < 22)].mean(), 0, atol=0.05)


def test_the_logarithm_gives_line_integrals_and_keeps_matter_dark(on):
    thickness = np.array([[0.0, 100], [250, 400]])
    image = (50 * np.exp(-thickness / 300) - 20).astype(np.float32)
    found = arrays.to_host(wbp.log_intensity(on(image), offset=20.0))
    np.testing.assert_allclose(found, np.log(50) - thickness / 300, atol=1e-5)
    spoilt = arrays.to_host(wbp.log_intensity(on(np.array([[-3, 1, 5]], dtype=np.float32))))
    np.testing.assert_allclose(spoilt, np.log([[0.01, 1, 5]]), atol=1e-6)


def test_errors_say_what_was_wrong():
    views = np.zeros((1, 4, 64), dtype=np.float32)
    with pytest.raises(ValueError, match="filter is for rows of 32 pixels, the views have 64"):
        wbp.filter_views(views, wbp.ramp(32))
    with pytest.raises(ValueError, match="SIRT-like filter of 0 iterations"):
        wbp.sirt_like(64, 0)
    with pytest.raises(ValueError, match=r"cutoff -0\.1"):
        wbp.ramp(64, -0.1)
    with pytest.raises(ValueError, match=r"starts at 0\.5"):
        wbp.hamming_like(64, 0.5)
    with pytest.raises(ValueError, match="not at least two different"):
        wbp.view_weights([3.0, 3.0])
    with pytest.raises(ValueError, match="thickness is 0 pixels"):
        wbp.exact(64, [0, 10], 0)
    with pytest.raises(ValueError, match="mean is -1"):
        wbp.log_intensity(np.full((4, 4), -1, np.float32))
