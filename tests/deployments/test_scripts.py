"""The scripts of a Dask cluster that people start themselves, and the file of object storage."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from tasks import cluster
from tasks.parameters import Execution
from tasks.scatter import Unit, scatter

FOLDER = Path(__file__).parents[2] / "deployments"
THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")


def variables() -> tuple[int, tuple[str | None, ...]]:
    return os.getpid(), tuple(os.environ.get(name) for name in THREADS)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment whose `dask` is that of this Python, and that has no GPU."""
    dask = tmp_path / "dask"
    dask.write_text(f'#!/bin/bash\nexec {sys.executable} -m dask "$@"\n')
    dask.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def address(environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """Start scheduler and workers by the scripts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = f"tcp://127.0.0.1:{port}"
    processes = [
        subprocess.Popen(
            ["bash", str(FOLDER / "dask" / script), *arguments],
            env=environment | {"TILTFLOW_DEVICE": "cpu"},
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for script, arguments in (
            ("scheduler.sh", ("127.0.0.1", str(port))),
            ("worker.sh", (made, "127.0.0.1", "2")),
        )
    ]
    yield made
    for process in reversed(processes):
        process.terminate()
        process.wait(60)


def test_a_run_uses_a_cluster_that_the_scripts_have_started(address: str) -> None:
    with Client(address, timeout="120s", set_as_default=False) as client:
        client.wait_for_workers(2, timeout=120)
    with cluster.opened(Execution(cluster=address)) as running:
        units = [Unit(f"{i}", ()) for i in range(6)]
        found = [report for _, report in scatter(variables, units, running)]
    assert len({pid for pid, _ in found}) == 2
    # What `nproc` says is what all workers of the machine share.
    cores = int(subprocess.run(["nproc"], capture_output=True, text=True, check=True).stdout)
    share = str(max(1, cores // 2))
    assert {threads for _, threads in found} == {(share, share)}


def test_a_worker_of_a_machine_with_gpus_is_one_for_each(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/bash\necho GPU 0\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    (tmp_path / "dask").write_text('#!/bin/bash\necho "$TILTFLOW_DEVICE" "$@"\n')
    own = {name: value for name, value in environment.items() if name != "TILTFLOW_DEVICE"}
    command = ["bash", str(FOLDER / "dask" / "worker.sh"), "tcp://10.0.0.1:8786", "10.0.0.2"]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=True)
    assert done.stdout == (
        "cuda cuda worker --host 10.0.0.2 --no-dashboard --resources GPU=1 tcp://10.0.0.1:8786\n"
    )


def test_the_variables_of_object_storage_are_known_to_it() -> None:
    obstore = pytest.importorskip("obstore.store", reason="obstore is missing")
    given = {}
    for line in (FOLDER / "storage" / "s3.env").read_text().splitlines():
        name, equal, value = line.lstrip("#").partition("=")
        if equal and name.isupper():
            given[name] = value or "secret"
    assert len(given) == 5
    options = {"allow_http": given.pop("AWS_ALLOW_HTTP")}
    obstore.S3Store("bucket", config=given, client_options=options)
    with pytest.raises(Exception, match="aws_regin"):
        obstore.S3Store("bucket", config={"AWS_REGIN": "x"})
