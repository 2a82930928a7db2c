from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tasks.parameters import CoarseParameters
from tasks.record import Handedness
from tasks.session_axes import contradictions, settled_axis
from tasks.store import parse_project
from tasks.tables import status_rows

Session = Callable[..., str]


@pytest.fixture
def session(fake_run: Callable[..., Any]) -> Session:
    """Make a project of series with given axes, aligned without markers; return its address."""

    def make(*axes: float, word: str = "good") -> str:
        for i, axis in enumerate(axes):
            run = fake_run(f"TS_{i + 1:02d}")
            run.up_to_alignment()
            geometry = {"tilt": 0.0, "axis": axis}
            views = [{"geometry": geometry} for _ in range(6)] + [{"geometry": None}]
            last = word if i == len(axes) - 1 else "good"
            extra = {"verdict": {"word": last, "reasons": []}, "axis": {"error": 0.05}}
            run.finish("markerfree", views=views, **extra)
        return str(run.series.project.url)

    return make


@pytest.mark.parametrize(("axis", "told"), [(93.0, r"differs by 7\.7°"), (-94.7, "half a turn")])
def test_a_series_unlike_the_others_is_told(session: Session, axis: float, told: str) -> None:
    project = session(85.3, 85.4, 85.2, 85.3, axis)
    (name,) = found = contradictions(project)
    assert (name, told.replace("\\", "") in found[name]) == ("TS_05", True)
    _, reasons = status_rows(project)
    assert f"TS_05: doubtful: {found[name]}" in reasons


def test_series_alike_are_not_told(session: Session) -> None:
    assert contradictions(session(85.3, 85.4, 85.2, 85.3)) == {}


@pytest.mark.parametrize(("forced", "measured"), [(True, -1), (True, 1), (True, None), (False, -1)])
def test_a_hand_that_the_spectra_contradict_is_told(
    session: Session, forced: bool, measured: int | None
) -> None:
    project = session(85.3)  # alone: nobody to agree with
    series = parse_project(project).series("TS_01")
    ctf = series.current("main", "ctf")
    hand = Handedness(hand=1, measured=measured, confidence=0.99, forced=forced)
    decides = ctf.attributes()["decides"] | {"series": {"handedness": hand.model_dump()}}
    ctf.group().update_attributes({"decides": decides})
    found = contradictions(project)
    assert bool(found) == (forced and measured == -1)
    if found:
        assert found["TS_01"].startswith("the defocus gradient shows hand −1, +1 was given: ")


def test_a_failed_series_is_no_witness(session: Session) -> None:
    assert contradictions(session(85.3, 85.4, 85.2, 85.3, 20.0, word="failed")) == {}


def test_of_three_series_the_one_that_is_half_a_turn_off_is_told(session: Session) -> None:
    assert set(contradictions(session(85.3, 85.4, -94.6))) == {"TS_03"}


def test_an_axis_is_looked_for_where_the_others_have_it(session: Session) -> None:
    asked = CoarseParameters(axis="session")
    project = session(85.3, 85.4, 20.0)
    settled = settled_axis(asked, project, "TS_03", "main")
    assert (settled.axis, settled.axis_start) == ("refine", pytest.approx(85.35, abs=0.06))
    given = CoarseParameters(axis="refine")
    assert settled_axis(given, project, "TS_03", "main") is given


def test_without_others_the_axis_is_searched(session: Session) -> None:
    settled = settled_axis(CoarseParameters(axis="session"), session(85.3), "TS_01", "main")
    assert (settled.axis, settled.axis_start) == ("search", None)


def test_turning_by_the_hand_and_by_the_session_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="leave it out"):
        CoarseParameters(axis="session", turn_axis_on_hand=True)
