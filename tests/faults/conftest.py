"""Faults: `pytest -m faults` runs all of them, `pytest` a small part."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_runs import Zygote
from prefect.settings import PREFECT_API_URL

HERE = Path(__file__).parent


def whole(config: pytest.Config) -> bool:
    """Tell whether all was asked for."""
    return "faults" in (config.option.markexpr or "")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mine = [item for item in items if item.path.is_relative_to(HERE)]
    for item in mine:
        item.add_marker(pytest.mark.faults)
        item.add_marker(pytest.mark.timeout(3600))
    if not whole(config):
        long = [item for item in mine if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


@pytest.fixture(scope="session")
def sized(pytestconfig: pytest.Config) -> Callable[[int, int], int]:
    """Return the function that chooses between the size of a part and that of all."""
    return lambda part, all_of_it: all_of_it if whole(pytestconfig) else part


@pytest.fixture(scope="session")
def zygote(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Return what starts runs, each in a process of its own."""
    environment = {
        **os.environ,
        "PREFECT_API_URL": str(PREFECT_API_URL.value()),
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_LOCAL_STORAGE_PATH": str(tmp_path_factory.mktemp("storage")),
        "PREFECT_HOME": str(tmp_path_factory.mktemp("home")),
    }
    starter = Zygote(tmp_path_factory.mktemp("runs"), environment)
    yield starter
    starter.close()


@pytest.fixture(scope="session")
def until(pytestconfig: pytest.Config) -> str | None:
    """Return the last step that runs take: of all, the tomogram."""
    return None if whole(pytestconfig) else "dose"


@pytest.fixture(scope="session")
def undisturbed(
    zygote: Zygote, imported_tiny: Path, until: str | None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, int]:
    """Return a project that was run in peace, and how often it was written to."""
    project = str(shutil.copytree(imported_tiny, tmp_path_factory.mktemp("peace") / "p.zarr"))
    ended = zygote.run(project, until=until, series=["TS_01"])
    assert (ended.code, ended.error) == (0, "")
    return project, ended.written


@pytest.fixture
def fresh(imported_tiny: Path, tmp_path: Path) -> Callable[[], str]:
    """Return the function that makes a project into which the tiny series are imported."""
    numbers = iter(range(1000))
    return lambda: str(shutil.copytree(imported_tiny, tmp_path / f"{next(numbers)}.zarr"))
