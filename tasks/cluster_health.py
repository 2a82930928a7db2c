"""What the workers of a cluster have: tiltflow, and GPUs that compute."""

from __future__ import annotations

import pydoc
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from distributed import Client, Worker

from tasks.chunks.device import Device, device
from tasks.errors import WrongParameter

GPU = "GPU"  # Dask's resource of a worker with a GPU: 1, so that it has one unit at a time
PROBE = "tasks.cluster_health.probe"
PACKAGE = "install the same tiltflow there as here"


@dataclass(frozen=True)
class Slots:
    """How many units a cluster has room for at once.

    Attributes
    ----------
    gpus, threads : int
        Of all workers.
    """

    gpus: int
    threads: int

    @property
    def resources(self) -> dict[str, float] | None:
        """What a unit asks for: a GPU where there are any."""
        return {GPU: 1} if self.gpus else None

    @property
    def count(self) -> int:
        """How many units run at once."""
        return max(1, self.gpus or self.threads)


async def probe(dask_worker: Worker) -> Device:
    """Try out the worker's GPU, if it was given one, and let the scheduler know."""
    found = device()
    if found.asked:
        await dask_worker.set_resources(**{GPU: int(found.usable)})
    return found


def examine(client: Client) -> dict[str, Device]:
    """Return the address of each worker → what it computes on.

    Raises
    ------
    WrongParameter
        If the scheduler or a worker lacks tiltflow, or has another version.
    """
    # Functions of the standard library, which every Python has, whatever else it lacks.
    _check("the scheduler", client.run_on_scheduler(pydoc.locate, PROBE))
    for address, found in client.run(pydoc.locate, PROBE, on_error="return").items():
        _check(f"worker {address}", found)
    own = version("tiltflow")
    for address, found in client.run(version, "tiltflow", on_error="return").items():
        if found != own:
            raise WrongParameter(
                f"worker {address} has tiltflow {found}, this process {own}: {PACKAGE}"
            )
    return dict(client.run(probe))


def _check(where: str, found: Any) -> None:
    if not callable(found):
        why = f" ({' '.join(str(found).split())})" if isinstance(found, Exception) else ""
        raise WrongParameter(f"{where} has no tiltflow{why}: {PACKAGE}")


def slots(client: Client) -> Slots:
    """Return how many units the workers that are there now have room for."""
    return Slots(*client.run_on_scheduler(_counted))


def _counted(dask_scheduler: Any) -> tuple[int, int]:
    workers = dask_scheduler.workers.values()
    return int(sum(w.resources.get(GPU, 0) for w in workers)), sum(w.nthreads for w in workers)
