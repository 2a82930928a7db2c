"""A microscope session, watched: written in pieces, killed in the middle, taken in passes."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefect.settings import PREFECT_API_URL
from slow_command import SLOWLY

from flows import branches as branches_module
from flows import watcher as watch_module
from flows.several import SomeSeriesFailed
from flows.watch import watch
from tasks.cluster import SchedulerLost
from tasks.formats.mrc import write_stack
from tasks.parameters import Execution
from tasks.store import Series, parse_project
from tasks.watch import WatchParameters

pytestmark = pytest.mark.usefixtures("prefect_server")
Command = Callable[..., Any]
THREADS = Execution(cluster="threads", workers=2)
AT_ONCE = ("--settle", "0.2", "--idle", "0", "--cluster", "threads", "--workers", "2")
PATIENCE = 240  # seconds for what takes 10 on a quiet machine


class Session:
    """A folder into which the tiny data are written as a microscope does it."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder = data, folder
        (folder / "frames").mkdir(parents=True)

    def sections(self, name: str) -> list[str]:
        """Return the head of an mdoc and its sections."""
        head, *sections = (self.data / f"{name}.mrc.mdoc").read_text().split("[ZValue")
        return [head, *("[ZValue" + section for section in sections)]

    def movie(self, section: str) -> str:
        found = re.search(r"[^\\/]+\.mrc$", section, re.MULTILINE)
        assert found is not None
        return found[0]

    def write(self, name: str, views: slice = slice(None)) -> None:
        """Write some views of a series at once."""
        with (self.folder / f"{name}.mrc.mdoc").open("a") as mdoc:
            head, *sections = self.sections(name)
            mdoc.write("" if mdoc.tell() else head)
            for section in sections[views]:
                mdoc.write(section)
                movie = self.movie(section)
                shutil.copy(self.data / "frames" / movie, self.folder / "frames")

    def write_in_pieces(self, name: str) -> None:
        """Write the halves of each section, and the thirds of each movie, one after the other."""
        with (self.folder / f"{name}.mrc.mdoc").open("a", buffering=1) as mdoc:
            head, *sections = self.sections(name)
            mdoc.write(head)
            for section in sections:
                half = len(section) // 2
                mdoc.write(section[:half])
                mdoc.flush()
                time.sleep(0.1)
                mdoc.write(section[half:])
                movie = self.movie(section)
                data = (self.data / "frames" / movie).read_bytes()
                with (self.folder / "frames" / movie).open("wb", buffering=0) as file:
                    for third in np.array_split(np.frombuffer(data, np.uint8), 3):
                        file.write(third.tobytes())
                        time.sleep(0.05)

    @property
    def project(self) -> str:
        return str(self.folder / "tiltflow.zarr")

    def series(self, name: str) -> Series:
        return parse_project(self.project).series(name)

    def has(self, name: str, step: str) -> bool:
        """Tell whether a step of a series is done."""
        project = parse_project(self.project)
        return (
            project.exists()
            and name in project.series_names()
            and project.series(name).pointer("main", step) is not None
        )


@pytest.fixture
def session(tiny_data: Path, tmp_path: Path) -> Session:
    return Session(tiny_data, tmp_path / "session")


def lines(text: str, series: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(series)]


