"""Workers with GPUs, which here are a CuPy that computes on the CPU (tests/support/fake_gpu)."""

from __future__ import annotations

import copy
import os
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import COMPILER
from dask_processes import Processes
from distributed import LocalCluster

from flows.tomogram import STEP_TASKS
from tasks import cluster, progress
from tasks.chunks.device import device, uses_gpu
from tasks.ctf3d import ctf3d
from tasks.errors import WrongParameter
from tasks.parameters import Ctf2dParameters, Ctf3dParameters, Execution, Pipeline
from tasks.scatter import Unit, scatter
from tasks.store import parse_project

pytestmark = pytest.mark.skipif(COMPILER is None, reason="g++ is not installed")
SUPPORT = Path(__file__).parents[1] / "support"
PATH = os.pathsep.join([str(SUPPORT.parents[1]), str(SUPPORT), str(SUPPORT / "fake_gpu")])
BROKEN = "RuntimeError: cudaErrorECCUncorrectable: uncorrectable ECC error encountered"


STEPS_DECIDING = ("exclude", "ctf", "coarse")
STEPS_WITH_IMAGES = ["motion", "exclude", "ctf", "erase", "dose", "ctf2d", "preprocess", "coarse"]


def where() -> tuple[int, bool]:
    return os.getpid(), uses_gpu()


def visible() -> tuple[str | None, bool]:
    return os.environ.get("CUDA_VISIBLE_DEVICES"), uses_gpu()


