"""Who is at work on what: locks in the project itself, on any store, that survive crashes.

TS_01/locks/motion-3fa2c1d0e5b7.1.json    who holds it; of several the one with the highest number

A lock is taken by making its next number, which a store lets one succeed with. Its holder writes
it anew every few seconds. A holder on this machine is asked whether it still runs, so a killed run
is followed at once; one on another machine that has been silent for a minute, by the clock of who
waits, has crashed. Whoever was taken for dead though it was only stopped finds a higher number,
and ends. Nothing outside the project is needed, and no file system that can lock.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from threading import Event, Thread
from typing import Any, Self

import psutil
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from tasks.errors import UserError
from tasks.store import Series

BEAT = 10.0  # s: how often a holder writes
SILENCE = 60.0  # s: after which a holder on another machine has crashed
LOOK = 0.5  # s: how often who waits looks

Say = Callable[[str], None]


class LockLost(UserError):
    """Another process has taken this one for dead, and goes on in its place."""


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock, as the lock's file has it."""

    host: str
    machine: str
    pid: int
    started: float
    token: str
    since: str
    beat: int = 0

    @classmethod
    def here(cls) -> Self:
        """Return this process, as the holder of a new lock."""
        now = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
        token = uuid.uuid4().hex
        return cls(socket.gethostname(), _machine(), os.getpid(), _started(), token, now)

    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """Return the holder that a file names; None where it is not one of ours, or damaged."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError):
            return None

    def crashed(self) -> bool | None:
        """Tell whether the process is gone; None if it is not one of this machine's."""
        if self.machine != _machine():
            return None
        try:
            # Numbers of processes are used again: it must have begun when the holder did.
            return abs(psutil.Process(self.pid).create_time() - self.started) > 1
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


