"""Two runs at once: one works, the other waits, and a crash holds nobody up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE

from tasks import locks
from tasks.locks import Holder, Lock, LockLost, holder_of, locked
from tasks.store import Project, Series

NAME = "motion-0123"
HOLDS = """
import sys, time
from tasks.locks import locked
from tasks.store import Project, Series
with locked(Series(Project(sys.argv[1]), "TS_01"), sys.argv[2]):
    print("holds", flush=True)
    time.sleep(float(sys.argv[3]))
"""
COUNTS = """
import sys, time
from pathlib import Path
from tasks import locks
from tasks.store import Project, Series
locks.LOOK = 0.01
counter = Path(sys.argv[1], "counter")
for _ in range(int(sys.argv[3])):
    with locks.locked(Series(Project(sys.argv[1]), "TS_01"), sys.argv[2]):
        number = int(counter.read_text())
        time.sleep(0.002)
        counter.write_text(str(number + 1))
"""


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return Series(Project(str(tmp_path)), "TS_01")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LOOK", 0.01)
    monkeypatch.setattr(locks, "BEAT", 0.02)
    monkeypatch.setattr(locks, "SILENCE", 0.4)


def files(series: Series) -> list[str]:
    return series.project.names("TS_01/locks")


def left_by(series: Series, holder: Holder, number: int = 1) -> None:
    series.project.write_json(f"TS_01/locks/{NAME}.{number}.json", vars(holder))


def elsewhere() -> Holder:
    return replace(Holder.here(), machine="another", host="node7", token="t")


def process(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def test_a_lock_is_held_and_given_back(series: Series) -> None:
    with locked(series, NAME) as lock:
        assert str(os.getpid()) in (holder_of(series, NAME) or "")
        lock.check()
        assert holder_of(series, "ctf-0123") is None
    assert (files(series), holder_of(series, NAME)) == ([], None)


def test_who_waits_is_told_once_who_holds_it(series: Series) -> None:
    told: list[str] = []
    got = threading.Event()

    def second() -> None:
        with locked(series, NAME, told.append):
            got.set()

    with locked(series, NAME):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        assert not got.is_set()
    thread.join(PATIENCE)
    assert got.is_set()
    assert len(told) == 1
    assert f"{NAME}, which process {os.getpid()} on " in told[0]


@pytest.mark.parametrize("name", [NAME, "branch main", "branch v1.2"])
def test_locks_of_other_names_and_series_are_others(series: Series, name: str) -> None:
    other = Series(series.project, "TS_02")
    with locked(series, name), locked(series, f"{name}4"), locked(series, f"{name}.1"):
        assert len(files(series)) == 3
        assert holder_of(other, name) is None


def test_a_killed_holder_is_followed_at_once(series: Series, monkeypatch: Any) -> None:
    monkeypatch.setattr(locks, "SILENCE", 1000)
    killed = process(HOLDS, series.project.url, NAME, 100)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "holds\n"
    os.kill(killed.pid, signal.SIGSTOP)
    assert holder_of(series, NAME) is not None  # stopped is not dead
    killed.kill()
    killed.wait()
    assert len(files(series)) == 1
    assert holder_of(series, NAME) is None
    with locked(series, NAME):
        assert len(files(series)) == 2
    assert files(series) == []


def test_what_a_dead_holder_left_is_cleared_and_what_others_hold_is_not(series: Series) -> None:
    dead = replace(Holder.here(), started=Holder.here().started - 100)
    left_by(series, dead)
    left_by(series, dead, 2)
    with locked(series, "branch main"):
        left_by(series, elsewhere(), 3)
        locks.clear(series, NAME)
        assert sorted(files(series)) == ["branch main.1.json", f"{NAME}.3.json"]


def test_another_process_with_the_same_number_is_not_the_holder(series: Series) -> None:
    left_by(series, replace(Holder.here(), started=Holder.here().started - 100))
    with locked(series, NAME, say=pytest.fail):
        pass


def test_a_silent_holder_elsewhere_is_followed_after_a_while(series: Series) -> None:
    left_by(series, elsewhere())
    told: list[str] = []
    began = time.monotonic()
    with locked(series, NAME, told.append):
        assert time.monotonic() - began > locks.SILENCE
    assert "node7" in told[0]


def test_a_holder_elsewhere_that_writes_is_waited_for(series: Series) -> None:
    left_by(series, elsewhere())
    taken = threading.Event()

    def second() -> None:
        with locked(series, NAME):
            taken.set()

    thread = threading.Thread(target=second)
    thread.start()
    for beat in range(20):  # twice the silence
        left_by(series, replace(elsewhere(), beat=beat))
        time.sleep(locks.SILENCE / 10)
    assert not taken.is_set()
    series.project.delete_object(f"TS_01/locks/{NAME}.1.json")
    thread.join(PATIENCE)
    assert taken.is_set()


def test_a_holder_taken_for_dead_learns_of_it(series: Series) -> None:
    with locked(series, NAME) as lock:
        left_by(series, elsewhere(), 2)
        deadline = time.monotonic() + PATIENCE
        while lock._lost is None and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(LockLost, match=r"^TS_01: process \d+ on node7 .* has taken over"):
            lock.check()
    assert files(series) == [f"{NAME}.2.json"]  # which is the other's


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff", b'{"host": 1}'])
def test_a_damaged_lock_holds_nobody_up_for_long(series: Series, data: bytes) -> None:
    path = Path(series.project.url, f"TS_01/locks/{NAME}.1.json")
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with locked(series, NAME):
        pass
    assert files(series) == []


def test_a_lock_that_left_between_look_and_takeover_is_tried_again(
    series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_by(series, replace(Holder.here(), started=0.0), 3)
    whole, looks = Lock._numbers, iter([[3], [4]])

    def numbers(lock: Lock) -> list[int]:
        found = next(looks, None)
        if found == [4]:  # another has taken over as 4, and left
            series.project.delete_object(f"TS_01/locks/{NAME}.3.json")
        return whole(lock) if found is None else found

    monkeypatch.setattr(Lock, "_numbers", numbers)
    with locked(series, NAME) as lock:
        assert lock._number == 1
    assert files(series) == []


def test_processes_never_hold_a_lock_together(series: Series) -> None:
    counter = Path(series.project.url, "counter")
    counter.write_text("0")
    started = [process(COUNTS, series.project.url, NAME, 15) for _ in range(3)]
    assert [one.wait(60) for one in started] == [0, 0, 0]
    assert counter.read_text() == "45"
    assert files(series) == []


def test_dead_holders_are_followed_by_one_of_many(series: Series) -> None:
    counter = Path(series.project.url, "counter")
    counter.write_text("0")
    left_by(series, replace(Holder.here(), started=0.0))
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with locked(series, NAME):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.01)
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1] * 8
    assert files(series) == []


def test_a_task_gives_back_what_it_holds_however_it_ends(series: Series) -> None:
    def work() -> None:
        with locks.until_the_end():
            assert locks.hold(series, NAME) is not None
            assert len(files(series)) == 1
            raise ZeroDivisionError

    assert locks.hold(series, NAME) is None  # outside a task
    with pytest.raises(ZeroDivisionError):
        work()
    assert files(series) == []


def test_a_store_that_takes_nothing_is_told(series: Series, monkeypatch: Any) -> None:
    async def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", "/p/locks")

    monkeypatch.setattr(type(series.project.store), "set_if_not_exists", refuse)
    with pytest.raises(PermissionError), locked(series, NAME):
        pass


def test_a_lock_says_who_and_since_when(series: Series) -> None:
    with locked(series, NAME):
        (name,) = files(series)
        told = json.loads(Path(series.project.url, "TS_01/locks", name).read_text())
    assert (told["pid"], told["host"]) == (os.getpid(), os.uname().nodename)
    assert told["since"][:2] == "20"
