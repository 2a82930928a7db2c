"""Where chunks of work run: local processes, GPUs, an existing scheduler, Slurm, Kubernetes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import RLock

import dask.config
import dask.utils
import psutil
from distributed import Client
from distributed.security import Security

from tasks import progress
from tasks.chunks.device import Device
from tasks.cluster_health import GPU, Slots, examine, slots
from tasks.cluster_start import NoDevice, core_count, gpu_count, start
from tasks.errors import WrongParameter
from tasks.gpu_locks import alone_on, devices_of
from tasks.parameters import Execution

THREADS = "threads"
LOOPBACK = ("127.0.0.1", "::1")
# Dask gives a worker up for good that is not back this long after it died: 15 seconds, which a
# loaded machine takes, or one that dies again meanwhile. Without workers a run would wait for ever.
PATIENCE = {"distributed.deploy.lost-worker-timeout": "1 day"}
LEAST_MEMORY = 500_000_000  # bytes: what a worker takes before it has any work


class SchedulerLost(WrongParameter):
    """No scheduler answers: nothing more can be done on this cluster."""


_clients: dict[str, Client] = {}
_gpu_memory: dict[str, int] = {}  # of a cluster's smallest GPU [bytes], where it has any
_seen: set[tuple[str, str]] = set()  # cluster and folder that its workers see
_connecting = RLock()  # several series may be under way


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
    if execution.threads is not None and kind not in ("auto", "local", "cuda"):
        raise WrongParameter(
            f"threads is {execution.threads}, but workers of cluster {kind!r} have what they were "
            "started with (see deployments/README.md): leave --threads out"
        )
    if kind == THREADS:
        yield execution
        return
    if "://" in kind:
        _examine(execution)
        yield execution
        return
    logging.getLogger("distributed").setLevel(logging.ERROR)
    if kind == "auto":
        kind = "cuda" if execution.gpus != "none" and gpu_count() else "local"
    with dask.config.set(PATIENCE), ExitStack() as stack:
        try:
            running = stack.enter_context(_running(kind, execution))
        except NoDevice as error:
            _warn(f"workers compute on the CPU: {error}")
            running = stack.enter_context(_running("local", execution))
        yield running


@contextmanager
def _running(kind: str, execution: Execution) -> Iterator[Execution]:
    with ExitStack() as stack:
        if kind == "cuda":
            stack.enter_context(alone_on(devices_of(execution), _warn))
        cluster = stack.enter_context(start(kind, execution))
        running = execution.model_copy(update={"cluster": cluster.scheduler_address})
        try:
            client_of(running).wait_for_workers(1)  # jobs of a queue may start minutes later
            if kind != "local":
                found = _examine(running)
                if kind == "cuda" and not any(device.usable for device in found.values()):
                    raise NoDevice(f"no GPU is usable: {next(iter(found.values())).why}")
            yield running
        finally:
            client = _clients.pop(cluster.scheduler_address, None)
            if client is not None:
                client.close()


def _examine(execution: Execution) -> dict[str, Device]:
    """Check what workers have, and tell of GPUs that are not used."""
    found = examine(client_of(execution))
    usable = [device for device in found.values() if device.usable]
    for address, device in found.items():
        if device.asked and not device.usable and usable:
            _warn(f"the GPU of worker {address} is not used: {device.why}")
        elif device.asked and not device.usable:
            _warn(f"worker {address} computes on its CPU: its GPU is unusable: {device.why}")
    _gpu_memory[execution.cluster] = min((device.memory for device in usable), default=0)
    return found


def _warn(reason: str) -> None:
    """Tell the command line, and the log of a run."""
    from prefect import get_run_logger  # not at the top: workers import this module
    from prefect.exceptions import MissingContextError

    progress.tell(progress.Progress("cluster", "workers", 0, 0, progress.Warned(reason)))
    with suppress(MissingContextError):
        get_run_logger().warning("%s", reason)


def _check_memory(text: str | None) -> None:
    try:
        size = LEAST_MEMORY if text is None else dask.utils.parse_bytes(text)
    except ValueError:
        raise WrongParameter(f"memory is {text!r}: write for example 8GB") from None
    if size < LEAST_MEMORY:
        raise WrongParameter(f"memory is {text!r}: a worker needs at least 500MB")


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


def check_sees(execution: Execution, folder: str) -> None:
    """Raise WrongParameter unless every worker sees a folder, as one on another machine may not."""
    address = execution.cluster
    if address == THREADS or "://" in folder or (address, folder) in _seen:
        return
    found = client_of(execution).run(os.path.isdir, folder, on_error="return")
    blind = next((worker for worker, sees in found.items() if sees is not True), None)
    if blind is not None:
        raise WrongParameter(
            f"worker {blind} does not see {folder}: mount it there under the same path, or keep "
            "the project in object storage"
        )
    _seen.add((address, folder))


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
    with_gpu = [w for w in workers if w["resources"].get(GPU)]
    limits = [w["memory_limit"] // max(1, w["nthreads"]) for w in with_gpu or workers]
    # Units hold on the device what they hold on the host, or less.
    limits = [limit for limit in (*limits, _gpu_memory.get(execution.cluster, 0)) if limit]
    return min(limits, default=int(psutil.virtual_memory().total))


def slots_of(execution: Execution) -> Slots:
    """Return how many units of work the workers have room for, and what a unit asks for."""
    if execution.cluster == THREADS:
        return Slots(0, execution.workers or core_count())
    return slots(client_of(execution))


def worker_count(execution: Execution) -> int:
    """Return how many units of work run at once."""
    return slots_of(execution).count


def here(execution: Execution) -> bool:
    """Tell whether all workers are on this machine, and share its cores."""
    if execution.cluster == THREADS:
        return True
    workers = client_of(execution).scheduler_info(n_workers=-1)["workers"].values()
    return all(worker["host"] in LOOPBACK for worker in workers)


def addresses(execution: Execution) -> list[str]:
    """Return the addresses of the workers that units run on: with GPUs, if there are any."""
    workers = client_of(execution).scheduler_info(n_workers=-1)["workers"]
    wanted = slots_of(execution).resources or {}
    return [
        address
        for address, worker in workers.items()
        if all(worker["resources"].get(name, 0) >= least for name, least in wanted.items())
    ]
