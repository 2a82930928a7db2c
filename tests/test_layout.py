"""The packages are the ones of this checkout, and their layers import one way only."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE

ROOT = Path(__file__).parents[1]
LAYERS = ("kernels", "tasks", "flows")  # each may import those before it
ARRAYS_ONLY = {
    *("__future__", "array_api_compat", "cupy", "numba", "numpy", "scipy"),
    *sys.stdlib_module_names,
} - {"logging", "pathlib"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the top-level names that a module imports, wherever it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module).partition(".")[0])
    return names


@pytest.mark.parametrize("package", LAYERS)
def test_our_package_is_the_one_that_is_imported(package: str) -> None:
    # PyPI has another `kernels`.
    assert Path(str(importlib.import_module(package).__file__)).parent == ROOT / package


@pytest.mark.parametrize("package", LAYERS)
def test_a_layer_imports_only_those_below_it(package: str) -> None:
    above = set(LAYERS[LAYERS.index(package) + 1 :])
    for path in modules(package):
        assert not imported(path) & above, path


@pytest.mark.parametrize("path", modules("kernels"), ids=lambda path: path.name)
def test_a_kernel_imports_arrays_and_nothing_else(path: Path) -> None:
    assert imported(path) <= ARRAYS_ONLY | {"kernels"}


@pytest.mark.parametrize("path", modules("flows"), ids=lambda path: path.name)
def test_a_flow_leaves_arrays_to_tasks(path: Path) -> None:
    assert not imported(path) & {"numpy", "zarr", "cupy", "scipy", "numba", "kernels"}


def test_workers_are_sent_functions_that_do_not_import_prefect() -> None:
    names = [
        f"tasks.chunks.{found.name}" for found in pkgutil.iter_modules([ROOT / "tasks/chunks"])
    ]
    assert names
    code = f"import sys, {', '.join(names)}; print('prefect' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert done.stdout.strip() == "False"


def test_only_the_folders_of_the_design_hold_code() -> None:
    folders = {
        path.relative_to(ROOT).parts[0]
        for path in ROOT.glob("*/**/*.py")
        if not path.relative_to(ROOT).parts[0].startswith(".")
    }
    assert folders <= {"flows", "tasks", "kernels", "tests", "benchmarks", "docs"}
