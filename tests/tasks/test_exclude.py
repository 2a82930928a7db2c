from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import WrongParameter
from tasks.exclude import exclude, view_list
from tasks.parameters import ExcludeParameters, Execution
from tasks.record import TiltSeries

THREADS = Execution(cluster="threads", workers=1)


@pytest.fixture
def reasons(fake_run: Callable[..., Any]) -> Callable[..., list[str | None]]:
    """Return the function that runs the step and returns the reason of each view."""
    run = fake_run()
    run.motion()  # its means are 100, 99, … 94: none dark

    def of(**given: Any) -> list[str | None]:
        project = run.series.project.url
        exclude.fn(project, "TS_01", ExcludeParameters(**given), "main", THREADS)
        record: TiltSeries = run.series.record("main")
        return [view.excluded for view in record.views]

    return of


def left_out(reasons: list[str | None]) -> list[int]:
    return [i for i, reason in enumerate(reasons, 1) if reason is not None]


def test_bright_views_are_kept(reasons: Callable[..., list[str | None]]) -> None:
    assert reasons() == [None] * 7


def test_the_users_views_are_left_out_and_named(reasons: Callable[..., list[str | None]]) -> None:
    found = reasons(views={"TS_01": "1, 3-4", "TS_02": "5"})
    assert left_out(found) == [1, 3, 4]
    assert found[0] == "left out by the user"


def test_the_user_may_keep_what_looks_dark(reasons: Callable[..., list[str | None]]) -> None:
    assert left_out(reasons(dark_threshold=0.999)) != []
    kept = reasons(dark_threshold=0.999, include={"TS_01": "1-7"})
    assert kept == [None] * 7
    assert reasons(dark_threshold=0) == [None] * 7


def test_a_dark_view_has_its_reason_in_numbers(finished_project: str) -> None:
    from tasks.store import parse_project

    views = parse_project(finished_project).series("TS_01").record("main").views
    assert left_out([view.excluded for view in views]) == [1]
    assert str(views[0].excluded).startswith("dark: mean 0.1")


def test_too_few_views_are_refused(reasons: Callable[..., list[str | None]]) -> None:
    assert len(left_out(reasons(views={"TS_01": "1-4"}))) == 4
    with pytest.raises(WrongParameter, match="TS_01: fewer than 3 of 7 views would be left"):
        reasons(views={"TS_01": "1-5"})


@given(st.sets(st.integers(1, 60)))
def test_a_list_of_views_is_read_as_written(views: set[int]) -> None:
    assert set(view_list(",".join(map(str, views)), "TS", 60)) == {v - 1 for v in views}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0", "TS: views 0 do not exist, there are 1 to 9"),
        ("3-10", "TS: views 3-10 do not exist"),
        ("5-3", "TS: views 5-3 do not exist"),
        ("a", "TS: 'a' names no views: write for example 1,3-5"),
        ("-3", "'-3' names no views"),
        ("1;2", "'1;2' names no views"),
    ],
)
def test_a_list_that_names_no_views_is_explained(text: str, told: str) -> None:
    with pytest.raises(WrongParameter, match=told):
        view_list(text, "TS", 9)
