"""Thickness and position: planted slabs, and what a verdict does with disagreement."""

from math import cos, inf, isnan, radians, tan

import numpy as np
import pytest

from kernels import arrays, wbp
from kernels.backproject import aligned_projection, backproject
from kernels.geometry import View
from kernels.particle_size import particle_size
from kernels.project import project
from kernels.thickness import Estimate, from_attenuation, verdict
from kernels.thickness_beads import from_beads
from kernels.thickness_profile import (
    Profiles,
    from_profiles,
    pair_profiles,
    quick_filter,
    without_gold,
)

SLABS = [(1400.0, 0.0, 0.0, 0.0), (900.0, 150.0, 4.0, -2.0), (1800.0, -300.0, -3.5, 2.5)]


def middle(x, y, slab):
    _, centre, pitch, rise = slab
    return centre - x * tan(radians(pitch)) + y * tan(radians(rise))


def height(slab):
    """Extent of a slab along Z."""
    return slab[0] * np.sqrt(1 + tan(radians(slab[2])) ** 2 + tan(radians(slab[3])) ** 2)


def agrees(found, slab):
    assert found.thickness == pytest.approx(slab[0], rel=0.05)
    assert found.centre == pytest.approx(slab[1], abs=0.02 * slab[0])
    assert found.pitch == pytest.approx(slab[2], abs=0.3)
    assert found.rise == pytest.approx(slab[3], abs=0.3)


@pytest.mark.parametrize("slab", SLABS)
@pytest.mark.parametrize("seed", range(4))
def test_beads_on_both_surfaces_tell_all(slab, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-2500, 2500, (2, 24))
    side = np.where(rng.random(24) < 0.35, 0.5, -0.5)
    side[:3], side[3:6] = 0.5, -0.5
    z = middle(x, y, slab) + side * height(slab) + rng.normal(0, 20, 24)
    z[10:12] += [0.4 * slab[0], 1.6 * slab[0]]  # two lie elsewhere
    found = from_beads(np.column_stack([x, y, z]), z_error=20.0)
    agrees(found, slab)
    covered = from_beads(np.column_stack([x, y, z]), diameter=100.0, z_error=20.0)
    assert covered.thickness == pytest.approx(found.thickness + 100)
    for name, true in zip(("thickness", "centre", "pitch", "rise"), slab, strict=True):
        assert abs(getattr(found, name) - true) < 5 * getattr(found, f"{name}_error")


def test_the_ice_covers_beads_that_lie_deeper_or_less_deep():
    rng = np.random.default_rng(6)
    x, y = rng.uniform(-2500, 2500, (2, 60))
    side = np.sign(rng.normal(size=60))
    z = side * (500 - 50 - rng.uniform(5, 80, 60)) + rng.normal(0, 10, 60)
    found = from_beads(np.column_stack([x, y, z]), diameter=100.0, z_error=10.0)
    assert found.thickness == pytest.approx(1000, rel=0.05)


def test_beads_of_one_layer_or_all_over_tell_no_thickness():
    rng = np.random.default_rng(5)
    x, y = rng.uniform(-2500, 2500, (2, 30))
    slab = (1000.0, 100.0, 3.0, -1.0)
    for z in (rng.normal(0, 20, 30), rng.uniform(-500, 500, 30)):
        found = from_beads(np.column_stack([x, y, middle(x, y, slab) + z]))
        assert isnan(found.thickness)
        assert abs(found.pitch - 3) < 4 * found.pitch_error
    assert isnan(from_beads(np.zeros((4, 3))).pitch)


@pytest.mark.parametrize("pitch", [0.0, 5.0, -8.0])
def test_views_that_darken_tell_thickness_and_pitch(pitch):
    rng = np.random.default_rng(1)
    tilts = np.arange(-60, 61, 3.0)
    means = 7 * np.exp(-1500 / (3000 * np.cos(np.radians(tilts + pitch))))
    means *= rng.normal(1, 0.005, len(tilts))
    means[[5, 30]] *= [0.6, 0.2]  # a grid bar
    found = from_attenuation(means, tilts, 3000.0)
    assert found.thickness == pytest.approx(1500, rel=0.05)
    assert found.pitch == pytest.approx(pitch, abs=0.6)
    assert found.thickness_error > 0.15 * 1500
    assert isnan(found.centre)
    assert isnan(from_attenuation(means[:4], tilts[:4], 3000.0).thickness)


