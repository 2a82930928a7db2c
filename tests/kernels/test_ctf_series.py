"""What views tell about each other: a Gaussian process left one out, the hand, doubts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.ctf import Ctf
from kernels.ctf_fit import CtfFit
from kernels.ctf_likelihood import Gaussian
from kernels.ctf_profile import CtfProfile
from kernels.ctf_series import (
    DEFOCUS,
    FREE_EVIDENCE,
    NARROW_EVIDENCE,
    Changes,
    Expected,
    deviations,
    expected_of_others,
    handedness,
    why_failed,
)

TILTS = np.asarray(
    [0, 3, -3, -6, 6, 9, -9, -12, 12, 15, -15, -18, 18, 21, -21, -24, 24, 27, -27, 30.0]
)
ORDER = np.arange(1.0, len(TILTS) + 1)
TILT = np.arange(-60.0, 61.0, 3.0)


def series(seed: int, scatter: float = 60.0, error: float = 50.0) -> tuple[np.ndarray, np.ndarray]:
    """Return fits and truth of a series whose defocus walks, follows the stage and scatters."""
    rng = np.random.default_rng(seed)
    walk = rng.normal(0, 30, len(TILTS)).cumsum()
    truth = 25000 + walk + 200 * np.sin(TILTS / 25) + rng.normal(0, scatter, len(TILTS))
    return truth + rng.normal(0, error, len(TILTS)), truth


def expected(values: np.ndarray, errors: float = 50.0, **changed: np.ndarray) -> Expected:
    given = {"trusted": np.ones(len(TILTS), bool), "order": ORDER, "tilts": TILTS} | changed
    return expected_of_others(
        values, np.full(len(values), errors), given["trusted"], given["order"], given["tilts"],
        DEFOCUS,
    )  # fmt: skip


def test_expectation_is_the_conditional_mean_of_a_gaussian_process() -> None:
    values = np.asarray([20100.0, 20240.0, 19950.0, 20310.0, 20050.0, 20190.0])
    errors = np.asarray([40.0, 60.0, 30.0, 80.0, 50.0, 45.0])
    order = np.asarray([3.0, 4, 2, 5, 1, 6])
    tilts = np.asarray([0.0, 8, -8, 16, -16, 24])
    found = expected_of_others(
        values, errors, np.ones(6, bool), order, tilts, Changes((70,), (150,), (25,))
    )
    for i in range(6):
        # The walk starts anywhere: a constant of enormous variance, and steps from there.
        steps = 70**2 * np.minimum(order[:, None], order[None, :])
        stage = 150**2 * np.exp(-0.5 * ((tilts[:, None] - tilts) / 25) ** 2)
        prior = steps + stage + 25**2 * np.eye(6) + 1e9
        others = np.arange(6) != i
        inner = prior[np.ix_(others, others)] + np.diag(errors[others] ** 2)
        weights = np.linalg.solve(inner, prior[i, others])
        mean = 20000 + weights @ (values[others] - 20000)
        variance = prior[i, i] - weights @ prior[i, others]
        assert found.mean[0, i] == pytest.approx(mean, abs=0.5)
        assert found.sigma[0, i] == pytest.approx(math.sqrt(variance), rel=2e-3)
    assert found.used.all()


def test_sizes_of_the_changes_come_from_the_series() -> None:
    calm, wild = (expected(series(3, scatter)[0], 20.0).sigma.mean() for scatter in (10.0, 700.0))
    assert calm < 120
    assert wild > 500


def test_expectations_miss_the_truth_as_their_sigma_says() -> None:
    ratios = []
    for seed in range(8):
        values, truth = series(seed)
        found = expected(values)
        assert found.used.all()
        ratios.extend((found.mean[0] - truth) / found.sigma[0])
    assert 0.8 < np.sqrt(np.mean(np.square(ratios))) < 1.25


def test_a_view_is_no_evidence_about_itself() -> None:
    values, _ = series(1)
    before = expected(values)
    values[7] += 60.0
    assert expected(values).mean[0, 7] == before.mean[0, 7]
    assert expected(values).sigma[0, 7] == before.sigma[0, 7]


def test_a_view_far_off_is_left_out_and_predicted() -> None:
    values, truth = series(4)
    without = expected(values)
    values[8] += 20000
    found = expected(values)
    assert not found.used[8]
    assert found.used.sum() == len(TILTS) - 1
    assert abs(found.mean[0, 8] - truth[8]) < 4 * found.sigma[0, 8]
    np.testing.assert_allclose(found.mean[0], without.mean[0], atol=150)
    assert found.sigma.max() < 400


def test_several_views_that_ran_away_to_nonsense_are_left_out() -> None:
    values, truth = series(5)
    rng = np.random.default_rng(0)
    lost = [2, 9, 14, 15, 19]
    values[lost] = rng.uniform(5000, 50000, 5)
    found = expected(values)
    far = np.abs(values - truth) > 2000
    assert not found.used[far].any()
    assert found.used[~far].sum() >= (~far).sum() - 1
    assert (np.abs(found.mean[0] - truth) < 4 * found.sigma[0]).all()


def test_views_that_are_not_trusted_are_predicted_and_tell_nothing() -> None:
    values, truth = series(6)
    trusted = np.ones(len(TILTS), bool)
    trusted[[3, 11]] = False
    values[[3, 11]] = np.nan, 40000.0
    found = expected(values, trusted=trusted)
    assert found.used.tolist() == trusted.tolist()
    assert (np.abs(found.mean[0] - truth) < 4 * found.sigma[0]).all()
    prior = found.prior(0, 3)
    assert prior == Gaussian(float(found.mean[0, 3]), float(found.sigma[0, 3]))


@pytest.mark.parametrize("n", [0, 1, 3])
def test_fewer_than_four_views_expect_nothing(n: int) -> None:
    values, _ = series(7)
    trusted = np.arange(len(TILTS)) < n
    found = expected(values, trusted=trusted)
    assert np.isinf(found.sigma).all()
    assert np.isnan(found.mean).all()
    assert found.prior(0, 0) is None


def test_quantities_change_alike_and_one_that_is_off_leaves_the_view_out() -> None:
    rng = np.random.default_rng(9)
    values = np.asarray([[300.0], [-150.0]]) + rng.normal(0, 30, (2, len(TILTS)))
    values[1, 6] += 2000
    found = expected_of_others(
        values, np.full(values.shape, 25.0), np.ones(len(TILTS), bool), ORDER, TILTS,
        Changes((5,), (0,), (25,)),
    )  # fmt: skip
    assert found.used.sum() == len(TILTS) - 1
    assert not found.used[6]
    assert found.mean[:, 6] == pytest.approx([300, -150], abs=60)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), constant=st.floats(-9000, 9000))
def test_a_constant_moves_means_and_leaves_sigma(seed: int, constant: float) -> None:
    values, _ = series(seed)
    before, after = expected(values), expected(values + constant)
    np.testing.assert_allclose(after.mean, before.mean + constant, atol=0.01)
    np.testing.assert_allclose(after.sigma, before.sigma, rtol=1e-5)
    np.testing.assert_array_equal(after.used, before.used)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), turn=st.permutations(range(len(TILTS))))
def test_in_which_order_views_are_listed_does_not_matter(seed: int, turn: list[int]) -> None:
    values, _ = series(seed)
    before = expected(values)
    after = expected(values[turn], order=ORDER[turn], tilts=TILTS[turn])
    np.testing.assert_allclose(after.mean[0], before.mean[0, turn], rtol=1e-7)
    np.testing.assert_allclose(after.sigma[0], before.sigma[0, turn], rtol=1e-5)


def test_values_and_views_must_belong_together() -> None:
    with pytest.raises(ValueError, match=r"\(1, 20\) values, \(1, 20\) errors, \(3,\) views"):
        expected(series(0)[0], order=np.arange(3.0))


@pytest.mark.parametrize("hand", [1, -1])
def test_hand_is_that_of_the_better_fits(hand: int) -> None:
    rng = np.random.default_rng(6)
    gain = hand * 0.1 * np.abs(TILT) + rng.normal(0, 2, len(TILT))
    found = handedness(20 + gain / 2, 20 - gain / 2, TILT)
    assert found.hand == hand
    assert found.confidence > 0.99
    assert found.evidence == pytest.approx(gain[np.abs(TILT) >= 2].sum())


def test_hand_is_unknown_where_views_contradict_each_other() -> None:
    gain = np.where(np.arange(len(TILT)) % 2 == 0, 30.0, -29.0)
    found = handedness(gain, np.zeros(len(TILT)), TILT)
    assert found.hand == 0
    assert found.confidence < 0.99
    # One view's enormous gain, as of a speck of dirt, is not the voice of the series.
    one = handedness(np.where(TILT == 30, 500.0, 0.1), np.zeros(len(TILT)), TILT)
    assert one.hand == 0


def test_hand_is_unknown_without_a_gradient() -> None:
    rng = np.random.default_rng(7)
    unsure = [
        handedness(rng.normal(20, 2, 41), rng.normal(20, 2, 41), TILT).hand == 0 for _ in range(200)
    ]
    assert np.mean(unsure) > 0.95
    nothing = handedness(np.ones(41), np.ones(41), TILT)
    assert (nothing.hand, nothing.confidence) == (0, 0.5)


def test_flat_views_say_nothing_about_the_hand() -> None:
    found = handedness([50.0, 50.0, 50.0], [10.0, 10.0, 10.0], [-1.5, 0.0, 1.5])
    assert (found.hand, found.evidence) == (0, 0)


def fit_with(covariance: np.ndarray) -> CtfFit:
    empty = np.zeros(3)
    return CtfFit(
        ctf=Ctf(25000.0, 25000.0),
        names=("defocus", "p", "q"),
        values=np.asarray([25000.0, 0.0, 0.0]),
        covariance=covariance,
        evidence=100.0,
        score=0.5,
        fit_resolution=7.0,
        profile=CtfProfile(empty, empty, empty, empty, empty, empty),
    )


def test_deviations_are_those_of_rings_and_priors_together() -> None:
    fit = fit_with(np.diag([100.0**2, 50.0**2, 40.0**2]))
    alone = deviations(fit, {})
    assert alone == pytest.approx({"defocus": 100, "p": 50, "q": 40})
    held = deviations(fit, {"defocus": Gaussian(0.0, 100.0)})
    assert held == pytest.approx({"defocus": 100 / math.sqrt(2), "p": 50, "q": 40})
    tied = fit_with(np.asarray([[1e4, 4e3, 0], [4e3, 2500, 0], [0, 0, 1600.0]]))
    precise = deviations(tied, {"p": Gaussian(0.0, 1e-3)})
    assert precise["defocus"] == pytest.approx(math.sqrt(1e4 - 4e3**2 / 2500), rel=1e-3)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ((FREE_EVIDENCE + 1, 8.0, 0.5, False), ""),
        ((FREE_EVIDENCE - 1, 8.0, 0.5, False), "no clear rings: evidence 15.0, below 16"),
        ((FREE_EVIDENCE - 1, 8.0, 0.5, True), ""),
        ((NARROW_EVIDENCE - 1, 8.0, 0.5, True), "no clear rings"),
        ((60.0, 27.0, 0.5, True), "fitted only to 27 Å"),
        ((60.0, 8.0, 4.6, True), "4.6 standard deviations from that of other views"),
    ],
)
def test_views_that_cannot_be_trusted_say_why(
    values: tuple[float, float, float, bool], word: str
) -> None:
    told = why_failed(*values)
    assert (word in told) if word else (told == "")
