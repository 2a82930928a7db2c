"""Broken data, full disks, and the plug pulled: one clear line, and nothing lost."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from patience import PATIENCE
from prefect.settings import PREFECT_API_URL
from slow_command import SLOWLY
from zarr.storage import LocalStore

from flows.tomogram import tomogram
from tasks import cluster
from tasks.formats.mrc import write_stack
from tasks.parameters import Execution
from tasks.store import parse_project

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.faults]
Command = Callable[..., Any]
THREADS = ("--cluster", "threads", "--workers", "2")


def movie(data: Path, series: str, place: int) -> Path:
    return sorted((data / "frames").glob(f"{series}_*.mrc"))[place]


@pytest.fixture
def own_project(tiltflow: Command, own_data: Path) -> str:
    project = str(own_data.parent / "p.zarr")
    assert tiltflow("import", project, "--mdoc", own_data / "*.mdoc").code == 0
    return project


def spoil_nan(path: Path) -> None:
    write_stack(path, np.zeros((4, 128, 128), np.float32), 5.4)
    with path.open("r+b") as file:
        file.seek(1024 + 4 * 777)
        file.write(np.float32("nan").tobytes())


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: os.truncate(path, 3000), "has 3000 bytes, had"),
        (lambda path: path.unlink(), "missing since the import: put it back"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "its content changed since"),
    ],
    ids=["truncated", "missing", "changed"],
)
def test_a_movie_spoiled_after_the_import_fails_its_series_only(
    tiltflow: Command, own_project: str, own_data: Path, spoil: Any, told: str
) -> None:
    broken = movie(own_data, "TS_01", 2)
    spoil(broken)
    ended = tiltflow("run", own_project, "--until", "motion", *THREADS)
    assert f"1 of 2 series failed: TS_01: {broken}: {told}" in ended.complaint
    assert re.search(r"^TS_01  failed  .*" + broken.name, ended.out, re.MULTILINE)
    assert re.search(r"^TS_02  motion  .*7 movies", ended.out, re.MULTILINE)
    assert broken.name in tiltflow("status", own_project).out


def test_a_movie_with_nan_fails_its_series_only(
    tiltflow: Command, own_data: Path, tmp_path: Path
) -> None:
    broken = movie(own_data, "TS_01", 2)
    spoil_nan(broken)
    project = str(tmp_path / "p.zarr")
    tiltflow("import", project, "--mdoc", own_data / "*.mdoc")
    ended = tiltflow("run", project, "--until", "motion", *THREADS)
    assert f"TS_01: {broken}: holds values that are not numbers" in ended.complaint
    assert parse_project(project).series("TS_02").current("main", "motion").complete()


def test_a_malformed_mdoc_fails_its_series_only(
    tiltflow: Command, own_data: Path, tmp_path: Path
) -> None:
    path = own_data / "TS_01.mrc.mdoc"
    path.write_text(path.read_text().replace("TiltAngle = 10", "TiltAngle = ten"))
    ended = tiltflow("import", tmp_path / "p.zarr", "--mdoc", own_data / "*.mdoc")
    assert "1 of 2 series failed: TS_01: " in ended.complaint
    assert str(path) in ended.complaint
    assert "ten" in ended.complaint
    assert "TS_02: 7 views" in ended.out


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "no space left on device"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "read-only file system"),
    ],
    ids=["full disk", "no permission", "read-only"],
)
def test_a_disk_that_takes_no_more_is_one_line_and_is_not_tried_again(
    tiltflow: Command,
    tiny_project: str,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    told: str,
) -> None:
    tries: list[str] = []
    whole = LocalStore.set

    async def set_if_small(store: LocalStore, key: str, value: Any) -> None:
        if "/images/c/" in key:
            tries.append(key)
            raise OSError(number, os.strerror(number), str(store.root / key))
        await whole(store, key, value)

    monkeypatch.setattr(LocalStore, "set", set_if_small)
    ended = tiltflow("run", tiny_project, "--until", "motion", "--series", "TS_01", *THREADS)
    assert re.search(rf"TS_01: /.*/images/c/\S+: {told}", ended.complaint)
    assert len(set(tries)) == len(tries)
    monkeypatch.setattr(LocalStore, "set", whole)
    assert tiltflow("run", tiny_project, "--until", "motion", *THREADS).code == 0


def test_a_read_only_project_can_be_looked_at(
    tiltflow: Command, finished_copy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def refuse(store: LocalStore, key: str, value: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(store.root / key))

    monkeypatch.setattr(LocalStore, "set", refuse)
    for command in (("status",), ("show",), ("run", "--dry-run")):
        assert tiltflow(command[0], finished_copy, *command[1:]).code == 0
    assert tiltflow("run", finished_copy, "--series", "TS_01").code == 0  # nothing to do
    ended = tiltflow("export", finished_copy, "--to", "mrc", "--series", "TS_01", "--out", tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert "permission denied" in tiltflow("run", finished_copy, *THREADS).complaint


# -- the plug pulled ----------------------------------------------------------------------------


def test_a_killed_run_is_taken_up_without_doing_again_what_is_done(
    tiltflow: Command, tiny_project: str
) -> None:
    arguments = ("run", tiny_project, "--series", "TS_01", "--until", "dose", *THREADS)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "erase", *arguments],
        env={**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    series = parse_project(tiny_project).series("TS_01")
    try:
        deadline = time.monotonic() + PATIENCE
        while not unfinished_units(tiny_project, "erase"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = unfinished_units(tiny_project, "erase")
    assert len(done) == 1
    motion = series.current("main", "motion")
    kept = {
        path: path.stat().st_mtime_ns
        for path in [*files_of(motion.url), *written_views(tiny_project, "erase", done)]
    }
    status = tiltflow("status", tiny_project)
    assert "unfinished" in status.out

    ended = tiltflow(*arguments)
    assert (ended.code, ended.err) == (0, "")
    assert re.search(r"TS_01  motion\s+already done", ended.out)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert series.current("main", "dose").complete()
    assert unfinished_units(tiny_project, "erase") == set()


def unfinished_units(project: str, step: str) -> set[str]:
    folders = Path(project, "TS_01").glob(f"{step}-*/unit")
    return {path.stem for folder in folders for path in folder.glob("*.json")}


def files_of(folder: str) -> list[Path]:
    return [path for path in Path(folder).rglob("*") if path.is_file()]


def written_views(project: str, step: str, units: set[str]) -> list[Path]:
    (result,) = Path(project, "TS_01").glob(f"{step}-*")
    return [result / f"images/c/{int(unit.removeprefix('view-'))}/0/0" for unit in units]


def test_a_worker_killed_in_mid_step_changes_nothing(
    tiny_project: str, finished_project: str
) -> None:
    with cluster.opened(Execution(cluster="local", workers=2)) as running:
        pids = cluster.client_of(running).run(os.getpid)
        victim = next(iter(pids.values()))

        def kill() -> None:
            deadline = time.monotonic() + PATIENCE
            while not unfinished_units(tiny_project, "motion") and time.monotonic() < deadline:
                time.sleep(0.005)
            os.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        (outcome,) = tomogram(tiny_project, "TS_01", until="motion", execution=running)
        killer.join()
    assert not psutil.pid_exists(victim)
    assert not outcome.skipped
    ours, theirs = (
        parse_project(project).series("TS_01").current("main", "motion").array("images")[:]
        for project in (tiny_project, finished_project)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
