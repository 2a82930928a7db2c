"""The command ``subset``, and the option ``--subset`` of others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tasks.store import parse_project

pytestmark = pytest.mark.usefixtures("prefect_server")
THREADS = ("--cluster", "threads", "--workers", "2")


def test_a_run_takes_what_a_subset_names(
    tiltflow: Callable[..., Any], finished_copy: str, tmp_path: Any
) -> None:
    where = ("--where", "abs(tilt_angle_deg) < 15", "--where", "motion_total_A >= 0")
    made = tiltflow("subset", finished_copy, "flat", "--of", "views", "--series", "TS_01", *where)
    assert made.code == 0, made.err
    assert "TS_01" in made.out
    assert "3-5" in made.out
    assert "flat" in tiltflow("subset", finished_copy).out
    assert "TS_01" in tiltflow("subset", finished_copy, "flat").out

    wrong = tiltflow("subset", finished_copy, "x", "--where", "colour < 8")
    assert "no column 'colour'; there are series, view, order" in wrong.complaint
    early = tiltflow("export", finished_copy, "--to", "mrc", "--out", tmp_path, "--subset", "flat")
    assert "uses views 2,6-7, which subset 'flat' leaves out: first" in early.complaint
    unknown = tiltflow("status", finished_copy, "--subset", "nothing")
    assert "no subset 'nothing' (there are: flat)" in unknown.complaint

    run = ("run", finished_copy, "--subset", "flat", "--until", "exclude", *THREADS)
    dry = tiltflow(*run, "--dry-run")
    assert "exclude.subset_views: None → {'TS_01': '2,6-7'}" in dry.out
    assert "TS_02" not in dry.out
    ended = tiltflow(*run)
    assert ended.code == 0, ended.err
    record = json.loads(tiltflow("show", finished_copy, "TS_01", "--json").out)
    gone = [i for i, view in enumerate(record["views"], 1) if view["excluded"]]
    assert gone == [1, 2, 6, 7]
    assert "TS_02" not in tiltflow("status", finished_copy, "--subset", "flat").out
    assert parse_project(finished_copy).series("TS_02").pointer("main", "motion") is None

    again = tiltflow("run", finished_copy, "--series", "TS_01", "--until", "exclude", *THREADS)
    assert "exclude.subset_views={'TS_01': '2,6-7'}" in again.out  # goes on as before
    assert "deleted" in tiltflow("subset", finished_copy, "flat", "--delete").out
    assert "flat" not in tiltflow("subset", finished_copy).out


def test_a_session_as_a_flow_takes_a_subset(finished_copy: str) -> None:
    from flows.session import session
    from tasks.parameters import Execution
    from tasks.subsets import make_subset

    make_subset(finished_copy, "first", series=["TS_01"])
    threads = Execution(cluster="threads", workers=2)
    session(finished_copy, until="exclude", execution=threads, subset="first")
    assert parse_project(finished_copy).series("TS_02").pointer("main", "motion") is None


def test_a_step_as_a_flow_takes_a_subset(finished_copy: str) -> None:
    from flows.steps import average
    from tasks.parameters import Execution
    from tasks.subsets import make_subset

    make_subset(finished_copy, "first", series=["TS_01"])
    average(finished_copy, execution=Execution(cluster="threads", workers=2), subset="first")
    branches = [
        parse_project(finished_copy).series(name).pointer("main", "motion")
        for name in ("TS_01", "TS_02")
    ]
    assert branches[0] is not None
    assert branches[1] is None
