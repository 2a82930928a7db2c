from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import NotThere
from tasks.parameters import CtfParameters, EraseParameters, Pipeline, ReconstructParameters
from tasks.plan import chosen_series, current_plan, plan
from tasks.steps import ALIGNMENTS, STEPS, needed
from tasks.store import Series, parse_project
from tasks.tables import status_rows


@pytest.fixture
def series(fake_run: Callable[..., Any]) -> Series:
    """Return a series of which everything is done."""
    run = fake_run()
    run.up_to_alignment()
    run.reconstruct((8, 8, 8))
    return run.series


STEPS_TAKEN = needed(Pipeline(reconstruct=ReconstructParameters(alignment="markerfree")))
ALL = tuple(step for step in STEPS if step in {*STEPS_TAKEN, "fiducials"})


def states(series: Series, pipeline: Pipeline = Pipeline(), branch: str = "main") -> dict[str, str]:
    return {step: found.state for step, found in plan(series, pipeline, branch).items()}


def test_what_is_complete_is_done(series: Series) -> None:
    assert states(series) == dict.fromkeys(ALL, "done")
    assert {f.state for f in current_plan(series).values()} == {"done"}


def test_a_changed_parameter_makes_that_step_and_what_follows_stale(series: Series) -> None:
    pipeline = Pipeline(erase=EraseParameters(peak=7.0))
    fresh = ("motion", "exclude", "ctf")
    assert states(series, pipeline) == {step: "done" if step in fresh else "stale" for step in ALL}
    why = {step: found.why for step, found in plan(series, pipeline).items()}
    assert why["erase"] == "erase.peak: 8.0 → 7.0"
    assert why["coarse"] == "its inputs or the imported record changed"


def test_beads_that_were_never_looked_for_leave_what_follows_open(
    fake_run: Callable[..., Any],
) -> None:
    run = fake_run()
    run.motion()
    found = plan(run.series, Pipeline())
    assert list(found) == list(needed(Pipeline()))
    assert found["reconstruct"].why == "the beads decide which alignment is used"
    assert {"align", "markerfree"}.isdisjoint(found)


@pytest.mark.parametrize(("enough", "step"), [(True, "align"), (False, "markerfree")])
def test_beads_decide_which_alignment_follows(
    fake_run: Callable[..., Any], enough: bool, step: str
) -> None:
    run = fake_run()
    run.up_to_alignment()
    run.pipeline = Pipeline()
    run.fiducials(enough)
    found = plan(run.series, Pipeline())
    assert [name for name in ALIGNMENTS if name in found] == [step, "coarse"]
    assert found["reconstruct"].state == "to do"


def test_another_alignment_leaves_the_one_that_is_not_read_out(series: Series) -> None:
    pipeline = Pipeline(reconstruct=ReconstructParameters(alignment="coarse"))
    found = states(series, pipeline)
    assert "markerfree" not in found
    assert found["coarse"] == "done"
    assert found["reconstruct"] == "stale"


def test_a_new_version_of_a_step_replaces_its_result(
    series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = STEPS["dose"].version
    monkeypatch.setitem(STEPS, "dose", replace(STEPS["dose"], version=99))
    found = plan(series, Pipeline())
    assert found["dose"].state == "stale"
    assert found["dose"].why == f"version 99 of the step replaces {before}"
    assert found["erase"].state == "done"


def test_a_new_branch_finds_what_is_done_and_says_that_it_is_not_yet_its_own(
    series: Series,
) -> None:
    assert states(series, branch="new") == dict.fromkeys(ALL, "done")


def test_failed_and_unfinished_steps_are_told(series: Series) -> None:
    pipeline = Pipeline(erase=EraseParameters(peak=7.0))
    result = plan(series, pipeline)["erase"].result
    result.create_array("images", (2, 4, 4), (1, 4, 4))
    result.mark_unit("view-000", {})
    assert plan(series, pipeline)["erase"].state == "unfinished"
    series.note_failure("main", "erase", "disk on fire")
    found = plan(series, pipeline)["erase"]
    assert (found.state, found.why) == ("failed", "disk on fire")


def test_a_change_of_the_record_concerns_only_what_reads_it(series: Series) -> None:
    record = series.imported()
    acquisition = record.acquisition.model_copy(update={"cs": 1.4})
    series.project.add_series(record.model_copy(update={"acquisition": acquisition}))
    stale = {step for step, state in states(series).items() if state == "stale"}
    assert stale == {"ctf"}


def test_all_series_are_chosen_unless_some_are_named(fake_run: Callable[..., Any]) -> None:
    project = fake_run("TS_02").series.project.url
    fake_run("TS_01")
    assert chosen_series(project, None) == ["TS_01", "TS_02"]
    assert chosen_series(project, ["TS_02"]) == ["TS_02"]
    with pytest.raises(NotThere, match="no series 'TS_03'"):
        chosen_series(project, ["TS_02", "TS_03"])


def test_a_project_without_series_says_so(series: Series) -> None:
    of = parse_project(series.project.url)
    of.delete("TS_01")
    with pytest.raises(NotThere, match="holds no series: import some with `tiltflow import`"):
        chosen_series(of.url, None)


def test_a_file_that_changed_or_vanished_is_told_as_the_reason(
    fake_run: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "TS_01.defocus"
    path.write_text("1 1 0 0 3000 2")
    pipeline = Pipeline(ctf=CtfParameters(ctf_from=str(tmp_path / "{TS}.defocus")))
    run = fake_run(pipeline=pipeline)
    run.up_to_alignment()
    assert plan(run.series, pipeline)["ctf"].state == "done"
    path.write_text("1 1 0 0 3100 2")
    found = current_plan(run.series)["ctf"]
    assert found.state == "stale"
    assert found.why.endswith("{TS}.defocus, its inputs or the imported record changed")
    path.unlink()
    planned = current_plan(run.series)
    assert planned["ctf"].state == "failed"
    assert "TS_01.defocus: no such file" in planned["ctf"].why
    assert planned["ctf"].result.complete()  # what was made of it is still there
    assert planned["markerfree"].state == "done"
    (row,), (reason,) = status_rows(run.series.project.url)
    assert (row["ctf"], row["reconstruct"]) == ("failed", "to do")
    assert reason.startswith(f"TS_01: ctf failed: {path}: no such file")


def test_what_follows_a_step_without_its_file_waits(
    series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline(ctf=CtfParameters(ctf_from="/nowhere/{TS}.defocus"))
    monkeypatch.setitem(STEPS, "erase", replace(STEPS["erase"], inputs=("motion", "ctf")))
    found = plan(series, pipeline)
    assert (found["erase"].state, found["erase"].why) == ("stale", "ctf comes first")
    assert found["dose"].why == "erase comes first"
    new = plan(series, pipeline, branch="new")
    assert (new["erase"].state, new["ctf"].state) == ("to do", "failed")
    assert not new["ctf"].result.complete()
