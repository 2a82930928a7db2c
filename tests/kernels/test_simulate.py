"""The simulated microscope obeys the geometry, the CTF and the counting statistics it claims."""

from __future__ import annotations

from dataclasses import replace
from math import cos, hypot, radians

import numpy as np
import pytest

from kernels.ctf import Ctf, ctf_1d, zeros
from kernels.fourier import rfft2
from kernels.geometry import View, midplane_points, project
from kernels.geometry import defocus_offset as offset_of
from kernels.simulate import (
    MEAN_FREE_PATH,
    expected_image,
    gain_reference,
    simulate_view,
    transmission,
)
from kernels.specimen import BLUR, Blobs, Specimen, blobs_at_dose, make_specimen

PIXEL = 5.4
NOTHING = Blobs(np.zeros((0, 3)), np.zeros(0), np.zeros(0))
NO_HITS = np.zeros((0, 4), np.int64)


def _empty(**changes) -> Specimen:
    empty = Specimen(
        1500.0, 0.0, 0.0, 0.0, np.zeros((0, 3)), np.zeros(0), NOTHING, NOTHING, np.zeros((0, 3))
    )
    return replace(empty, **changes)


def _texture(half_width: float, thickness: float, count: int = 60000, seed: int = 5) -> Specimen:
    """Weak point-like scatterers, white in projection."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(-1, 1, (count, 3)) * [half_width, half_width, thickness / 2]
    matter = Blobs(positions, np.full(count, 1.0), rng.standard_normal(count))
    return _empty(matter=matter, thickness=thickness)


def _profile(image: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies [1/Å] and the rotational mean of the power spectrum."""
    power = np.abs(rfft2((image - image.mean()).astype(np.float32))) ** 2
    k = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None, :])
    index = np.minimum((k * 2 * bins).astype(int), bins)
    sums = np.bincount(index.ravel(), power.ravel(), bins + 1)
    means = sums / np.maximum(np.bincount(index.ravel(), minlength=bins + 1), 1)
    return (np.arange(bins) + 0.5) / (2 * bins * PIXEL), means[:bins]


@pytest.mark.parametrize(
    "view",
    [
        View(0.0, 0.0),
        View(40.0, 85.3, 70.0, -120.0, 1.001),
        View(-55.0, -12.0, -33.0, 51.0, 0.998),
        View(60.0, 130.0),
    ],
)
def test_a_bead_appears_where_the_geometry_projects_it(view):
    bead = np.array([[210.0, -340.0, 560.0]])
    specimen = _empty(beads=bead, bead_radii=np.array([50.0]))
    image = expected_image(specimen, view, Ctf(30000, 29500, 30), (400, 400), PIXEL)
    dark = 1 - image.astype(np.float64)
    y, x = np.mgrid[:400, :400] - 200
    expected = project(bead, view)[0] / PIXEL
    # The Fresnel fringes are symmetric: a centred round window does not bias the centroid.
    window = np.hypot(x - expected[0], y - expected[1]) < 60
    found = [np.sum(axis * dark * window) / np.sum(dark * window) for axis in (x, y)]
    assert dark[window].sum() > 0
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_gold_is_dark_and_no_intensity_is_negative():
    specimen = _empty(beads=np.zeros((1, 3)), bead_radii=np.array([50.0]))
    image = expected_image(specimen, View(0, 0), Ctf(30000, 30000), (256, 256), PIXEL)
    assert image.dtype == np.float32
    assert image.min() >= 0
    # Half of the electrons pass 100 Å of gold at a mean free path of 150 Å.
    assert 0.35 < image[124:133, 124:133].mean() < 0.65


def test_the_power_spectrum_vanishes_at_the_zeros_of_the_ctf():
    ctf = Ctf(26000, 26000)
    specimen = _texture(1600.0, 10.0)
    image = expected_image(specimen, View(0, 0), ctf, (512, 512), PIXEL)
    k, power = _profile(image, 256)
    for zero in zeros(ctf, 0.085):
        near = np.abs(k - zero) < 0.004
        lowest = k[near][np.argmin(power[near])]
        assert abs(lowest - zero) < 1.1 * (k[1] - k[0])
        assert power[near].min() < 0.02 * power[near].max()


