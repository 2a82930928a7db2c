"""Every command in the documentation exists, with its options and their values."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import doc_pages
import pytest
import reference

from flows.options import pipeline_from, validated
from tasks.branches import begin_branch
from tasks.choice import settled_step
from tasks.parameters import Execution
from tasks.steps import STEPS, inputs_of
from tasks.store import parse_project
from tasks.work import begin

GROUP = reference.command_line()
MODELS = {name: model for name, (_, model) in reference.models().items()}
ALL = [command for page in doc_pages.pages() for command in doc_pages.commands(page)]
OTHERS = {
    "--limit",
    "--port",
    "--resources",
    "--prefect-file",
    "--all",
    "--to relion",
}  # not tiltflow's


def check(words: tuple[str, ...]) -> None:
    """Parse a command as the command line does, without carrying it out."""
    name, *rest = words
    assert name in GROUP.commands, f"no command {name}"
    given = GROUP.commands[name].make_context(name, list(rest)).params
    if name in MODELS:
        chosen = {k: given[k] for k in MODELS[name].model_fields if given[k] not in (None, (), [])}
        lists = {k: list(v) if isinstance(v, tuple) else v for k, v in chosen.items()}
        validated(MODELS[name], lists)
    if "set_" in given:
        pipeline_from(given["preset"], None, given["set_"])
        assert given["until"] in (None, "import", *STEPS), repr(given["until"])
    if name == "config":
        pipeline_from(given["preset"], None, None)


@pytest.mark.parametrize("command", ALL, ids=str)
def test_a_command_in_a_block_parses(command: doc_pages.Command) -> None:
    check(command.words)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("fly s.zarr", "no command fly"),
        ("motion", "(?i)missing"),
        ("motion s.zarr --bining 2", "(?i)no such option"),
        ("motion s.zarr --binning 0", "binning: .*greater"),
        ("exclude s.zarr --views 1", "NAME=LIST"),
        ("run s.zarr --set motion.bining=2", "no such parameter"),
        ("run s.zarr --preset tutorial", "preset 'tutorial'"),
        ("run s.zarr --until end", "'end'"),
    ],
)
def test_a_wrong_command_would_be_noticed(line: str, told: str) -> None:
    with pytest.raises(Exception, match=told):
        check(tuple(line.split()))


STEPS_ON_BRANCHES = [
    command
    for command in ALL
    if command.words[0] in STEPS and "--branch" in command.words and command.run
]


@pytest.mark.parametrize("command", STEPS_ON_BRANCHES, ids=str)
def test_a_step_on_a_branch_of_its_own_finds_what_it_reads(
    command: doc_pages.Command,
    finished_project: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a project where all is done on main: as far as the work could begin."""
    name = command.words[0]
    given = GROUP.commands[name].make_context(name, list(command.words[1:])).params
    chosen = {k: given[k] for k in MODELS[name].model_fields if given[k] not in (None, (), [])}
    parameters: Any = validated(MODELS[name], chosen)
    project = str(shutil.copytree(finished_project, tmp_path / "p.zarr"))
    series = parse_project(project).series("TS_01")
    monkeypatch.chdir(tmp_path)
    for file in filter(None, (getattr(parameters, name) for name in STEPS[name].files)):
        Path(file).touch()
    parameters = settled_step(parameters, project, "TS_01", "main")
    for side in inputs_of(STEPS[name], parameters):  # what the page has run before
        if series.pointer("main", side) is None:
            result = series.result(side, "0" * 12)
            result.finish({"step": side, "inputs": {}, "decides": {}})
            series.point("main", side, result.key)
    assert begin_branch(series, given["branch"], name, parameters)
    work = begin(name, project, "TS_01", parameters, given["branch"], Execution(cluster="threads"))
    assert work.inputs == {step: series.pointer("main", step) for step in work.inputs}


def test_pages_have_steps_on_branches_of_their_own() -> None:
    assert len(STEPS_ON_BRANCHES) >= 5


def options_of(command: Any) -> set[str]:
    return {word for one in command.params for word in (*one.opts, *one.secondary_opts)}


@pytest.mark.parametrize("page", doc_pages.pages(), ids=lambda page: page.stem)
def test_what_the_text_mentions_exists(page: Path) -> None:
    every = {word for command in GROUP.commands.values() for word in options_of(command)}
    for words in doc_pages.mentions(page):
        known = every
        if words[0] == "tiltflow" and words[1][0] not in "-…C":  # a command, not COMMAND
            assert words[1] in GROUP.commands, words
            known = options_of(GROUP.commands[words[1]])
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        if " ".join(words) not in OTHERS:
            assert options - OTHERS <= known | {"--help"}, words


def test_the_pages_have_commands() -> None:
    assert len(ALL) > 100
    assert {command.words[0] for command in ALL} >= {*GROUP.commands} - {"demo"}
