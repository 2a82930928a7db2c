"""Units of work on real Dask workers, and on threads."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.config
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tasks import cluster, cluster_start
from tasks.errors import UserError, WrongParameter
from tasks.parameters import EraseParameters, Execution
from tasks.scatter import Unit, scatter, spread

THREADS = Execution(cluster="threads", workers=2)


@pytest.fixture(scope="module")
def workers() -> Iterator[Execution]:
    """Return an execution on two worker processes."""
    with cluster.opened(Execution(cluster="local", workers=2)) as running:
        yield running


@pytest.fixture(params=["threads", "dask"])
def execution(request: pytest.FixtureRequest) -> Execution:
    return THREADS if request.param == "threads" else request.getfixturevalue("workers")


# -- units of work: workers import this module for them, which must not import Prefect ---------


def square(number: int) -> int:
    return number * number


def fail_on(bad: int, folder: str, number: int) -> int:
    (Path(folder) / f"{number}").touch()
    time.sleep(0.02)
    if number == bad:
        raise FileNotFoundError(2, "No such file or directory", f"/raw/{number}.mrc")
    return number


def hold_much() -> bytes:
    return bytes(200_000_000)


def work_on(much: bytes, number: int) -> int:
    time.sleep(0.3)
    return os.getpid()


def die_once(folder: str, number: int) -> int:
    """Be killed as by the kernel, the first time that unit 3 is run."""
    marker = Path(folder) / "died"
    if number == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return number * number


def die(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def rest(seconds: float, number: int) -> int:
    time.sleep(seconds)
    return number


def count_alive(folder: str, number: int) -> int:
    (Path(folder) / f"start-{number}").touch()
    time.sleep(0.05)
    return number


def units(function_arguments: Callable[[int], tuple[Any, ...]], n: int) -> list[Unit]:
    return [Unit(f"unit-{i}", function_arguments(i)) for i in range(n)]


def test_every_unit_is_reported_once(execution: Execution) -> None:
    todo = units(lambda i: (i,), 25)
    found = [(unit.name, report) for unit, report in scatter(square, todo, execution)]
    assert sorted(found) == sorted((f"unit-{i}", i * i) for i in range(25))


def test_no_units_need_no_cluster() -> None:
    assert list(scatter(square, [], Execution(cluster="tcp://127.0.0.1:1"))) == []


def test_units_with_equal_arguments_are_all_run(execution: Execution) -> None:
    reports = [report for _, report in scatter(square, units(lambda i: (3,), 6), execution)]
    assert reports == [9] * 6


def test_only_a_few_units_are_under_way_at_once(execution: Execution, tmp_path: Path) -> None:
    running = scatter(count_alive, units(lambda i: (str(tmp_path), i), 40), execution)
    # On two threads, or on two workers of which each does two or three together, and as many next.
    few = 2 if execution.cluster == "threads" else 2 * 2 * 3
    for done, _ in enumerate(running, 1):
        begun = len(list(tmp_path.glob("start-*")))
        assert begun <= done + few
    assert done == 40


def test_the_first_error_is_the_original_one_and_ends_the_rest(
    execution: Execution, tmp_path: Path
) -> None:
    todo = units(lambda i: (5, str(tmp_path), i), 200)
    with pytest.raises(FileNotFoundError) as caught:
        list(scatter(fail_on, todo, execution))
    assert (caught.value.errno, caught.value.filename) == (2, "/raw/5.mrc")
    time.sleep(0.3)
    begun = len(list(tmp_path.iterdir()))
    assert begun < 45
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) == begun


def test_a_caller_that_stops_early_ends_the_rest(execution: Execution, tmp_path: Path) -> None:
    running = scatter(count_alive, units(lambda i: (str(tmp_path), i), 200), execution)
    next(running)
    running.close()
    time.sleep(0.3)
    begun = len(list(tmp_path.iterdir()))
    assert begun < 15
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) == begun


def test_units_spread_over_workers_though_one_holds_all_their_arguments(workers: Execution) -> None:
    made = dict(scatter(hold_much, [Unit("much", ())], workers, hold=True))
    (much,) = made.values()
    spread([much], workers)
    reports = scatter(work_on, [Unit(f"on-{i}", (much, i)) for i in range(8)], workers)
    pids = [pid for _, pid in reports]
    assert {pids.count(pid) for pid in set(pids)} <= {3, 4, 5}


def test_a_unit_may_have_a_function_of_its_own(execution: Execution) -> None:
    units = [Unit("two", (2,)), Unit("minus three", (-3,), abs)]
    reports = {unit.name: report for unit, report in scatter(square, units, execution)}
    assert reports == {"two": 4, "minus three": 3}


def test_a_killed_worker_costs_only_what_it_was_doing(workers: Execution, tmp_path: Path) -> None:
    todo = units(lambda i: (str(tmp_path), i), 12)
    reports = {unit.name: report for unit, report in scatter(die_once, todo, workers)}
    assert (tmp_path / "died").exists()
    assert reports == {f"unit-{i}": i * i for i in range(12)}


def test_the_series_that_was_begun_first_comes_first(workers: Execution) -> None:
    from flows.several import each  # not at the top: it imports Prefect

    ended: list[str] = []

    def do(name: str) -> None:
        for _ in scatter(rest, units(lambda i: (0.05, i), 60), workers):
            ended.append(name)

    each(["a", "b"], do, width=2)
    first, second = (sum(i for i, one in enumerate(ended) if one == name) for name in "ab")
    assert len(ended) == 120
    assert second - first > 0.25 * 60**2  # one after the other would be 60², side by side 0


def test_a_unit_that_fails_costs_only_what_was_under_way(
    workers: Execution, tmp_path: Path
) -> None:
    told: list[str] = []
    running = scatter(fail_on, units(lambda i: (30, str(tmp_path), i), 40), workers)
    with pytest.raises(FileNotFoundError):
        told.extend(unit.name for unit, _ in running)
    assert len(set(told)) == len(told)
    assert "unit-30" not in told
    assert len(list(tmp_path.iterdir())) - len(told) <= 2 * 2 * 6  # what was under way, at hand


def test_short_units_go_together_and_long_ones_alone(workers: Execution) -> None:
    def tasks(dask_scheduler: Any) -> int:
        return int(dask_scheduler.transition_counter)

    def told(seconds: float, number: int) -> int:
        client = cluster.client_of(workers)
        before = client.run_on_scheduler(tasks)
        assert len(list(scatter(rest, units(lambda i: (seconds, i), number), workers))) == number
        return client.run_on_scheduler(tasks) - before

    assert told(0.001, 100) < told(0.15, 12)


def test_several_steps_at_once_do_not_mix_their_reports(workers: Execution) -> None:
    found: dict[int, list[int]] = {}

    def run(n: int) -> None:
        found[n] = sorted(r for _, r in scatter(square, units(lambda i: (i + n,), 10), workers))

    threads = [threading.Thread(target=run, args=(n,)) for n in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {n: [(i + n) ** 2 for i in range(10)] for n in (0, 100)}


def test_a_step_that_wants_more_memory_than_a_worker_has_is_refused(
    workers: Execution, fake_run: Callable[..., Any]
) -> None:
    from tasks.work import begin

    run = fake_run()
    run.motion()
    run.exclude()
    project = run.series.project.url
    for execution in (workers, THREADS):
        work = begin("erase", project, "TS_01", EraseParameters(), "main", execution)
        todo = [Unit(f"{execution.cluster[:3]}-{i}", (i,)) for i in range(2)]
        with pytest.raises(WrongParameter, match=r"TS_01: one unit of erase takes 4\.00 PiB, a w"):
            work.scatter(square, todo, memory=2**52)
        assert list(work.scatter(square, todo, memory=1000).values()) == [0, 1]


@pytest.mark.parametrize("hold", [False, True])
def test_a_unit_that_kills_every_worker_is_named(hold: bool) -> None:
    # A cluster of its own: its workers die. Two deaths are as telling as Dask's usual four.
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        cluster.opened(Execution(cluster="local", workers=1)) as running,
        pytest.raises(UserError, match=r"unit-1: killed 2 workers in a row.*larger --memory"),
    ):
        list(scatter(die, units(lambda i: (i,), 3), running, hold=hold))


# -- the choice of a cluster ------------------------------------------------------------------


def threads() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "TILTFLOW_THREADS")}


def blas_threads() -> set[int]:
    # Several would round differently from run to run: in a model's figures, in the last digits.
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


def test_a_unit_has_one_thread_of_blas(execution: Execution) -> None:
    with threadpool_limits(2, "blas"):
        reports = [r for _, r in scatter(blas_threads, units(lambda _: (), 4), execution)]
        assert blas_threads() == {2}
    assert reports == [{1}] * 4


def test_a_worker_takes_one_core(workers: Execution) -> None:
    (found,) = [report for _, report in scatter(threads, [Unit("a", ())], workers)]
    assert found == {"OMP_NUM_THREADS": "1", "TILTFLOW_THREADS": "1"}


def test_a_worker_takes_the_threads_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_start, "core_count", lambda: 4)
    with cluster.opened(Execution(cluster="local", workers=1, threads=4)) as running:
        (found,) = [report for _, report in scatter(threads, [Unit("a", ())], running)]
    assert found["TILTFLOW_THREADS"] == "4"


def test_cores_are_not_shared_out_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_start, "core_count", lambda: 4)
    wide = Execution(cluster="local", workers=2, threads=4)
    with (
        pytest.raises(WrongParameter, match=r"threads is 4 for each of 2 workers.*--threads 2"),
        cluster.opened(wide),
    ):
        pass


def test_workers_hold_in_memory_what_the_steps_plan_with(workers: Execution) -> None:
    from tasks.tomogram import FILLED  # not at the top: it imports Prefect

    def fractions(dask_worker: Any) -> list[Any]:
        held = dask_worker.memory_manager
        return [getattr(held, f"memory_{name}_fraction") for name in ("target", "spill", "pause")]

    for target, spill, pause in cluster.client_of(workers).run(fractions).values():
        assert target is False
        assert min(spill, pause) > FILLED


def test_a_worker_that_was_killed_comes_back_with_the_same_limits() -> None:
    def target(dask_worker: Any) -> tuple[int, Any]:
        return os.getpid(), dask_worker.memory_manager.memory_target_fraction

    with cluster.opened(Execution(cluster="local", workers=1)) as running:
        client = cluster.client_of(running)
        ((old, _),) = client.run(target).values()
        os.kill(old, signal.SIGKILL)
        for _ in range(300):
            found = list(client.run(target, on_error="ignore").values())
            if found and found[0][0] != old:
                break
            time.sleep(0.1)
        assert found[0][0] != old
        assert found[0][1] is False


def test_workers_do_not_import_prefect(workers: Execution) -> None:
    def imports() -> bool:
        import sys

        return "prefect" in sys.modules

    assert [report for _, report in scatter(imports, [Unit("a", ())], workers)] == [False]


def test_a_cluster_is_closed_on_leaving() -> None:
    with (
        warnings.catch_warnings(action="error"),  # as of a port that another run has taken
        cluster.opened(Execution(cluster="local", workers=1)) as running,
    ):
        assert running.cluster.startswith("tcp://127.0.0.1:")
        assert cluster.worker_count(running) == 1
    assert running.cluster not in cluster._clients


def test_the_memory_of_a_worker_is_what_the_user_says() -> None:
    execution = Execution(cluster="threads", memory="2GB")
    assert cluster.worker_memory(execution) == 2_000_000_000


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        ({"cluster": "cloud"}, r"cluster is 'cloud': use auto, local, cuda, threads"),
        ({"cluster": "slurm"}, r"needs dask-jobqueue: pip install '\.\[slurm\]'"),
        ({"cluster": "kubernetes"}, r"needs dask-kubernetes: pip install '\.\[kubernetes\]'"),
        ({"cluster": "cuda"}, r"needs dask-cuda and CuPy: pip install '\.\[gpu\]'"),
        ({"cluster": "local", "memory": "plenty"}, r"memory is 'plenty': write for example 8GB"),
        ({"cluster": "local", "memory": "20MB"}, r"memory is '20MB': a worker needs at least"),
        ({"cluster": "slurm", "threads": 2}, r"threads is 2, but workers of cluster .slurm. have"),
    ],
)
def test_a_cluster_that_cannot_be_started_is_explained(
    execution: dict[str, Any], message: str
) -> None:
    absent = {"slurm": "dask_jobqueue", "kubernetes": "dask_kubernetes", "cuda": "dask_cuda"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, absent.get(execution["cluster"], "none"), None)
        patch.setitem(__import__("sys").modules, "dask_kubernetes.operator", None)
        with (
            pytest.raises(WrongParameter, match=message),
            cluster.opened(Execution.model_validate(execution)),
        ):
            pass


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("Timed out trying to connect")

    monkeypatch.setattr(cluster, "Client", refuse)
    with pytest.raises(WrongParameter, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1:"):
        list(scatter(square, [Unit("a", (1,))], Execution(cluster="tcp://127.0.0.1:1")))