def test_a_weak_blob_has_the_contrast_of_weak_phase_theory():
    ctf, phase, sigma = Ctf(28000, 28000), 5.0, 12.0
    matter = Blobs(np.zeros((1, 3)), np.array([sigma]), np.array([phase]))
    shape = (256, 256)
    image = expected_image(_empty(matter=matter), View(0, 0), ctf, shape, PIXEL)
    k = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None, :]) / PIXEL
    pixel = np.sinc(np.fft.fftfreq(256))[:, None] * np.sinc(np.fft.fftfreq(256))[None, :]
    blob = phase / PIXEL**2 * np.exp(-2 * np.pi**2 * sigma**2 * k**2) * pixel
    theory = 1 + np.fft.fftshift(np.fft.ifft2(2 * blob * ctf_1d(k, ctf)).real)
    assert np.abs(theory - 1).max() > 5e-3
    # The window of 3.5 sigma and the square of the wave leave a few per cent.
    np.testing.assert_allclose(image, theory, atol=3e-4)


@pytest.mark.parametrize("hand", [1, -1])
@pytest.mark.parametrize("tilt", [50.0, -50.0])
def test_each_side_of_a_tilted_view_has_the_defocus_of_its_depth(tilt, hand):
    view, ctf = View(tilt, 0.0), Ctf(30000, 30000)
    specimen = _texture(2600.0, 100.0, count=120000)
    image = expected_image(specimen, view, ctf, (512, 512), PIXEL, hand=hand)
    candidates = np.arange(26000, 34001, 100.0)
    for left in (48, 336):
        strip = image[:, left : left + 128]
        x = (left + 63.5 - 256) * PIXEL
        local = ctf.defocus + offset_of(midplane_points([[x, 0.0]], view), view, hand)[0]
        k, power = _profile(strip * np.hanning(128), 64)
        used = (k > 0.03) & (k < 0.07)
        models = [
            np.corrcoef(ctf_1d(k[used], Ctf(d, d)) ** 2, power[used] / np.mean(power))[0, 1]
            for d in candidates
        ]
        assert abs(candidates[int(np.argmax(models))] - local) < 350
        assert abs(local - ctf.defocus) > 900


def test_raw_times_gain_is_flat():
    gain = gain_reference((192, 160), np.random.default_rng(3))
    movie = simulate_view(
        _empty(), View(0, 0), Ctf(30000, 30000), gain, PIXEL, 400.0, 0.0, 1.0,
        np.zeros((40, 2)), NO_HITS, np.random.default_rng(4),
    )  # fmt: skip
    assert movie.dtype == np.int16
    raw = movie.sum(axis=0)
    electrons = 400 * PIXEL**2
    flat = raw * gain / electrons
    noise = np.sqrt(gain / electrons)
    assert (raw / raw.mean()).std() > 3 * noise.mean()
    assert flat.mean() == pytest.approx(1, abs=5 * noise.mean() / np.sqrt(flat.size))
    assert np.std((flat - 1) / noise) == pytest.approx(1, abs=0.02)
    assert flat.mean(axis=0).std() < 1.3 * noise.mean() / np.sqrt(192)
    assert flat.mean(axis=1).std() < 1.3 * noise.mean() / np.sqrt(160)


def test_no_orientation_of_the_gain_resembles_another():
    gain = gain_reference((128, 128), np.random.default_rng(3)) - 1
    assert abs(gain.mean()) < 1e-6
    assert 0.02 < gain.std() < 0.08
    assert np.abs(gain).max() < 0.13
    variants = [np.rot90(g, turn) for g in (gain, gain[::-1]) for turn in range(4)]
    for variant in variants[1:]:
        assert np.corrcoef(variant.ravel(), gain.ravel())[0, 1] < 0.8


def test_the_mean_count_is_dose_times_area_times_transmission():
    through = transmission(1500.0, 50.0)
    assert through == pytest.approx(np.exp(-1500 / (MEAN_FREE_PATH * cos(radians(50)))))
    movie = simulate_view(
        _empty(), View(50, 85.3), Ctf(30000, 30000), np.ones((200, 200), np.float32), PIXEL,
        3.0, 0.0, through, np.zeros((8, 2)), NO_HITS, np.random.default_rng(4),
    )  # fmt: skip
    expected = 3.0 * PIXEL**2 * through
    total = movie.sum(axis=0)
    assert total.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected) / 200)
    assert total.var() == pytest.approx(expected, rel=0.03)


