"""CTF of tilt series by strips: noise filtered by known CTFs, tilted, with and without rings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from kernels.ctf import Ctf, ctf_2d
from kernels.ctf_strip_fit import StripFit, fit_strips
from kernels.ctf_strip_search import StripSearch
from kernels.ctf_strips import WedgeSpectra, measure_wedges, strip_tiles, trial_defoci
from kernels.fourier import frequencies, irfft2, rfft2
from kernels.geometry import View, defocus_offset, midplane_points
from kernels.spectra import polar_spectra, tile_box

On = Callable[[Any], Any]

SIZE, PIXEL, AXIS = 512, 3.6, 25.0
TILTS = np.arange(-54.0, 55.0, 18.0)


def simulate(ctf: Ctf, tilt: float, seed: int, signal: float) -> np.ndarray:
    """White structure under a CTF that changes from strip to strip (hand +1), and noise."""
    rng = np.random.default_rng(seed)
    white, rest = rng.normal(size=(2, SIZE, SIZE)).astype(np.float32)
    ky, kx = frequencies((SIZE, SIZE), white, PIXEL)
    k2 = ky**2 + kx**2
    structure = rfft2(white) * np.sqrt(signal * np.exp(-150 * k2))
    y, x = (np.mgrid[:SIZE, :SIZE] - SIZE // 2) * PIXEL
    points = midplane_points(np.stack([x.ravel(), y.ravel()], axis=1), View(tilt, AXIS))
    offset = defocus_offset(points, View(tilt, AXIS)).reshape(SIZE, SIZE)
    planes = np.linspace(offset.min() - 1, offset.max() + 1, 2 + math.ceil(np.ptp(offset) / 500))
    image = np.zeros((SIZE, SIZE), np.float32)
    for plane in planes:
        share = np.clip(1 - np.abs(offset - plane) / (planes[1] - planes[0]), 0, 1)
        sharp = irfft2(structure * ctf_2d(ky, kx, ctf.with_offset(plane)), (SIZE, SIZE))
        image += (share * sharp).astype(np.float32)
    colour = np.sqrt(1 + 2 * np.exp(-200 * k2))
    return image + irfft2(rfft2(rest) * colour.astype(np.float32), (SIZE, SIZE))


def measure(
    image: Any, tilt: float, expected: float | None, hand: int = 1, sectors: int = 36
) -> WedgeSpectra:
    polar, centres = polar_spectra(
        image, tile_box((SIZE, SIZE), PIXEL), padding=1.0, sectors=sectors
    )
    view = View(tilt, AXIS)
    offsets = defocus_offset(midplane_points(centres * PIXEL, view), view, hand)
    used = strip_tiles(offsets)
    low, high = StripSearch(expected=expected).defocus_range
    trials = trial_defoci(low, high, offsets[used], 200.0)
    defocus = expected or math.sqrt(low * high)
    return measure_wedges(polar, offsets, PIXEL, Ctf(defocus, defocus), used, trials)


@cache
def series(signal: float = 2.0, astigmatism: float = 0.0, scatter: float = 100.0) -> Any:
    """Return images and true CTFs of views whose defocus changes little."""
    rng = np.random.default_rng(3)
    truth = [
        Ctf(d + astigmatism / 2, d - astigmatism / 2, 35.0)
        for d in 27000 + 4 * TILTS + scatter * rng.normal(size=len(TILTS))
    ]
    images = [simulate(c, t, i, signal) for i, (c, t) in enumerate(zip(truth, TILTS, strict=True))]
    return images, truth


def fit(
    images: Sequence[Any], expected: float | None, tilts: Any = TILTS, **options: Any
) -> list[StripFit]:
    wedges = [measure(image, tilt, expected) for image, tilt in zip(images, tilts, strict=True)]
    return fit_strips(wedges, tilts, PIXEL, StripSearch(expected=expected, **options))


def errors(fits: Sequence[StripFit], truth: Sequence[Ctf]) -> np.ndarray:
    return np.asarray([f.ctf.defocus - c.defocus for f, c in zip(fits, truth, strict=True)])


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.mark.parametrize("expected", [27000.0, 37000.0, 17000.0, None])
def test_defocus_is_found_whatever_was_expected(expected: float | None) -> None:
    images, truth = series()
    off = errors(fit(images, expected), truth)
    assert rms(off) < 60
    assert abs(off.mean()) < 30


@pytest.mark.parametrize("expected", [37000.0, 17000.0])
def test_two_zeros_suffice(expected: float) -> None:
    images, truth = series()
    fits = fit(images, expected, extra_zeros=0)
    whole = fit(images, expected)
    assert rms(errors(fits, truth)) < 200
    assert all(a.uncertainty > b.uncertainty for a, b in zip(fits, whole, strict=True))


def test_error_is_what_the_uncertainty_says() -> None:
    ratios = []
    for signal in (2.0, 0.5):
        images, truth = series(signal)
        fits = fit(images, 29000.0)
        ratios += list(errors(fits, truth) / [f.uncertainty for f in fits])
    assert 0.5 < rms(np.asarray(ratios)) < 1.5


def test_weak_views_gain_from_their_neighbours() -> None:
    images, truth = series(0.15)
    alone = fit(images, 27000.0)
    together = fit(images, 27000.0, angle_step=2.0, angle_range=80.0)
    assert rms(errors(together, truth)) < 0.7 * rms(errors(alone, truth))
    assert alone[3].views == (3,)
    assert together[3].views == (1, 2, 3, 4, 5)


def test_clear_views_keep_their_own_defocus_in_a_range() -> None:
    images, truth = series(2.0, 0.0, 400.0)
    together = fit(images, 27000.0, angle_step=2.0, angle_range=40.0)
    assert rms(errors(together, truth)) < 80


def test_range_of_few_degrees_is_every_view_by_itself() -> None:
    images, _ = series()
    alone, ranges = fit(images, None), fit(images, None, angle_step=6.0, angle_range=6.0)
    assert [f.views for f in ranges] == [(i,) for i in range(len(TILTS))]
    for a, b in zip(alone, ranges, strict=True):
        assert b.ctf.defocus == pytest.approx(a.ctf.defocus, abs=a.uncertainty)


def test_view_without_rings_is_led_by_the_others_and_says_so() -> None:
    images, truth = series()
    noise = np.random.default_rng(9).normal(size=(SIZE, SIZE)).astype(np.float32)
    fits = fit([*images[:2], noise, *images[3:]], None)
    assert abs(fits[2].ctf.defocus - 27000) < 3000
    assert fits[2].uncertainty > 10 * fits[1].uncertainty
    assert fits[2].evidence < 10 < 100 < fits[1].evidence
    assert fits[2].score < fits[1].score
    assert rms(np.delete(errors(fits, truth), 2)) < 60


def test_clear_view_of_another_defocus_is_not_outvoted() -> None:
    images, truth = series()
    other = Ctf(34500.0, 34500.0)
    fits = fit([*images[:4], simulate(other, TILTS[4], 77, 2.0), *images[5:]], 27000.0)
    assert fits[4].ctf.defocus == pytest.approx(34500, abs=150)
    assert fits[3].ctf.defocus == pytest.approx(truth[3].defocus, abs=150)


def test_wrong_hand_fits_worse() -> None:
    images, _ = series()
    right, wrong = (
        fit_strips([measure(images[0], TILTS[0], 27000.0, hand)], TILTS[:1], PIXEL)[0]
        for hand in (1, -1)
    )
    assert right.evidence > wrong.evidence + 20


def test_astigmatism_has_the_angle_of_the_convention() -> None:
    images, truth = series(2.0, 700.0)
    fits = fit(images, 27000.0, search_astigmatism=True)
    assert rms(errors(fits, truth)) < 60
    for found in fits:
        off = (found.ctf.astigmatism_angle - 35 + 90) % 180 - 90
        assert abs(off) < 6  # mirrored, it would be off by 70°
        assert found.ctf.astigmatism == pytest.approx(700, abs=150)
        assert 5 < found.astigmatism_uncertainty < 100


def test_astigmatism_is_left_alone_unless_it_is_searched() -> None:
    images, _ = series(2.0, 700.0)
    found = fit(images[3:4], 27000.0, TILTS[3:4])[0]
    assert found.ctf.astigmatism == 0
    assert math.isinf(found.astigmatism_uncertainty)
    searched = fit(images[3:4], 27000.0, TILTS[3:4], search_astigmatism=True)[0]
    assert searched.score > found.score  # equal phases are averaged, not rings


def test_phase_shift_is_found_with_the_defocus() -> None:
    truth = [Ctf(d, d, phase_shift=p) for d, p in ((12000, 62), (12100, 65), (12000, 68))]
    images = [simulate(c, 0.0, i, 3.0) for i, c in enumerate(truth)]
    fits = fit(images, None, [-3.0, 0.0, 3.0], phase_shifts=tuple(np.arange(0.0, 181.0, 10.0)))
    assert rms(errors(fits, truth)) < 150
    for found in fits:
        assert found.ctf.phase_shift == pytest.approx(65, abs=8)
    known = fit(images, None, [-3.0, 0.0, 3.0], phase_shifts=(65.0,))
    assert all(a.uncertainty > b.uncertainty for a, b in zip(fits, known, strict=True))


def test_phase_shift_stays_within_what_is_searched() -> None:
    images = [simulate(Ctf(20000.0, 20000.0, phase_shift=70.0), 0.0, 1, 3.0)]
    found = fit(images, None, [0.0], phase_shifts=(20.0, 40.0, 60.0))[0]
    assert 20 <= found.ctf.phase_shift <= 60


def test_profile_follows_the_rings_and_knows_its_noise() -> None:
    images, truth = series()
    clear, weak = fit(images, 27000.0)[3], fit(series(0.15)[0], 27000.0)[3]
    profile = clear.profile
    assert (np.diff(profile.frequency) > 0).all()
    low = profile.frequency < 1 / 12
    assert np.corrcoef(profile.equiphase[low], profile.fit[low])[0, 1] > 0.9
    assert clear.fit_resolution < weak.fit_resolution
    left = (profile.equiphase - profile.fit) / profile.noise
    assert 0.5 < left.std() < 1.5
    assert abs(clear.ctf.defocus - truth[3].defocus) < 150


def test_wedges_are_the_same_in_every_namespace(on: On) -> None:
    image = series()[0][1]
    here, there = measure(image, TILTS[1], 27000.0), measure(on(image), TILTS[1], 27000.0)
    np.testing.assert_allclose(there.power, here.power, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_resolution": 4.0}, "larger number first"),
        ({"min_defocus": 60000.0}, "defocus range is 60000.0"),
        ({"step": 0.0}, "step is 0.0"),
        ({"angle_range": -1.0}, "angle_range is -1.0"),
        ({"expected": 90000.0}, "expected defocus 90000.0 Å is far out"),
    ],
)
def test_impossible_searches_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StripSearch(**values)


def test_views_that_do_not_belong_together_are_refused() -> None:
    one = measure(series()[0][3], 0.0, 27000.0, sectors=1)
    with pytest.raises(ValueError, match="tilts for 1 views"):
        fit_strips([one], [0.0, 3.0], PIXEL)
    with pytest.raises(ValueError, match="tilts for 0 views"):
        fit_strips([], [], PIXEL)
    with pytest.raises(ValueError, match="use a larger box"):
        fit_strips([one], [0.0], PIXEL, StripSearch(max_resolution=25.0))
