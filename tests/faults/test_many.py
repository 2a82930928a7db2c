"""Many series: memory stays flat, and the scheduler hears of few units at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from fault_runs import files

from flows.session import import_series, session
from tasks import cluster, progress
from tasks.parameters import Execution, ImportParameters
from tasks.simulate import simulate_dataset
from tasks.store import parse_project
from tasks.truth import SimulationParameters

MEGABYTE = 1e6


@pytest.fixture(scope="session")
def one_series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of one series of three tiny movies."""
    folder = tmp_path_factory.mktemp("one") / "data"
    parameters = SimulationParameters(
        size=64, series=1, frames=2, max_tilt=10, tilt_step=10, dark_views=()
    )
    simulate_dataset(folder, parameters)
    return folder


def test_many_series_neither_pile_up_nor_swamp_the_scheduler(
    one_series: Path, tmp_path: Path, prefect_server: None, sized: Callable[[int, int], int]
) -> None:
    project, number, last = str(tmp_path / "p.zarr"), sized(50, 1000), "motion"
    (record,) = import_series(project, ImportParameters(mdoc=str(one_series / "*.mdoc")))
    of = parse_project(project)
    for i in range(2, number + 1):
        of.add_series(record.model_copy(update={"name": f"TS_{i:04d}"}))
    process, memory, known, over = psutil.Process(), [], [], threading.Event()

    def listen(news: progress.Progress) -> None:
        if news.step == last and news.outcome is not None:
            memory.append(process.memory_info().rss)

    with cluster.opened(Execution(cluster="local", workers=2)) as running:
        client = cluster.client_of(running)

        def look() -> None:
            while not over.wait(0.05):
                count = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
                known.append(count)

        looker = threading.Thread(target=look)
        looker.start()
        try:
            with progress.listening(listen):
                session(project, until=last, execution=running)
        finally:
            over.set()
            looker.join()
    assert len(memory) == number
    assert all(of.series(name).current("main", last).complete() for name in of.series_names())
    quarter = number // 4
    early, late = (max(part) for part in (memory[quarter : 2 * quarter], memory[-quarter:]))
    assert late - early < 40 * MEGABYTE
    assert 0 < max(known) <= 2 * 2 * 2 * 2  # two series, two workers, two each, some just ended
    assert not [name for name in files(project) if "/unit/" in name]
