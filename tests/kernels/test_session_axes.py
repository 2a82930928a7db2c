from __future__ import annotations

import re

import numpy as np
import pytest

from kernels.session_axes import Witness, against_others, shared_axis

OTHERS = [Witness(85.3 + d, 0.05, 1) for d in (-0.1, -0.05, 0.05, 0.1)]


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (Witness(85.0, 0.05, 1), None),
        (Witness(85.0, 0.05), None),
        (Witness(93.3, 0.05, 1), r"differs by 8\.0° ± 0\.2° .*\(85\.3°\)"),
        (Witness(93.3, 4.0, 1), None),  # not known well enough to contradict
        (Witness(-94.7, 0.05, 1), r"half a turn .*\(85\.3°\)"),
        (Witness(85.3, 0.05, -1), r"shows hand −1, .* \+1: the tilt axis is wrong by 180°"),
    ],
)
def test_a_series_is_held_against_the_others(one: Witness, told: str | None) -> None:
    found = against_others(one, OTHERS)
    if told is None:
        assert found is None
    else:
        assert re.search(told, found or "")


def test_axes_near_a_full_turn_are_near_each_other() -> None:
    others = [Witness(axis, 0.05) for axis in (179.9, -179.9, 180.0, -179.8, 0.0)]
    assert against_others(Witness(-179.95, 0.05), others) is None
    assert "half a turn" in (against_others(Witness(0.1, 0.05), others) or "")


def test_few_or_divided_others_say_nothing() -> None:
    assert against_others(Witness(0.0, 0.05, 1), OTHERS[:1]) is None
    assert against_others(Witness(85.3, 0.05), [OTHERS[0], Witness(-94.7, 0.05)]) is None
    assert against_others(Witness(85.3, 0.05), [OTHERS[0], Witness(93.3, 0.05)]) is None
    divided = [Witness(85.3, 0.05, h) for h in (1, -1, 1, -1)]
    assert against_others(Witness(85.3, 0.05, -1), divided) is None


def test_of_three_series_the_odd_one_is_told() -> None:
    session = [OTHERS[0], OTHERS[3], Witness(-94.7, 0.05)]
    told = [against_others(w, session[:i] + session[i + 1 :]) or "" for i, w in enumerate(session)]
    assert ["half a turn" in t for t in told] == [False, False, True]


def test_the_axis_that_series_share() -> None:
    assert shared_axis(OTHERS) == pytest.approx(85.3)
    assert shared_axis([Witness(179.9, 0.1), Witness(-179.7, 0.1)]) == pytest.approx(-179.9)
    assert shared_axis([*OTHERS, Witness(-94.7, 0.05)]) == pytest.approx(85.3, abs=0.1)
    assert shared_axis([OTHERS[0], Witness(-94.7, 0.05)]) is None
    assert shared_axis([]) is None


def test_one_wrong_series_does_not_discredit_the_right_ones() -> None:
    rng = np.random.default_rng(3)
    session = [Witness(85.3 + e, 0.05) for e in rng.normal(0, 0.1, 7)] + [Witness(77.0, 0.05)]
    told = [against_others(w, session[:i] + session[i + 1 :]) for i, w in enumerate(session)]
    assert [bool(t) for t in told] == [False] * 7 + [True]
