"""What views tell about each other: fits planted as records, hand from their evidence."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from kernels.ctf import Ctf
from kernels.ctf_fit import CtfFit, CtfPrior
from kernels.ctf_profile import CtfProfile
from kernels.ctf_series import expected_ctf, handedness, settle

TILTS = np.arange(-60.0, 61.0, 3.0)
GRID = np.arange(5000.0, 50001.0, 500.0)


def planted(defocus: float, evidence: float, *, angle: float = 30.0, astigmatism: float = 400.0):
    empty = np.zeros(3)
    half = astigmatism / 2
    return CtfFit(
        ctf=Ctf(defocus + half, defocus - half, angle),
        score=0.4,
        fit_resolution=9.0,
        uncertainty=100.0,
        astigmatism_uncertainty=150.0,
        evidence=evidence,
        search_defocus=GRID,
        search_evidence=evidence * np.exp(-(((GRID - defocus) / 700) ** 2)),
        profile=CtfProfile(empty, empty, empty, empty, empty, empty),
    )


def series(seed: int = 0) -> tuple[list[CtfFit], np.ndarray]:
    """A drifting series whose steep views ran away to nonsense."""
    rng = np.random.default_rng(seed)
    truth = 25000 + 10 * TILTS + rng.normal(0, 150, len(TILTS))
    fits = [planted(value + rng.normal(0, 100), 60.0) for value in truth]
    for i in np.flatnonzero(np.abs(TILTS) >= 48):
        fits[i] = planted(rng.uniform(5000, 50000), 7.0, angle=rng.uniform(-90, 90))
    return fits, truth


def test_prior_of_steep_views_comes_from_the_clear_ones() -> None:
    fits, truth = series()
    for prior, value in zip(expected_ctf(fits, TILTS), truth, strict=True):
        assert abs(prior.defocus - value) < prior.defocus_sigma <= 1500
        assert prior.astigmatism[0] == pytest.approx(200, abs=1)  # 400 Å at 30°
        assert prior.astigmatism[1] == pytest.approx(400 * math.sin(math.pi / 3), abs=1)


def test_one_wild_clear_view_moves_nothing() -> None:
    fits, _ = series()
    before = expected_ctf(fits, TILTS)
    fits[20] = planted(9000.0, 60.0)
    for old, new in zip(before, expected_ctf(fits, TILTS), strict=True):
        assert new.defocus == pytest.approx(old.defocus, abs=400)


def test_a_view_is_no_evidence_about_itself() -> None:
    fits, _ = series()
    before = expected_ctf(fits, TILTS)[20]
    fits[20] = planted(40000.0, 500.0)
    assert expected_ctf(fits, TILTS)[20] == before


def test_weak_views_together_find_the_defocus_none_finds_alone() -> None:
    rng = np.random.default_rng(2)
    fits = []
    for _ in range(12):
        wrong = planted(rng.uniform(5000, 50000), 6.0)
        curve = wrong.search_evidence + 4 * np.exp(-(((GRID - 31000) / 700) ** 2))
        fits.append(replace(wrong, search_evidence=curve))
    for prior in expected_ctf(fits, np.linspace(-33, 33, 12)):
        assert abs(prior.defocus - 31000) < 1500


def test_failed_views_get_the_value_of_the_others_and_say_why() -> None:
    prior = CtfPrior(25000.0, 1000.0, (0.0, 400.0))
    good, lost, far = planted(25300.0, 30.0), planted(24000.0, 2.0), planted(29500.0, 9.0)
    coarse = replace(planted(25100.0, 30.0), fit_resolution=27.0)
    kept, *failed = settle([good, lost, far, coarse], [prior] * 4)
    assert kept.ctf == good.ctf
    assert kept.reliable
    assert kept.problem == ""
    for view, word in zip(
        failed, ["no clear rings", "4500 Å from", "fitted only to 27 Å"], strict=True
    ):
        assert not view.reliable
        assert word in view.problem
        assert view.ctf.defocus == 25000
        assert view.ctf.astigmatism_angle == pytest.approx(45)
        assert view.uncertainty == 1000


def test_clear_view_may_differ_from_the_others() -> None:
    view = settle([planted(29500.0, 60.0)], [CtfPrior(25000.0, 1000.0)])[0]
    assert view.reliable
    assert view.ctf.defocus == 29500


@pytest.mark.parametrize("hand", [1, -1])
def test_hand_is_that_of_the_better_fits(hand: int) -> None:
    rng = np.random.default_rng(6)
    gain = hand * 0.1 * np.abs(TILTS) + rng.normal(0, 2, len(TILTS))
    found = handedness(20 + gain / 2, 20 - gain / 2, TILTS)
    assert found.hand == hand
    assert found.confidence > 0.99
    assert found.evidence * hand > 0


def test_hand_is_unknown_without_a_gradient() -> None:
    rng = np.random.default_rng(7)
    unsure = [
        handedness(rng.normal(20, 2, 41), rng.normal(20, 2, 41), TILTS).hand == 0
        for _ in range(200)
    ]
    assert np.mean(unsure) > 0.95
    assert handedness(np.ones(41), np.ones(41), TILTS).hand == 0


def test_flat_views_say_nothing_about_the_hand() -> None:
    found = handedness([50.0, 50.0, 50.0], [10.0, 10.0, 10.0], [-6.0, 0.0, 6.0])
    assert found.hand == 0


def test_one_tilt_for_each_fit_is_wanted() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) tilts for 1 fits"):
        expected_ctf([planted(20000.0, 30.0)], [0.0, 3.0, 6.0])
