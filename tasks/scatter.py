"""Spread the units of a step over the workers, a few at a time, and collect their reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from operator import getitem
from typing import Any

from distributed import KilledWorker, as_completed

from tasks import cluster
from tasks.cluster_health import PACKAGE
from tasks.errors import UserError
from tasks.parameters import Execution

SPREADING = 120.0  # seconds that copies to all workers may take
# Units a worker has been given whose results stay with it: they are short, some milliseconds, and
# so is the way to the client and back, in which it would have nothing to do.
AHEAD = 2


@dataclass(frozen=True)
class Unit:
    """One unit of work: a view, a movie, a slab.

    Attributes
    ----------
    name : str
        Unique in its step.
    arguments : tuple
        Small things only: results, indices, numbers. Workers read arrays themselves.
    function : callable, optional
        In place of that of the other units.
    """

    name: str
    arguments: tuple[Any, ...]
    function: Callable[..., Any] | None = None


def scatter(
    function: Callable[..., Any],
    units: Sequence[Unit],
    execution: Execution,
    *,
    hold: bool = False,
) -> Iterator[tuple[Unit, Any]]:
    """Run ``function(*unit.arguments)`` for every unit and yield the reports as they come.

    One unit per worker is under way, so that a long series neither floods the scheduler nor piles
    up in memory, and a dead worker costs only what it was doing: Dask runs that again elsewhere,
    and knows which unit was to blame. The first error ends the rest.

    With `hold`, what the function returns stays in the memory of the worker that made it, and what
    is yielded stands for it in the arguments of later units, whole or by `parts_of`: what a lost
    worker held is made again where it is needed. It is dropped with the last reference. A worker
    has the next such unit at hand, too.

    Raises
    ------
    UserError
        Naming a unit that has killed several workers in a row.
    ConnectionError
        If the scheduler is gone.
    Exception
        What `function` raised.
    """
    if not units:
        return
    if execution.cluster == cluster.THREADS:
        yield from _on_threads(function, units, execution)
    else:
        yield from _on_dask(function, units, execution, hold)


def parts_of(held: Sequence[Any], count: int, execution: Execution) -> list[list[Any]]:
    """Return what stands for the parts 0 … count − 1 of each that is held, which travel singly.

    One list for each part, of all that is held: told to the scheduler at once, since there are
    hundreds, and a millisecond for each would be a tenth of a fast step.
    """
    whole = [one for _ in range(count) for one in held]
    index = [i for i in range(count) for _ in held]
    if execution.cluster == cluster.THREADS:
        parts = [one[i] for one, i in zip(whole, index, strict=True)]
    else:
        parts = cluster.client_of(execution).map(getitem, whole, index, pure=False)
    return [parts[i * len(held) : (i + 1) * len(held)] for i in range(count)]


def spread(held: Sequence[Any], execution: Execution) -> None:
    """Copy what is held to every worker, for units that each take most of it.

    Left to itself, Dask sends all of them to the one worker that holds most. Units are not tied to
    workers instead, since those tied to one that died would wait for ever.
    """
    if execution.cluster == cluster.THREADS:
        return
    client = cluster.client_of(execution)
    copies = [
        client.submit(_take, *held, workers=[worker], allow_other_workers=True, pure=False)
        for worker in cluster.addresses(execution)
    ]
    with suppress(TimeoutError):  # a worker died meanwhile: the units fetch what they take
        for _ in as_completed(copies, loop=client.loop, timeout=SPREADING):
            pass


def _take(*held: Any) -> None:
    """Do nothing: where this runs, its arguments are."""


def _on_dask(
    function: Callable[..., Any], units: Sequence[Unit], execution: Execution, hold: bool
) -> Iterator[tuple[Unit, Any]]:
    client = cluster.client_of(execution)
    todo = iter(units)
    under_way: dict[Any, tuple[Unit, Any]] = {}
    slots, ahead = cluster.slots_of(execution), AHEAD if hold else 1

    def submit(unit: Unit) -> Any:
        future = client.submit(
            unit.function or function, *unit.arguments, pure=False, resources=slots.resources
        )
        under_way[future.key] = unit, future
        return future

    first = [submit(unit) for unit in islice(todo, ahead * slots.count)]
    futures = as_completed(first, loop=client.loop)  # or it would look for a default client
    try:
        for future in futures:
            unit, _ = under_way[future.key]
            try:
                if not hold:
                    report = future.result()
                elif error := future.exception():
                    raise error
                else:
                    report = future
            except KilledWorker as error:
                guilty, count = _first_killed(under_way), error.allowed_failures + 1
                raise UserError(
                    f"{guilty}: killed {count} workers in a row, most likely for want of memory: "
                    "use fewer --workers or a larger --memory"
                ) from error
            except ModuleNotFoundError as error:  # of a worker that came later
                raise UserError(
                    f"{unit.name}: a worker of {execution.cluster} has no tiltflow ({error}): "
                    f"{PACKAGE}"
                ) from error
            except CancelledError as error:
                raise ConnectionError(  # the task is tried again: the scheduler may come back
                    f"{unit.name}: the connection to the scheduler at {execution.cluster} broke"
                ) from error
            del under_way[future.key]
            if not hold:
                future.release()
            # Workers may have come or gone meanwhile: each has what is due to it.
            slots = cluster.slots_of(execution)
            room = max(0, ahead * slots.count - len(under_way))
            for following in islice(todo, room):
                futures.add(submit(following))
            yield unit, report
    finally:
        under_way.clear()
        futures.clear()  # dropping the futures cancels what is still queued


def _first_killed(under_way: Mapping[Any, tuple[Unit, Any]]) -> str:
    """Return the name of the unit that ran when a worker died; others may have been at hand."""
    time.sleep(0.2)  # until all are told that died together
    return next(unit.name for unit, future in under_way.values() if future.status == "error")


def _on_threads(
    function: Callable[..., Any], units: Sequence[Unit], execution: Execution
) -> Iterator[tuple[Unit, Any]]:
    todo = iter(units)
    width = cluster.worker_count(execution)
    with ThreadPoolExecutor(width) as pool:
        under_way: dict[Future[Any], Unit] = {}
        for unit in islice(todo, width):
            under_way[pool.submit(unit.function or function, *unit.arguments)] = unit
        try:
            while under_way:
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    unit = under_way.pop(future)
                    report = future.result()
                    for following in islice(todo, 1):
                        submitted = pool.submit(
                            following.function or function, *following.arguments
                        )
                        under_way[submitted] = following
                    yield unit, report
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
