"""A Prefect server of the test session's own, and a command line in this process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOCAL_STORAGE_PATH,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness

from flows import cli, console
from tasks.cluster import opened
from tasks.parameters import Execution


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start a server with a database of its own; heartbeats cost a second for every flow."""
    settings: dict[Any, Any] = {
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_LOGGING_TO_API_ENABLED: False,
        PREFECT_LOCAL_STORAGE_PATH: tmp_path_factory.mktemp("storage"),
    }
    with prefect_test_harness(server_startup_timeout=180), temporary_settings(settings):
        yield


@pytest.fixture(scope="session")
def workers() -> Iterator[Execution]:
    """Return an execution on a Dask cluster of two processes."""
    with opened(Execution(cluster="local", workers=2)) as running:
        yield running


@pytest.fixture
def own_data(tiny_data: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny data that a test may spoil."""
    return shutil.copytree(tiny_data, tmp_path / "data")


@pytest.fixture
def finished_copy(finished_project: str, tmp_path: Path) -> str:
    """Return a copy of the project whose series TS_01 has every result."""
    return str(shutil.copytree(finished_project, tmp_path / "done.zarr"))


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line of the standard error, there being no other."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("tiltflow: "), self.err
        assert "Traceback" not in self.out + self.err
        assert self.code != 0
        return lines[0]


@pytest.fixture
def tiltflow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Return the function that runs ``tiltflow …`` in this process."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["tiltflow", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    # The consoles must write to what pytest captures, as wide as a table may be.
    for name in ("out", "err"):
        monkeypatch.setattr(getattr(console, name), "_file", None)
        monkeypatch.setattr(getattr(console, name), "_width", 200)
    return run
