"""Every name in deployments/ leads to something that is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from flows import steps
from tasks.steps import STEPS

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
PREFECT_YAML: dict[str, Any] = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())
ENTRYPOINTS = [deployment["entrypoint"] for deployment in PREFECT_YAML["deployments"]]
DOCKERFILES = sorted(DEPLOYMENTS.glob("Dockerfile*"))
TEXTS = sorted(path for path in DEPLOYMENTS.rglob("*") if path.is_file())


@pytest.mark.parametrize("entrypoint", ENTRYPOINTS)
def test_an_entrypoint_leads_to_a_flow_that_says_what_it_does(entrypoint: str) -> None:
    flow = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    assert len((flow.description or "").splitlines()[0]) > 20


def test_every_step_is_deployed_after_the_flows_over_series() -> None:
    flows = ["flows.session.import_series", "flows.watch.watch", "flows.watch.watch"]
    flows += ["flows.session.session", "flows.workflow.workflow", "flows.tomogram.tomogram"]
    first, *others = STEPS
    steps = [first, "average", *others]
    assert [*flows, *(f"flows.steps.{name}" for name in steps)] == ENTRYPOINTS


@pytest.mark.parametrize("name", STEPS)
def test_the_flow_of_a_step_has_its_name(name: str) -> None:
    assert getattr(steps, name).name == name


def test_a_worker_runs_the_installed_package_and_pulls_nothing() -> None:
    assert PREFECT_YAML["pull"] == []
    assert not any("pull" in deployment for deployment in PREFECT_YAML["deployments"])


def test_every_file_is_explained_and_every_file_explained_is_there() -> None:
    readme = (DEPLOYMENTS / "README.md").read_text()
    named = set(re.findall(r"\]\((?!https?:)([^)#]+)\)", readme))
    there = {str(path.relative_to(DEPLOYMENTS)) for path in TEXTS} - {"README.md"}
    assert {target for target in named if not target.startswith("..")} == there
    assert all((DEPLOYMENTS / target).exists() for target in named)


def test_nothing_here_can_be_imported() -> None:
    assert not list(DEPLOYMENTS.rglob("*.py"))


@pytest.mark.parametrize("path", [p for p in TEXTS if p.suffix == ".yaml"], ids=lambda p: p.name)
def test_yaml_files_hold_mappings(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text()))
    assert documents
    assert all(isinstance(document, dict) for document in documents)


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.name)
def test_nothing_listens_to_the_world(path: Path) -> None:
    assert not re.search(r"0\.0\.0\.0|--host\s+::", path.read_text())


def _instructions(dockerfile: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", dockerfile.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_a_dockerfile_copies_what_is_there_pins_its_base_and_runs_as_nobody_special(
    path: Path,
) -> None:
    instructions = _instructions(path)
    assert instructions[0][0] == "FROM"
    assert re.search(r":[\w.-]*\d", instructions[0][1]), "the base image needs a version"
    known = {"FROM", "RUN", "COPY", "USER", "WORKDIR", "ENV", "ENTRYPOINT", "CMD", "LABEL"}
    assert {name for name, _ in instructions} <= known
    for name, rest in instructions:
        if name == "COPY":
            *sources, _target = [word for word in shlex.split(rest) if not word.startswith("--")]
            for source in sources:
                assert (DEPLOYMENTS.parent / source).exists(), source
    users = [rest for name, rest in instructions if name == "USER"]
    assert users, "the last process must not be root"
    assert users[-1] not in ("root", "0")