@pytest.mark.parametrize("slab", SLABS)
def test_a_quick_tomogram_tells_all(on, slab):
    # Point-like matter in the slab and nothing else, seen by 41 noisy views, beyond the field too.
    voxel, shape, wide = 40.0, (128, 128, 128), (128, 128, 352)
    rng = np.random.default_rng(2)
    count = 60000
    x, y, z = rng.uniform(-0.5, 0.5, (3, count)) * [[14000], [6000], [height(slab)]]
    z += middle(x, y, slab)
    density = np.zeros(wide, np.float32)
    index = [np.rint(p / voxel).astype(int) + n // 2 for p, n in zip((z, y, x), wide, strict=True)]
    kept = np.all([(i >= 0) & (i < n) for i, n in zip(index, wide, strict=True)], axis=0)
    np.add.at(density, tuple(i[kept] for i in index), np.float32(-1))
    views = [View(float(tilt), 0) for tilt in np.arange(-60, 61, 3.0)]
    images = project(density, aligned_projection(views, wide, 128), (128, 128))
    projection = aligned_projection(views, shape, 128)
    row_filter = quick_filter(wbp.padded_width(128), voxel)
    noise = rng.normal(0, images.std(), images.shape).astype(np.float32)
    filtered = wbp.filter_views(images + noise, row_filter)
    volume, squares = (on(backproject(rows, projection, shape)) for rows in (filtered, filtered**2))
    bands = [
        pair_profiles(
            volume[:, start : start + 32, :],
            squares[:, start : start + 32, :],
            voxel,
            tiles=4,
            y=(start + 15.5 - 64) * voxel,
        )
        for start in (0, 32, 64, 96)
    ]
    profiles = Profiles.joined(bands)
    found = from_profiles(profiles, inset=0.0)
    agrees(found, slab)
    assert from_profiles(profiles, inset=40.0).thickness == found.thickness + 80


def test_gold_is_taken_out_of_a_view_and_nothing_else():
    rng = np.random.default_rng(4)
    plain = rng.normal(0, 0.1, (200, 220)).astype(np.float32)
    image = plain.copy()
    y, x = np.indices(image.shape)
    for row, column in [(40, 50), (120, 160), (180, 30)]:
        image[(y - row) ** 2 + (x - column) ** 2 < 5**2] -= 1.0
    found = without_gold(image, 10.0)
    changed = found != image
    assert changed[image < plain - 0.5].all()
    assert 3 * np.pi * 5**2 < changed.sum() < 3 * np.pi * 16**2
    assert np.abs(found[changed]).max() < 0.15
    np.testing.assert_array_equal(without_gold(plain, 10.0), plain)


def test_no_slab_is_found_in_noise_or_nothing():
    rng = np.random.default_rng(3)
    for _ in range(6):
        a, b = rng.standard_normal((2, 60, 48, 96), dtype=np.float32)
        assert isnan(from_profiles(pair_profiles(a, b**2, 10.0, 6)).thickness)
    zeros = np.zeros((60, 96, 96), np.float32)
    assert isnan(from_profiles(pair_profiles(zeros, zeros, 10.0, 6)).thickness)


@pytest.mark.parametrize("radius", [30.0, 70.0, 110.0])
def test_neighbouring_views_tell_how_large_particles_are(radius):
    # Balls seen through a CTF of another defocus than is supposed, in noise twice as strong.
    rng = np.random.default_rng(7)
    n, pixel, count = 160, 20.0, 3000
    ky, kx = np.fft.fftfreq(n, pixel)[:, None], np.fft.rfftfreq(n, pixel)
    k = np.hypot(ky, kx)
    q = 2 * np.pi * np.maximum(k, 1e-9) * radius
    ball = 3 * (np.sin(q) - q * np.cos(q)) / q**3
    ctf = np.sin(np.pi * 0.0197 * 28000 * k**2 + 0.07)
    x, y, z = rng.uniform(-0.5, 0.5, (3, count)) * [[n * pixel], [n * pixel], [1000]]
    tilts = np.arange(-30, 31, 3.0)
    phase_y = np.exp(-2j * np.pi * np.outer(ky[:, 0], y))
    rows = []
    for tilt in tilts:
        place = x * cos(radians(tilt)) + z * np.sin(radians(tilt))
        spectrum = phase_y @ np.exp(-2j * np.pi * np.outer(kx, place)).T * ball * ctf
        image = np.fft.irfft2(spectrum, (n, n))
        rows.append(image + rng.normal(0, 2 * image.std(), image.shape))
    stack = np.array(rows, dtype=np.float32)
    size = particle_size(stack, tilts, pixel)
    assert size is not None
    assert size.radius == pytest.approx(radius, rel=0.15)
    assert particle_size(rng.standard_normal((21, n, n), dtype=np.float32), tilts, pixel) is None
    assert particle_size(stack[:3], tilts[:3], pixel) is None


def test_content_near_the_faces_alone_is_a_slab_too():
    z = np.arange(-2500.0, 2500.0, 20.0)
    x, y = (
        a.ravel() for a in np.meshgrid(np.linspace(-2000, 2000, 5), np.linspace(-2000, 2000, 5))
    )
    middle_z = 150 - x * tan(radians(3)) + y * tan(radians(-1))
    depth = np.abs(z - middle_z[:, None])
    rng = np.random.default_rng(8)
    values = np.exp(-(((depth - 600) / 90) ** 2)) + rng.normal(0, 0.05, depth.shape)
    found = from_profiles(Profiles(values, x, y, z), inset=0.0)
    assert found.centre == pytest.approx(150, abs=20)
    assert found.pitch == pytest.approx(3, abs=0.1)
    assert found.rise == pytest.approx(-1, abs=0.1)
    assert 1200 < found.thickness < 1450


@pytest.mark.parametrize(("pitch", "seed"), [(5.0, 1), (-6.0, 2), (-5.0, 3)])
def test_a_steep_slab_with_few_large_particles_is_found(pitch, seed):
    # Some tiles have one particle or none; between the faces and beyond, covariances of the
    # filtered views are negative.
    rng = np.random.default_rng(seed)
    z = (np.arange(250) - 125) * 20.0
    x, y = (
        a.ravel() for a in np.meshgrid(np.linspace(-2000, 2000, 6), np.linspace(-2100, 2100, 6))
    )
    middle = 120 - x * tan(radians(pitch)) + y * tan(radians(0.7))
    values = -0.35 * np.exp(-((z - middle[:, None]) ** 2) / (2 * 1500.0**2))
    for i, count in enumerate(rng.poisson(6, len(x))):
        for depth in rng.uniform(-640, 640, count):
            values[i] += np.exp(-((z - middle[i] - depth) ** 2) / (2 * 80.0**2))
    values += rng.normal(0, 0.03, values.shape)
    found = from_profiles(Profiles(values, x, y, z), inset=0.0)
    # Six particles tell a tile's middle to 150 Å, and all tiles the pitch to 1°.
    assert found.centre == pytest.approx(120, abs=60)
    assert found.pitch == pytest.approx(pitch, abs=2)
    assert found.thickness == pytest.approx(1280, rel=0.2)
    assert found.pitch_error > 0.1


def test_what_lies_beyond_the_profiles_is_not_told():
    rng = np.random.default_rng(4)
    z = (np.arange(60) - 30) * 20.0
    x, y = (
        a.ravel() for a in np.meshgrid(np.linspace(-2000, 2000, 6), np.linspace(-2000, 2000, 6))
    )
    values = np.exp(-((z - 900) ** 2) / (2 * 150.0**2)) + rng.normal(0, 0.02, (len(x), len(z)))
    assert isnan(from_profiles(Profiles(values, x, y, z)).centre)


def test_a_verdict_weighs_estimates_by_their_errors():
    found = verdict(
        [
            Estimate("beads", 1000, 20, 10, 5, 1.0, 0.1, -1.0, 0.1),
            Estimate("tomogram", 1040, 40, 20, 10, 1.2, 0.2),
            Estimate("attenuation", 1100, 150, pitch=2.0, pitch_error=1.0),
        ]
    )
    assert found.doubts == ()
    weights = np.array([1 / 20**2, 1 / 40**2, 1 / 150**2])
    assert found.slab.thickness == pytest.approx(weights @ [1000, 1040, 1100] / weights.sum())
    assert found.slab.thickness_error == pytest.approx(weights.sum() ** -0.5)
    assert (found.slab.rise, found.slab.rise_error) == (-1.0, pytest.approx(0.1))


def test_a_verdict_leaves_out_what_disagrees_and_says_so():
    found = verdict(
        [
            Estimate("beads", 1000, 20),
            Estimate("tomogram", 1020, 20),
            Estimate("attenuation", 1600, 60),
        ]
    )
    assert found.slab.thickness == pytest.approx(1010)
    assert found.doubts == ("thickness by attenuation is 1600 ± 60, by beads, tomogram 1010",)
    two = verdict([Estimate("a", 1000, 20), Estimate("b", 1500, 50)])
    assert two.slab.thickness == 1000
    assert len(two.doubts) == 1
    nothing = verdict([Estimate("a")])
    assert isnan(nothing.slab.thickness)
    assert nothing.slab.thickness_error == inf


def test_pitch_adds_to_the_tilt():
    # A slab of pitch 10° is seen edge-on at −80°: brightness and geometry agree about the sign.
    x = np.linspace(-500, 500, 50)
    z = -x * tan(radians(10))
    seen = x * cos(radians(-10)) + z * np.sin(radians(-10))
    depth = -x * np.sin(radians(-10)) + z * cos(radians(-10))
    assert np.ptp(seen) > 1000
    np.testing.assert_allclose(depth, 0, atol=1e-9)
    assert arrays.is_numpy(seen)