def test_frames_show_the_objects_displaced():
    specimen = _empty(beads=np.array([[60.0, -80.0, 0.0]]), bead_radii=np.array([50.0]))
    shifts = np.array([[-13.0, 22.0], [0.0, 0.0], [31.0, 5.0]])
    movie = simulate_view(
        specimen, View(0, 0), Ctf(5000, 5000), np.ones((128, 128), np.float32), PIXEL,
        2100.0, 0.0, 1.0, shifts, NO_HITS, np.random.default_rng(4),
    )  # fmt: skip
    y, x = np.mgrid[:128, :128] - 64
    for frame, (dx, dy) in zip(movie, shifts, strict=True):
        expected = np.array([60.0 + dx, -80.0 + dy]) / PIXEL
        dark = 1 - frame / (700 * PIXEL**2)
        dark = dark * (np.hypot(x - expected[0], y - expected[1]) < 14)
        found = [np.sum(axis * dark) / np.sum(dark) for axis in (x, y)]
        np.testing.assert_allclose(found, expected, atol=0.06)


def test_hits_are_added_where_they_are_planted():
    def movie(hits):
        return simulate_view(
            _empty(), View(0, 0), Ctf(30000, 30000), np.ones((64, 64), np.float32), PIXEL, 3.0,
            0.0, 1.0, np.zeros((4, 2)), hits, np.random.default_rng(4),
        )  # fmt: skip

    added = movie(np.array([[2, 10, 50, 300], [2, 11, 50, 90]])) - movie(NO_HITS)
    assert added[2, 10, 50] == 300
    assert added[2, 11, 50] == 90
    assert np.count_nonzero(added) == 2


def test_a_negative_dose_is_refused():
    with pytest.raises(ValueError, match=r"dose -1\.0"):
        simulate_view(
            _empty(), View(0, 0), Ctf(30000, 30000), np.ones((64, 64), np.float32), PIXEL, -1.0,
            0.0, 1.0, np.zeros((4, 2)), NO_HITS, np.random.default_rng(4),
        )  # fmt: skip


def test_counts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at most 30000"):
        simulate_view(
            _empty(), View(0, 0), Ctf(30000, 30000), np.ones((64, 64), np.float32), PIXEL, 5000.0,
            0.0, 1.0, np.zeros((4, 2)), NO_HITS, np.random.default_rng(4),
        )  # fmt: skip


@pytest.fixture(scope="module")
def specimen():
    return make_specimen(
        np.random.default_rng(9), (2000.0, 1500.0), 1500.0, 150.0, slope_x=0.02, slope_y=-0.01
    )


def test_beads_lie_near_both_surfaces_and_apart(specimen):
    x, y, z = specimen.beads.T
    height = z - (150 + 0.02 * x - 0.01 * y)
    assert np.all((np.abs(height) > 600) & (np.abs(height) < 700))
    assert np.sum(height > 0) >= 8
    assert np.sum(height < 0) >= 8
    apart = [hypot(a[0] - b[0], a[1] - b[1]) for a in specimen.beads for b in specimen.beads]
    assert min(d for d in apart if d) > 200


def test_matter_and_ice_stay_in_the_slab(specimen):
    for blobs in (specimen.matter, specimen.ice):
        x, y, z = blobs.positions.T.astype(float)
        assert np.abs(z - (150 + 0.02 * x - 0.01 * y)).max() < 770


def test_the_phases_of_matter_are_those_of_protein(specimen):
    # 3 V above ice and 1.21 Å³ per Da at 6.53e-4 rad/(V Å): the mass that the phases stand for.
    mass = specimen.matter.phases.sum() / (3 * 6.53e-4) / 1.21
    concentration = mass * 1.6605 / (4000 * 3000 * 1500)  # g/cm³
    assert 0.02 < concentration < 0.2


def test_dose_blurs_protein_and_moves_water_but_leaves_gold(specimen):
    before, after = blobs_at_dose(specimen, 0.0), blobs_at_dose(specimen, 50.0)
    protein = len(specimen.matter.phases)
    np.testing.assert_allclose(
        after.sigmas[:protein] ** 2 - before.sigmas[:protein] ** 2, BLUR * 50, rtol=1e-3
    )
    np.testing.assert_array_equal(after.positions[:protein], before.positions[:protein])
    moved = np.linalg.norm((after.positions - before.positions)[protein:], axis=1)
    assert np.sqrt(np.mean(moved**2)) == pytest.approx(np.sqrt(50), rel=0.02)
    np.testing.assert_array_equal(after.phases, before.phases)


def test_a_slab_thinner_than_the_beads_is_refused():
    with pytest.raises(ValueError, match="thickness is 90"):
        make_specimen(np.random.default_rng(0), (500.0, 500.0), thickness=90.0)
