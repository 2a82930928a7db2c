"""The images' files: what they copy is there, and what they pin is what pyproject.toml asks for."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGES = {path.name: path for path in sorted((ROOT / "deployments").glob("Dockerfile*"))}


def instructions(name: str) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", IMAGES[name].read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def copied(name: str) -> list[str]:
    """Return the sources of an image's COPY."""
    of = [shlex.split(rest) for word, rest in instructions(name) if word == "COPY"]
    return [source for words in of for source in words[:-1]]


def installed(name: str) -> tuple[list[str], list[str]]:
    """Return the files of constraints, and the extras, of an image's pip."""
    (rest,) = [rest for word, rest in instructions(name) if word == "RUN" and "pip install" in rest]
    words = shlex.split(rest.partition("&&")[0])
    files = [words[i + 1] for i, word in enumerate(words) if word == "-c"]
    (extras,) = re.findall(r"\.\[([\w,]+)\]", rest)
    return files, extras.split(",")


def pins(files: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in files:
        for line in (ROOT / "deployments" / file).read_text().splitlines():
            if line.startswith("#"):
                continue
            name, equal, value = line.partition("==")
            assert equal, line
            assert name not in found, f"{name} is pinned twice"
            found[canonicalize_name(name)] = value
    return found


@pytest.mark.parametrize("name", IMAGES)
def test_what_pip_reads_is_copied(name: str) -> None:
    files, _ = installed(name)
    assert {f"deployments/{file}" for file in files} <= set(copied(name))
    packages = {"flows", "tasks", "kernels", "pyproject.toml", "README.md", "LICENSE"}
    assert packages <= set(copied(name))  # the wheel's packages, and what pyproject.toml names
    assert all((ROOT / source).exists() for source in copied(name))


@pytest.mark.parametrize("name", IMAGES)
def test_every_requirement_is_pinned_to_a_version_that_it_allows(name: str) -> None:
    files, extras = installed(name)
    found = pins(files)
    wanted = [*PYPROJECT["dependencies"]]
    for extra in extras:
        wanted += PYPROJECT["optional-dependencies"][extra]
    for requirement in map(Requirement, wanted):
        pin = found.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(pin), f"{requirement} and {pin}"


@pytest.mark.parametrize("name", IMAGES)
def test_pins_agree_with_each_other(name: str) -> None:
    """What is installed here in the pinned version asks for nothing that is pinned otherwise."""
    from importlib.metadata import requires

    found = pins(installed(name)[0])
    checked = 0
    for package, pin in found.items():
        try:
            if version(package) != pin:
                continue
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, requires(package) or []):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            other = found.get(canonicalize_name(requirement.name))
            if other is not None:
                assert requirement.specifier.contains(other), f"{package}: {requirement}, {other}"
                checked += 1
    if not checked:
        pytest.skip("other versions are installed here")


@pytest.mark.parametrize("name", IMAGES)
def test_the_base_has_a_python_that_we_support(name: str) -> None:
    _, base = instructions(name)[0]
    found = re.fullmatch(r"python:(\d+\.\d+)-slim-\w+", base)
    assert found is not None
    allowed = Requirement(f"python{PYPROJECT['requires-python']}").specifier
    assert allowed.contains(f"{found[1]}.0")


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_the_image_builds(name: str) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True).returncode:
        pytest.skip("no Docker daemon runs here")
    command = [docker, "build", "-f", str(IMAGES[name]), "-t", f"tiltflow-test-{name.lower()}", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
