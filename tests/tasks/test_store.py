"""The store: results appear whole or not at all, whatever interrupts their making."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks import work as work_module
from tasks.errors import NotThere, UnusableData, WrongParameter
from tasks.parameters import DoseParameters, EraseParameters, Execution, Parameters, Pipeline
from tasks.record import TiltSeries
from tasks.result import Result
from tasks.scatter import Unit
from tasks.store import Project, Series, open_store, parse_project
from tasks.work import Outcome, begin

UNITS = 5
THREAD = Execution(cluster="threads", workers=1)
SAME_FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)


class Killed(BaseException):
    """As sudden as SIGKILL: nothing catches it."""


def fill(target: Result, index: int, value: float) -> dict[str, float]:
    """Do one unit of work: write one chunk."""
    target.array("images")[index] = np.full((4, 4), index * value, dtype=np.float32)
    return {"mean": np.float32(index * value)}


def erase_step(project: str, parameters: Parameters, branch: str = "main") -> Outcome:
    """Carry out a step as every step does it, in five units."""
    work = begin("erase", project, "TS_01", parameters, branch, THREAD)
    if work.done:
        return work.adopt()
    work.result.create_array("images", (UNITS, 4, 4), (1, 4, 4))
    value = parameters.peak  # type: ignore[attr-defined]
    units = [Unit(f"view-{i}", (work.result, i, value)) for i in range(UNITS)]
    reports = work.scatter(fill, units, memory=1000)
    means = [reports[unit.name]["mean"] for unit in units]
    return work.finish(f"{UNITS} views", extra={"means": means})


def started(project: Project, record: TiltSeries, fake_run: Any) -> str:
    """Import a series whose motion and exclude are done."""
    run = type(fake_run)(project.add_series(record), Pipeline(), "main")
    run.motion()
    run.exclude()
    return project.url


@pytest.fixture
def project(fake_run: Callable[..., Any]) -> str:
    run = fake_run()
    run.motion()
    run.exclude()
    return run.series.project.url


def bytes_of(result: Result) -> dict[str, str]:
    """Return the hash of everything that a result holds, its times left out."""
    folder = Path(result.url)
    digests = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / "zarr.json"
    }
    about = {k: v for k, v in result.attributes().items() if k not in ("started", "ended")}
    return {**digests, "attributes": repr(sorted(about.items()))}


class Interrupter:
    """Kills the process, as it were, at the n-th write to the store from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        self.left: int | None = None
        store_class, interrupter = type(open_store("/tmp")), self
        whole = store_class.set

        async def set_or_die(store: Any, key: str, value: Any) -> None:
            if interrupter.left is not None:
                interrupter.left -= 1
                if interrupter.left < 0:
                    raise error
            await whole(store, key, value)

        monkeypatch.setattr(store_class, "set", set_or_die)

    def after(self, writes: int) -> None:
        self.left = writes

    def never(self) -> None:
        self.left = None


@pytest.fixture
def interrupter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Interrupter]:
    made = Interrupter(monkeypatch, Killed())
    yield made
    made.never()


@SAME_FOLDER
@given(writes=st.lists(st.integers(0, 20), min_size=1, max_size=4), number=st.integers(1, 10**6))
def test_a_step_interrupted_at_any_write_is_finished_with_the_same_bytes(
    project: str, interrupter: Interrupter, writes: list[int], number: int
) -> None:
    parameters = EraseParameters(peak=number)
    interrupter.never()
    undisturbed = erase_step(project, parameters)
    series = parse_project(project).series("TS_01")
    expected = bytes_of(series.result("erase", undisturbed.key))
    series.project.delete(f"TS_01/erase-{undisturbed.key}")
    series.project.delete_object("TS_01/branches/main/erase.json")

    for count in writes:
        interrupter.after(count)
        with suppress(Killed):
            erase_step(project, parameters)
        interrupter.never()
        result = series.result("erase", undisturbed.key)
        if series.pointer("main", "erase") is not None:
            assert result.complete()
            assert bytes_of(result) == expected
    outcome = erase_step(project, parameters)
    assert outcome.key == undisturbed.key == series.pointer("main", "erase")
    assert bytes_of(series.current("main", "erase")) == expected


