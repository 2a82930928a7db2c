"""Who wants to know how far a step is: the command line, the Prefect UI, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
class Progress:
    """How far one step of one series is.

    Attributes
    ----------
    series, step : str
    done, total : int
        Units of work.
    outcome : object or None
        At its end: the step's outcome, the reason of a failure, or of leaving a file out, or
        a doubt.
    """

    series: str
    step: str
    done: int
    total: int
    outcome: Any = None


_listeners: list[Callable[[Progress], None]] = []


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
    for listener in _listeners:
        listener(progress)
