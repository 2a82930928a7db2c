"""Dark views are found, whichever they are."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.views import dark_views, expected_means

TILTS = np.arange(-60, 61, 3.0)
MEANS = 623.7 * np.exp(-0.6 * (1 / np.cos(np.radians(TILTS)) - 1))  # 342 at 60°


def with_mean(tilt, mean):
    means = MEANS.copy()
    means[np.flatnonzero(tilt == TILTS)] = mean
    return means


def test_the_dark_view_of_empiar_10164_is_found():
    (dark,) = dark_views(with_mean(-60, 2.75), TILTS)
    assert dark.index == 0
    assert dark.expected == pytest.approx(312, rel=0.01)
    assert dark.score == pytest.approx(2.75 / 312, rel=0.01)


def test_a_good_series_has_no_dark_view():
    assert dark_views(MEANS, TILTS) == []


@pytest.mark.parametrize("mean", [2.75, 0.0, -4.0])
def test_the_untilted_view_may_be_the_dark_one(mean):
    assert [dark.index for dark in dark_views(with_mean(0, mean), TILTS)] == [20]


def test_several_dark_views_near_zero_do_not_become_the_rule():
    means = MEANS.copy()
    means[17:23] = 1.0
    assert [dark.index for dark in dark_views(means, TILTS)] == list(range(17, 23))


def test_dark_views_at_one_end_are_all_found():
    means = MEANS.copy()
    means[:5] = 3.0
    assert [dark.index for dark in dark_views(means, TILTS)] == [0, 1, 2, 3, 4]


def test_every_untilted_view_may_be_dark():
    means = np.where(np.abs(TILTS) <= 21, -0.1, MEANS)
    assert {dark.index for dark in dark_views(means, TILTS)} == set(
        np.flatnonzero(np.abs(TILTS) <= 21)
    )


def test_one_view_that_is_far_too_bright_makes_no_other_dark():
    assert dark_views(with_mean(3, 60000.0), TILTS) == []


def test_the_order_of_the_views_does_not_matter():
    order = np.random.default_rng(0).permutation(len(TILTS))
    (dark,) = dark_views(with_mean(-60, 2.75)[order], TILTS[order])
    assert order[dark.index] == 0


def test_the_scale_of_the_means_does_not_matter():
    scores = [dark_views(with_mean(30, 5.0) * scale, TILTS)[0].score for scale in (1e-6, 1, 1e6)]
    np.testing.assert_allclose(scores, scores[0])


def test_few_views_are_judged_too():
    assert dark_views([600.0], [0.0]) == []
    assert [dark.index for dark in dark_views([600.0, 2.0], [0.0, 3.0])] == [1]
    assert [dark.index for dark in dark_views([2.0, 330.0], [30.0, 60.0])] == [0]


def test_a_series_without_any_signal_is_dark_throughout():
    dark = dark_views([0.0, -1.0, 0.0], [-3.0, 0.0, 3.0])
    assert [view.index for view in dark] == [0, 1, 2]
    assert all(view.score == 0 for view in dark)


def test_no_views_have_no_dark_view():
    assert dark_views([], []) == []


def test_expected_means_follow_the_cosine():
    cosines = np.cos(np.radians(TILTS))
    np.testing.assert_allclose(expected_means(500 * cosines, TILTS), 500 * cosines)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match=r"\(2,\) means for \(1,\) tilts"):
        expected_means([1.0, 2.0], [0.0])
    with pytest.raises(ValueError, match="finite"):
        dark_views([float("nan")], [0.0])
    with pytest.raises(ValueError, match=r"threshold is 1\.5"):
        dark_views([1.0], [0.0], threshold=1.5)
