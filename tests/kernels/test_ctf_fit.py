"""CTF fits of views: random fields under a known CTF, flat and tilted, and noise alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from ctf_images import angle_between, field, phase_of, squares, tilted_gradient, view_fit

from kernels.ctf import Ctf
from kernels.ctf_fit import CtfFit, CtfSearch, GradientFit, ViewFit
from kernels.ctf_likelihood import Gaussian, Point
from kernels.ctf_rings import Optics
from kernels.ctf_series import FREE_EVIDENCE, NARROW_EVIDENCE
from kernels.geometry import View
from kernels.spectra import polar_spectra

On = Callable[[Any], Any]

SIZE, PIXEL = 512, 3.6
SEARCH = CtfSearch(max_defocus=60000.0)


def fit(image: Any, pixel: float = PIXEL, **options: Any) -> CtfFit:
    return view_fit(image, pixel, SEARCH, **options).fit({})[0]


def random_ctf(rng: np.random.Generator, least: float, largest: float) -> Ctf:
    mean, half = rng.uniform(least, largest), rng.uniform(0, 300)
    return Ctf(mean + half, mean - half, rng.uniform(-90, 90))


def components(ctf: Ctf) -> tuple[float, float]:
    turn = np.radians(2 * ctf.astigmatism_angle)
    return float(ctf.astigmatism * np.cos(turn)), float(ctf.astigmatism * np.sin(turn))


@cache
def many(seed: int = 100, n: int = 60) -> list[tuple[Ctf, CtfFit]]:
    """Return truths and fits of flat images, small enough to make many."""
    rng = np.random.default_rng(seed)
    truths = [random_ctf(rng, 12000, 40000) for _ in range(n)]
    images = (field(SIZE, PIXEL, t, seed=seed + i, signal=0.6) for i, t in enumerate(truths))
    return [(truth, fit(image)) for truth, image in zip(truths, images, strict=True)]


def test_errors_are_what_their_standard_errors_say() -> None:
    ratios = np.asarray(
        [
            [
                (found.ctf.defocus - truth.defocus) / found.error("defocus"),
                (found.values[1] - components(truth)[0]) / found.error("p"),
                (found.values[2] - components(truth)[1]) / found.error("q"),
            ]
            for truth, found in many()
        ]
    )
    within = (np.abs(ratios) < 2).mean()
    assert 0.90 <= within <= 0.98
    assert 0.85 < np.sqrt((ratios**2).mean()) < 1.2
    assert (np.abs(ratios[:, 0]) < 2).mean() >= 0.88
    assert np.abs(ratios.mean(axis=0)).max() < 3 / np.sqrt(len(ratios))


def test_errors_hold_where_the_window_blurs_the_rings() -> None:
    truth = Ctf(55000.0, 55000.0)
    ratios = []
    for seed in range(40):
        image = field(SIZE, PIXEL, truth, seed=seed, signal=2.0, damping=30.0)
        found = fit(image, box=160)  # 580 Å: a third of the contrast is left
        ratios.append((found.ctf.defocus - truth.defocus) / found.error("defocus"))
    assert 0.75 < np.sqrt(np.mean(np.square(ratios))) < 1.3


def test_no_view_with_clear_rings_runs_away() -> None:
    for truth, found in many():
        assert abs(found.ctf.defocus - truth.defocus) < 5 * found.error("defocus")
        assert found.evidence > 60
        assert found.values[0] == found.ctf.defocus
        assert components(found.ctf) == pytest.approx(found.values[1:].tolist())


@pytest.mark.parametrize("angle", [20.0, 70.0, -35.0])
def test_astigmatism_has_the_angle_of_the_convention(on: On, angle: float) -> None:
    image = field(SIZE, PIXEL, Ctf(25400.0, 24600.0, angle), seed=4, signal=4.0)
    found = fit(on(image)).ctf
    assert angle_between(found.astigmatism_angle, angle) < 8  # mirrored it would be 40° off
    assert found.astigmatism == pytest.approx(800, abs=150)
    assert found.defocus_u >= found.defocus_v
    assert {type(value) for value in vars(found).values()} == {float}


def test_flipping_the_image_flips_the_angle() -> None:
    image = field(SIZE, PIXEL, Ctf(25500.0, 24500.0, 25.0), seed=5, signal=4.0)
    assert angle_between(fit(image[::-1].copy()).ctf.astigmatism_angle, -25) < 8
    assert angle_between(fit(image.T.copy()).ctf.astigmatism_angle, 65) < 8


@pytest.mark.parametrize(
    ("tilt", "axis", "hand"), [(60.0, 25.0, 1), (60.0, 85.3, -1), (-60.0, 85.3, 1)]
)
def test_tilted_view_has_the_defocus_of_its_centre_with_the_right_hand(
    tilt: float, axis: float, hand: int
) -> None:
    view = View(tilt, axis)
    errors, gains = [], []
    for seed in range(4):
        truth = random_ctf(np.random.default_rng(seed), 18000, 35000)
        gradient = tilted_gradient(tilt, axis, hand)
        image = field(SIZE, PIXEL, truth, seed=seed, signal=1.0, gradient=gradient, damping=60.0)
        right, wrong = (fit(image, view=view, hand=h) for h in (hand, -hand))
        errors.append((right.ctf.defocus - truth.defocus) / right.error("defocus"))
        gains.append(right.evidence - wrong.evidence)
    assert np.abs(errors).max() < 3.5
    assert min(gains) > 50


def cramer_rao(ctf: Ctf, size: int, pixel: float, signal: float, damping: float) -> float:
    """Return the least standard error of the mean defocus that an unbiased fit can have.

    The Fourier coefficients of a random field are independent and complex normal, so that each
    adds (d ln P)² to the information; signal, astigmatism and a smooth background are unknown.
    """
    k2, k2_cos, k2_sin = (v[:, 1:] for v in squares(size, pixel))
    used = (k2 > 1 / 30**2) & (k2 < (0.475 / pixel) ** 2)
    strength = signal * np.exp(-0.5 * damping * k2)
    phase = phase_of(ctf, k2, k2_cos, k2_sin)
    power = 1 + strength * np.sin(phase) ** 2
    by_phase = strength * np.sin(2 * phase) / power
    slope = np.pi * 0.0196875 * by_phase
    x = np.interp(k2[used], (k2[used].min(), k2[used].max()), (-1, 1))
    smooth = np.polynomial.legendre.legvander(x, 3).T
    columns = [slope * k2, 0.5 * slope * k2_cos, 0.5 * slope * k2_sin, 1 - 1 / power]
    design = np.concatenate([np.stack([c[used] for c in columns]), smooth])
    return float(np.sqrt(np.linalg.inv(design @ design.T)[0, 0]))


def test_error_is_near_the_least_that_is_possible() -> None:
    truth, signal, damping = Ctf(25200.0, 24800.0, 30.0), 0.3, 60.0
    images = (
        field(1024, 2.7, truth, seed=seed, signal=signal, damping=damping) for seed in range(16)
    )
    errors = [fit(image, 2.7).ctf.defocus - truth.defocus for image in images]
    bound = cramer_rao(truth, 1024, 2.7, signal, damping)
    assert np.sqrt(np.mean(np.square(errors))) < 1.5 * bound
    assert abs(np.mean(errors)) < bound


@pytest.mark.parametrize(("size", "pixel", "box"), [(512, 5.4, None), (512, 2.7, None)])
def test_noise_is_not_taken_for_rings(size: int, pixel: float, box: int | None) -> None:
    rng = np.random.default_rng(11)
    narrow = {"p": Gaussian(200.0, 60.0), "q": Gaussian(-100.0, 60.0)}
    for _ in range(12):
        image = rng.normal(size=(size, size)).astype(np.float32)
        view = view_fit(image, pixel, SEARCH, box=box)
        assert view.fit({})[0].evidence < FREE_EVIDENCE
        expected = Gaussian(rng.uniform(1e4, 5e4), 400.0)
        assert view.fit({"defocus": expected, **narrow})[0].evidence < NARROW_EVIDENCE


def test_priors_decide_where_there_are_no_rings() -> None:
    image = np.random.default_rng(1).normal(size=(SIZE, SIZE)).astype(np.float32)
    priors = {"defocus": Gaussian(30000.0, 200.0), "p": Gaussian(300.0, 50.0)}
    found = view_fit(image, PIXEL, SEARCH).fit(priors)[0]
    assert abs(found.ctf.defocus - 30000) < 600
    assert abs(found.values[1] - 300) < 150
    assert found.error("defocus") > 300  # what the noise itself tells


def test_priors_hardly_move_a_clear_fit() -> None:
    image = field(SIZE, PIXEL, Ctf(26000.0, 25600.0, 40.0), seed=9, signal=3.0)
    view = view_fit(image, PIXEL, SEARCH)
    alone = view.fit({})[0]
    led = view.fit({"defocus": Gaussian(27000.0, 1000.0)})[0]
    assert led.ctf.defocus == pytest.approx(alone.ctf.defocus, abs=0.2 * alone.error("defocus"))


def test_half_the_defocus_does_not_fit_a_narrow_range() -> None:
    image = field(512, 5.4, Ctf(21500.0, 21500.0), seed=2, signal=3.0)
    found = view_fit(image, 5.4, SEARCH).first_search({})
    curve = found.evidence[:, 0]
    half = curve[np.abs(found.defocus - 10750) < 1500].max()
    assert half < 0.7 * np.interp(21500, found.defocus, curve)


def test_phase_shift_is_searched_and_found() -> None:
    truth = replace(Ctf(8150.0, 7850.0, 20.0), phase_shift=90.0)
    search = replace(SEARCH, phase_shifts=(0.0, 180.0, 10.0))
    for seed in range(3):
        image = field(SIZE, PIXEL, truth, seed=seed, signal=3.0, damping=60.0)
        found = view_fit(image, PIXEL, search).fit({})[0]
        assert found.names == ("defocus", "p", "q", "phase")
        error = np.degrees(found.error("phase"))
        assert error < 15
        assert abs(found.ctf.phase_shift - 90) < 3 * error
        assert abs(found.ctf.defocus - 8000) < 3 * found.error("defocus")
        blind = fit(image)
        assert blind.evidence < found.evidence - 10
        known = fit(image, optics=Optics(phase_shift=90.0))
        assert known.ctf.phase_shift == 90
        assert abs(known.ctf.defocus - 8000) < 4 * known.error("defocus")


@pytest.mark.parametrize(("tilt", "axis", "hand"), [(0.0, 85.3, 1), (35.0, 25.0, -1)])
def test_gradient_is_that_of_the_tilt(tilt: float, axis: float, hand: int) -> None:
    truth = hand * np.tan(np.radians(tilt)), 0.0
    for seed in range(3):
        gradient = tilted_gradient(tilt, axis, hand)
        image = field(SIZE, PIXEL, Ctf(24000.0, 24000.0), seed=seed, signal=2.0, gradient=gradient)
        # Measured around another tilt than the true one: 8° less.
        nearby = View(tilt - 8, axis)
        found = own_gradient(view_fit(image, PIXEL, SEARCH, nearby, hand))
        covariance = np.linalg.inv(found.information)
        best = covariance @ found.pull
        away = best - truth
        assert away @ found.information @ away < 14  # chi-square of 2: 99.9 %
        assert np.sqrt(np.diag(covariance)).max() < 0.08
        assert found.gradient == pytest.approx(best.tolist(), abs=0.02)


def test_gradients_of_weak_views_add_up_to_the_truth_wherever_they_were_expected() -> None:
    gradient, information, pull = (0.8, 0.0), np.zeros((2, 2)), np.zeros(2)
    for seed in range(16):
        image = field(SIZE, PIXEL, Ctf(24e3, 24e3), seed=seed, signal=0.3, gradient=gradient)
        found = own_gradient(view_fit(image, PIXEL, SEARCH))  # expected: no gradient
        information += found.information
        pull += found.pull
    covariance = np.linalg.inv(information)
    away = covariance @ pull - gradient
    assert away @ information @ away < 14  # chi-square of 2: 99.9 %
    assert np.sqrt(covariance[0, 0]) < 0.06


def own_gradient(view: ViewFit) -> GradientFit:
    return view.fit_gradient(view.fit({})[1], {})


def test_thickness_is_where_the_evidence_is_highest() -> None:
    # Scatterers through 4000 Å along the beam, each plane with its own rings: a node at 9 Å.
    k2, k2_cos, k2_sin = squares(SIZE, 2.7)
    rng = np.random.default_rng(8)
    image = rng.normal(size=(SIZE, SIZE))
    for depth in np.linspace(-1950, 1950, 20):
        structure = np.fft.rfft2(rng.normal(size=(SIZE, SIZE))) * np.sqrt(8.0 / 20)
        phase = phase_of(Ctf(2e4 + depth, 2e4 + depth), k2, k2_cos, k2_sin)
        image -= np.fft.irfft2(structure * np.sin(phase), (SIZE, SIZE))
    view = view_fit(image.astype(np.float32), 2.7, SEARCH)
    paths = np.arange(0.0, 8001.0, 250.0)
    evidence, values = view.by_path(view.fit({})[1], {}, paths)
    assert abs(paths[evidence.argmax()] - 4000) <= 250
    assert evidence.max() > evidence[0] + 20
    assert values.shape == (len(paths), 3)
    assert values[evidence.argmax(), 0] == pytest.approx(20000, abs=100)


def test_profile_tells_the_resolution_of_the_signal() -> None:
    ctf = Ctf(25300.0, 24700.0, 10.0)
    clear, weak = (
        fit(field(1024, 2.7, ctf, seed=5, signal=signal, damping=damping), 2.7)
        for signal, damping in ((5.0, 100.0), (0.5, 500.0))
    )
    profile, low = clear.profile, clear.profile.frequency < 1 / 9
    assert np.corrcoef(profile.equiphase[low], profile.fit[low])[0, 1] > 0.95
    assert profile.correlation[low].min() > 0.5
    assert 5.4 < clear.fit_resolution < weak.fit_resolution
    assert clear.score > weak.score > 0.3


def test_fit_is_the_same_in_every_namespace(on: On) -> None:
    image = field(256, 5.4, Ctf(30000.0, 29500.0, 60.0), seed=3, signal=4.0)
    here, there = fit(image, 5.4), fit(on(image), 5.4)
    assert there.ctf.defocus == pytest.approx(here.ctf.defocus, abs=2)
    assert there.score == pytest.approx(here.score, abs=1e-3)


def test_fit_near_a_point_is_the_fit_of_the_search() -> None:
    image = field(SIZE, PIXEL, Ctf(25300.0, 24700.0, 10.0), seed=6, signal=2.0)
    view = view_fit(image, PIXEL, SEARCH)
    found = view.fit({})[0]
    near = view.fit_near([Point(24800.0, 100.0, 0.0)], {})[0]
    # The climb ends where a round gains less than 0.002 in log likelihood.
    assert near.ctf.defocus == pytest.approx(found.ctf.defocus, abs=0.1 * found.error("defocus"))
    assert near.evidence == pytest.approx(found.evidence, rel=0.01)


@pytest.mark.parametrize(("planted", "expected"), [(0.0, None), (3.0, None), (176.0, 176.0)])
def test_phase_shifts_are_told_without_half_turns(planted: float, expected: float | None) -> None:
    search = CtfSearch(max_resolution=7.0, phase_shifts=(0.0, 180.0, 10.0))
    prior = {} if expected is None else {"phase": Gaussian(np.radians(expected), 0.1)}
    for seed in range(3):
        image = field(384, 3.0, Ctf(2e4, 1.98e4, 10.0, phase_shift=planted), seed=seed, signal=2.0)
        found, _ = view_fit(image, 3.0, search).fit(prior)
        assert found.ctf.phase_shift == pytest.approx(planted, abs=6)


def test_too_small_a_box_is_refused() -> None:
    image = np.random.default_rng(0).normal(size=(24, 24)).astype(np.float32)
    with pytest.raises(ValueError, match="use a larger box than 24"):
        view_fit(image, 5.4, SEARCH)


def test_expected_defocus_beyond_the_range_is_searched() -> None:
    image = field(256, 4.0, Ctf(20000.0, 20000.0), seed=3, signal=3.0)
    one = view_fit(image, 4.0, CtfSearch(max_resolution=9.0, max_defocus=18000.0))
    found, _ = one.fit({"defocus": Gaussian(20100.0, 100.0)})
    assert found.ctf.defocus == pytest.approx(20000, abs=150)


@pytest.mark.parametrize("seed", range(4))
def test_defocus_of_noise_stays_positive(seed: int) -> None:
    image = np.random.default_rng(seed).normal(size=(256, 256)).astype(np.float32)
    one = view_fit(image, 4.0, CtfSearch(max_resolution=9.0, min_defocus=1000.0))
    start = Point(1000.0, -2000.0, 0.0)
    assert one.fit_near([start], {})[0].ctf.defocus >= 1000


def test_one_place_for_each_tile_is_wanted() -> None:
    polar, _ = polar_spectra(np.ones((128, 128), np.float32), 64)
    with pytest.raises(ValueError, match=r"\(2, 2\) places for 9 tiles"):
        ViewFit(polar, np.zeros((2, 2)), (0.0, 0.0), 5.4, SEARCH, Optics())


def test_empty_image_is_refused() -> None:
    with pytest.raises(ValueError, match="no tile has power"):
        fit(np.zeros((256, 256), np.float32), 5.4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_resolution": 4.0}, "larger number first"),
        ({"min_defocus": 60000.0}, "defocus range is 60000.0"),
        ({"min_defocus": 500.0}, "defocus range is 500.0"),
        ({"step": 0.0}, "step is 0.0"),
        ({"astigmatism_tolerance": -1.0}, "astigmatism_tolerance is -1.0"),
    ],
)
def test_impossible_searches_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CtfSearch(**values)