@cache
def _machine() -> str:
    """Return what two processes have in common that see each other's numbers."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    return f"{socket.gethostname()} {psutil.boot_time():.0f}"


def _started() -> float:
    return psutil.Process().create_time()


class Lock:
    """One lock of a series, by its name."""

    def __init__(self, series: Series, name: str) -> None:
        self.series, self.name = series, name
        self._me = Holder.here()
        self._number = 0
        self._over = Event()
        self._lost: str | None = None

    # -- what the store has -----------------------------------------------------------------

    def _path(self, number: int) -> str:
        return f"{self.series.name}/locks/{self.name}.{number}.json"

    def _read(self, number: int) -> bytes | None:
        store = self.series.project.store
        found = sync(store.get(self._path(number), default_buffer_prototype()))
        return None if found is None else found.to_bytes()

    def _data(self) -> Any:
        text = json.dumps(vars(self._me))
        return default_buffer_prototype().buffer.from_bytes(text.encode())

    def _numbers(self) -> list[int]:
        names = self.series.project.names(f"{self.series.name}/locks")
        parts = [name.rsplit(".", 2) for name in names]
        return sorted(
            int(part[1])
            for part in parts
            if len(part) == 3 and (part[0], part[2]) == (self.name, "json") and part[1].isdigit()
        )

    # -- taking and leaving -----------------------------------------------------------------

    def take(self, say: Say) -> None:
        """Wait until nobody else holds the lock, telling once who does, and hold it."""
        seen: tuple[bytes, float] = (b"", 0.0)
        told = ""
        while True:
            numbers = self._numbers()
            if not numbers:
                if self._make(1, None):
                    return
                continue
            last = numbers[-1]
            data = self._read(last)
            if data is None:
                continue  # given back meanwhile
            if data != seen[0]:
                seen = (data, time.monotonic())
            holder = Holder.read(data)
            crashed = holder.crashed() if holder else None
            if crashed is None:
                crashed = time.monotonic() - seen[1] > SILENCE
            if crashed:
                if self._make(last + 1, last):
                    return
                continue
            who = str(holder or "another run")
            if who != told:
                say(f"waits for {self.name}, which {who} is at work on")
                told = who
            time.sleep(LOOK)

    def _make(self, number: int, after: int | None) -> bool:
        """Try to hold the lock as `number`, in place of a dead holder `after`."""
        sync(self.series.project.store.set_if_not_exists(self._path(number), self._data()))
        if not self._is_mine(number):
            return False
        numbers = self._numbers()
        # Another may have taken over, worked and left between our look and now.
        if numbers[-1:] != [number] or (after is not None and after not in numbers):
            self.series.project.delete_object(self._path(number))
            time.sleep(LOOK * (0.5 + uuid.uuid4().int % 1000 / 1000))
            return False
        self._number = number
        self._beating = Thread(target=self._beat, name=f"lock of {self.name}", daemon=True)
        self._beating.start()
        return True

    def _is_mine(self, number: int) -> bool:
        holder = Holder.read(self._read(number) or b"")
        return holder is not None and holder.token == self._me.token

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            try:
                self._renew()
            except Exception as error:  # a disk that is away for a while is not the end
                logging.getLogger(__name__).warning("lock of %s: %s", self.name, error)

    def _renew(self) -> None:
        higher = [number for number in self._numbers() if number > self._number]
        if higher:
            self._lost = str(Holder.read(self._read(higher[-1]) or b"") or "another run")
            self._over.set()
            return
        self._me = Holder(**{**vars(self._me), "beat": self._me.beat + 1})
        sync(self.series.project.store.set(self._path(self._number), self._data()))

    def check(self) -> None:
        """Raise LockLost if another process has taken the lock over."""
        if self._lost is not None:
            raise LockLost(
                f"{self.series.name}: {self._lost} has taken over {self.name}, this process having "
                "been silent for a minute: run it again if that one fails"
            )

    def leave(self) -> None:
        """Let others have the lock, and clear what crashed holders have left."""
        self._over.set()
        self._beating.join()
        for number in self._numbers():
            if number < self._number or (number == self._number and self._is_mine(number)):
                self.series.project.delete_object(self._path(number))


@contextmanager
def locked(series: Series, name: str, say: Say = lambda _: None) -> Iterator[Lock]:
    """Hold a lock of a series; wait for it while another run holds it.

    Parameters
    ----------
    series : Series
    name : str
        Of a result, or of what else only one may be at work on.
    say : callable
        Is told, in a few words, who holds it.

    Raises
    ------
    OSError
        If the store cannot be written to.
    """
    lock = Lock(series, name)
    lock.take(say)
    try:
        yield lock
    finally:
        lock.leave()


def clear(series: Series, name: str) -> None:
    """Remove the lock of a holder that crashed when its work was done: nobody takes it over."""
    lock = Lock(series, name)
    for number in lock._numbers():
        holder = Holder.read(lock._read(number) or b"")
        if holder is not None and holder.crashed():
            series.project.delete_object(lock._path(number))


def holder_of(series: Series, name: str) -> str | None:
    """Return who is at work on something of a series, None where nobody seems to be."""
    lock = Lock(series, name)
    for number in lock._numbers()[-1:]:
        holder = Holder.read(lock._read(number) or b"")
        if holder is not None and not holder.crashed():
            return str(holder)
    return None


# -- locks of a task, held until it ends ----------------------------------------------------------

_of_the_task: ContextVar[ExitStack | None] = ContextVar("locks of the task", default=None)


@contextmanager
def until_the_end() -> Iterator[None]:
    """Give back on leaving what `hold` has taken."""
    with ExitStack() as stack:
        token = _of_the_task.set(stack)
        try:
            yield
        finally:
            _of_the_task.reset(token)


def hold(series: Series, name: str, say: Say = lambda _: None) -> Lock | None:
    """Hold a lock until the task ends; outside a task nothing is held."""
    stack = _of_the_task.get()
    return None if stack is None else stack.enter_context(locked(series, name, say))
