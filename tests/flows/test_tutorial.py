"""The tutorial's commands, carried out on small simulated movies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import doc_pages
import pytest

from tasks.store import parse_project

PIXEL = "2.7"  # of the small movies; all else is done as the page has it
TUTORIAL = doc_pages.ROOT / "docs" / "tutorial.md"


@pytest.fixture
def empiar(tiny_data: Path, tmp_path: Path) -> Path:
    """Return a folder with the tutorial's files: two series named as there."""
    folder = tmp_path / "empiar"
    (folder / "frames").mkdir(parents=True)
    for old, new in (("TS_01", "TS_01"), ("TS_02", "TS_03")):
        text = (tiny_data / f"{old}.mrc.mdoc").read_text()
        (folder / f"{new}.mrc.mdoc").write_text(text.replace(old, new))
        for movie in (tiny_data / "frames").glob(f"{old}_*"):
            shutil.copy(movie, folder / "frames" / movie.name.replace(old, new))
    (tmp_path / "defocus.txt").write_text("TS_01 4000\nTS_03 1500\n")
    return tmp_path


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.skipif(
    not os.environ.get("TILTFLOW_LONG"), reason="takes more than a minute: set TILTFLOW_LONG=1"
)
def test_the_tutorials_commands_work(
    empiar: Path, tiltflow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(empiar)
    monkeypatch.setenv("TILTFLOW_CLUSTER", "threads")
    commands = [command for command in doc_pages.commands(TUTORIAL) if command.run]
    for command in commands:
        ended = tiltflow(*(PIXEL if word == "0.675" else word for word in command.words))
        assert ended.code == 0, f"{command}\n{ended.out}{ended.err}"
    series = parse_project("hiv.zarr").series("TS_01")
    assert series.pointer("markerfree", "reconstruct")
    assert series.pointer("strips", "motion") == series.pointer("main", "motion")
    assert (empiar / "imod" / "TS_03" / "TS_03.xf").is_file()
    assert (empiar / "report" / "report.html").is_file()
