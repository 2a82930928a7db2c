"""A Dask scheduler and workers, each a process of its own, as people start them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from distributed import Client

PATIENCE = 120  # seconds for what takes three on a quiet machine


class Processes:
    """Starts and ends a scheduler and its workers."""

    def __init__(
        self, folder: Path, host: str = "127.0.0.1", environment: dict[str, str] | None = None
    ) -> None:
        with socket.socket() as free:
            free.bind((host, 0))
            port = free.getsockname()[1]
        self.folder, self.host = folder, host
        self.address = f"tcp://{host}:{port}"
        self.processes: list[subprocess.Popen[bytes]] = []
        options = ("--port", str(port), "--dashboard-address", "127.0.0.1:0")
        self._start("scheduler", *options, environment=environment)

    def worker(
        self,
        *options: str,
        environment: dict[str, str] | None = None,
        before: tuple[str, ...] = (),
        python: tuple[str, ...] = (sys.executable,),
        host: str | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a worker; `before` are words before its command, such as ``ip netns exec``."""
        return self._start(
            "worker",
            *(self.address, "--nthreads", "1", "--no-dashboard", "--no-nanny", *options),
            environment=environment,
            before=before,
            python=python,
            host=host,
        )

    def _start(
        self,
        kind: str,
        *options: str,
        environment: dict[str, str] | None = None,
        before: tuple[str, ...] = (),
        python: tuple[str, ...] = (sys.executable,),
        host: str | None = None,
    ) -> subprocess.Popen[bytes]:
        command = [*before, *python, "-m", f"distributed.cli.dask_{kind}", *options]
        with (self.folder / f"{kind}-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--host", host or self.host],
                env={**os.environ, **(environment or {})},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def wait_for(self, workers: int) -> None:
        """Wait until so many workers have come."""
        with Client(self.address, timeout=f"{PATIENCE}s", set_as_default=False) as client:
            deadline = time.monotonic() + PATIENCE
            while len(client.nthreads()) < workers:
                dead = [one.args for one in self.processes if one.poll() is not None]
                assert not dead, f"{dead}: {self.logs()}"
                assert time.monotonic() < deadline, self.logs()
                time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(5)  # a scheduler whose workers have just left waits for them
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
