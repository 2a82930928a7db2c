"""A Prefect server in processes of its own, for tests that ask it from outside."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 240  # seconds for what takes 20 on a quiet machine


@dataclass(frozen=True)
class Server:
    """A Prefect server, and the process that has started it."""

    url: str
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    log: Path

    def prefect(self, *arguments: str) -> str:
        """Run the command line of Prefect against this server; return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            env=self.environment | {"PREFECT_API_URL": self.url},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"prefect {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Ask the API."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"} | self._credentials(),
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:  # 503: its database is busy, as it says
                if error.code != 503 or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def _credentials(self) -> dict[str, str]:
        password = self.environment.get("PREFECT_SERVER_API_AUTH_STRING")
        if password is None:
            return {}
        return {"authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}

    def deployments(self) -> dict[str, dict[str, Any]]:
        """Return entrypoint, and a name that is not the default, → deployment."""
        return {
            " ".join([each["entrypoint"], *({each["name"]} - {"default"})]): each
            for each in self.post("/deployments/filter", {})
        }

    def start(self, entrypoint: str, parameters: dict[str, Any]) -> str:
        """Have a deployment run as soon as may be; return the id of the run."""
        deployment = self.deployments()[entrypoint]
        run = self.post(
            f"/deployments/{deployment['id']}/create_flow_run",
            {"parameters": parameters, "state": {"type": "SCHEDULED"}},
        )
        return str(run["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """Return what is known of a run."""
        [run] = self.post("/flow_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        return dict(run)

    def listens_on(self) -> set[str]:
        """Return the addresses on which its processes listen."""
        family = [psutil.Process(self.process.pid)]
        family += family[0].children(recursive=True)
        sockets = [one for process in family for one in process.net_connections()]
        return {one.laddr.ip for one in sockets if one.status == "LISTEN"}

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                    assert answer.status == 200
                    return
            except OSError:
                time.sleep(0.5)
        pytest.fail(f"no server after {PATIENCE} s: {self.log.read_text()}")


@contextmanager
def running(home: Path, command: str, **environment: str) -> Iterator[Server]:
    """Start a server on a free port of the loopback, and wait until it answers.

    Parameters
    ----------
    home
        Where its database and its log are.
    command
        What Python is told, without the port.
    environment
        What it is given further.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    given = own | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
        **environment,
    }
    log = home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command.split(), "--port", str(port)],
            env=given,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = Server(f"http://127.0.0.1:{port}/api", given, process, log)
    try:
        server._wait_until_it_answers()
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