def test_what_is_done_is_not_done_again(
    project: str, interrupter: Interrupter, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    scatter = work_module.scatter

    def spied(function: Any, units: list[Unit], execution: Execution) -> Any:
        calls.extend(unit.name for unit in units)
        return scatter(function, units, execution)

    monkeypatch.setattr(work_module, "scatter", spied)
    series = parse_project(project).series("TS_01")
    interrupter.after(9)
    with pytest.raises(Killed):
        erase_step(project, EraseParameters())
    interrupter.never()
    (unfinished,) = [result for result in series.results() if result.step == "erase"]
    done = {i for i in range(UNITS) if unfinished.unit(f"view-{i}") is not None}
    assert 0 < len(done) < UNITS
    assert not unfinished.complete()
    calls.clear()
    erase_step(project, EraseParameters())
    assert set(calls) == {f"view-{i}" for i in set(range(UNITS)) - done}
    calls.clear()
    again = erase_step(project, EraseParameters())
    assert again.skipped
    assert calls == []


def test_a_second_run_writes_nothing_but_the_pointer(project: str) -> None:
    erase_step(project, EraseParameters())
    files = {path: path.stat().st_mtime_ns for path in Path(project).rglob("*") if path.is_file()}
    assert erase_step(project, EraseParameters()).skipped
    changed = [
        path.name
        for path in Path(project).rglob("*")
        if path.is_file() and files.get(path) != path.stat().st_mtime_ns
    ]
    assert set(changed) <= {"erase.json"}


def test_old_results_stay_after_a_change_of_parameters(project: str) -> None:
    first, second = (erase_step(project, EraseParameters(peak=peak)) for peak in (8.0, 9.0))
    series = parse_project(project).series("TS_01")
    assert first.key != second.key == series.pointer("main", "erase")
    assert all(series.result("erase", outcome.key).complete() for outcome in (first, second))
    back = erase_step(project, EraseParameters(peak=8.0))
    assert (back.skipped, series.pointer("main", "erase")) == (True, first.key)


def test_branches_share_results_and_differ_in_their_pointers(project: str) -> None:
    series = parse_project(project).series("TS_01")
    for step in ("motion", "exclude"):
        series.point("other", step, str(series.pointer("main", step)))
    ours = erase_step(project, EraseParameters())
    theirs = erase_step(project, EraseParameters(), branch="other")
    assert (theirs.key, theirs.skipped) == (ours.key, True)
    erase_step(project, EraseParameters(peak=9.0), branch="other")
    assert series.pointer("main", "erase") == ours.key != series.pointer("other", "erase")
    assert series.branches() == ["main", "other"]


def test_a_step_whose_input_was_not_run_says_so(project: str) -> None:
    with pytest.raises(NotThere, match=r"TS_01: motion has not been run on branch 'new'.*--until"):
        erase_step(project, EraseParameters(), branch="new")


# -- places and names -----------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["with spaces", "Größe 漢字", "per%20cent", "a#b?c=d&e"])
def test_projects_lie_in_folders_of_any_name(
    tmp_path: Path, fake_run: Callable[..., Any], folder: str
) -> None:
    run = fake_run()
    project = parse_project(str(tmp_path / folder / "p.zarr"))
    url = started(project, run.series.imported(), run)
    outcome = erase_step(url, EraseParameters())
    assert Path(outcome.url).is_dir()
    assert Path(outcome.url).is_relative_to(tmp_path / folder)
    assert parse_project(url).series_names() == ["TS_01"]


def test_a_relative_project_is_found_from_another_folder(
    project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = parse_project(Path(project).name)
    monkeypatch.chdir("/")
    assert relative.series_names() == ["TS_01"]


def test_a_file_url_is_a_folder(project: str) -> None:
    assert Project(f"file://{project}").series_names() == ["TS_01"]


def test_an_object_store_holds_a_project_too(fake_run: Callable[..., Any]) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed: pip install '.[cloud]'")
    run = fake_run()
    project = Project("memory:///p")
    run = type(run)(project.add_series(run.series.imported()), Pipeline(), "main")
    run.motion()
    assert project.series("TS_01").current("main", "motion").complete()
    assert project.series_names() == ["TS_01"]


def test_an_object_store_without_obstore_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(WrongParameter, match=r"s3://b/p\.zarr: cloud storage needs obstore: pip"):
        open_store("s3://b/p.zarr")


ODD_NAMES = ["", " ", ".", "..", "a/b", "../main", "a b", "a\nb", "*", "a\\b", ".hidden"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_of_branches_are_refused_before_anything_is_done(project: str, name: str) -> None:
    before = sorted(Path(project).rglob("*"))
    with pytest.raises(WrongParameter, match="branch name"):
        erase_step(project, EraseParameters(), branch=name)
    series = parse_project(project).series("TS_01")
    for use in (
        lambda: series.point(name, "erase", "0" * 12),
        lambda: series.note_failure(name, "erase", "reason"),
        lambda: series.record(name),
    ):
        with pytest.raises(WrongParameter, match="branch name"):
            use()
    assert sorted(Path(project).rglob("*")) == before


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_of_series_are_refused(fake_run: Callable[..., Any], name: str) -> None:
    series = fake_run().series
    record = series.imported().model_copy(update={"name": name})
    with pytest.raises(WrongParameter, match="series name"):
        series.project.add_series(record)
    with pytest.raises(NotThere, match="no series"):
        series.project.series(name)
    assert series.project.series_names() == ["TS_01"]


def test_what_is_not_there_is_named(project: str, tmp_path: Path) -> None:
    with pytest.raises(NotThere, match=r"no series 'TS_9' \(there are: TS_01\)"):
        parse_project(project).series("TS_9")
    nothing = parse_project(str(tmp_path / "nothing.zarr"))
    with pytest.raises(NotThere, match=r"nothing\.zarr: no project there: make one with"):
        nothing.series_names()
    with pytest.raises(NotThere, match=r"nothing\.zarr: no project there"):
        nothing.series("TS_01")
    assert not (tmp_path / "nothing.zarr").exists()


def test_a_damaged_pointer_is_named(project: str) -> None:
    Path(project, "TS_01/branches/main/motion.json").write_text('{"key": "12')
    with pytest.raises(UnusableData, match=r"main/motion\.json: not JSON .*: restore or delete it"):
        erase_step(project, EraseParameters())


# -- the record -----------------------------------------------------------------------------


def test_the_record_joins_what_the_results_decided(fake_run: Callable[..., Any]) -> None:
    run = fake_run()
    run.up_to_alignment()
    record = run.series.record("main")
    assert record.views[0].motion is not None
    assert record.views[6].excluded == "dark: mean 2 where 94 is expected"
    assert record.views[2].ctf is not None
    assert record.views[2].ctf.defocus == (30200 + 28000) / 2
    assert record.views[2].geometry is not None
    assert record.included == (0, 1, 2, 3, 4, 5)
    assert run.series.imported().views[2].ctf is None


def test_a_reason_of_failure_is_kept_until_the_step_succeeds(project: str) -> None:
    series: Series = parse_project(project).series("TS_01")
    assert series.failure("main", "erase") is None
    series.note_failure("main", "erase", "disk on fire")
    assert series.failure("main", "erase") == "disk on fire"
    erase_step(project, EraseParameters())
    assert series.failure("main", "erase") is None


def test_an_array_left_by_an_interrupted_run_keeps_what_is_written(project: str) -> None:
    result = parse_project(project).series("TS_01").result("erase", "0" * 12)
    result.create_array("images", (2, 4, 4), (1, 4, 4))[0] = 7
    assert result.create_array("images", (2, 4, 4), (1, 4, 4))[0].min() == 7
    assert result.create_array("images", (3, 4, 4), (1, 4, 4))[0].max() == 0


def test_a_dose_result_without_weighting_stands_for_its_input(project: str) -> None:
    from tasks.dose import dose

    erased = erase_step(project, EraseParameters(peak=3.0))
    dose.fn(project, "TS_01", DoseParameters(apply=False), "main", THREAD)
    result = parse_project(project).series("TS_01").current("main", "dose")
    assert result.images().path == f"TS_01/erase-{erased.key}/images"
    assert result.attributes()["dose_weighted"] is False


def test_a_view_that_the_coarse_alignment_leaves_out_stays_out_in_what_rests_on_it(
    fake_run: Callable[..., Any],
) -> None:
    run = fake_run()
    run.up_to_alignment()
    rows = run.series.current("main", "coarse").attributes()["decides"]["views"]
    rows[2] = {"geometry": None, "excluded": "not in TS_01.aln"}
    run.finish("coarse", views=rows)
    run.align("markerfree", seed=3)
    record = run.series.record("main")
    assert record.views[2].excluded == "not in TS_01.aln"
    axis = record.views[3].geometry.axis
    assert axis == pytest.approx(85.4)  # of the marker-free one
