"""The files for Slurm: rendered, and run by an sbatch that starts jobs on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.config
import psutil
import pytest
import yaml

from tasks import cluster
from tasks.errors import WrongParameter
from tasks.parameters import Execution
from tasks.scatter import Unit, scatter

jobqueue = pytest.importorskip(
    "dask_jobqueue", reason="dask-jobqueue is missing: pip install -e '.[dev]'"
)
FOLDER = Path(__file__).parents[2] / "deployments" / "slurm"
SBATCH = """#!{python}
# Takes what sbatch takes, and starts the job as a process of its own.
import argparse, os, pathlib, subprocess, sys
parser = argparse.ArgumentParser()
for names in (["-J", "--job-name"], ["-e"], ["-o"], ["-p"], ["-A"], ["-n", "--ntasks"], ["--mem"],
              ["--cpus-per-task"], ["-t", "--time"], ["--gpus"], ["--nodes"]):
    parser.add_argument(*names)
script = pathlib.Path(sys.argv[1])
lines = [line.split(None, 1)[1] for line in script.read_text().splitlines()
         if line.startswith("#SBATCH")]
asked = parser.parse_args([word for line in lines for word in line.split()])
if asked.p == "refused":
    sys.exit("sbatch: error: invalid partition specified: refused")
folder = pathlib.Path(__file__).parent
copied = folder / f"job-{{os.getpid()}}"  # two may be submitted at once
copied.write_text(script.read_text())
with open(f"{{copied}}.log", "w") as log:
    job = subprocess.Popen(["bash", copied], start_new_session=True, stdout=log, stderr=log)
(folder / "jobs").open("a").write(f"{{job.pid}}\\n")
print("Submitted batch job", job.pid)
"""
SCANCEL = """#!/bin/bash
kill -- "-$1"
"""


def settings(name: str, **changed: Any) -> Any:
    """Set what a file says, and what is changed of it, over the defaults of dask-jobqueue."""
    given = yaml.safe_load((FOLDER / name).read_text())["jobqueue"]["slurm"]
    return dask.config.set(
        {"jobqueue.slurm": {**dask.config.get("jobqueue.slurm"), **given, **changed}}
    )


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put sbatch and scancel on the PATH; return their folder, where jobs are noted."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH.format(python=sys.executable)), ("scancel", SCANCEL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    yield folder
    jobs = folder / "jobs"
    for pid in jobs.read_text().split() if jobs.exists() else []:
        with_children = psutil.Process(int(pid)) if psutil.pid_exists(int(pid)) else None
        if with_children is not None:
            with_children.kill()


@contextmanager
def small(**changed: Any) -> Iterator[None]:
    """Ask for jobs that this machine has room for."""
    own = {"cores": 1, "processes": 1, "memory": "1GB", "interface": "lo"}
    with settings("jobqueue.yaml", **(own | changed)):
        yield


@pytest.mark.parametrize("name", ["jobqueue.yaml", "jobqueue-gpu.yaml"])
def test_the_settings_make_a_job_that_bash_and_sbatch_understand(name: str) -> None:
    given = yaml.safe_load((FOLDER / name).read_text())["jobqueue"]["slurm"]
    known = dask.config.get("jobqueue.slurm")
    assert set(given) <= set(known)
    with settings(name, queue="gpu", account="me"):
        made = jobqueue.slurm.SLURMJob("tcp://10.0.0.1:8786", name="one")
    script = made.job_script()
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    lines = script.splitlines()
    processes = given["processes"]
    assert f"#SBATCH --cpus-per-task={given.get('job-cpu') or given['cores']}" in lines
    assert {"#SBATCH -p gpu", "#SBATCH -A me", "#SBATCH -t 04:00:00"} <= set(lines)
    worker = lines[-1]
    assert "-m distributed.cli.dask_worker tcp://10.0.0.1:8786" in worker
    assert f"--nthreads {given['cores'] // processes}" in worker
    gpu = name == "jobqueue-gpu.yaml"
    assert ("#SBATCH --gpus=1" in lines) == gpu
    assert ("export TILTFLOW_DEVICE=cuda" in lines) == gpu
    assert ("--resources GPU=1" in worker) == gpu


def test_workers_are_jobs_which_end_with_the_run(slurm: Path) -> None:
    with small(), cluster.opened(Execution(cluster="slurm", workers=2)) as running:
        cluster.client_of(running).wait_for_workers(2, timeout=120)
        assert cluster.worker_count(running) == 2
        units = [Unit(f"{i}", ()) for i in range(8)]
        pids = {pid for _, pid in scatter(os.getpid, units, running)}
        jobs = {int(pid) for pid in (slurm / "jobs").read_text().split()}
        assert len(jobs) == 2
        sessions = {os.getsid(pid) for pid in pids}
        assert sessions == jobs
        heard = [
            c.laddr for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN
        ]
        assert {address.ip for address in heard} <= {"127.0.0.1", "::1"}
    deadline = time.monotonic() + 30
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def told(**changed: Any) -> str:
    with (
        small(**changed),
        pytest.raises(WrongParameter) as caught,
        cluster.opened(Execution(cluster="slurm")),
    ):
        pass
    return str(caught.value)


def test_a_job_that_sbatch_refuses_is_one_line(slurm: Path) -> None:
    line = told(queue="refused")
    assert line.startswith(
        "cluster 'slurm': sbatch refused the job: sbatch: error: invalid partition specified"
    )
    assert "correct jobqueue.yaml in" in line
    assert "\n" not in line


def test_settings_that_are_missing_are_one_line(slurm: Path) -> None:
    line = told(memory=None)
    assert "memory" in line
    assert "fill in deployments/slurm/jobqueue.yaml" in line


def test_without_sbatch_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert told() == "cluster 'slurm': there is no sbatch here: start on a login node"


# -- one job that does everything -----------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1])
def test_the_batch_script_runs_tiltflow_with_a_home_for_prefect_that_it_removes(
    tmp_path: Path, code: int
) -> None:
    bin_ = tmp_path / "venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "activate").write_text(f'PATH="{bin_}:$PATH"\n')
    (bin_ / "tiltflow").write_text(
        f'#!/bin/bash\n[ -d "$PREFECT_HOME" ] && echo "$PREFECT_HOME" "$@"\nexit {code}\n'
    )
    (bin_ / "tiltflow").chmod(0o755)
    environment = {**os.environ, "TMPDIR": str(tmp_path), "SLURM_JOB_ID": "17"}
    command = ["bash", str(FOLDER / "run.sbatch"), "my data/s.zarr", "--until", "motion"]
    done = subprocess.run(
        command,
        env=environment | {"TILTFLOW_VENV": str(tmp_path / "venv")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (code, "")
    home = tmp_path / "tiltflow-prefect-17"
    assert done.stdout == f"{home} run my data/s.zarr --until motion\n"
    assert not home.exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "TILTFLOW_VENV: set it to the virtual environment" in done.stderr
