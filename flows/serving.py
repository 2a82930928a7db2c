"""`tiltflow serve`: all flows as deployments of this machine, without a work pool.

They are those of deployments/prefect.yaml; a test holds the two together.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import Flow, serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.schedules import Interval
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_SERVER_API_AUTH_STRING,
    temporary_settings,
)
from prefect.types.entrypoint import EntrypointType

from flows import steps
from flows.session import import_series, session
from flows.tomogram import tomogram
from flows.watch import watch
from flows.workflow import workflow
from tasks.errors import UserError
from tasks.steps import STEPS

ARRIVED = "tiltflow.movies.arrived"  # event: a pass over the folder that it names
PATIENCE = 180.0  # seconds for a server's start: 14 on a quiet machine
LOOPBACK = "127.0.0.1"


def deployments() -> list[RunnerDeployment]:
    """Return what is served: import, both watches, session, workflow, tomogram, and each step."""
    first, *others = STEPS
    alone = [getattr(steps, name) for name in (first, "average", *others)]
    return [
        _deployed(import_series, limit=None),
        *_watches(),
        _deployed(session),
        _deployed(workflow),
        _deployed(tomogram),
        *(_deployed(step, tags=["tiltflow", "step"]) for step in alone),
    ]


def _watches() -> list[RunnerDeployment]:
    """Return the watch that a schedule starts, and the one that an event starts.

    Of scheduled passes one that finds another at work is not needed; each event is of a folder of
    its own.
    """
    trigger = DeploymentEventTrigger(
        name="movies arrived",
        match={"prefect.resource.id": "tiltflow.folder.*"},
        expect={ARRIVED},
        parameters={"directory": "{{ event.payload.directory }}", "stay": True},
    )
    passes = _deployed(
        watch,
        strategy=ConcurrencyLimitStrategy.CANCEL_NEW,
        schedule=Interval(timedelta(minutes=1), active=False),
        parameters={"directory": "/data/session", "once": True},
    )
    arrived = _deployed(
        watch,
        name="arrived",
        triggers=[trigger],
        parameters={"directory": "/data/session", "stay": True},
    )
    return [passes, arrived]


def _deployed(
    flow: Flow[Any, Any],
    *,
    name: str = "default",
    tags: list[str] | None = None,
    limit: int | None = 1,
    strategy: ConcurrencyLimitStrategy = ConcurrencyLimitStrategy.ENQUEUE,
    **more: Any,
) -> RunnerDeployment:
    config = None
    if limit is not None:  # a run takes the whole machine, so the next one waits
        config = ConcurrencyLimitConfig(limit=limit, collision_strategy=strategy)
    return flow.to_deployment(  # type: ignore[return-value]
        name=name,
        tags=tags or ["tiltflow"],
        description=(flow.description or "").splitlines()[0],
        concurrency_limit=config,
        entrypoint_type=EntrypointType.MODULE_PATH,
        **more,
    )


def serve_all(port: int, limit: int) -> None:
    """Serve every flow until it is stopped, on a server of its own unless one is configured.

    Parameters
    ----------
    port : int
        Of the server that is started; it listens on the loopback alone.
    limit : int
        Runs at a time.
    """
    url = PREFECT_API_URL.value()
    if url:
        serve(*deployments(), limit=limit, print_starting_message=False)
        return
    url = f"http://{LOOPBACK}:{port}/api"
    ours: dict[Any, str] = {PREFECT_API_URL: url}
    if password := PREFECT_SERVER_API_AUTH_STRING.value():
        ours[PREFECT_API_AUTH_STRING] = password
    with _server(url, port), temporary_settings(ours):
        os.environ |= {setting.name: value for setting, value in ours.items()}  # for its runs
        serve(*deployments(), limit=limit, print_starting_message=False)


@contextmanager
def _server(url: str, port: int) -> Iterator[None]:
    given = os.environ | {
        "PREFECT_UI_API_URL": url,  # for the browser
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_V2_ENABLED": "false",  # that page asks another host for its settings
        "DO_NOT_TRACK": "1",
    }
    command = f"-m prefect server start --host {LOOPBACK} --port {port}".split()
    process = subprocess.Popen(
        [sys.executable, *command],
        env=given,
        cwd=Path.home(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C ends the runs first
    )
    try:
        _wait_for(process, url, port)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], url: str, port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise UserError(
                f"serve: no server on port {port}: another program has it, or PREFECT_HOME cannot "
                "be written: choose another --port, or set PREFECT_API_URL"
            )
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise UserError(f"serve: the server does not answer after {PATIENCE:.0f} s: try again")
