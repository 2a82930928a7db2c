"""CTF fits on noise filtered by a known CTF, flat and tilted, and on noise alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kernels.ctf import Ctf, ctf_2d
from kernels.ctf_fit import CtfFit, CtfPrior, CtfSearch, fit_ctf
from kernels.fourier import frequencies, irfft2, rfft2
from kernels.geometry import View, aligned_from_raw, defocus_offset, midplane_points
from kernels.spectra import polar_spectra, tile_box, tile_spectra

On = Callable[[Any], Any]


def simulate(
    size: int, pixel: float, ctf: Ctf, *, seed: int, signal: float = 1.5, view: View | None = None
) -> np.ndarray:
    """White structure under CTF and envelope, plus coloured noise; `signal` is SNR at k = 0.

    With a `view` the defocus grows with x′·tan θ from strip to strip (hand +1).
    """
    rng = np.random.default_rng(seed)
    white, rest = rng.normal(size=(2, size, size)).astype(np.float32)
    ky, kx = frequencies((size, size), white, pixel)
    k2 = ky**2 + kx**2
    structure = rfft2(white) * np.sqrt(signal * np.exp(-200 * k2))
    image = np.zeros((size, size), np.float32)
    if view is None:
        image += irfft2(structure * ctf_2d(ky, kx, ctf), (size, size))
    else:
        y, x = (np.mgrid[:size, :size] - size // 2) * pixel
        aligned = aligned_from_raw(np.stack([x.ravel(), y.ravel()], axis=1), view)[:, 0]
        offset = aligned.reshape(size, size) * math.tan(math.radians(view.tilt))
        planes = np.linspace(offset.min(), offset.max(), 13)
        for plane in planes:
            share = np.clip(1 - np.abs(offset - plane) / (planes[1] - planes[0]), 0, 1)
            sharp = irfft2(structure * ctf_2d(ky, kx, ctf.with_offset(plane)), (size, size))
            image += (share * sharp).astype(np.float32)
    colour = np.sqrt(1 + 2 * np.exp(-200 * k2))
    return image + irfft2(rfft2(rest) * colour.astype(np.float32), (size, size))


def fit(image: Any, pixel: float, offsets: Any = None, **options: Any) -> CtfFit:
    spectra, centres = tile_spectra(image, tile_box(image.shape, pixel))
    given = np.zeros(len(centres)) if offsets is None else offsets(centres * pixel)
    return fit_ctf(polar_spectra(spectra), given, pixel, **options)


def random_ctf(rng: np.random.Generator, least: float, largest: float) -> Ctf:
    mean, half = rng.uniform(least, largest), rng.uniform(0, 400)
    return Ctf(mean + half, mean - half, rng.uniform(-90, 90))


@pytest.mark.parametrize(("size", "pixel", "bound"), [(1024, 2.7, 60.0), (512, 5.4, 100.0)])
def test_mean_defocus_is_found(size: int, pixel: float, bound: float) -> None:
    rng = np.random.default_rng(8)
    errors = []
    for seed in range(12):
        ctf = random_ctf(rng, 15000, 40000)
        found = fit(simulate(size, pixel, ctf, seed=seed), pixel).ctf
        errors.append(found.defocus - ctf.defocus)
    assert np.median(np.abs(errors)) < bound
    assert np.abs(errors).max() < 5 * bound
    assert abs(np.mean(errors)) < bound


@pytest.mark.parametrize("angle", [20.0, 70.0, -35.0])
def test_astigmatism_has_the_angle_of_the_convention(on: On, angle: float) -> None:
    ctf = Ctf(25400.0, 24600.0, angle)
    found = fit(on(simulate(512, 2.7, ctf, seed=4, signal=6.0)), 2.7).ctf
    off = (found.astigmatism_angle - angle + 90) % 180 - 90
    assert abs(off) < 10  # mirrored, it would be off by 40° or more
    assert found.astigmatism == pytest.approx(800, abs=200)
    assert found.defocus_u >= found.defocus_v
    assert {type(value) for value in vars(found).values()} == {float}


@pytest.mark.parametrize("tilt", [60.0, -55.0])
def test_tilted_view_has_the_defocus_of_its_centre(tilt: float) -> None:
    view = View(tilt=tilt, axis=25.0)

    def offsets(hand: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda xy: defocus_offset(midplane_points(xy, view), view, hand)

    errors = []
    for seed in range(3):
        ctf = random_ctf(np.random.default_rng(seed), 18000, 35000)
        image = simulate(768, 2.7, ctf, seed=seed, signal=3.0, view=view)
        right, wrong = (fit(image, 2.7, offsets(hand)) for hand in (1, -1))
        errors.append(right.ctf.defocus - ctf.defocus)
        assert right.score > 1.1 * wrong.score
        assert right.evidence > wrong.evidence + 100
    assert np.median(np.abs(errors)) < 100
    assert abs(np.mean(errors)) < 100


def test_error_is_what_the_uncertainty_says() -> None:
    ratios = []
    for seed in range(20):
        ctf = random_ctf(np.random.default_rng(100 + seed), 18000, 30000)
        found = fit(simulate(512, 2.7, ctf, seed=seed), 2.7)
        ratios.append((found.ctf.defocus - ctf.defocus) / found.uncertainty)
    assert 0.4 < np.sqrt(np.mean(np.square(ratios))) < 1.6


def test_half_the_defocus_does_not_fit_a_narrow_range() -> None:
    ctf = Ctf(21500.0, 21500.0)
    found = fit(simulate(512, 5.4, ctf, seed=2, signal=3.0), 5.4)
    here = np.interp(21500, found.search_defocus, found.search_evidence)
    half = found.search_evidence[np.abs(found.search_defocus - 10750) < 1500].max()
    assert found.ctf.defocus == pytest.approx(21500, abs=400)
    assert half < 0.7 * here


def test_prior_decides_where_the_rings_are_lost() -> None:
    image = np.random.default_rng(1).normal(size=(512, 512)).astype(np.float32)
    alone = fit(image, 2.7)
    prior = CtfPrior(30000.0, 500.0, (300.0, 0.0), 50.0)
    led = fit(image, 2.7, prior=prior)
    assert alone.evidence < 14
    assert abs(led.ctf.defocus - 30000) < 1500
    assert led.astigmatism[0] == pytest.approx(300, abs=150)


def test_prior_hardly_moves_a_clear_fit() -> None:
    image = simulate(512, 2.7, Ctf(26000.0, 25600.0, 40.0), seed=9, signal=5.0)
    alone = fit(image, 2.7).ctf.defocus
    led = fit(image, 2.7, prior=CtfPrior(27000.0, 1000.0)).ctf.defocus
    assert led == pytest.approx(alone, abs=30)


def test_profile_follows_the_data_to_the_resolution_of_the_signal() -> None:
    ctf = Ctf(25800.0, 24200.0, 10.0)
    clear = fit(simulate(1024, 2.7, ctf, seed=5, signal=5.0), 2.7)
    weak = fit(simulate(1024, 2.7, ctf, seed=5, signal=0.3), 2.7)
    profile = clear.profile
    low = profile.frequency < 1 / 10
    assert np.corrcoef(profile.equiphase[low], profile.fit[low])[0, 1] > 0.95
    assert profile.correlation[low].min() > 0.5
    high = (profile.frequency > 1 / 10) & (profile.frequency < 1 / 7.5)
    # Astigmatism blurs the plain average.
    assert profile.equiphase[high].std() > 1.2 * profile.average[high].std()
    assert clear.fit_resolution < weak.fit_resolution
    assert 5.4 < clear.fit_resolution < 8


def test_fit_is_the_same_in_every_namespace(on: On) -> None:
    image = simulate(256, 5.4, Ctf(30000.0, 29500.0, 60.0), seed=3, signal=4.0)
    here, there = fit(image, 5.4), fit(on(image), 5.4)
    assert there.ctf.defocus == pytest.approx(here.ctf.defocus, abs=2)
    assert there.score == pytest.approx(here.score, abs=1e-4)


@pytest.mark.parametrize(
    ("size", "pixel", "options", "message"),
    [
        (32, 5.4, {}, "use a larger box"),
        (128, 5.4, {"offsets": lambda xy: np.zeros(2)}, "offsets for"),
        (128, 5.4, {"prior": CtfPrior(90000.0, 500.0)}, "90000.0 Å is out of the search"),
    ],
)
def test_impossible_fits_are_refused(
    size: int, pixel: float, options: dict[str, Any], message: str
) -> None:
    image = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    with pytest.raises(ValueError, match=message):
        fit(image, pixel, **options)


def test_empty_image_is_refused() -> None:
    with pytest.raises(ValueError, match="no power"):
        fit(np.zeros((256, 256), np.float32), 5.4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_resolution": 4.0}, "larger number first"),
        ({"min_defocus": 60000.0}, "defocus range is 60000.0"),
        ({"step": 0.0}, "step is 0.0"),
    ],
)
def test_impossible_searches_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CtfSearch(**values)
