"""Runs that are disturbed, and what a project holds afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

THREADS = {"cluster": "threads", "workers": 2}


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    error: str
    written: int
    marked: list[str]


@dataclass
class Running:
    """A run that is under way."""

    zygote: Zygote
    pid: int
    log: Path

    def wait(self) -> Ended:
        code = int(self.zygote.ask(do="wait", pid=self.pid))
        texts = {}
        for what in ("error", "count", "marks"):
            path = self.log.with_suffix(f".{what}")
            texts[what] = path.read_text() if path.exists() else ""
        return Ended(
            code, texts["error"], int(texts["count"] or 0) - 1, texts["marks"].splitlines()
        )


class Zygote:
    """Starts runs in processes of their own, without the seconds that loading takes."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.number = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, **order: Any) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def start(
        self,
        project: str,
        until: str | None = None,
        fault: dict[str, Any] | None = None,
        execution: dict[str, Any] = THREADS,
        series: list[str] | None = None,
        branch: str = "main",
    ) -> Running:
        self.number += 1
        log = self.folder / f"run-{self.number}"
        pid = self.ask(
            do="start",
            project=project,
            log=str(log),
            until=until,
            execution=execution,
            fault=fault,
            series=series,
            branch=branch,
        )
        return Running(self, int(pid), log)

    def run(self, project: str, **given: Any) -> Ended:
        return self.start(project, **given).wait()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


def files(folder: str | Path) -> dict[str, Path]:
    """Return what a project holds, by the path in it: no locks, nothing torn."""
    root = Path(folder)
    return {
        str(path.relative_to(root)): path
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".partial" and path.parent.name != "locks"
    }


def content(project: str) -> dict[str, Any]:
    """Return everything that a project holds but when it was made."""
    found: dict[str, Any] = {}
    for name, path in files(project).items():
        if path.name != "zarr.json":
            found[name] = path.read_bytes()
            continue
        found[name] = json.loads(path.read_text())
        for when in ("started", "ended"):
            found[name].get("attributes", {}).pop(when, None)
    return found


def of_one(project: str, branch: str = "main") -> dict[str, Any]:
    """Return what a project holds of its first series on a branch."""
    whole = content(project)
    return {
        name: value
        for name, value in whole.items()
        if name.startswith("TS_01/") and ("/branches/" not in name or f"/{branch}/" in name)
    }


def complete_files(project: str) -> dict[str, int]:
    """Return when each file of a complete result was written."""
    times = {}
    for path in Path(project).glob("*/*-*/zarr.json"):
        if json.loads(path.read_text()).get("attributes", {}).get("complete"):
            inside = (one for one in path.parent.rglob("*") if one.is_file())
            times.update(
                {str(one): one.stat().st_mtime_ns for one in inside if "/unit/" not in str(one)}
            )
    return times


def marks(project: str) -> set[str]:
    """Return the marks of the units that are written of results that are not complete."""
    root = Path(project)
    return {str(path.relative_to(root)) for path in root.glob("*/*/unit/*.json")}
