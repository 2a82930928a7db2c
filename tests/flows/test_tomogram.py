"""One series from movies to tomogram through a real server and real workers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact
from tiny_steps import TAKEN

from flows import steps
from flows.tomogram import tomogram
from kernels import geometry
from tasks import progress
from tasks.errors import NotThere
from tasks.formats.imod import FiducialPoint, write_points
from tasks.parameters import (
    AlignParameters,
    EraseParameters,
    Execution,
    Pipeline,
    ReconstructParameters,
)
from tasks.steps import STEPS
from tasks.store import parse_project

pytestmark = pytest.mark.usefixtures("prefect_server")


def digests(project: str) -> dict[str, str]:
    """Return the hash of every chunk of a project."""
    return {
        str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(project).rglob("*")
        if path.is_file() and path.name != "zarr.json"
    }


def test_a_series_goes_from_movies_to_tomogram_and_a_second_run_skips_everything(
    tiny_project: str, finished_project: str, workers: Execution
) -> None:
    told: list[progress.Progress] = []
    with progress.listening(told.append):
        outcomes = tomogram(tiny_project, "TS_01", execution=workers)
    assert [outcome.step for outcome in outcomes] == list(TAKEN)
    assert not any(outcome.skipped for outcome in outcomes)
    ended = [news.outcome.step for news in told if news.outcome is not None]
    assert ended == list(TAKEN)
    for news in told:
        assert 0 <= news.done <= news.total
    for outcome in outcomes:
        assert Path(outcome.url).is_dir()

    # Workers, threads, and how the work is split change no result.
    ours = parse_project(tiny_project).series("TS_01")
    theirs = parse_project(finished_project).series("TS_01")
    for step in ("motion", "erase", "dose", "reconstruct"):
        assert ours.pointer("main", step) == theirs.pointer("main", step)
    for step, array in (("motion", "images"), ("erase", "images"), ("reconstruct", "0")):
        np.testing.assert_allclose(
            ours.current("main", step).array(array)[:],
            theirs.current("main", step).array(array)[:],
            rtol=1e-4,
            atol=1e-3,
        )

    before = digests(tiny_project)
    again = tomogram(tiny_project, "TS_01", execution=workers)
    assert all(outcome.skipped for outcome in again)
    assert [outcome.key for outcome in again] == [outcome.key for outcome in outcomes]
    assert digests(tiny_project) == before


def test_every_step_leaves_a_table_and_a_link(finished_project: str, tiny_project: str) -> None:
    pipeline = Pipeline(reconstruct=ReconstructParameters(alignment="coarse", thickness=300.0))
    tomogram(tiny_project, "TS_02", pipeline, execution=Execution(cluster="threads", workers=2))
    with get_client(sync_client=True) as client:
        of_series = ArtifactFilter(key=ArtifactFilterKey(like_="ts-02-%"))
        artifacts = client.read_artifacts(artifact_filter=of_series, limit=200)
    found = {(artifact.key, artifact.type) for artifact in artifacts}

    def latest(key: str) -> Artifact:  # other tests' runs have left some of the same key
        return max((a for a in artifacts if a.key == key), key=lambda a: a.created)

    for step in ("motion", "exclude", "ctf", "erase", "dose", "coarse", "reconstruct"):
        assert (f"ts-02-{step}", "table") in found
        assert (f"ts-02-{step}-result", "markdown") in found
    for step in ("motion", "ctf", "erase", "coarse", "reconstruct"):
        drawn = latest(f"ts-02-{step}-pictures")
        assert "](data:image/" in str(drawn.data)
    link = latest("ts-02-reconstruct-result")
    series = parse_project(tiny_project).series("TS_02")
    assert series.current("main", "reconstruct").url in str(link.data)


def test_a_changed_parameter_runs_that_step_and_what_depends_on_it(finished_copy: str) -> None:
    threads = Execution(cluster="threads", workers=2)
    pipeline = Pipeline(erase=EraseParameters(peak=7.0))
    outcomes = tomogram(finished_copy, "TS_01", pipeline, execution=threads)
    run = [outcome.step for outcome in outcomes if not outcome.skipped]
    assert run == [
        *("erase", "dose", "coarse", "fiducials", "markerfree", "thickness", "reconstruct")
    ]
    back = tomogram(finished_copy, "TS_01", execution=threads)
    assert all(outcome.skipped for outcome in back)


def test_a_branch_takes_over_what_another_has(finished_copy: str) -> None:
    pipeline = Pipeline(reconstruct=ReconstructParameters(thickness=300.0))
    threads = Execution(cluster="threads", workers=2)
    outcomes = tomogram(finished_copy, "TS_01", pipeline, "thin", execution=threads)
    assert [outcome.skipped for outcome in outcomes] == [True] * 9 + [False]
    series = parse_project(finished_copy).series("TS_01")
    assert series.current("main", "reconstruct").attributes()["shape"] == [444, 128, 128]
    assert series.current("thin", "reconstruct").attributes()["shape"] == [56, 128, 128]


def test_a_run_stops_after_the_last_step_wanted(tiny_project: str) -> None:
    threads = Execution(cluster="threads", workers=2)
    outcomes = tomogram(tiny_project, "TS_01", until="exclude", execution=threads)
    assert [outcome.step for outcome in outcomes] == ["motion", "exclude"]


@pytest.mark.parametrize("step", STEPS)
def test_each_step_is_a_flow_that_finds_its_inputs(finished_copy: str, step: str) -> None:
    given: dict[str, Any] = {"series": ["TS_01"]}
    if step == "align":  # the movies' field has too few beads
        given["parameters"] = AlignParameters(beads_from=write_beads(finished_copy))
    execution = Execution(cluster="threads", workers=2)
    getattr(steps, step)(finished_copy, **given, execution=execution)


def test_a_step_on_a_new_branch_begins_with_what_main_has(finished_copy: str) -> None:
    told: list[progress.Progress] = []
    with progress.listening(told.append):
        for binning in (4, 5):
            parameters = ReconstructParameters(binning=binning)
            execution = Execution(cluster="threads", workers=2)
            steps.reconstruct(finished_copy, parameters, ["TS_01"], "other", execution)
    series = parse_project(finished_copy).series("TS_01")
    made = series.current("other", "reconstruct").attributes()
    assert made["binning"] == 5
    assert made["inputs"] == series.current("main", "reconstruct").attributes()["inputs"]
    said = [one.outcome.reason for one in told if isinstance(one.outcome, progress.OnBranch)]
    assert said == ["branch other begins with what main has"]


def write_beads(project: str) -> str:
    """Write a table of places that beads would have, seen in the nominal geometry."""
    record = parse_project(project).series("TS_01").imported()
    beads = np.random.default_rng(1).uniform(-250, 250, (6, 3))
    size = np.array(record.shape[::-1]) // 2
    points = [
        FiducialPoint(j + 1, i + 1, *place)
        for i in range(len(record.views))
        for j, place in enumerate(
            geometry.project(beads, record.geometry(i)) / record.acquisition.pixel_size + size
        )
    ]
    path = Path(project).with_name("beads.csv")
    write_points(path, points)
    return str(path)


def test_a_step_without_its_input_says_which_one(tiny_project: str) -> None:
    with pytest.raises(ValueError, match=r"TS_01: motion has not been run on branch 'main'"):
        steps.erase(tiny_project, series=["TS_01"], execution=Execution(cluster="threads"))


def test_an_unknown_series_is_an_error(tiny_project: str) -> None:
    with pytest.raises(NotThere, match=r"no series 'TS_9' \(there are: TS_01, TS_02\)"):
        tomogram(tiny_project, "TS_9", execution=Execution(cluster="threads"))


def test_a_flow_of_a_step_says_step_series_and_branch_in_its_name(finished_copy: str) -> None:
    steps.erase(finished_copy, series=["TS_01"], execution=Execution(cluster="threads"))
    with get_client(sync_client=True) as client:
        assert "erase TS_01 main" in {run.name for run in client.read_flow_runs(limit=200)}
