"""Many series: one that fails stops no other."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from flows.session import import_series, session
from flows.several import SomeSeriesFailed, at_once
from flows.tomogram import STEP_TASKS
from tasks import progress
from tasks import work as work_module
from tasks.errors import UnusableData
from tasks.parameters import Execution, ImportParameters
from tasks.store import parse_project
from tasks.tables import status_rows

pytestmark = pytest.mark.usefixtures("prefect_server")
THREADS = Execution(cluster="threads", workers=2)


def imported(data: Path, **given: Any) -> str:
    project = str(data.parent / "p.zarr")
    import_series(project, ImportParameters(mdoc=str(data / "*.mdoc"), **given))
    return project


def movie_of(data: Path, series: str, place: int) -> Path:
    return sorted((data / "frames").glob(f"{series}_*.mrc"))[place]


def test_a_series_with_a_broken_movie_does_not_stop_the_other(own_data: Path) -> None:
    project = imported(own_data)
    broken = movie_of(own_data, "TS_01", 3)
    broken.write_bytes(broken.read_bytes()[:5000])
    told: list[progress.Progress] = []
    with progress.listening(told.append), pytest.raises(SomeSeriesFailed) as caught:
        session(project, until="dose", execution=THREADS)
    assert str(caught.value).startswith(f"1 of 2 series failed: TS_01: {broken}: has 5000 bytes")
    assert [news.series for news in told if news.step == "failed"] == ["TS_01"]
    series = parse_project(project).series("TS_02")
    assert series.current("main", "dose").complete()
    rows, reasons = status_rows(project, "main")
    assert rows[0]["motion"] == "failed"
    assert any(broken.name in reason for reason in reasons)


def test_all_failures_are_told_at_the_end(own_data: Path) -> None:
    project = imported(own_data)
    for series in ("TS_01", "TS_02"):
        movie_of(own_data, series, 0).unlink()
    with pytest.raises(SomeSeriesFailed, match=r"2 of 2 series failed: TS_01: .*; TS_02: .*miss"):
        session(project, until="motion", execution=THREADS)


def test_an_import_tells_of_the_bad_series_and_keeps_the_good(own_data: Path) -> None:
    (own_data / "TS_02.mrc.mdoc").write_text("nonsense")
    with pytest.raises(SomeSeriesFailed, match=r"1 of 2 series failed: TS_02: .*TS_02\.mrc\.mdoc"):
        imported(own_data)
    assert parse_project(str(own_data.parent / "p.zarr")).series_names() == ["TS_01"]


def test_only_the_series_that_are_named_are_run(own_data: Path) -> None:
    project = imported(own_data)
    session(project, series=["TS_02"], until="motion", execution=THREADS)
    of = parse_project(project)
    assert of.series("TS_01").pointer("main", "motion") is None
    assert of.series("TS_02").pointer("main", "motion") is not None


# -- retries --------------------------------------------------------------------------------


class Fault:
    """Lets the units of a step fail a number of times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> None:
        self.times = 0  # that it has failed
        whole = work_module.scatter

        def scatter(*arguments: Any) -> Any:
            if self.times < times:
                self.times += 1
                raise error
            return whole(*arguments)

        monkeypatch.setattr(work_module, "scatter", scatter)
        # The waits are Prefect's, and long.
        monkeypatch.setattr(STEP_TASKS["motion"], "retry_delay_seconds", 0)


def test_a_fault_that_passes_is_tried_again(
    tiny_project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault(monkeypatch, OSError(errno.EIO, "Input/output error"), times=2)
    session(tiny_project, series=["TS_01"], until="motion", execution=THREADS)
    assert fault.times == 2
    series = parse_project(tiny_project).series("TS_01")
    assert series.current("main", "motion").complete()
    assert series.failure("main", "motion") is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UnusableData("m.mrc: holds NaN: copy it again"), "m.mrc: holds NaN: copy it again"),
        (OSError(errno.ENOSPC, "No space left on device", "/p/c"), "/p/c: no space left on dev"),
        (ValueError("nonsense"), "nonsense"),
    ],
    ids=["bad data", "full disk", "a fault of ours"],
)
def test_a_fault_that_lasts_is_not_tried_again(
    tiny_project: str, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    fault = Fault(monkeypatch, error, times=99)
    with pytest.raises(SomeSeriesFailed, match=f"TS_01: {told}"):
        session(tiny_project, series=["TS_01"], until="motion", execution=THREADS)
    assert fault.times == 1
    failure = parse_project(tiny_project).series("TS_01").failure("main", "motion")
    assert str(failure).startswith(told)


def test_a_fault_that_never_passes_is_given_up(
    tiny_project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault(monkeypatch, OSError(errno.EIO, "Input/output error"), times=99)
    with pytest.raises(SomeSeriesFailed, match="TS_01: input/output error"):
        session(tiny_project, series=["TS_01"], until="motion", execution=THREADS)
    assert fault.times == 4


@pytest.mark.parametrize(("workers", "series"), [(1, 2), (15, 2), (16, 3), (64, 6)])
def test_more_workers_take_more_series_at_once(
    monkeypatch: pytest.MonkeyPatch, workers: int, series: int
) -> None:
    monkeypatch.setattr("tasks.cluster.worker_count", lambda _: workers)
    assert at_once(Execution(cluster="tcp://somewhere:1")) == series
    assert at_once(Execution(cluster="tcp://somewhere:1", series_at_once=5)) == 5
    assert at_once(Execution(cluster="threads")) == 1
