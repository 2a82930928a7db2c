"""Tile spectra: their scale, place, scaling with defocus and sectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ctf_images import field, phase_of, squares

from kernels.arrays import to_host
from kernels.ctf import Ctf
from kernels.fourier import fast_size
from kernels.spectra import (
    hann,
    hann_autocorrelation,
    mean_spectrum,
    polar_spectra,
    radial_profile,
    tile_box,
    tile_spectra,
    without_extremes,
)

On = Callable[[Any], Any]


def noise(shape: tuple[int, int], seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_white_noise_has_its_variance_as_power_everywhere(on: On) -> None:
    spectra = to_host(tile_spectra(on(3 * noise((256, 320)) + 1000), 64)[0])
    assert spectra.dtype == np.float32
    assert spectra.shape == (63, 64, 33)
    assert spectra[:, 3:-3, 3:-3].mean() == pytest.approx(9, rel=0.02)
    assert spectra[:, 30:34, 20:].mean() == pytest.approx(9, rel=0.1)


def test_tiles_cover_the_image_from_edge_to_edge() -> None:
    _, centres = tile_spectra(noise((200, 256)), 64)
    assert centres[0].tolist() == [-128 + 32, -100 + 32]
    assert centres[-1].tolist() == [128 - 32, 100 - 32]
    assert np.diff(np.unique(centres[:, 0])).max() <= 32


def test_centres_tell_where_a_tile_lies() -> None:
    image = np.zeros((96, 128), np.float32)
    image[20, 100] = 1.0  # right of the centre, below it in row index
    spectra, centres = tile_spectra(image, 32, 0.0)
    x, y = centres[spectra.sum(axis=(1, 2)).argmax()]
    assert abs(x - (100 - 64)) <= 16
    assert abs(y - (20 - 48)) <= 16


def test_stripes_appear_in_the_sector_of_their_direction(on: On) -> None:
    y, x = np.mgrid[:128, :128]
    angle = math.radians(35)
    wave = np.cos(2 * np.pi * 0.2 * (math.cos(angle) * x + math.sin(angle) * y))
    polar, _ = polar_spectra(on(wave.astype(np.float32)), 64, sectors=18)
    sector, ring = np.unravel_index(polar.power.mean(axis=0).argmax(), polar.count.shape)
    assert sector == 3  # 30° to 40° counter-clockwise from +x
    assert ring == round(0.2 * polar.box)
    mirrored, _ = polar_spectra(on(wave[::-1].astype(np.float32)), 64, sectors=18)
    assert np.unravel_index(mirrored.power.mean(axis=0).argmax(), polar.count.shape)[0] == 14


def test_polar_averages_are_plain_averages(on: On) -> None:
    image = noise((96, 128))
    polar, centres = polar_spectra(on(image), 48, padding=1.0, sectors=6)
    spectra, places = tile_spectra(image, 48)
    np.testing.assert_array_equal(centres, places)
    ky, kx = np.fft.fftfreq(48, 1 / 48)[:, None], np.arange(25)[None, :]
    angle = np.degrees(np.arctan2(ky, kx)) % 180
    ring = np.rint(np.hypot(ky, kx))
    here = (ring == 17) & (angle >= 60) & (angle < 90) & (np.abs(ky) >= 2) & (kx >= 2)
    assert polar.count[2, 17] == here.sum() > 5
    assert polar.power.dtype == np.float32
    np.testing.assert_allclose(polar.power[:, 2, 17], spectra[:, here].mean(axis=1), rtol=1e-4)
    k2 = np.broadcast_to(kx**2 + ky**2, here.shape)
    assert polar.k2[2, 17] == pytest.approx(k2[here].mean() / 48**2)
    cosine = np.broadcast_to(kx**2 - ky**2, here.shape)
    assert polar.k2_cos[2, 17] == pytest.approx(cosine[here].mean() / 48**2)
    sine = np.broadcast_to(2 * kx * ky, here.shape)
    assert polar.k2_sin[2, 17] == pytest.approx(sine[here].mean() / 48**2)


def test_padding_leaves_the_scale_of_the_power_and_the_frequencies() -> None:
    y, x = np.mgrid[:256, :256]
    wave = 4 * np.cos(2 * np.pi * (0.15 * x + 0.2 * y))
    image = (noise((256, 256)) + wave).astype(np.float32)
    for padding in (1.0, 1.5, 2.0):
        polar, _ = polar_spectra(image, 64, padding=padding)
        assert (polar.box, polar.window) == (fast_size(64 * padding), 64)
        rings = (polar.power * polar.count).sum(axis=1) / np.maximum(polar.count.sum(axis=0), 1)
        frequency = np.arange(rings.shape[1]) / polar.box
        far = np.abs(frequency - 0.25) > 0.06
        assert rings[:, far & (frequency > 0.1)].mean() == pytest.approx(1, rel=0.05)
        assert rings.mean(axis=0)[4:].argmax() + 4 == round(0.25 * polar.box)


def test_rings_end_at_the_highest_frequency_that_is_wanted() -> None:
    whole, _ = polar_spectra(noise((128, 128)), 64)
    part, _ = polar_spectra(noise((128, 128)), 64, highest=0.2)
    assert part.power.shape[2] == math.ceil(0.2 * part.box) + 1 < whole.power.shape[2]
    used = part.count[:, :-1] > 0
    np.testing.assert_allclose(
        part.power[:, :, :-1][:, used],
        whole.power[:, :, : part.power.shape[2] - 1][:, used],
        rtol=1e-5,
    )


def test_redundancy_tells_how_much_a_mean_over_many_rings_scatters() -> None:
    """Samples / redundancy is the inverse of its relative variance: neighbours are correlated."""
    means, samples = [], 0.0
    for seed in range(200):
        polar, _ = polar_spectra(noise((128, 128), seed), 48, sectors=4)
        weight = polar.count[1, 10:30]
        means.append((polar.power[:, 1, 10:30].mean(axis=0) * weight).sum() / weight.sum())
        samples = weight.sum() * len(polar.power) / polar.redundancy
    assert np.var(means) / np.mean(means) ** 2 * samples == pytest.approx(1, abs=0.3)


def test_scaled_tiles_have_the_rings_of_the_reference_defocus(on: On) -> None:
    # Left and right tiles of an image of two halves at 18000 and 22000 Å.
    pixel, box = 5.4, 256
    halves = [field(512, pixel, Ctf(d, d), seed=2, signal=40.0, damping=0.0) for d in (18e3, 22e3)]
    image = np.concatenate([h[:, :256] for h in halves], axis=1)
    spectra, centres = tile_spectra(image, box)
    left, right = centres[:, 0] < -60, centres[:, 0] > 60
    local = np.where(left, 18e3, np.where(right, 22e3, 2e4))

    def contrast_at_20000(scales: np.ndarray) -> float:
        """Correlation of the average with the rings of 20000 Å, without amplitude contrast."""
        found = to_host(mean_spectrum(on(image), scales, box))
        assert found.shape == (box, box // 2 + 1)
        assert found.dtype == np.float32
        k2, k2_cos, k2_sin = squares(box, pixel)
        inner = (np.sqrt(k2) > 0.02) & (np.sqrt(k2) < 0.075)
        rings = np.sin(phase_of(Ctf(2e4, 2e4), k2, k2_cos, k2_sin)) ** 2
        return float(np.corrcoef(found[inner], rings[inner])[0, 1])

    assert contrast_at_20000(np.sqrt(20000 / local)) > contrast_at_20000(np.ones(len(local))) + 0.1
    assert contrast_at_20000(np.sqrt(20000 / local)) > 0.75
    plain = to_host(mean_spectrum(on(image), np.ones(len(local)), box))
    np.testing.assert_allclose(plain, spectra.mean(axis=0), rtol=2e-4)


def test_one_scale_for_each_tile_is_wanted() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) scales for 9 tiles"):
        mean_spectrum(noise((128, 128)), np.ones(3), 64)


def test_hann_autocorrelation_is_that_of_the_window() -> None:
    window = hann(200)
    for lag in (0, 20, 70, 199):
        plain = (window[: 200 - lag] * window[lag:]).sum() / (window**2).sum()
        assert hann_autocorrelation(np.asarray(lag / 200)) == pytest.approx(plain, abs=1e-6)


def test_box_is_given_in_angstrom_and_fits_the_image() -> None:
    assert tile_box((1024, 1024), 2.7) == 384
    assert tile_box((512, 512), 5.4) == 192
    assert tile_box((300, 260), 2.7) == 260


@pytest.mark.parametrize(
    ("box", "overlap", "message"),
    [(63, 0.5, "box is 63"), (130, 0.5, "8 to 128"), (64, 1.0, "overlap is 1.0")],
)
def test_impossible_tiles_are_refused(box: int, overlap: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tile_spectra(noise((128, 160)), box, overlap)


def test_extremes_are_clipped_and_the_rest_is_kept(on):
    image = np.random.default_rng(0).normal(10, 2, size=(64, 64)).astype(np.float32)
    image[10:14, 20:24] = -200
    clipped = to_host(without_extremes(on(image), 4.0))
    assert clipped.min() == pytest.approx(2, abs=0.5)
    kept = np.abs(image - 10) < 7
    np.testing.assert_array_equal(clipped[kept], image[kept])


def test_the_profile_of_noise_is_flat_and_a_wave_stands_where_it_is(
    on: Callable[[Any], Any],
) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 2, (512, 640)).astype(np.float32)
    y, x = np.mgrid[:512, :640]
    wave = 4 * np.cos(2 * np.pi * (0.15 * x + 0.2 * y)).astype(np.float32)
    flat = radial_profile(on(noise), 128)
    assert flat[3:] == pytest.approx(4, rel=0.2)
    assert int(np.argmax(radial_profile(on(noise + wave), 128))) == int(0.25 * 128)
