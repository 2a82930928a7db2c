"""Gathering of tiles into groups, their scale, backgrounds, and the contrast windows leave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ctf_images import field

from kernels.ctf import Ctf
from kernels.ctf_rings import LEAST_RINGS, STRIP, Optics, Rings, contrast
from kernels.spectra import PolarSpectra, polar_spectra, tile_spectra

PIXEL = 3.0


@pytest.fixture(scope="module")
def view() -> tuple[PolarSpectra, np.ndarray]:
    """Return spectra and places [Å] of an image whose right half is ten times as strong."""
    image = np.random.default_rng(0).normal(size=(256, 320)).astype(np.float32)
    image[:, 160:] *= 10
    polar, centres = polar_spectra(image, 96)
    return polar, centres * PIXEL


def rings(view: tuple[PolarSpectra, np.ndarray], gradient: tuple[float, float], zones: int = 1):
    return Rings(*view, gradient, PIXEL, (30.0, 7.0), zones)


def test_optics_make_a_ctf_of_components() -> None:
    ctf = Optics(200.0, 2.0, 0.1, 30.0).ctf(20000.0, -200.0, 346.41)
    assert (ctf.voltage, ctf.cs, ctf.amplitude_contrast, ctf.phase_shift) == (200, 2, 0.1, 30)
    assert ctf.defocus == 20000
    assert ctf.astigmatism == pytest.approx(400, abs=0.01)
    assert ctf.astigmatism_angle == pytest.approx(60, abs=0.01)
    assert Optics().ctf(2e4, 0, 0, 90.0).phase_shift == 90


def test_frequencies_are_those_between_the_resolutions(view) -> None:
    found = rings(view, (0.0, 0.0))
    assert found.k[0] >= 1 / 30
    assert found.k[-1] <= 1 / 7
    assert found.k == pytest.approx(np.arange(len(found.k)) * np.diff(found.k)[0] + found.k[0])
    inner = found.weight.sum(axis=0) > 0
    root = np.sqrt(found.k2)[inner]
    assert np.abs(root - np.broadcast_to(found.k, inner.shape)[inner]).max() < 0.6 / (
        view[0].box * PIXEL
    )
    assert found.window == 96 * PIXEL


def test_flat_views_are_one_group_with_all_samples(view) -> None:
    found = rings(view, (0.0, 0.0))
    tiles = len(view[0].power)
    assert found.power.shape[0] == 1
    assert found.x[0] == pytest.approx(view[1][:, 0].mean())
    used = view[0].count[:, : found.power.shape[2]].sum()
    assert used > 0
    first = round(found.k[0] * view[0].box * PIXEL)
    count = view[0].count[:, first : first + len(found.k)]
    np.testing.assert_allclose(found.weight[0], tiles * count / view[0].redundancy)


@pytest.mark.parametrize("gradient", [(1.7, 0.0), (0.0, -1.7), (1.0, 1.0)])
def test_tilted_views_are_groups_of_like_defocus(view, gradient: tuple[float, float]) -> None:
    found = rings(view, gradient)
    offsets = found.offsets(gradient)
    local = view[1] @ gradient
    assert len(offsets) >= np.ptp(local) / (2 * STRIP)
    assert found.weight.sum() == pytest.approx(rings(view, (0.0, 0.0)).weight.sum())
    assert np.diff(np.sort(offsets)).min() > 0.3 * STRIP
    # Each tile lies with the group whose mean defocus is nearly its own.
    near = np.abs(local[:, None] - offsets).min(axis=1)
    assert near.max() <= STRIP


def test_zones_cut_a_flat_view_into_parts(view) -> None:
    found = rings(view, (0.0, 0.0), zones=3)
    assert len(found.x) == 9
    assert len(np.unique(np.round(found.x))) == len(np.unique(np.round(found.y))) == 3


def test_bright_tiles_count_no_more_than_dark_ones(view) -> None:
    found = rings(view, (0.0, 0.0), zones=3)
    level = (found.power * found.weight).sum(axis=(1, 2)) / found.weight.sum(axis=(1, 2))
    assert level == pytest.approx(np.ones(9))


def test_backgrounds_take_in_what_is_smooth_or_directional_but_no_rings(view) -> None:
    found = rings(view, (0.0, 0.0))
    basis = found.backgrounds().reshape(-1, found.k2.size)
    weight = found.weight.sum(axis=0).ravel()

    def left(values: np.ndarray) -> float:
        """Part of the variance that no background explains."""
        flat = values.ravel() - np.average(values.ravel(), weights=weight)
        root = np.sqrt(weight)
        fit = np.linalg.lstsq((basis * root).T, flat * root, rcond=None)[0]
        rest = flat - fit @ basis
        return float((weight * rest**2).sum() / (weight * flat**2).sum())

    k = np.sqrt(np.maximum(found.k2, 1e-6))
    assert left(-200 * k**2) < 1e-3
    assert left(np.log(k) + 3 * k) < 1e-3
    assert left(found.k2_cos / k**2 + 0.5 * found.k2_sin / k**2) < 1e-3
    assert left(np.cos(2 * np.pi * 0.0196875 * 20000 * found.k2)) > 0.9


@pytest.mark.parametrize("defocus", [20000.0, 50000.0])
def test_contrast_is_what_a_tile_shows_of_fine_rings(defocus: float) -> None:
    """The fringes of strong rings in tiles of two sizes, the larger one taken as all of it."""
    image = field(1024, 2.7, Ctf(defocus, defocus), seed=1, signal=200.0, damping=0.0)
    k, seen = {}, {}
    for box in (192, 768):
        polar, _ = polar_spectra(image, box, padding=2.0)
        power = (polar.power.mean(axis=0) * polar.count).sum(axis=0) / np.maximum(
            polar.count.sum(axis=0), 1
        )
        k[box] = np.arange(len(power)) / (polar.box * 2.7)
        seen[box] = power
    fringes = {}
    for box, power in seen.items():
        phase = (
            np.pi * 0.0196875 * defocus * k[box] ** 2
            - 0.5 * np.pi * 2.7e7 * (0.0196875**3) * k[box] ** 4
            + np.arcsin(0.07)
        )
        band = (k[box] > 0.08) & (k[box] < 0.11)
        wave = np.cos(2 * phase[band])
        fringes[box] = np.polyfit(wave, power[band] / power[band].mean(), 1)[0]
    middle = np.linspace(0.08, 0.11, 50)
    expected = {box: contrast(middle, defocus, Optics(), box * 2.7).mean() for box in (192, 768)}
    assert fringes[192] / fringes[768] == pytest.approx(expected[192] / expected[768], abs=0.06)
    assert expected[192] < 0.97


def test_too_few_rings_are_refused(view) -> None:
    with pytest.raises(ValueError, match=rf"expected {LEAST_RINGS}: use a larger box than 96"):
        Rings(*view, (0.0, 0.0), PIXEL, (30.0, 20.0))


def test_tiles_without_power_are_left_out() -> None:
    image = np.random.default_rng(0).normal(size=(192, 192)).astype(np.float32)
    image[:96, :96] = 3.0
    _, centres = tile_spectra(image, 96)
    polar, _ = polar_spectra(image, 96)
    found = Rings(polar, centres, (0.0, 0.0), PIXEL, (30.0, 7.0))
    blank = (np.asarray(centres) == -48).all(axis=1)
    assert blank.sum() == 1
    others = Rings(
        replace(polar, power=polar.power[~blank]), centres[~blank], (0.0, 0.0), PIXEL, (30.0, 7.0)
    )
    assert np.array_equal(found.power, others.power)
    assert np.array_equal(found.weight, others.weight)
