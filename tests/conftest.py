"""Fixtures every test may use: array namespaces and the reference data beside the checkout."""

from __future__ import annotations

import os
import queue
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from kernels import arrays

# Before anything imports Prefect: tests leave nothing in the user's home.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="tiltflow-prefect-")

# As on workers: BLAS on two threads solves small systems ten times slower than on one.
threadpool_limits(1, "blas")

NO_GPU = arrays.cupy is None or not arrays.cupy.cuda.is_available()
SHARED = Path(__file__).parents[2] / "shared" / "data"


def _strict(values: Any) -> Any:
    """Put `values` on a device of array_api_strict that refuses implicit NumPy conversion."""
    return array_api_strict.asarray(
        np.asarray(values), device=array_api_strict.Device("device1"), copy=True
    )


@pytest.fixture(
    params=[
        "numpy",
        "strict",
        pytest.param(
            "cupy", marks=[pytest.mark.gpu, pytest.mark.skipif(NO_GPU, reason="no CUDA device")]
        ),
    ]
)
def on(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Return the function that moves a NumPy array to the namespace under test."""
    return {
        "numpy": np.asarray,
        "strict": _strict,
        "cupy": lambda values: arrays.cupy.asarray(values),
    }[request.param]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder with real files of other programs, or skip."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: the reference files lie beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a simulated data set: two series of seven views of four frames, −30° dark."""
    from tasks.simulate import simulate_dataset
    from tasks.truth import SimulationParameters

    folder = tmp_path_factory.mktemp("tiny") / "data"
    parameters = SimulationParameters(
        size=128, series=2, frames=4, max_tilt=30, tilt_step=10, dark_views=(-30.0,)
    )
    simulate_dataset(folder, parameters)
    return folder


@pytest.fixture(scope="session")
def imported_tiny(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project into which both tiny series are imported. Copy it first."""
    return Path(_imported(tiny_data, tmp_path_factory.mktemp("imported") / "tiny.zarr"))


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start a server with a database of its own; heartbeats cost a second for every flow."""
    from prefect import settings
    from prefect.events.worker import EventsWorker
    from prefect.testing.utilities import prefect_test_harness

    own: dict[Any, Any] = {
        settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        settings.PREFECT_LOGGING_TO_API_ENABLED: False,
        settings.PREFECT_LOCAL_STORAGE_PATH: tmp_path_factory.mktemp("storage"),
    }
    with prefect_test_harness(server_startup_timeout=500), settings.temporary_settings(own):
        yield
        # Events that the server did not take at once are tried for seconds each, seven hundred of
        # them in one run: nobody reads them any more.
        for worker in EventsWorker._instances.values():
            with suppress(queue.Empty):
                while True:
                    worker._queue.get_nowait()


@pytest.fixture
def tiny_project(tiny_data: Path, tmp_path: Path) -> str:
    """Return a new project into which both tiny series are imported, nothing run yet."""
    return _imported(tiny_data, tmp_path / "tiny.zarr")


@pytest.fixture(scope="session")
def finished_project(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a project whose series TS_01 has every result but that of beads. Copy it first."""
    from flows.tomogram import STEP_TASKS
    from tasks.parameters import Execution, Pipeline

    project = _imported(tiny_data, tmp_path_factory.mktemp("finished") / "done.zarr")
    for step, task in STEP_TASKS.items():
        if step == "align":
            continue  # the field holds too few beads
        parameters = getattr(Pipeline(), step)
        task.fn(project, "TS_01", parameters, "main", Execution(cluster="threads", workers=2))
    return project


def _imported(data: Path, project: Path) -> str:
    from tasks.discover import find_sources
    from tasks.ingest import read_series, store_series
    from tasks.parameters import ImportParameters

    parameters = ImportParameters(mdoc=str(data / "*.mdoc"), gain=str(data / "gain.mrc"))
    for source in find_sources(parameters).sources:
        store_series.fn(str(project), read_series.fn(source, parameters))
    return str(project)
