"""Tile spectra: their scale, place, scaling with defocus and sectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kernels.arrays import to_host
from kernels.ctf import Ctf, ctf_2d
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
    polar = polar_spectra(tile_spectra(on(wave.astype(np.float32)), 64)[0], sectors=18)
    sector, ring = np.unravel_index(polar.power.mean(axis=0).argmax(), polar.count.shape)
    assert sector == 3  # 30° to 40° counter-clockwise from +x
    assert ring == 13  # 0.2 × 64


def test_polar_averages_are_plain_averages(on: On) -> None:
    spectra = noise((2 * 48, 25)).reshape(2, 48, 25) ** 2
    polar = polar_spectra(on(spectra), sectors=6)
    ky, kx = np.fft.fftfreq(48, 1 / 48)[:, None], np.arange(25)[None, :]
    angle = np.degrees(np.arctan2(ky, kx)) % 180
    ring = np.rint(np.hypot(ky, kx))
    here = (ring == 17) & (angle >= 60) & (angle < 90) & (np.abs(ky) >= 2) & (kx >= 2)
    assert polar.count[2, 17] == here.sum() > 5
    np.testing.assert_allclose(polar.power[:, 2, 17], spectra[:, here].mean(axis=1), rtol=1e-5)
    k2 = np.broadcast_to(kx**2 + ky**2, here.shape)
    assert polar.k2[2, 17] == pytest.approx(k2[here].mean() / 48**2)
    sine = np.broadcast_to(2 * kx * ky, here.shape)
    assert polar.k2_sin[2, 17] == pytest.approx(sine[here].mean() / 48**2)


def test_scaled_tiles_have_the_rings_of_the_reference_defocus(on: On) -> None:
    ky = np.fft.fftfreq(256, 5.4)[:, None]
    kx = np.fft.rfftfreq(256, 5.4)[None, :]
    tiles = [ctf_2d(ky, kx, Ctf(d, d, cs=0.0)) ** 2 for d in (18000.0, 20000.0, 22000.0)]
    scales = np.sqrt(20000 / np.asarray([18000, 20000, 22000]))
    found = to_host(mean_spectrum(on(np.stack(tiles).astype(np.float32)), scales))
    inner = np.hypot(ky, kx) < 0.07
    # Without amplitude contrast the scaling is exact; 0.07 of it and interpolation leave this.
    assert np.abs(found - tiles[1])[inner].max() < 0.06
    unscaled = np.mean(tiles, axis=0)
    assert np.abs(unscaled - tiles[1])[inner].max() > 0.2


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
