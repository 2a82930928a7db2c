"""Workers on several machines: no memory or temporary folder in common, nor always the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dask_processes import Processes
from hosts import Host, network

from tasks import cluster
from tasks.errors import WrongParameter
from tasks.parameters import Execution, ReconstructParameters
from tasks.reconstruct import reconstruct
from tasks.scatter import Unit, scatter
from tasks.store import parse_project

ROOT = Path(__file__).parents[2]
THIN = ReconstructParameters(alignment="coarse", thickness=300.0)


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[Host, list[Host]]]:
    """Return this machine and two others."""
    with network(2) as made:
        yield made


@pytest.fixture
def dask(machines: tuple[Host, list[Host]], tmp_path: Path) -> Iterator[Processes]:
    """Return a scheduler on this machine."""
    folder = tmp_path / "dask"
    folder.mkdir()
    with Processes(folder, machines[0].address) as started:
        yield started


def start(dask: Processes, host: Host, folder: Path, **given: str) -> subprocess.Popen[bytes]:
    """Start a worker on a host, with a temporary folder of its own."""
    own = Path(tempfile.mkdtemp(dir=folder))
    return dask.worker(
        *("--local-directory", str(own), "--memory-limit", "2GB"),
        environment={"PYTHONPATH": str(ROOT), "TMPDIR": str(own), **given},
        before=host.before,
        host=host.address,
    )


def test_hosts_without_shared_memory_make_the_same_tomogram(
    machines: tuple[Host, list[Host]], dask: Processes, finished_project: str, tmp_path: Path
) -> None:
    for host in machines[1]:
        start(dask, host, tmp_path)
    dask.wait_for(2)
    made = []
    for place, execution in (
        ("here", Execution(cluster="threads", workers=1)),
        ("there", Execution(cluster=dask.address)),
    ):
        project = str(shutil.copytree(finished_project, tmp_path / f"{place}.zarr"))
        with cluster.opened(execution) as running:
            reconstruct.fn(project, "TS_01", THIN, "main", running)
        result = parse_project(project).series("TS_01").current("main", "reconstruct")
        made.append(result.array("0")[:])
    np.testing.assert_array_equal(made[1], made[0])
    with cluster.opened(Execution(cluster=dask.address)) as running:
        addresses = set(cluster.client_of(running).nthreads())
        pids = {pid for _, pid in scatter(os.getpid, [Unit(f"{i}", ()) for i in range(8)], running)}
    assert len(pids) == 2
    for host in machines[1]:
        assert any(a.startswith(f"tcp://{host.address}:") for a in addresses)


def test_a_worker_that_does_not_see_the_project_is_named(
    machines: tuple[Host, list[Host]], dask: Processes, finished_project: str, tmp_path: Path
) -> None:
    host = machines[1][0]
    if not host.apart:
        pytest.skip("no namespaces here: all processes see the same files")
    mounted = tmp_path / "mounted"
    project = str(shutil.copytree(finished_project, mounted / "p.zarr"))
    start(dask, host.hiding(str(mounted)), tmp_path)
    dask.wait_for(1)
    with (
        cluster.opened(Execution(cluster=dask.address)) as running,
        pytest.raises(WrongParameter) as caught,
    ):
        reconstruct.fn(project, "TS_01", THIN, "main", running)
    assert str(caught.value).startswith(f"worker tcp://{host.address}:")
    assert f"does not see {project}: mount it there under the same path" in str(caught.value)


# -- the package --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder with all that is installed but tiltflow."""
    folder = tmp_path_factory.mktemp("bare")
    for packages in [path for path in sys.path if Path(path).name.endswith("-packages")]:
        for path in Path(packages).iterdir():
            ours = path.name in ("flows", "tasks", "kernels") or path.name.startswith("tiltflow")
            if not ours and path.suffix != ".pth" and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
    return str(folder)


def without_package(dask: Processes, host: Host, bare: str) -> None:
    """Start a worker whose Python has Dask, and no tiltflow."""
    dask.worker(
        environment={"PYTHONPATH": bare},
        before=host.before,
        python=(sys.executable, "-S"),
        host=host.address,
    )


def test_a_worker_without_the_package_is_named(
    machines: tuple[Host, list[Host]], dask: Processes, bare: str
) -> None:
    host = machines[1][0]
    without_package(dask, host, bare)
    dask.wait_for(1)
    with (
        pytest.raises(WrongParameter) as caught,
        cluster.opened(Execution(cluster=dask.address)),
    ):
        pass
    told = str(caught.value)
    assert told.startswith(f"worker tcp://{host.address}:")
    assert told.endswith(" has no tiltflow: install the same tiltflow there as here")


def test_a_worker_with_another_version_is_named(
    machines: tuple[Host, list[Host]], dask: Processes, tmp_path: Path
) -> None:
    info = tmp_path / "other" / "tiltflow-9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiltflow\nVersion: 9.9\n")
    start(dask, machines[1][0], tmp_path, PYTHONPATH=f"{info.parent}{os.pathsep}{ROOT}")
    dask.wait_for(1)
    with (
        pytest.raises(WrongParameter, match=r"has tiltflow 9\.9, this process \S+: install the"),
        cluster.opened(Execution(cluster=dask.address)),
    ):
        pass


def test_a_worker_without_the_package_that_comes_later_does_no_harm(
    machines: tuple[Host, list[Host]], dask: Processes, bare: str, tmp_path: Path
) -> None:
    start(dask, machines[1][0], tmp_path)
    dask.wait_for(1)
    units = [Unit(f"unit-{i}", (0.15,)) for i in range(20)]
    with cluster.opened(Execution(cluster=dask.address)) as running:
        without_package(dask, machines[1][1], bare)
        dask.wait_for(2)
        ended = [unit.name for unit, _ in scatter(time.sleep, units, running)]
    assert sorted(ended) == sorted(unit.name for unit in units)
    assert "No module named 'tasks'" in dask.logs()  # Dask dropped it with its first unit
