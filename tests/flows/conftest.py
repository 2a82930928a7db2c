"""Workers, and a command line in this process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows import cli, console
from tasks.cluster import opened
from tasks.parameters import Execution


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
