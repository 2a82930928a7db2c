"""What orchestration costs beside the work: for each task, for each unit, and idle workers.

python benchmarks/throughput.py            # a simulated data set, as the demo's
python benchmarks/throughput.py --tasks 50 # so many tiny series: what a task costs
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="tiltflow-prefect-"))
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "240")

from prefect import flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.session import import_series, session
from tasks import cluster, work
from tasks.parameters import Execution, ImportParameters
from tasks.scatter import Unit, scatter
from tasks.simulate import simulate_dataset
from tasks.store import Project, Series, parse_project
from tasks.truth import SimulationParameters


@dataclass(frozen=True)
class Timed:
    """A unit's function that notes in a file how long it took, and how much of a core."""

    function: Callable[..., Any]
    step: str
    folder: str

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function returns."""
        began, cpu = time.perf_counter(), time.thread_time()
        report = self.function(*arguments)
        wall, own = time.perf_counter() - began, time.thread_time() - cpu
        with open(f"{self.folder}/{os.getpid()}", "a") as file:
            file.write(f"{self.step} {wall} {own}\n")
        return report


@dataclass
class Spent:
    """What the units of a step took, all together [s], and from the first to the last of them."""

    units: int = 0
    wall: float = 0.0
    cpu: float = 0.0
    lasted: float = 0.0


@contextmanager
def spent_by_steps() -> Iterator[dict[str, Spent]]:
    """Measure the units of all steps that run meanwhile; the figures are there at the end."""
    whole, spent = work.scatter, defaultdict[str, Spent](Spent)
    with tempfile.TemporaryDirectory() as folder:

        def timed(
            function: Callable[..., Any], units: Sequence[Unit], execution: Execution, **how: Any
        ) -> Iterator[tuple[Unit, Any]]:
            step = function.__module__.rpartition(".")[2]
            began = time.perf_counter()
            yield from whole(Timed(function, step, folder), units, execution, **how)
            spent[step].lasted += time.perf_counter() - began

        work.scatter = timed
        try:
            yield spent
        finally:
            work.scatter = whole
            for file in Path(folder).iterdir():
                for line in file.read_text().splitlines():
                    step, wall, cpu = line.split()
                    one = spent[step]
                    one.units, one.wall = one.units + 1, one.wall + float(wall)
                    one.cpu += float(cpu)


def nothing(number: int) -> dict[str, int]:
    """Do nothing: what remains is what a unit costs."""
    return {"number": number}


def cost_of_a_unit(running: Execution, project: str, number: int = 300) -> tuple[float, float]:
    """Return the wall time [s] and the CPU time of this process [s] for an empty unit."""
    result = Series(Project(project), "TS_01").result("motion", "0123456789ab")
    units = [Unit(f"unit-{i}", (i,)) for i in range(number)]
    began, cpu = time.perf_counter(), time.process_time()
    for unit, report in scatter(nothing, units, running):
        result.mark_unit(unit.name, report)
    taken = (time.perf_counter() - began) / number, (time.process_time() - cpu) / number
    result.series.project.delete(result.path)
    return taken


def simulated(folder: Path, **given: Any) -> str:
    """Return a project into which a simulated data set is imported."""
    simulate_dataset(folder / "data", SimulationParameters(**given))
    project = str(folder / "p.zarr")
    import_series(project, ImportParameters(mdoc=str(folder / "data" / "*.mdoc")))
    return project


@flow(name="tiny-tasks", persist_result=False)
def tiny_tasks(folder: str, number: int) -> None:
    """Run two steps of many tiny series, whose units take milliseconds."""
    project = simulated(
        Path(folder), size=64, series=1, frames=2, max_tilt=10, tilt_step=10, dark_views=()
    )
    of = parse_project(project)
    record = of.series("TS_01").imported()
    for i in range(2, number + 1):
        of.add_series(record.model_copy(update={"name": f"TS_{i:04d}"}))
    with cluster.opened(Execution(cluster="local")) as running:
        wall, cpu = cost_of_a_unit(running, project)
        print(f"an empty unit     {1e3 * wall:6.1f} ms, {1e3 * cpu:.1f} ms of the flow's CPU")
        for width in (1, 2, 4):
            names = of.series_names()[width // 2 :: 3]
            execution = running.model_copy(update={"series_at_once": width})
            with spent_by_steps() as spent:
                began, own = time.perf_counter(), time.process_time()
                session(project, series=names, until="exclude", execution=execution)
                taken, own = time.perf_counter() - began, time.process_time() - own
            inside = sum(one.wall for one in spent.values())
            print(
                f"{width} series at once  {1e3 * taken / len(names) / 2:6.1f} ms for each task, of "
                f"which units {1e3 * inside / len(names) / 2:.1f}; the flow's CPU "
                f"{1e3 * own / len(names) / 2:.1f}"
            )
    print(f"most memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


@flow(name="real-steps", persist_result=False)
def real_steps(folder: str, series: int, size: int) -> None:
    """Run all steps of a data set as the demo's, one and two series at once."""
    workers = cluster.core_count()
    for width in (1, 2):
        project = simulated(Path(folder, str(width)), seed=1, series=series, size=size)
        with cluster.opened(Execution(cluster="local", series_at_once=width)) as running:
            wall, cpu = cost_of_a_unit(running, project)
            with spent_by_steps() as spent:
                began, own = time.perf_counter(), time.process_time()
                session(project, execution=running)
                taken, own = time.perf_counter() - began, time.process_time() - own
        busy = sum(one.wall for one in spent.values())
        work_done = sum(one.cpu for one in spent.values())
        print(
            f"{width} series at once: {taken:.1f} s, workers busy {busy / workers / taken:.0%}; "
            f"CPU of units {work_done:.1f} s, of the flow's process {own:.1f} s"
        )
        for name, one in spent.items():
            of_workers = workers * one.lasted
            idle = "" if width > 1 else f", workers idle {1 - one.wall / of_workers:.1%}"
            print(
                f"  {name:<14}{one.units:4d} units of {one.wall / one.units:6.3f} s, "
                f"{one.cpu / one.units:6.3f} s of CPU: overhead {wall * one.units / one.wall:.1%}, "
                f"of CPU {cpu * one.units / one.cpu:.1%}{idle}"
            )


def main() -> None:
    """Run a benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, help="so many tiny series")
    parser.add_argument("--series", type=int, default=2)
    parser.add_argument("--size", type=int, default=512)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        if asked.tasks:
            tiny_tasks(folder, asked.tasks)
        else:
            real_steps(folder, asked.series, asked.size)


if __name__ == "__main__":
    main()
