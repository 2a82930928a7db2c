"""How each kind of cluster is started: local processes, GPUs, Slurm, Kubernetes."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from typing import Any

import dask.config
import pynvml
from distributed import LocalCluster

from kernels.threads import VARIABLE as THREADS
from tasks.errors import WrongParameter
from tasks.parameters import Execution

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Dask makes workers give freed memory back at once: half of the CPU time of motion correction then
# goes into page faults (24 s instead of 15 for a movie of 8 × 7420 × 7676, the peak being the
# same). So that large arrays are reused they must come from the heap, and not be mapped singly; and
# the heap must be of huge pages, or passes down the columns of an image look up a page a row (a
# view corrected at a plane takes 5.8 ms instead of 3.8).
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
# Workers spill to disk, and begin no unit, beyond what the steps plan with (`tasks.tomogram`), not
# as soon as what they hold takes 60 %: that is memory well used.
MEMORY_LIMITS = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": 0.85,
    "distributed.worker.memory.pause": 0.9,
}
# What Dask holds on a device beyond this share of it goes to the host.
DEVICE_HELD = 0.8
# RMM's pool, where RMM is installed: its share of the device at the start, and at most. CuPy's own
# pool is limited by the workers themselves (tasks/chunks/device.py).
RMM_POOL = {"rmm_pool_size": 0.5, "rmm_maximum_pool_size": 0.9}


class NoDevice(WrongParameter):
    """There are GPUs, but nothing computes on them."""


def gpu_count() -> int:
    """Return the number of NVIDIA GPUs that this process may use."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return 0
    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


def core_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(kind: str, execution: Execution) -> Any:
    """Return a cluster of a kind, a context manager that closes it.

    Raises
    ------
    WrongParameter
        If the kind is unknown, or what it needs is not installed or not there.
    """
    if kind == "local":
        return _local(execution)
    if kind == "cuda":
        return _cuda(execution)
    if kind == "slurm":
        return _slurm(execution)
    if kind == "kubernetes":
        return _kubernetes(execution)
    raise WrongParameter(
        f"cluster is {kind!r}: use auto, local, cuda, threads, slurm, kubernetes "
        "or a scheduler's address such as tcp://host:8786"
    )


def _threads(execution: Execution, workers: int, default: int) -> int:
    """Return how many threads each worker's kernels use: cores are never shared out twice."""
    threads, cores = execution.threads or default, core_count()
    if threads > 1 and threads * workers > cores:
        raise WrongParameter(
            f"threads is {threads} for each of {workers} workers, and this machine has {cores} "
            f"cores: use --threads {max(1, cores // workers)} or fewer --workers"
        )
    return threads


@contextmanager
def _early(threads: str, **more: str) -> Iterator[None]:
    """Let workers have variables before they start: libraries read these when they are loaded.

    What a unit raises comes back and is told on one line: no traceback from the worker as well.
    """
    early = {
        **dict.fromkeys(THREAD_VARIABLES, threads),
        **KEEP_MEMORY,
        "DASK_LOGGING__DISTRIBUTED": "critical",
        **more,
    }
    before = {name: os.environ.get(name) for name in more}
    try:
        with dask.config.set({"distributed.nanny.pre-spawn-environ": early}):
            yield
    finally:  # Dask leaves them in this process, too, whose next workers may be others
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _local(execution: Execution) -> LocalCluster:
    cores = core_count()
    workers = execution.workers or cores
    threads = str(_threads(execution, workers, default=1))
    with _early(threads), dask.config.set(MEMORY_LIMITS):
        # A copy of their own, for workers that are started again after the settings have ended.
        settings = deepcopy(dask.config.config)
        return LocalCluster(
            config=settings,
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            # Not among the early ones: Dask sets those in this process too.
            env={THREADS: threads},
            memory_limit=execution.memory or "auto",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port: several runs share a machine
        )


def _cuda(execution: Execution) -> Any:
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        # Whoever asked for GPUs must have them; who asked for nothing is told.
        raise (NoDevice if execution.cluster == "auto" else WrongParameter)(
            "cluster 'cuda' needs dask-cuda and CuPy: pip install '.[gpu]', or use --gpus none"
        ) from error
    gpus = len(execution.gpus.split(",")) if execution.gpus else max(1, gpu_count())
    workers = execution.workers or gpus
    threads = str(_threads(execution, workers, default=max(1, core_count() // workers)))
    has_rmm = importlib.util.find_spec("rmm") is not None
    pool = {**RMM_POOL, "rmm_allocator_external_lib_list": "cupy"} if has_rmm else {}
    # dask-cuda replaces its workers' `env` by the device of each.
    with _early(threads, TILTFLOW_DEVICE="cuda"):
        try:
            return LocalCUDACluster(
                n_workers=execution.workers,
                CUDA_VISIBLE_DEVICES=execution.gpus,
                threads_per_worker=1,
                resources={"GPU": 1},
                memory_limit=execution.memory or "auto",
                device_memory_limit=DEVICE_HELD,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # any free port: several runs share a machine
                **pool,
            )
        except Exception as error:  # of NVML, or of a worker that could not open its device
            raise NoDevice(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def _slurm(execution: Execution) -> Any:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise WrongParameter(
            "cluster 'slurm' needs dask-jobqueue: pip install '.[slurm]'"
        ) from error
    submit = shlex.split(SLURMCluster.job_cls.submit_command)[0]
    if shutil.which(submit) is None:
        raise WrongParameter(f"cluster 'slurm': there is no {submit} here: start on a login node")
    # Queue, account, cores and memory of a job: ~/.config/dask/jobqueue.yaml (see deployments/).
    memory = {} if execution.memory is None else {"memory": execution.memory}
    options = dask.config.get("jobqueue.slurm.scheduler-options", None) or {}
    try:
        # Workers must reach the scheduler, but nobody its dashboard.
        cluster = SLURMCluster(
            scheduler_options={"dashboard_address": "127.0.0.1:0", **options}, **memory
        )
    except ValueError as error:  # as of cores or memory that no file gives
        raise WrongParameter(
            f"cluster 'slurm': {' '.join(str(error).split())}: fill in "
            f"deployments/slurm/jobqueue.yaml and copy it to {dask.config.PATH}"
        ) from error
    try:
        # Not `scale`, which goes on when a job is refused: its workers are waited for for ever.
        for _ in range(execution.workers or 1):
            cluster.worker_spec.update(cluster.new_worker_spec())
        cluster.sync(cluster._correct_state)
    except RuntimeError as error:
        with suppress(AssertionError):  # Dask's, of a job that was never there
            cluster.close()
        told = str(error).partition("stderr:")[2] or str(error)
        raise WrongParameter(
            f"cluster 'slurm': {submit} refused the job: {' '.join(told.split())}: correct "
            f"jobqueue.yaml in {dask.config.PATH}"
        ) from error
    return cluster


def _kubernetes(execution: Execution) -> Any:
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError as error:
        raise WrongParameter(
            "cluster 'kubernetes' needs dask-kubernetes: pip install '.[kubernetes]'"
        ) from error
    from tasks.cluster_kubernetes import cluster_spec

    spec = cluster_spec(execution)
    try:
        return KubeCluster(custom_cluster_spec=spec)
    except Exception as error:  # of kr8s, which has its own for each way not to get through
        raise WrongParameter(
            f"cluster 'kubernetes': {type(error).__name__}: {' '.join(str(error).split())}: is "
            "`kubectl get daskclusters` answered here?"
        ) from error
