"""Spread the units of a step over the workers, a few at a time, and collect their reports."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from operator import getitem
from typing import Any

from dask.utils import funcname
from distributed import Future as Held
from distributed import KilledWorker, as_completed
from threadpoolctl import threadpool_limits

from tasks import cluster
from tasks.errors import UserError
from tasks.parameters import Execution

SPREADING = 120.0  # seconds that copies to all workers may take
# The way to the client and back takes 13 ms, and 3 ms of the client's and the scheduler's CPU. So
# units that are short go together, as many as take this long [s] …
TOGETHER = 0.1
MOST = 32  # … and no more than this, while it is not known yet how long they take;
# and a worker has the next ones at hand where they take less than this [s].
SHORT = 1.0
AHEAD = 2
# Units of the lowest come first, of several series under way at once: they would otherwise go
# through their steps side by side, and all leave the workers to decide something at once.
TURN: ContextVar[int] = ContextVar("turn", default=0)


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

    One unit per worker is under way, or as many short ones as take a tenth of a second, and as
    many again at hand: a long series neither floods the scheduler nor piles up in memory, and a
    dead worker costs only what it was doing, which Dask runs again elsewhere. The first error ends
    the rest.

    With `hold`, what the function returns stays in the memory of the worker that made it, and what
    is yielded stands for it in the arguments of later units, whole or by `parts_of`: what a lost
    worker held is made again where it is needed. It is dropped with the last reference. Such
    units go one by one, as do those with what is held in their arguments.

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
    queue = _Queue(function, units, execution, hold)
    # Without its loop, it would look for a default client.
    futures = as_completed(queue.submit(), loop=queue.client.loop)
    try:
        for future in futures:
            ended = queue.collect(future)
            for following in queue.submit():
                futures.add(following)
            yield from ended
    finally:
        queue.under_way.clear()
        futures.clear()  # dropping the futures cancels what is still queued


class _Queue:
    """The units of one `scatter`: those to do, and those the workers have been given."""

    def __init__(
        self,
        function: Callable[..., Any],
        units: Sequence[Unit],
        execution: Execution,
        hold: bool,
    ) -> None:
        self.function, self.execution, self.hold = function, execution, hold
        self.client = cluster.client_of(execution)
        self.todo = deque(units)
        self.under_way: dict[str, tuple[list[Unit], Held[Any]]] = {}
        self.pace: float | None = None  # [s] for a unit, of those that came last
        # What is held and taken by a unit may fill a worker's memory: no second unit waits beside.
        self.most = 1 if hold or any(map(_holds, units)) else MOST
        self.singly = False  # one for each worker, to see which of them kills it

    def submit(self) -> list[Held[Any]]:
        """Give the workers that are there now what is due to them; return what stands for it."""
        slots = cluster.slots_of(self.execution)
        short = self.hold or (self.pace is not None and self.pace < SHORT)
        room = (AHEAD if short and not self.singly else 1) * slots.count
        return [
            self._give(slots.resources, len(self.todo) // slots.count)
            for _ in range(room - len(self.under_way))
            if self.todo
        ]

    def _give(self, resources: Mapping[str, float] | None, share: int) -> Held[Any]:
        pace = self.pace or TOGETHER / MOST
        number = max(1, min(share, self.most, int(TOGETHER / pace)))
        some = [self.todo.popleft() for _ in range(number)]
        functions = [unit.function or self.function for unit in some]
        arguments = [unit.arguments for unit in some]
        key = f"{funcname(functions[0])}-{uuid.uuid4().hex}"  # what the dashboard shows
        call = (functions[0], *arguments[0]) if self.hold else (_in_turn, functions, arguments)
        future = self.client.submit(
            *call, key=key, pure=False, resources=resources, priority=-TURN.get()
        )
        self.under_way[key] = some, future
        return future

    def collect(self, future: Held[Any]) -> list[tuple[Unit, Any]]:
        """Return the units that have ended with `future` and their reports."""
        if future.key not in self.under_way:
            return []
        some, _ = self.under_way[future.key]
        try:
            if self.hold and (error := future.exception()):
                raise error
            reports, seconds = ([future], 0.0) if self.hold else future.result()
        except KilledWorker as error:
            self._try_singly(error)
            return []
        except CancelledError as error:
            raise ConnectionError(  # the task is tried again: the scheduler may come back
                f"{some[0].name}: the connection to the scheduler at {self.execution.cluster} broke"
            ) from error
        del self.under_way[future.key]
        if self.most > 1:
            self.pace = seconds / len(reports)
        self.todo.extendleft(reversed(some[len(reports) :]))
        return list(zip(some, reports, strict=False))

    def _try_singly(self, error: KilledWorker) -> None:
        """Put back what died with its worker; raise if it is known which unit was to blame."""
        time.sleep(0.2)  # until all are told that died together
        dead = [key for key, (_, future) in self.under_way.items() if future.status == "error"]
        some, _ = self.under_way[dead[0]]
        if len(some) == 1 and (self.singly or len(dead) == 1):
            raise UserError(
                f"{some[0].name}: killed {error.allowed_failures + 1} workers in a row, most "
                "likely for want of memory: use fewer --workers or a larger --memory"
            ) from error
        # Which of those at hand ran is not known: the news of what had just ended died, too.
        for key in reversed(dead):
            self.todo.extendleft(reversed(self.under_way.pop(key)[0]))
        self.singly, self.most = True, 1


def _holds(unit: Unit) -> bool:
    """Whether any of the arguments is held by workers."""
    flat = [one for a in unit.arguments for one in (a if isinstance(a, (list, tuple)) else [a])]
    return any(isinstance(one, Held) for one in flat)


def _in_turn(
    functions: Sequence[Callable[..., Any]], arguments: Sequence[tuple[Any, ...]]
) -> tuple[list[Any], float]:
    """Call one after the other until the time is up; return what they returned, and the time [s].

    An error ends it, too: what raised comes first another time, and is heard then.
    """
    began, reports = time.perf_counter(), list[Any]()
    for function, given in zip(functions, arguments, strict=True):
        try:
            reports.append(function(*given))
        except Exception:
            if not reports:
                raise
            break
        if time.perf_counter() - began > TOGETHER:
            break
    return reports, time.perf_counter() - began


def _on_threads(
    function: Callable[..., Any], units: Sequence[Unit], execution: Execution
) -> Iterator[tuple[Unit, Any]]:
    todo = iter(units)
    width = cluster.worker_count(execution)
    # One thread for BLAS, as workers have: several would round as they happen to be free.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(width) as pool:
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
