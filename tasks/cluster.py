"""Where chunks of work run: local processes, GPUs, an existing scheduler, Slurm, Kubernetes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import dask.config
import dask.utils
import psutil
import pynvml
from distributed import Client, LocalCluster
from distributed.security import Security

from tasks.errors import WrongParameter
from tasks.parameters import Execution

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Dask makes workers give freed memory back at once: half of the CPU time of motion correction then
# goes into page faults (24 s instead of 15 for a movie of 8 × 7420 × 7676, the peak being the
# same). So that large arrays are reused they must come from the heap, and not be mapped singly.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "1073741824"}
THREADS = "threads"
# Dask gives a worker up for good that is not back this long after it died: 15 seconds, which a
# loaded machine takes, or one that dies again meanwhile. Without workers a run would wait for ever.
PATIENCE = {"distributed.deploy.lost-worker-timeout": "1 day"}
LEAST_MEMORY = 500_000_000  # bytes: what a worker takes before it has any work


class SchedulerLost(WrongParameter):
    """No scheduler answers: nothing more can be done on this cluster."""


_clients: dict[str, Client] = {}
_connecting = RLock()  # several series may be under way


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


@contextmanager
def opened(execution: Execution) -> Iterator[Execution]:
    """Start the cluster that `execution` asks for, and yield an execution that names it.

    An address (tcp://…) and ``threads`` start nothing. The cluster is closed on leaving.

    Raises
    ------
    WrongParameter
        If the kind of cluster is unknown, or what it needs is not installed, or the memory of a
        worker is no size or too small.
    """
    _check_memory(execution.memory)
    kind = execution.cluster
    if kind == "auto":
        kind = "cuda" if execution.gpus != "none" and gpu_count() else "local"
    if kind == THREADS or "://" in kind:
        yield execution
        return
    logging.getLogger("distributed").setLevel(logging.ERROR)
    with dask.config.set(PATIENCE), _start(kind, execution) as cluster:
        running = execution.model_copy(update={"cluster": cluster.scheduler_address})
        client_of(running).wait_for_workers(1)  # jobs of a queue may start minutes later
        try:
            yield running
        finally:
            client = _clients.pop(cluster.scheduler_address, None)
            if client is not None:
                client.close()


def _check_memory(text: str | None) -> None:
    try:
        size = LEAST_MEMORY if text is None else dask.utils.parse_bytes(text)
    except ValueError:
        raise WrongParameter(f"memory is {text!r}: write for example 8GB") from None
    if size < LEAST_MEMORY:
        raise WrongParameter(f"memory is {text!r}: a worker needs at least 500MB")


def _start(kind: str, execution: Execution) -> Any:
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


def _local(execution: Execution) -> LocalCluster:
    cores = core_count()
    workers = execution.workers or cores
    threads = str(max(1, cores // workers))  # cores are shared, never oversubscribed
    # Libraries read these when they are loaded, so they must be there before a worker starts.
    # What a unit raises comes back and is told on one line: no traceback from the worker as well.
    early = {
        **dict.fromkeys(THREAD_VARIABLES, threads),
        **KEEP_MEMORY,
        "DASK_LOGGING__DISTRIBUTED": "critical",
    }
    with dask.config.set({"distributed.nanny.pre-spawn-environ": early}):
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            # Not among the early ones: Dask sets those here too, where Numba may have threads.
            env={"NUMBA_NUM_THREADS": threads},
            memory_limit=execution.memory or "auto",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port: several runs share a machine
        )


def _cuda(execution: Execution) -> Any:
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise WrongParameter(
            "cluster 'cuda' needs dask-cuda and CuPy: pip install '.[gpu]', or use --gpus none"
        ) from error
    return LocalCUDACluster(
        n_workers=execution.workers,
        CUDA_VISIBLE_DEVICES=execution.gpus,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",  # any free port: several runs share a machine
        env={"TILTFLOW_DEVICE": "cuda"},
    )


def _slurm(execution: Execution) -> Any:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise WrongParameter(
            "cluster 'slurm' needs dask-jobqueue: pip install '.[slurm]'"
        ) from error
    # Queue, account, cores and memory of a job: ~/.config/dask/jobqueue.yaml (see deployments/).
    memory = {} if execution.memory is None else {"memory": execution.memory}
    cluster = SLURMCluster(**memory)
    cluster.scale(jobs=execution.workers or 1)
    return cluster


def _kubernetes(execution: Execution) -> Any:
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError as error:
        raise WrongParameter(
            "cluster 'kubernetes' needs dask-kubernetes: pip install '.[kubernetes]'"
        ) from error
    cluster = KubeCluster(name="tiltflow", image=dask.config.get("kubernetes.image", "tiltflow"))
    cluster.scale(execution.workers or 1)
    return cluster


def client_of(execution: Execution) -> Client:
    """Return this process's client of the running cluster.

    Raises
    ------
    WrongParameter
        If the address is none.
    SchedulerLost
        If nothing answers there.
    """
    address = execution.cluster
    if "://" not in address:
        raise WrongParameter(f"cluster {address!r} is not running: open it with cluster.opened")
    _check_certificate(address)
    with _connecting:
        client = _clients.get(address)
        if client is None or client.status != "running":
            try:
                client = Client(address, timeout="30s", set_as_default=False)
            except OSError as error:
                raise SchedulerLost(
                    f"no Dask scheduler answers at {address}: start one, or use --cluster auto"
                ) from error
            _clients[address] = client
        return client


def _check_certificate(address: str) -> None:
    if address.startswith("tls://") and not Security().get_connection_args("client")["ssl_context"]:
        raise WrongParameter(
            f"{address}: no certificate to show there: set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, "
            "…__CLIENT__CERT and …__CLIENT__KEY (see docs/how-to/security.md)"
        )


def is_lost(execution: Execution) -> bool:
    """Tell whether the connection to the scheduler broke."""
    client = _clients.get(execution.cluster)
    return client is not None and client.status != "running"


def worker_memory(execution: Execution) -> int:
    """Return the memory that one unit of work may take [bytes]."""
    if execution.cluster == THREADS:
        own = execution.memory and dask.utils.parse_bytes(execution.memory)
        return int(own or psutil.virtual_memory().available // (execution.workers or core_count()))
    workers = client_of(execution).scheduler_info(n_workers=-1)["workers"].values()
    limits = [w["memory_limit"] // max(1, w["nthreads"]) for w in workers if w["memory_limit"]]
    return min(limits, default=int(psutil.virtual_memory().total))


def worker_count(execution: Execution) -> int:
    """Return how many units of work run at once."""
    if execution.cluster == THREADS:
        return execution.workers or core_count()
    return max(1, sum(client_of(execution).nthreads().values()))
