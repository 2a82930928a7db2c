from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.errors import UnusableData
from tasks.parameters import Pipeline
from tasks.prune import leftovers, prune, unreachable

LATER = datetime.now(UTC) + timedelta(hours=1)
NEXT_WEEK = datetime.now(UTC) + timedelta(days=7)


def names(results) -> set[str]:  # type: ignore[no-untyped-def]
    return {result.name for result in results}


def test_only_what_no_branch_reaches_is_pruned(fake_run) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.up_to_alignment()
    changed = ("coarse", "fiducials", "markerfree")
    old = {step: run.series.pointer("main", step) for step in changed}
    shared = run.series.pointer("main", "motion")
    run.pipeline = Pipeline.model_validate({"coarse": {"iterations": 9}})
    run.align("coarse")
    run.fiducials(enough=False)
    run.align("markerfree")
    lost = unreachable(run.series.project.url, LATER)
    assert names(lost) == {f"{step}-{key}" for step, key in old.items()}
    size = sum(run.series.project.size(result.path) for result in lost)
    assert prune(run.series.project.url, LATER) == size > 0
    assert unreachable(run.series.project.url, LATER) == []
    assert not run.series.result("coarse", old["coarse"]).complete()
    assert run.series.result("motion", shared).complete()
    run.series.record("main")  # all that it needs is there


def test_inputs_of_a_reached_result_stay_when_the_branch_moved_on(fake_run) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    before = run.motion()
    run.exclude()
    run.ctf()
    run.pipeline = Pipeline.model_validate({"motion": {"binning": 2}})
    run.motion()  # the rest of the branch still rests on the old images
    assert unreachable(run.series.project.url, LATER) == []
    assert before.complete()


def test_other_branches_hold_what_they_have(fake_run) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.motion()
    other = fake_run(pipeline=Pipeline.model_validate({"motion": {"align": False}}), branch="other")
    other.motion()
    assert unreachable(run.series.project.url, LATER) == []
    run.series.project.delete("TS_01/branches/other")
    assert names(unreachable(run.series.project.url, LATER)) == {other.begin("motion").name}


def test_what_another_run_is_writing_stays(fake_run) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.motion()
    result = run.series.result("ctf", "0123456789ab")
    result.create_array("spectra", (2, 4), (1, 4))[:] = 1
    result.mark_unit("view-000", {})
    url = run.series.project.url
    assert unreachable(url, LATER) == []
    assert names(unreachable(url, NEXT_WEEK)) == {"ctf-0123456789ab"}
    # a new unit makes it young again
    root = Path(result.url)
    for path in [root, *root.rglob("*")]:
        os.utime(path, (NEXT_WEEK.timestamp() - 7 * 86400,) * 2)
    os.utime(root / "unit" / "view-000.json", (NEXT_WEEK.timestamp() - 60,) * 2)
    assert unreachable(url, NEXT_WEEK) == []
    assert prune(url, NEXT_WEEK + timedelta(days=2)) > 0
    assert not root.exists()


def test_a_result_that_ended_this_moment_stays(fake_run) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    result = run.motion()
    run.series.project.delete("TS_01/branches/main")  # its branch does not point to it yet
    assert unreachable(run.series.project.url) == []
    assert names(unreachable(run.series.project.url, LATER)) == {result.name}


def test_files_of_killed_writes_go_after_a_day(fake_run) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    result = run.motion()
    project = run.series.project
    stray = Path(result.url) / "images" / "c" / "0.123abc.partial"
    stray.write_bytes(b"12345")
    assert leftovers(project, LATER) == []
    assert leftovers(project, NEXT_WEEK) == [stray]
    assert prune(project.url, NEXT_WEEK) == 5
    assert not stray.exists()
    assert result.complete()


def test_steps_of_a_newer_version_stop_the_pruning(fake_run) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.motion()
    run.series.point("main", "template-matching", "0123456789ab")
    with pytest.raises(UnusableData, match="template-matching"):
        prune(run.series.project.url, LATER)
