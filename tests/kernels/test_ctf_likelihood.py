"""Likelihood of rings: its derivatives, and its maximum on rings drawn from a known truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from ctf_images import phase_of

from kernels.ctf_likelihood import (
    ENVELOPE,
    ENVELOPE_SIGMA,
    NAMES,
    Gaussian,
    Likelihood,
    Point,
    thickness_factor,
)
from kernels.ctf_rings import Optics, Rings
from kernels.spectra import PolarSpectra, polar_spectra

PIXEL = 3.0
TRUTH = Point(21000.0, 350.0, -240.0, envelope=np.asarray([-0.8, -1.2, 0.2]))
PRINCIPAL = ("defocus", "p", "q")
STEPS = {
    "defocus": 5.0, "p": 5.0, "q": 5.0, "phase": 1e-3,
    "gradient_x": 1e-3, "gradient_y": 1e-3, "thickness": 5.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def grid() -> PolarSpectra:
    """Return independent samples that a window of any width would see sharp, of four tiles."""
    image = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    polar, _ = polar_spectra(image, 172, padding=1.0)
    return replace(polar, power=np.ones_like(polar.power), redundancy=1.0, window=100_000)


def rings_of(
    polar: PolarSpectra, gradient: tuple[float, float] = (0.0, 0.0), zones: int = 1
) -> Rings:
    places = 700.0 * np.asarray([(-1, -1), (1, -1), (-1, 1), (1, 1)])
    return Rings(polar, places, gradient, PIXEL, (30.0, 6.5), zones)


def expected_power(rings: Rings, point: Point) -> np.ndarray:
    """Return the mean power (sectors, rings) of a flat view, from the formula of the CTF."""
    ctf = Optics().ctf(point.defocus, point.p, point.q)
    sine = np.sin(phase_of(ctf, rings.k2, rings.k2_cos, rings.k2_sin) + point.phase)
    x = np.linspace(-1, 1, len(rings.k))
    signal = np.exp(np.polynomial.legendre.legval(x, point.envelope))
    return (1.2 + 0.4 * x**2) * (1 + signal * sine**2)


def drawn(grid: PolarSpectra, seed: int, point: Point = TRUTH) -> Rings:
    """Return rings whose power is gamma distributed around that of a point."""
    rings = rings_of(grid)
    mean = expected_power(rings, point)
    shape = np.maximum(rings.weight[0], 1)
    rings.power = (np.random.default_rng(seed).gamma(shape) * mean / shape)[None]
    return rings


def off(point: Point) -> Point:
    """Return a point near another, where a climb may begin."""
    return replace(
        point, defocus=point.defocus + 300, p=0.0, q=0.0, envelope=ENVELOPE.copy(), background=None
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_derivative_is_that_of_the_model(grid: PolarSpectra, name: str) -> None:
    rng = np.random.default_rng(4)
    point = Point(
        23000.0, 410.0, -350.0, 0.35, 0.8, -0.15, 1700.0, envelope=rng.normal(0, 0.5, 3) - 1
    )
    rings = rings_of(grid, (0.8, -0.15))
    assert len(rings.x) == 4
    likelihood = Likelihood(rings, Optics(), point.defocus)
    columns = likelihood.model(point, (name,))[1]
    step, value = STEPS[name], getattr(point, name)
    above, below = (likelihood.model(replace(point, **{name: value + s}))[0] for s in (step, -step))
    slope = (above - below) / (2 * step)
    assert np.abs(columns[-1] - slope).max() < 2e-3 * np.abs(slope).max()
    for i, column in enumerate(columns[: len(ENVELOPE)]):
        unit = 1e-4 * np.eye(3)[i]
        above, below = (
            likelihood.model(replace(point, envelope=point.envelope + s))[0] for s in (unit, -unit)
        )
        np.testing.assert_allclose(column, (above - below) / 2e-4, atol=1e-6)


def test_slope_and_information_are_those_of_the_likelihood(grid: PolarSpectra) -> None:
    rings = drawn(grid, 1)
    likelihood = Likelihood(rings, Optics(), TRUTH.defocus)
    here = replace(TRUTH, defocus=TRUTH.defocus + 20, background=likelihood.flat[0])
    found = likelihood.maximise(here, PRINCIPAL, {})
    # The cost is −log likelihood in units of its own: half of δ²/σ² above the least, all else
    # fitted again.
    defocus = found.point.defocus + 2 * found.error("defocus")
    held = likelihood.maximise(replace(found.point, defocus=defocus), ("p", "q"), {})
    assert found.gain - held.gain == pytest.approx(2, abs=0.4)


def test_thickness_damps_as_the_mean_over_its_depths_does() -> None:
    k = np.linspace(0.03, 0.17, 60)
    a = math.pi * 0.0196875
    depths = (np.arange(4000) + 0.5) / 4000 * 2500 - 1250
    blurred = np.cos(2 * a * k[:, None] ** 2 * (20000 + depths)).mean(axis=1)
    factor, _ = thickness_factor(k, a, 2500.0)
    np.testing.assert_allclose(blurred, factor * np.cos(2 * a * k**2 * 20000), atol=1e-6)
    assert factor.min() < -0.1  # beyond the node the rings are reversed
    assert (thickness_factor(k, a, 0.0)[0] == 1).all()


def test_the_maximum_is_the_truth_to_within_its_covariance(grid: PolarSpectra) -> None:
    errors, claimed = [], []
    for seed in range(40):
        rings = drawn(grid, seed)
        found = Likelihood(rings, Optics(), TRUTH.defocus).maximise(off(TRUTH), PRINCIPAL, {})
        errors.append([getattr(found.point, n) - getattr(TRUTH, n) for n in PRINCIPAL])
        claimed.append(found.covariance)
    covariance = np.mean(claimed, axis=0)
    squared = [e @ np.linalg.solve(covariance, e) for e in np.asarray(errors)]
    # Chi-square of 120 degrees of freedom: 99.8 % lie between 76 and 173.
    assert 76 < sum(squared) < 173
    assert np.abs(np.mean(errors, axis=0) / np.sqrt(np.diag(covariance))).max() < 3 / math.sqrt(40)
    assert math.sqrt(covariance[0, 0]) < 60  # the next ring is 2000 Å away


def test_phase_and_gradient_are_found_with_their_errors(grid: PolarSpectra) -> None:
    turned = replace(TRUTH, phase=0.9)
    names = (*PRINCIPAL, "phase")
    ratios = []
    for seed in range(15):
        likelihood = Likelihood(drawn(grid, seed, turned), Optics(), TRUTH.defocus)
        found = likelihood.maximise(replace(off(turned), phase=0.6), names, {})
        ratios.append((found.point.phase - 0.9) / found.error("phase"))
        # The phase can stand in for some of the defocus.
        fixed = likelihood.maximise(found.point, PRINCIPAL, {})
        assert found.error("defocus") > 1.3 * fixed.error("defocus")
    assert 5 < np.sum(np.square(ratios)) < 38  # chi-square, 15 degrees of freedom: 99.8 %


def test_gradient_of_tiles_is_found(grid: PolarSpectra) -> None:
    truth = (0.31, -0.12)
    rings = rings_of(grid, truth, zones=2)
    assert len(rings.x) == 4
    local = TRUTH.defocus + truth[0] * rings.x + truth[1] * rings.y
    means = [expected_power(rings, replace(TRUTH, defocus=float(d))) for d in local]
    shape = np.maximum(rings.weight, 1)
    rings.power = np.random.default_rng(2).gamma(shape) * np.stack(means) / shape
    start = replace(off(TRUTH), gradient_x=0.2, gradient_y=0.0)
    names = (*PRINCIPAL, "gradient_x", "gradient_y")
    found = Likelihood(rings, Optics(), TRUTH.defocus).maximise(start, names, {})
    for name, value in zip(names[-2:], truth, strict=True):
        assert found.error(name) < 0.1
        assert abs(getattr(found.point, name) - value) < 3 * found.error(name)


def test_samples_far_off_do_not_pull(grid: PolarSpectra) -> None:
    rings = drawn(grid, 3)
    clean = Likelihood(rings, Optics(), TRUTH.defocus).maximise(off(TRUTH), PRINCIPAL, {})
    spots = np.random.default_rng(5).random(rings.power.shape) < 0.01
    rings.power = np.where(spots, 100 * rings.power, rings.power)  # as reflections of crystals
    spoiled = Likelihood(rings, Optics(), TRUTH.defocus).maximise(off(TRUTH), PRINCIPAL, {})
    for name in PRINCIPAL:
        moved = abs(getattr(spoiled.point, name) - getattr(clean.point, name))
        assert moved < 1.5 * clean.error(name), name


def test_nothing_is_gained_on_a_spectrum_without_rings(grid: PolarSpectra) -> None:
    rings = rings_of(grid)
    x = np.linspace(-1, 1, len(rings.k))
    slope = np.exp(0.3 * x - 0.4 * x**2)
    shape = np.maximum(rings.weight, 1)
    gains = []
    for seed in range(10):
        rings.power = np.random.default_rng(seed).gamma(shape) * slope / shape
        found = Likelihood(rings, Optics(), 20000.0).maximise(
            Point(20000.0), PRINCIPAL, {name: Gaussian(0.0, 500.0) for name in "pq"}
        )
        assert found.posterior <= found.gain
        gains.append(found.gain)
    # Free are defocus, p, q and the envelope: half a unit each, on average.
    assert max(gains) < 10
    assert np.mean(gains) < 3
    with_rings = Likelihood(drawn(grid, 1), Optics(), TRUTH.defocus)
    assert with_rings.maximise(off(TRUTH), PRINCIPAL, {}).gain > 300


def test_a_prior_pulls_as_a_product_of_gaussians_does(grid: PolarSpectra) -> None:
    likelihood = Likelihood(drawn(grid, 6), Optics(), TRUTH.defocus)
    alone = likelihood.maximise(off(TRUTH), PRINCIPAL, {})
    values = np.asarray([getattr(alone.point, n) for n in PRINCIPAL])
    sigma = alone.error("defocus")
    prior = Gaussian(alone.point.defocus + 1.5 * sigma, 0.7 * sigma)
    led = likelihood.maximise(alone.point, PRINCIPAL, {"defocus": prior})
    precision = np.linalg.inv(alone.covariance)
    held = np.diag([prior.sigma**-2, 0, 0])
    expected = np.linalg.solve(precision + held, precision @ values + held @ [prior.mean, 0, 0])
    found = [getattr(led.point, n) for n in PRINCIPAL]
    assert np.abs((found - expected) / np.sqrt(np.diag(alone.covariance))).max() < 0.1
    assert abs(led.point.defocus - alone.point.defocus) > 0.8 * sigma
    # Told without the prior, the rings' own word stays what it was.
    assert led.error("defocus") == pytest.approx(sigma, rel=0.1)
    away = (led.point.defocus - prior.mean) / prior.sigma
    shape = ((led.point.envelope - ENVELOPE) / ENVELOPE_SIGMA) ** 2
    assert led.gain - led.posterior == pytest.approx(0.5 * away**2 + 0.5 * shape.sum())


def test_what_cannot_be_varied_is_refused(grid: PolarSpectra) -> None:
    likelihood = Likelihood(drawn(grid, 1), Optics(), 20000.0)
    with pytest.raises(ValueError, match="'tilt' is not one of defocus, p, q"):
        likelihood.model(Point(20000.0), ("tilt",))
