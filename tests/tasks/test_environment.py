from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE

from tasks import environment

SHOWN = (
    "import os, tasks.work\n"
    "from prefect.settings import PREFECT_API_URL, PREFECT_HOME\n"
    "print(PREFECT_HOME.value(), os.environ.get('DO_NOT_TRACK'), "
    "os.environ['PREFECT_SERVER_ANALYTICS_ENABLED'], PREFECT_API_URL.value())"
)
PREFECTS_OWN = ("PREFECT_", "DO_NOT_TRACK", "XDG_")


def start(home: Path, **settings: str) -> list[str]:
    """Import the tasks in a process of its own, whose home is `home`; return what it shows."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(PREFECTS_OWN)}
    done = subprocess.run(
        [sys.executable, "-c", SHOWN],
        env={**kept, "HOME": str(home), **settings},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout.split()


def test_a_user_without_prefect_gets_no_prefect_folder_and_no_telemetry(tmp_path: Path) -> None:
    home, *rest = start(tmp_path)
    assert Path(home) == tmp_path / ".cache/tiltflow/prefect"
    assert rest == ["1", "false", "None"]
    assert not (tmp_path / ".prefect").exists()


def test_a_configured_prefect_is_kept(tmp_path: Path) -> None:
    (tmp_path / ".prefect").mkdir()
    (tmp_path / ".prefect/profiles.toml").write_text(
        'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n'
    )
    home, _, _, url = start(tmp_path)
    assert Path(home) == tmp_path / ".prefect"
    assert url == "http://127.0.0.1:9/api"
    assert not (tmp_path / ".cache/tiltflow").exists()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in (*environment.CONFIGURED_BY, *environment.DEFAULTS, "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_what_the_user_has_set_beats_the_defaults(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {
        "PREFECT_HOME": str(bare / "mine"),
        "DO_NOT_TRACK": "0",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "5",
    }
    for name, value in mine.items():
        monkeypatch.setenv(name, value)
    environment.prepare()
    assert {name: os.environ[name] for name in mine} == mine
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_the_cache_folder_of_the_user_is_honoured(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(bare / "my cache"))
    environment.prepare()
    assert os.environ["PREFECT_HOME"] == str(bare / "my cache/tiltflow/prefect")
    assert (bare / "my cache/tiltflow/prefect").is_dir()


@pytest.mark.parametrize("name", environment.CONFIGURED_BY)
def test_prefect_counts_as_configured_by(
    bare: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert not environment.prefect_is_configured()
    monkeypatch.setenv(name, "something")
    assert environment.prefect_is_configured()
