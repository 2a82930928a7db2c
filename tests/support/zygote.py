"""A process that has loaded tiltflow and forks one run of it after the other, each with a fault.

Orders come as lines of JSON on the standard input, answers go to the standard output:
{"do": "start", "project": …, "until": …, "execution": {…}, "log": FILE, "fault": {…}} → its number
{"do": "wait", "pid": …} → how it ended
Faults count what a run writes and deletes: {"at": n, "how": "before" | "torn" | "after"} kills it
there, {"at": n, "how": "full"} lets every write from there on fail, as on a full disk, and
{"at": n, "how": "unlink" | "truncate", "path": FILE} spoils a file there.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from zarr.storage import LocalStore, _local

from flows.session import session
from tasks.errors import one_line
from tasks.parameters import Execution
from tasks.result import Result


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        if order.pop("do") == "wait":
            _, status = os.waitpid(order["pid"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os._exit(run(**order))
        print(pid, flush=True)


def run(
    project: str,
    log: str,
    until: str | None,
    execution: dict[str, Any],
    fault: dict[str, Any] | None,
    series: list[str] | None = None,
    branch: str = "main",
) -> int:
    written = os.open(f"{log}.out", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(written, 1)
    os.dup2(written, 2)
    count = itertools.count(1)
    spoil(count, **(fault or {"at": 0, "how": "before"}))
    note_marks(f"{log}.marks")
    try:
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            session(
                project, series=series, branch=branch, until=until, execution=Execution(**execution)
            )
    except Exception as error:
        Path(f"{log}.error").write_text(one_line(error))
        return 1
    finally:
        Path(f"{log}.count").write_text(str(next(count)))
    return 0


def note_marks(log: str) -> None:
    whole = Result.mark_unit

    def mark(result: Result, name: str, report: Any) -> Any:
        found = whole(result, name, report)
        with open(log, "a") as file:
            file.write(f"{result.path}/unit/{name}.json\n")
        return found

    Result.mark_unit = mark  # type: ignore[method-assign]


def die() -> None:
    os.killpg(0, signal.SIGKILL)


def spoil(count: itertools.count[int], at: int, how: str, path: str = "") -> None:
    put, delete = _local._put, LocalStore.delete_dir

    victim, reached = Path(path), threading.Event()

    def spoilt_put(path: Path, value: Any, exclusive: bool = False) -> int:
        # Who holds a lock renews it every few seconds: how often depends on the time alone.
        renewal = path.parent.name == "locks" and not exclusive
        n = -1 if renewal else next(count)
        if 0 < at <= n:
            reached.set()
        if how == "full" and reached.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if n == at and how == "torn":
            data = bytes(value.as_buffer_like())
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".torn.partial").write_bytes(data[: len(data) // 2])
        if n == at and how == "unlink":
            victim.unlink()
        if n == at and how == "truncate":
            os.truncate(victim, 3000)
        if n == at and how in ("before", "torn"):
            die()
        written = put(path, value, exclusive)
        if n == at and how == "after":
            die()
        return written

    async def spoilt_delete(store: LocalStore, prefix: str) -> None:
        if next(count) == at and how in ("before", "torn", "after"):
            files = sorted(path for path in (store.root / prefix).rglob("*") if path.is_file())
            for path in files[: {"before": 0, "torn": len(files) // 2}.get(how, len(files))]:
                path.unlink()
            die()
        await delete(store, prefix)

    _local._put = spoilt_put
    LocalStore.delete_dir = spoilt_delete  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
