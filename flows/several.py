"""Several series, a few at once, each independently of the others."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from flows.tomogram import branch_lock
from tasks import cluster, locks, progress
from tasks.cluster import THREADS, SchedulerLost
from tasks.errors import UserError, one_line
from tasks.parameters import Execution
from tasks.scatter import TURN
from tasks.store import parse_project
from tasks.work import may_pass

Done = TypeVar("Done")
AT_ONCE = 2  # while one series decides on its views in this process, the workers have the other's
SHARE = 16  # workers: so many have two or three units each of a series of 41 views


class Failure(str):
    """Why a series failed, on one line.

    Attributes
    ----------
    passing : bool
        Whether the fault may go by itself: of a network, a scheduler, a full disk.
    """

    passing: bool = False

    @classmethod
    def of(cls, name: str, error: BaseException) -> Failure:
        """Return what is told of an error of series `name`."""
        made = cls(one_line(error).removeprefix(f"{name}: "))
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        made.passing = isinstance(error, SchedulerLost) or full or may_pass(error)
        return made


class SomeSeriesFailed(UserError):
    """Raised at the end of a run in which series failed; all others are finished.

    Attributes
    ----------
    done : list
        What the others have returned.
    failures : mapping of str to str
        Why series failed, by name.
    """

    def __init__(
        self, message: str, done: list[Any], failures: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.done, self.failures = done, failures or {}


def at_once(execution: Execution) -> int:
    """Return how many series are under way at once."""
    if execution.series_at_once:
        return execution.series_at_once
    if execution.cluster == THREADS:
        return 1
    return AT_ONCE + cluster.worker_count(execution) // SHARE


def busy_elsewhere(project: str, branch: str) -> Callable[[str], bool]:
    """Return the function that tells whether another run is at work on a series."""
    of = parse_project(project)
    return lambda name: locks.holder_of(of.series(name), branch_lock(branch)) is not None


def each(
    series: list[str],
    do: Callable[[str], Done],
    width: int = 1,
    busy: Callable[[str], bool] = lambda _: False,
) -> list[Done]:
    """Do something for every series; tell at the end which ones failed.

    Raises
    ------
    SomeSeriesFailed
        Naming every failed series with its reason.
    """
    done, failures = attempt(series, do, width, busy)
    told(len(series), failures, list(done.values()))
    return list(done.values())


def attempt(
    series: list[str],
    do: Callable[[str], Done],
    width: int = 1,
    busy: Callable[[str], bool] = lambda _: False,
) -> tuple[dict[str, Done], dict[str, str]]:
    """Do something for every series; return what came of it, and why others failed, by name.

    Parameters
    ----------
    series : list of str
    do : callable
    width : int
        How many are under way at once.
    busy : callable
        Whether another run is at work on a series: it then comes last.

    Returns
    -------
    tuple of dict
        In the order of `series`.
    """
    done: dict[str, Done] = {}
    failures: dict[str, str] = {}

    def take(name: str) -> None:
        try:
            done[name] = do(name)
        except SchedulerLost as error:
            fails(name, error)
            raise  # no other would fare better
        except Exception as error:  # whatever it is, the other series go on
            fails(name, error)

    def fails(name: str, error: Exception) -> None:
        failures[name] = Failure.of(name, error)
        progress.tell(progress.Progress(name, "failed", 0, 0, failures[name]))

    try:
        if width == 1 or len(series) == 1:
            for name in _in_turn(series, busy):
                take(name)
        else:
            _a_few_at_once(_in_turn(series, busy), take, width)
    except SchedulerLost as error:
        left = [name for name in series if name not in done and name not in failures]
        failures |= dict.fromkeys(left, f"not begun: {one_line(error)}")
    return _sorted(done, series), _sorted(failures, series)


def _sorted(found: Mapping[str, Done], series: list[str]) -> dict[str, Done]:
    return {name: found[name] for name in dict.fromkeys(series) if name in found}


def _in_turn(series: list[str], busy: Callable[[str], bool]) -> Iterator[str]:
    """Yield each series once, those last at which another run is at work when they are due."""
    later = []
    for name in series:
        if len(series) > 1 and busy(name):
            later.append(name)
        else:
            yield name
    yield from later


def _a_few_at_once(names: Iterator[str], take: Callable[[str], None], width: int) -> None:
    """Take series on threads of their own, of which a Ctrl-C waits for none."""
    pool = ThreadPoolExecutor(width, thread_name_prefix="series")
    under_way: set[Future[None]] = set()
    try:
        # What limits them one by one restores, in any order, what it has found.
        with threadpool_limits(1, "blas"):
            for turn, name in enumerate(names):
                # Flows find the flow that calls them in the context.
                context = copy_context()
                context.run(TURN.set, turn)
                under_way.add(pool.submit(context.run, take, name))
                if len(under_way) == width:
                    ended, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for one in ended:
                        one.result()
            for one in under_way:
                one.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def told(count: int, failures: Mapping[str, str], done: list[Any]) -> None:
    """Raise SomeSeriesFailed if there are failures among so many series."""
    if failures:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise SomeSeriesFailed(
            f"{len(failures)} of {count} series failed: {reasons}", done, failures
        )
