"""The Prefect server is killed in mid-run, and comes back or does not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_runs import Zygote, marks, of_one
from patience import PATIENCE

Fresh = Callable[[], str]


class Server:
    """A Prefect server on a port of the loopback."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        own = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        self.environment = own | {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "prefect", "server", "start"),
                *("--host", "127.0.0.1", "--port", str(self.port)),
            ],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        pytest.fail("the server does not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = Server(tmp_path / "home")
    started.start()
    yield started
    started.kill()


@pytest.mark.long
def test_a_run_outlives_the_restart_of_the_server(
    server: Server, undisturbed: tuple[str, int], fresh: Fresh, tmp_path: Path
) -> None:
    starter = Zygote(tmp_path, server.environment)
    project = fresh()
    running = starter.start(project, series=["TS_01"])
    deadline = time.monotonic() + PATIENCE
    while not marks(project):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    server.kill()
    server.start()
    ended = running.wait()
    starter.close()
    assert (ended.code, ended.error) == (0, "")
    assert of_one(project) == of_one(undisturbed[0])
