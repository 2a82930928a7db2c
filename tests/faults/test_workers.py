"""Workers that are killed in every step, and the scheduler that is."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fault_runs import Zygote, content, marks, of_one
from kill_once import KillOnce
from patience import PATIENCE
from tiny_steps import TAKEN

from flows.tomogram import STEP_TASKS, tomogram
from tasks import cluster
from tasks import work as work_module
from tasks.parameters import Execution, Pipeline
from tasks.scatter import Unit

Fresh = Callable[[], str]
WITHOUT_UNITS = {"exclude", "dose"}  # decided where the flow runs
SIDE = ("preprocess", "transform", "ctf3d")


def run(project: str, until: str | None, execution: Execution) -> None:
    tomogram(project, "TS_01", until=until, execution=execution)
    for step in SIDE if until is None else ():
        STEP_TASKS[step].fn(project, "TS_01", getattr(Pipeline(), step), "main", execution)


@pytest.mark.parametrize("after", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_worker_killed_in_every_step_changes_nothing(
    undisturbed: tuple[str, int],
    until: str | None,
    fresh: Fresh,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prefect_server: None,
    after: bool,
) -> None:
    ours, theirs = fresh(), fresh()
    last = "motion" if until else None
    with cluster.opened(Execution(cluster="local", workers=2)) as running:
        run(theirs, last, running)
        whole, names = work_module.scatter, dict[str, Path]()
        now: list[str] = []  # the step whose units are scattered
        check = work_module.Work._check_workers

        def checked(self: work_module.Work, memory: int) -> None:
            now[:] = [self.step.name]
            check(self, memory)

        monkeypatch.setattr(work_module.Work, "_check_workers", checked)

        def scatter(
            function: Callable[..., Any],
            units: Sequence[Unit],
            execution: Execution,
            *,
            hold: bool = False,
        ) -> Any:
            if not units:
                return iter(())
            work = f"held by {function.__name__}" if hold else now[0]
            marker = names.setdefault(work, tmp_path / f"{len(names)}")
            return whole(KillOnce(function, str(marker), after), units, execution, hold=hold)

        monkeypatch.setattr(work_module, "scatter", scatter)
        run(ours, last, running)
    killed = {step for step, marker in names.items() if marker.exists()}
    held = {f"held by {name}" for name in ("filter_view", "transform_view", "correct_plane")}
    others = {*TAKEN, *SIDE, *held} - WITHOUT_UNITS
    assert killed >= ({"motion"} if last else others)
    assert content(ours) == content(theirs)


# -- the scheduler ----------------------------------------------------------------------------


class Cluster:
    """A scheduler and two workers, each a process, as others start them."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.scheduler = subprocess.Popen(
            [
                *(sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"),
                *("--port", str(self.port), "--dashboard-address", "127.0.0.1:0"),
            ],
            **quiet,
        )
        workers = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "distributed.cli.dask_worker", self.address),
                    *("--nthreads", "1", "--host", "127.0.0.1", "--no-dashboard"),
                ],
                **quiet,
            )
            for _ in range(2)
        ]
        self.processes += [self.scheduler, *workers]

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(30)


@pytest.fixture
def dask_cluster() -> Iterator[Cluster]:
    started = Cluster()
    started.start()
    yield started
    started.stop()


@pytest.mark.long
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_killed_scheduler_costs_only_what_was_under_way(
    zygote: Zygote,
    undisturbed: tuple[str, int],
    fresh: Fresh,
    dask_cluster: Cluster,
    comes_back: bool,
) -> None:
    project = fresh()
    execution = {"cluster": dask_cluster.address}
    running = zygote.start(project, until="motion", execution=execution)
    deadline = time.monotonic() + PATIENCE
    while not marks(project):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    dask_cluster.scheduler.kill()
    marked = marks(project)
    assert marked
    if comes_back:
        dask_cluster.start()
    ended = running.wait()
    assert max(map(ended.marked.count, ended.marked)) == 1
    if comes_back:
        assert (ended.code, ended.error) == (0, "")
    else:
        assert ended.code == 1
        assert "no Dask scheduler answers at" in ended.error
        assert "Traceback" not in ended.error
        ended = zygote.run(project, until="motion")
        assert ended.code == 0
        assert not marked & set(ended.marked)
    motion = {name: of_one(undisturbed[0])[name] for name in of_one(project)}
    assert of_one(project).keys() == motion.keys()
