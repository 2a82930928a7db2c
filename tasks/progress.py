"""Who wants to know how far a step is: the command line, the Prefect UI, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any


@dataclass(frozen=True)
class LeftOut:
    """Why a file was left out."""

    reason: str


@dataclass(frozen=True)
class Doubt:
    """Why a series that is done should be looked at."""

    reason: str


@dataclass(frozen=True)
class Waiting:
    """What a series waits for."""

    reason: str


@dataclass(frozen=True)
class Warned:
    """What a run does otherwise than it was asked to."""

    reason: str


@dataclass(frozen=True)
class OnBranch:
    """Which of several branches a series has come to."""

    reason: str


@dataclass(frozen=True)
class Progress:
    """How far one step of one series is.

    Attributes
    ----------
    series, step : str
    done, total : int
        Units of work.
    outcome : object or None
        At its end: the step's outcome, the reason of a failure, why a file was left out, or a
        doubt; before it begins: what it waits for, a warning, or the branch.
    """

    series: str
    step: str
    done: int
    total: int
    outcome: Any = None


_listeners: list[Callable[[Progress], None]] = []
_one_at_a_time = RLock()  # several series may be under way


@contextmanager
def listening(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Call `listener` with every progress that is made in this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(progress: Progress) -> None:
    """Tell everybody who listens."""
    with _one_at_a_time:
        for listener in list(_listeners):
            listener(progress)


def waits(series: str, reason: str) -> None:
    """Tell everybody who listens what a series waits for."""
    tell(Progress(series, "waits", 0, 0, Waiting(reason)))
