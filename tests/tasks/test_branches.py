"""A step on a branch that is new begins with what main has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tasks.branches import begin_branch
from tasks.errors import NotThere
from tasks.parameters import Execution, Parameters, Pipeline
from tasks.work import begin

THREADS = Execution(cluster="threads")
STEP_PARAMETERS: dict[str, Parameters] = {
    "markerfree": Pipeline().markerfree,
    "reconstruct": Pipeline.model_validate(
        {"reconstruct": {"alignment": "markerfree"}}
    ).reconstruct,
}


@pytest.fixture
def run(fake_run: Callable[..., Any]) -> Any:
    made = fake_run()
    made.up_to_alignment()
    made.thickness()
    return made


@pytest.mark.parametrize("step", STEP_PARAMETERS)
def test_a_step_on_a_new_branch_rests_on_the_results_of_main(run: Any, step: str) -> None:
    series, parameters = run.series, STEP_PARAMETERS[step]
    rest = (step, series.project.url, series.name, parameters)
    with pytest.raises(NotThere):
        begin(*rest, "new", THREADS)
    assert begin_branch(series, "new", step, parameters)
    assert begin(*rest, "new", THREADS).inputs == begin(*rest, "main", THREADS).inputs
    # What follows the step, or decides the geometry in its place, is not taken over.
    assert series.pointer("new", step) is None
    if step == "markerfree":
        assert series.pointer("new", "coarse") == series.pointer("main", "coarse")
        assert series.pointer("new", "thickness") is None


def test_a_branch_that_is_there_stays_as_it_is(run: Any) -> None:
    series, parameters = run.series, STEP_PARAMETERS["reconstruct"]
    series.point("old", "motion", series.pointer("main", "motion"))
    for branch in ("old", "main"):
        assert not begin_branch(series, branch, "reconstruct", parameters)
    assert series.pointer("old", "dose") is None


def test_side_results_are_taken_over_where_the_step_reads_them(run: Any) -> None:
    series = run.series
    run.finish("ctf2d")
    for branch, images in (("plain", "dose"), ("strips", "ctf2d")):
        parameters = STEP_PARAMETERS["reconstruct"].model_copy(update={"images": images})
        assert begin_branch(series, branch, "reconstruct", parameters)
        assert (series.pointer(branch, "ctf2d") is None) == (images == "dose")


def test_nothing_begins_from_nothing(fake_run: Callable[..., Any]) -> None:
    run = fake_run()
    assert not begin_branch(run.series, "new", "reconstruct", STEP_PARAMETERS["reconstruct"])
    assert run.series.branches() == []