def told_while_opening(execution: Execution) -> tuple[list[str], Any]:
    """Return the warnings, and where units of work were run."""
    told: list[progress.Progress] = []
    with progress.listening(told.append), cluster.opened(execution) as running:
        units = [Unit(f"{i}", ()) for i in range(6)]
        found = [report for _, report in scatter(where, units, running)]
    return [p.outcome.reason for p in told if isinstance(p.outcome, progress.Warned)], found


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the GPUs note what they do."""
    return tmp_path_factory.mktemp("gpus")


@pytest.fixture(scope="module")
def mixed(
    gpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Execution, set[int]]]:
    """Return an execution on two workers with GPUs, one of the CPU, and one whose GPU is broken.

    With the numbers of the first two.
    """
    gpu = {"TILTFLOW_DEVICE": "cuda", "PYTHONPATH": PATH, "FAKE_GPU": str(gpus)}
    with Processes(tmp_path_factory.mktemp("dask"), environment={"PYTHONPATH": PATH}) as started:
        good = {
            started.worker("--resources", "GPU=1", environment=gpu).pid,
            started.worker(environment=gpu).pid,  # is told by the probe
        }
        started.worker(environment={"PYTHONPATH": PATH})
        started.worker("--resources", "GPU=1", environment=gpu | {"FAKE_GPU_BROKEN": "1"})
        started.wait_for(4)
        yield Execution(cluster=started.address), good


def test_units_go_to_workers_whose_gpu_computes(mixed: tuple[Execution, set[int]]) -> None:
    execution, good = mixed
    told, found = told_while_opening(execution)
    assert {pid for pid, _ in found} == good
    assert all(on_gpu for _, on_gpu in found)
    assert len(told) == 1
    assert told[0].startswith("the GPU of worker tcp://127.0.0.1:")
    assert told[0].endswith(f" is not used: {BROKEN}")
    slots = cluster.slots_of(execution)
    assert (slots.count, slots.gpus, slots.threads) == (2, 2, 4)
    assert cluster.worker_memory(execution) <= 0.9 * 4_000_000_000


def test_planes_are_corrected_on_gpus_and_the_sum_is_that_of_the_cpu(
    mixed: tuple[Execution, set[int]], gpus: Path, finished_project: str, tmp_path: Path
) -> None:
    execution, good = mixed
    given = Ctf3dParameters(alignment="coarse", thickness=300.0, defocus_step=100.0)
    volumes, scores = [], []
    for place, on in (("cpu", Execution(cluster="threads", workers=2)), ("gpu", execution)):
        project = str(shutil.copytree(finished_project, tmp_path / f"{place}.zarr"))
        for file in gpus.glob("launched-*"):
            file.unlink()
        with cluster.opened(on) as running:
            ctf3d.fn(project, "TS_01", given, "main", running)
        result = parse_project(project).series("TS_01").current("main", "ctf3d")
        volumes.append(result.array("0")[:])
        scores.append(result.attributes()["hand_scores"]["as used"])
    planes = sum(result.attributes()["planes"]["count"])
    uses = {path.name[9:]: path.read_text().split() for path in gpus.glob("launched-*")}
    # One inverse transform for each plane of each view, and a launch for each slab.
    assert len(uses["ifft"]) == pytest.approx(planes, rel=0.2)
    assert {int(pid) for pid in uses["ifft"]} <= good
    assert {int(pid) for pids in uses.values() for pid in pids} == good
    assert len(uses["backproject_planes"]) == 1 + 6  # two for each of three hands
    error = np.abs(volumes[1] - volumes[0])
    assert error.max() < 1e-3 * volumes[0].std()
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)


def test_every_step_makes_on_gpus_what_it_makes_on_the_cpu(
    mixed: tuple[Execution, set[int]], imported_tiny: Path, finished_project: str, tmp_path: Path
) -> None:
    project = str(shutil.copytree(imported_tiny, tmp_path / "p.zarr"))
    pipeline = Pipeline(ctf2d=Ctf2dParameters(alignment="nominal"))
    with cluster.opened(mixed[0]) as running:
        for step in STEPS_WITH_IMAGES:
            given = getattr(pipeline, step)
            STEP_TASKS[step].fn(project, "TS_01", given, "main", running)
    done = str(shutil.copytree(finished_project, tmp_path / "done.zarr"))
    threads = Execution(cluster="threads", workers=2)
    STEP_TASKS["ctf2d"].fn(done, "TS_01", pipeline.ctf2d, "main", threads)  # there it is aligned
    ours, theirs = (parse_project(path).series("TS_01") for path in (project, done))
    compared = 0
    for step in STEPS_WITH_IMAGES:
        made, expected = (series.current("main", step) for series in (ours, theirs))
        assert made.key == expected.key
        for name in ("images", "odd", "even", "stack"):
            if name in made.group():
                found, other = made.array(name)[:], expected.array(name)[:]
                assert np.abs(found - other).max() < 2e-3 * other.std(), f"{step} {name}"
                compared += 1
    assert compared >= 6
    one, other = (
        series.record_of({step: series.pointer("main", step) or "" for step in STEPS_DECIDING})
        for series in (ours, theirs)
    )
    for i in one.included:
        a, b = one.geometry(i), other.geometry(i)
        assert np.hypot(a.shift_x - b.shift_x, a.shift_y - b.shift_y) < 0.05 * 5.4
        left, right = one.views[i].ctf, other.views[i].ctf
        assert left is not None
        assert right is not None
        assert left.defocus_u == pytest.approx(right.defocus_u, abs=20.0)


# -- dask-cuda --------------------------------------------------------------------------------


class LocalCUDACluster(LocalCluster):
    """What of dask-cuda 26.10 concerns us: each worker's environment is replaced by its device."""

    def __init__(
        self,
        CUDA_VISIBLE_DEVICES: str | None,
        n_workers: int | None,
        device_memory_limit: float,
        memory_limit: str,
        **given: Any,
    ) -> None:
        assert 0 < device_memory_limit < 1
        self.devices = (CUDA_VISIBLE_DEVICES or "0,1").split(",")
        super().__init__(n_workers=0, memory_limit=memory_limit, **given)
        self.scale(n_workers or len(self.devices))
        self.sync(self._correct_state)

    def new_worker_spec(self) -> dict[str, Any]:
        name = min(set(self.devices) - set(self.worker_spec))
        spec = copy.deepcopy(self.new_spec)
        spec["options"]["env"] = {"CUDA_VISIBLE_DEVICES": name}
        return {name: spec}


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Let this machine seem to have two GPUs, and dask-cuda."""
    monkeypatch.setattr(cluster, "gpu_count", lambda: 2)
    monkeypatch.setitem(
        sys.modules, "dask_cuda", SimpleNamespace(LocalCUDACluster=LocalCUDACluster)
    )
    monkeypatch.syspath_prepend(SUPPORT / "fake_gpu")  # of the workers, too
    monkeypatch.setenv("FAKE_GPU", str(tmp_path))
    return monkeypatch


def test_there_is_one_worker_for_each_gpu_which_computes_on_it(
    two_gpus: pytest.MonkeyPatch,
) -> None:
    with warnings.catch_warnings(action="error"), cluster.opened(Execution(gpus="0,3")) as running:
        slots = cluster.slots_of(running)
        assert (slots.gpus, slots.threads) == (2, 2)
        units = [Unit(f"{i}", ()) for i in range(8)]
        found = Counter(report for _, report in scatter(visible, units, running))
    assert set(found) == {("0", True), ("3", True)}


def test_where_no_gpu_computes_workers_of_the_cpu_do_with_a_warning(
    two_gpus: pytest.MonkeyPatch,
) -> None:
    two_gpus.setenv("FAKE_GPU_BROKEN", "1")
    told, found = told_while_opening(Execution(workers=2))
    assert told[-1] == f"workers compute on the CPU: no GPU is usable: {BROKEN}"
    assert len(told) == 3  # each GPU, and what follows
    assert not any(on_gpu for _, on_gpu in found)


def test_without_dask_cuda_gpus_that_nobody_asked_for_are_left_alone_with_a_warning(
    two_gpus: pytest.MonkeyPatch,
) -> None:
    two_gpus.setitem(sys.modules, "dask_cuda", None)
    told, _ = told_while_opening(Execution(workers=1))
    assert told == [
        "workers compute on the CPU: cluster 'cuda' needs dask-cuda and CuPy: pip install "
        "'.[gpu]', or use --gpus none"
    ]
    with (
        pytest.raises(WrongParameter, match="needs dask-cuda"),
        cluster.opened(Execution(cluster="cuda")),
    ):
        pass


def test_a_worker_without_cupy_computes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILTFLOW_DEVICE", "cuda")
    monkeypatch.setattr("kernels.arrays.cupy", None)
    device.cache_clear()
    try:
        assert not uses_gpu()
        assert device().why == "RuntimeError: CuPy is not installed: pip install '.[gpu]'"
    finally:
        device.cache_clear()