def test_series_are_taken_as_they_are_written_until_the_watch_is_interrupted(
    tiltflow: Command, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadline = time.monotonic() + PATIENCE

    def write() -> None:
        for name in ("TS_01", "TS_02"):
            session.write_in_pieces(name)

    writer = threading.Thread(target=write)

    def sleep_until_done(seconds: float) -> None:
        if not writer.ident:
            writer.start()
        if session.has("TS_01", "motion") and session.has("TS_02", "motion"):
            raise KeyboardInterrupt
        assert time.monotonic() < deadline
        time.sleep(seconds)

    monkeypatch.setattr(watch_module, "sleep", sleep_until_done)
    arguments = ("--views", "7", "--settle", "0.5", "--until", "motion")
    ended = tiltflow("watch", session.folder, *arguments, "--cluster", "threads", "--workers", "2")
    writer.join()
    assert ended.code == 130
    assert ended.complaint == (
        "tiltflow: stopped; what is done is kept, and the next run goes on from there"
    )
    waits = f"nothing there yet, waits for {session.folder}/*.mdoc"
    assert lines(ended.out, "session")[0] == f"session  waiting     {waits}"
    for name in ("TS_01", "TS_02"):
        told = lines(ended.out, name)
        assert len(set(told)) == len(told)
        assert any(line.startswith(f"{name}  waiting") for line in told)
        assert [line for line in told if "views" in line and "import" in line] == [
            f"{name}  import      7 views"
        ]
        assert len([line for line in told if line.startswith(f"{name}  motion")]) == 1
        assert len(session.series(name).record("main").views) == 7


def test_a_watch_killed_in_mid_step_goes_on_when_it_is_started_again(
    tiltflow: Command, session: Session
) -> None:
    session.write("TS_01")
    arguments = ("watch", str(session.folder), *AT_ONCE, "--until", "motion")
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "motion", *arguments],
        env={**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def units() -> set[Path]:
        return set(Path(session.project, "TS_01").glob("motion-*/unit/*.json"))

    try:
        deadline = time.monotonic() + PATIENCE
        while not units():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not session.has("TS_01", "motion")
    (result,) = Path(session.project, "TS_01").glob("motion-*")
    numbers = [int(path.stem.rpartition("-")[2]) for path in units()]
    kept = {
        path: path.stat().st_mtime_ns for n in numbers for path in [result / f"images/c/{n}/0/0"]
    }
    assert 0 < len(kept) < 7

    ended = tiltflow(*arguments, "--once")
    assert (ended.code, ended.err) == (0, "")
    assert [line.split()[1] for line in lines(ended.out, "TS_01")] == ["processing", "motion"]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert session.has("TS_01", "motion")


def test_passes_go_on_with_what_earlier_ones_have_seen(tiltflow: Command, session: Session) -> None:
    arguments = ("watch", session.folder, *AT_ONCE, "--until", "motion", "--once")
    assert "nothing there yet" in tiltflow(*arguments).out
    session.write("TS_01")
    first = tiltflow(*arguments)
    assert lines(first.out, "TS_01") == ["TS_01  waiting     7 views, still changing"]
    assert lines(first.out, "session") == ["session  watched     1 series: 1 waiting"]
    assert "no project there" in tiltflow("status", session.project).complaint
    time.sleep(0.2)
    second = tiltflow(*arguments)
    assert re.search(r"^TS_01  import +7 views$", second.out, re.MULTILINE)
    assert re.search(r"^TS_01  motion +7 movies", second.out, re.MULTILINE)
    before = {path: path.stat().st_mtime_ns for path in Path(session.project).rglob("*")}
    third = tiltflow(*arguments)
    assert third.out.split("\n") == ["session  watched     1 series: 1 done", ""]
    assert {path: path.stat().st_mtime_ns for path in Path(session.project).rglob("*")} == before
    # A step more is taken up where the branch stands; a wish for the import imports again.
    more = tiltflow("watch", session.folder, *AT_ONCE, "--until", "exclude", "--once")
    assert [line.split()[1] for line in lines(more.out, "TS_01")][:2] == ["processing", "motion"]
    assert session.has("TS_01", "exclude")
    again = tiltflow(*arguments, "--amplitude-contrast", "0.1")
    assert re.search(r"^TS_01  import +7 views$", again.out, re.MULTILINE)
    assert "TS_01" in tiltflow("status", session.project).out


def test_a_series_that_goes_on_is_imported_and_run_again(
    tiltflow: Command, session: Session
) -> None:
    def passed() -> str:
        tiltflow("watch", session.folder, *AT_ONCE, "--until", "motion", "--once")
        time.sleep(0.2)
        ended = tiltflow("watch", session.folder, *AT_ONCE, "--until", "motion", "--once")
        assert (ended.code, ended.err) == (0, "")
        return str(ended.out)

    session.write("TS_01", slice(5))
    assert "import      5 views" in passed()
    first = session.series("TS_01").pointer("main", "motion")
    session.write("TS_01", slice(5, None))
    assert "import      7 views" in passed()
    assert session.series("TS_01").pointer("main", "motion") != first
    assert len([*session.series("TS_01").results()]) == 2


def test_a_series_that_fails_stops_no_other_and_is_told_once(
    tiltflow: Command, session: Session
) -> None:
    for name in ("TS_01", "TS_02"):
        session.write(name)
    broken = sorted((session.folder / "frames").glob("TS_01_*"))[2]
    os.truncate(broken, broken.stat().st_size - 1)
    arguments = ("watch", session.folder, *AT_ONCE, "--until", "motion", "--once")
    tiltflow(*arguments)
    time.sleep(0.2)
    ended = tiltflow(*arguments)
    assert f"1 of 2 series failed: TS_01: {broken}: 132095 bytes found" in ended.complaint
    assert len(re.findall(r"^TS_01  failed", ended.out, re.MULTILINE)) == 1
    assert session.has("TS_02", "motion")
    assert not session.has("TS_01", "motion")
    known = tiltflow(*arguments)
    assert (known.code, known.err) == (0, "")
    assert re.search(rf"^TS_01  failed  {broken}: 132095", known.out, re.MULTILINE)
    shutil.copy(session.data / "frames" / broken.name, broken)
    tiltflow(*arguments)
    time.sleep(0.2)
    assert tiltflow(*arguments).code == 0
    assert session.has("TS_01", "motion")


def test_a_run_that_failed_is_tried_again_on_request(tiltflow: Command, session: Session) -> None:
    session.write("TS_01")
    broken = sorted((session.folder / "frames").glob("TS_01_*"))[2]
    write_stack(broken, np.zeros((4, 128, 128), np.float32), 5.4)
    with broken.open("r+b") as file:
        file.seek(1024 + 4 * 777)
        file.write(np.float32("nan").tobytes())
    arguments = ("watch", session.folder, *AT_ONCE, "--until", "motion", "--once")
    tiltflow(*arguments)
    time.sleep(0.2)
    told = f"TS_01: {broken}: holds values that are not numbers"
    assert told in tiltflow(*arguments).complaint
    known = tiltflow(*arguments)
    assert (known.code, "processing" in known.out) == (0, False)
    retried = tiltflow(*arguments, "--retry")
    assert told in retried.complaint
    assert "import" not in [line.split()[1] for line in lines(retried.out, "TS_01")]


def test_looks_go_on_while_a_series_is_taken(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def slow(project: str, name: str, *_: Any) -> list[Any]:
        taken.append(name)
        if name == "TS_01":
            session.write("TS_02")
        deadline = time.monotonic() + PATIENCE
        while parse_project(project).read_json("watch/TS_02.json") is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.5)
        return []

    monkeypatch.setattr(branches_module, "tomogram", slow)
    session.write("TS_01")
    parameters = WatchParameters(settle=0.2, idle=0)
    assert watch(str(session.folder), parameters=parameters, once=True, execution=THREADS) == []
    time.sleep(0.2)
    # Seen while the first one was taken, the second is ready at the next look.
    ended = watch(str(session.folder), parameters=parameters, once=True, execution=THREADS)
    assert ended == taken == ["TS_01", "TS_02"]


def test_a_watch_that_an_event_starts_stays_until_its_series_are_settled(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    monkeypatch.setattr(branches_module, "tomogram", lambda _, name, *__: taken.append(name) or [])
    session.write("TS_01")
    parameters = WatchParameters(settle=0.3, idle=0)
    ended = watch(str(session.folder), parameters=parameters, stay=True, execution=THREADS)
    assert ended == taken == ["TS_01"]  # in the one pass, though it was still changing at first
    # One that is never whole is given up when it is idle; of an empty folder there is nothing.
    session.write("TS_02")
    broken = session.folder / "frames" / session.movie(session.sections("TS_02")[1])
    os.truncate(broken, broken.stat().st_size - 1)
    with pytest.raises(SomeSeriesFailed, match=r"TS_02: .*bytes found"):
        watch(str(session.folder), parameters=parameters, stay=True, execution=THREADS)
    empty = session.folder / "empty"
    empty.mkdir()
    assert watch(str(empty), parameters=parameters, stay=True, execution=THREADS) == []


@pytest.mark.parametrize(
    "error",
    [
        SchedulerLost("tcp://here:8786: no scheduler answers"),
        ConnectionError("reset by peer"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
    ids=["scheduler", "connection", "disk"],
)
def test_a_fault_that_passes_is_waited_for_and_not_noted(
    session: Session, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tries = []

    def fails_twice(_: str, name: str, *__: Any) -> list[Any]:
        tries.append(name)
        if len(tries) < 3:
            raise error
        return []

    waited = []
    monkeypatch.setattr(watch_module, "sleep", lambda s: (waited.append(s), time.sleep(0.05)))
    monkeypatch.setattr(watch_module, "FIRST_WAIT", 0.2)
    monkeypatch.setattr(branches_module, "tomogram", fails_twice)
    session.write("TS_01")
    parameters = WatchParameters(settle=0.2, idle=0, stop_after=PATIENCE / 60)
    given: dict[str, Any] = {"parameters": parameters, "execution": THREADS}
    assert watch(str(session.folder), once=True, **given) == []
    time.sleep(0.3)
    with pytest.raises(SomeSeriesFailed, match="TS_01"):  # a pass ends, but notes nothing
        watch(str(session.folder), once=True, **given)
    note = parse_project(session.project).read_json("watch/TS_01.json")
    assert note is not None
    assert note["failed"] is None
    monkeypatch.setattr(
        watch_module.Watch, "_is_over", lambda self, *_: "TS_01" in self.taken, raising=True
    )
    assert watch(str(session.folder), stay=True, **given) == ["TS_01"]
    assert tries == ["TS_01"] * 3


def test_a_full_disk_that_takes_no_note_ends_no_watch(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("broken")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(branches_module, "tomogram", broken)
    session.write("TS_01")
    parameters = WatchParameters(settle=0.2, idle=0)
    watch(str(session.folder), parameters=parameters, once=True, execution=THREADS)
    time.sleep(0.3)
    monkeypatch.setattr(watch_module.Lookout, "note_failed", full)
    with pytest.raises(SomeSeriesFailed, match="TS_01: broken"):
        watch(str(session.folder), parameters=parameters, once=True, execution=THREADS)


def test_a_preset_is_taken_whole_series_by_series(
    tiltflow: Command, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[Any, ...]] = []

    def note(_: str, name: str, pipeline: Any, branch: str, until: Any, *rest: Any) -> list[Any]:
        taken.append((name, branch, until, rest[-1], pipeline.motion.binning))
        return []

    monkeypatch.setattr(branches_module, "tomogram", note)
    session.write("TS_01")
    arguments = ("watch", session.folder, *AT_ONCE, "--once", "--set", "motion.binning=3")
    preset = ("--preset", "tutorial-markerfree")
    tiltflow(*arguments, *preset)
    time.sleep(0.3)
    assert "up to the tomogram, and 3 more branches" in tiltflow(*arguments, *preset).out
    also = ["preprocess", "transform", "thickness", "ctf3d"]
    assert taken == [
        ("TS_01", "main", None, also, 3.0),
        ("TS_01", "main-wbp", None, [], 3.0),
        ("TS_01", "main-ctf2d", None, ["transform"], 3.0),
        ("TS_01", "main-strips", "ctf", [], 3.0),
    ]
    taken.clear()
    tiltflow(*arguments, *preset, "--branch", "b", "--also", "transform")  # of one branch alone
    assert [one[1:4] for one in taken] == [("b", None, ["transform"])]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("{d}", "--also", "lunch"), r"also: no step 'lunch': there are motion"),
        (("{d}/none",), r"none: no such folder: check the path"),
        (("{d}", "--until", "lunch"), r"--until lunch: there are import, motion"),
        (("{d}", "--settle", "0"), r"settle: .*greater than 0, not '0'"),
        (("{d}", "--views", "many"), r"views: .*not 'many'"),
        (("{d}", "--mdoc", "a", "--stack", "b"), r"mdoc and stack given"),
        (("{d}", "--pattern", "{{TS}}.mrc"), r"no \{TA\}"),
        (("{d}", "--branch", "a/b"), r"branch name 'a/b'"),
        (("{d}", "--cluster", "cloud"), r"cluster is 'cloud': use"),
        (("{d}", "--set", "motion.bining=2"), r"motion\.bining: no such parameter"),
    ],
    ids=lambda value: " ".join(value).replace("{d}", "DIR") if isinstance(value, tuple) else "",
)
def test_a_mistake_is_told_before_anything_is_waited_for(
    tiltflow: Command, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    ended = tiltflow("watch", *(text.format(d=tmp_path) for text in arguments))
    assert re.search(told, ended.complaint)
    assert not list(tmp_path.iterdir())
