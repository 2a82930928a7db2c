"""The command line: what it shows, what it refuses, and how it says so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from tiny_steps import TAKEN

from flows.options import pipeline_from
from flows.presets import PRESETS
from tasks.parameters import Pipeline
from tasks.steps import STEPS
from tasks.store import parse_project

pytestmark = pytest.mark.usefixtures("prefect_server")
Command = Callable[..., Any]
OTHER_COMMANDS = {
    "demo",
    "import",
    "run",
    "show",
    "status",
    "report",
    "export",
    "config",
    "prune",
    "subset",
    "watch",
    "serve",
    "simulate",
}
THREADS = ("--cluster", "threads", "--workers", "2")


def in_a_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``tiltflow …`` as a user's shell does."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


# -- what is there ------------------------------------------------------------------------------


def test_help_lists_every_command(tiltflow: Command) -> None:
    ended = tiltflow("--help")
    assert ended.code == 0
    for command in OTHER_COMMANDS | set(STEPS):
        assert re.search(rf"\b{command}\b", ended.out), command


def test_the_version_is_that_of_the_package(tiltflow: Command) -> None:
    ended = tiltflow("--version")
    assert (ended.code, ended.out) == (0, f"tiltflow {version('tiltflow')}\n")


@pytest.mark.parametrize("step", STEPS)
def test_a_step_has_an_option_for_each_of_its_parameters(tiltflow: Command, step: str) -> None:
    ended = tiltflow(step, "--help")
    assert ended.code == 0
    for name in type(getattr(Pipeline(), step)).model_fields:
        # Help is a table, which cuts long names off.
        assert f"--{name.replace('_', '-')}"[:16] in ended.out
    for shared in ("--branch", "--series", "--workers", "--gpus", "--memory", "--cluster"):
        assert shared in ended.out


def test_the_command_starts_as_a_program_of_its_own(tmp_path: Path) -> None:
    ended = in_a_process("config", "--preset", "fast")
    assert (ended.returncode, ended.stderr) == (0, "")
    (tmp_path / "fast.yaml").write_text(ended.stdout)
    assert pipeline_from(None, tmp_path / "fast.yaml", None) == pipeline_from("fast", None, None)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_printed_configuration_loads_back(
    tiltflow: Command, tmp_path: Path, preset: str
) -> None:
    (tmp_path / "p.yaml").write_text(tiltflow("config", "--preset", preset).out)
    assert pipeline_from(None, tmp_path / "p.yaml", None) == pipeline_from(preset, None, None)


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "{p}", "--set", "motion.bining=2"), r"motion\.bining: no such parameter; there"),
        (("run", "{p}", "--set", "motion.binning=0"), r"motion\.binning: .*not 0"),
        (("run", "{p}", "--set", "motion.binning=["), r"motion\.binning"),
        (("run", "{p}", "--preset", "quick"), r"preset 'quick': there are default"),
        (("run", "{p}", "--config", "{p}/none.yaml"), r"none\.yaml: cannot be read"),
        (("run", "{p}", "--until", "lunch"), r"--until lunch: there are motion"),
        (("run", "{p}", "--branch", "a/b"), r"branch name 'a/b'"),
        (("run", "{p}", "--branch", ".."), r"branch name '\.\.'"),
        (("run", "{p}", "--series", "TS_9"), r"no series 'TS_9' \(there are: TS_01, TS_02\)"),
        (("run", "{p}", "--cluster", "cloud", "--series", "TS_02"), r"cluster is 'cloud': use"),
        (("run", "{p}", "--workers", "0", "--series", "TS_02"), r"workers: .*not 0"),
        (("run", "{p}", "--workers", "many"), r"'--workers': .*valid integer"),
        (("run", "{p}", "--memory", "lots", "--series", "TS_02"), r"memory is 'lots': write"),
        (("run", "{p}/nothing.zarr"), r"nothing\.zarr: no project there: make one with"),
        (("status", "{p}/nothing.zarr"), r"nothing\.zarr: no project there"),
        (("show", "{p}/nothing.zarr"), r"nothing\.zarr: no project there"),
        (("report", "{p}/nothing.zarr"), r"nothing\.zarr: no project there"),
        (("prune", "{p}/nothing.zarr"), r"nothing\.zarr: no project there"),
        (("show", "{p}", "TS_9"), r"no series 'TS_9'"),
        (("show", "{p}", "--branch", "best"), r"no branch 'best': there are main"),
        (("status", "{p}", "--branch", "best"), r"no branch 'best'"),
        (("run", "{p}", "--speed", "9"), r"[Nn]o such option"),
        (("fly", "{p}"), r"[Nn]o such command"),
        (("run",), r"Missing argument 'project'"),
        (("config", "--preset", "quick"), r"preset 'quick'"),
        (("export", "{p}", "--to", "word", "--out", "{p}/o"), r"word"),
        (("motion", "{p}", "--max-drift", "-3"), r"max_drift: .*not '-3'"),
        (("exclude", "{p}", "--views", "1,3"), r"views: '1,3' is not NAME=LIST"),
        (("import", "{p}/new.zarr", "--mdoc", "{p}/*.mdoc"), r"\*\.mdoc: no such mdoc"),
        (("import", "{p}/new.zarr"), r"nothing given: name the tilt series by one of mdoc, patt"),
        (("import", "{p}/n.zarr", "--mdoc", "x", "--stack", "y"), r"mdoc and stack given: name"),
        (("motion", "{p}", "--patches", "5"), r"patches: '5' are not two numbers, such as 5,4"),
        (("import", "{p}/new.zarr", "--mdoc", "x", "--voltage", "-3"), r"voltage: .*not '-3'"),
    ],
    ids=lambda value: " ".join(value).replace("{p}", "P") if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line_without_a_traceback(
    tiltflow: Command, finished_copy: str, arguments: tuple[str, ...], told: str
) -> None:
    before = sorted(Path(finished_copy).rglob("*"))
    ended = tiltflow(*(text.replace("{p}", finished_copy) for text in arguments))
    assert re.search(told, ended.complaint)
    assert sorted(Path(finished_copy).rglob("*")) == before


def test_a_mistake_is_one_line_in_a_shell_too(tiny_project: str) -> None:
    ended = in_a_process("run", tiny_project, "--set", "motion.bining=2")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("tiltflow: motion.bining: no such parameter; there are: binni")
    assert ended.stderr.count("\n") == 1


# -- what is told -----------------------------------------------------------------------------


def test_import_prints_where_each_field_comes_from(
    tiltflow: Command, tiny_data: Path, tmp_path: Path
) -> None:
    project = tmp_path / "p.zarr"
    ended = tiltflow(
        "import", project, "--mdoc", tiny_data / "*.mdoc", "--pixel-size", "2.7", "--dose", "3"
    )
    assert (ended.code, ended.err) == (0, "")
    assert "TS_01: 7 views" in ended.out
    assert "TS_02: 7 views" in ended.out
    assert re.search(r"pixel size\W+2\.7 Å\W+user\W+mdoc PixelSpacing.* says 5\.4 Å", ended.out)
    assert re.search(r"Cs\W+2\.7 mm\W+default", ended.out)


def test_a_second_run_does_nothing_and_says_so(tiltflow: Command, finished_copy: str) -> None:
    before = sorted(Path(finished_copy).rglob("*"))
    ended = tiltflow("run", finished_copy, "--series", "TS_01")
    assert ended.code == 0
    assert ended.out.startswith("nothing to do: 1 series are done on branch main")
    assert sorted(Path(finished_copy).rglob("*")) == before


def test_a_dry_run_tells_what_would_run_and_why(tiltflow: Command, finished_copy: str) -> None:
    before = sorted(Path(finished_copy).rglob("*"))
    ended = tiltflow("run", finished_copy, "--dry-run", "--set", "dose.apply=false")
    assert ended.code == 0
    lines = {
        (series, step): line
        for line in ended.out.splitlines()
        for series in ("TS_01", "TS_02")
        for step in TAKEN
        if re.search(rf"{series}\W+{step}\b", line)
    }
    # Of a series whose beads were never looked for nobody knows how it will be aligned.
    assert len(lines) == 2 * len(TAKEN) - 1
    for step in TAKEN:
        done = step in ("motion", "exclude", "ctf", "erase")
        assert ("be skipped" in lines["TS_01", step]) == done
        open_yet = "the beads decide" if step in {"thickness", "reconstruct"} else "not run yet"
        assert step == "markerfree" or open_yet in lines["TS_02", step]
    assert "dose.apply: True → False" in lines["TS_01", "dose"]
    assert "its inputs or the imported record changed" in lines["TS_01", "coarse"]
    assert sorted(Path(finished_copy).rglob("*")) == before


def test_a_run_goes_on_with_the_parameters_of_the_last_one(
    tiltflow: Command, finished_copy: str
) -> None:
    options = (finished_copy, "--series", "TS_01", "--until", "erase")
    assert tiltflow("run", *options, "--set", "erase.peak=7", *THREADS).code == 0
    again = tiltflow("run", *options)
    assert "as in the last run on branch main: erase.peak=7.0" in again.out
    assert "nothing to do" in again.out
    assert "as in the last run" not in tiltflow("run", *options, "--branch", "new", *THREADS).out
    about = parse_project(finished_copy).series("TS_01").current("new", "erase").attributes()
    assert about["parameters"]["peak"] == 8.0


def test_a_new_branch_of_a_finished_series_only_moves_pointers(
    tiltflow: Command, finished_copy: str
) -> None:
    ended = tiltflow("run", finished_copy, "--series", "TS_01", "--branch", "copy", *THREADS)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("already done") == len(TAKEN)
    series = parse_project(finished_copy).series("TS_01")
    for step in TAKEN:
        assert series.pointer("copy", step) == series.pointer("main", step)
    again = tiltflow("run", finished_copy, "--series", "TS_01", "--branch", "copy")
    assert again.out.startswith("nothing to do: 1 series are done on branch copy")


def test_a_run_prints_a_line_for_each_step_and_series(tiltflow: Command, tiny_project: str) -> None:
    ended = tiltflow("run", tiny_project, "--until", "dose", *THREADS)
    assert (ended.code, ended.err) == (0, "")
    for series in ("TS_01", "TS_02"):
        for step in ("motion", "exclude", "erase", "dose"):
            assert len(re.findall(rf"^{series}  {step}\b", ended.out, re.MULTILINE)) == 1
    assert "Beginning flow run" not in ended.out + ended.err


def test_a_step_command_runs_that_step(tiltflow: Command, finished_copy: str) -> None:
    ended = tiltflow("erase", finished_copy, "--series", "TS_01", "--peak", "6.5", *THREADS)
    assert (ended.code, ended.err) == (0, "")
    about = parse_project(finished_copy).series("TS_01").current("main", "erase").attributes()
    assert about["parameters"]["peak"] == 6.5
    missing = tiltflow("erase", finished_copy, "--series", "TS_02", *THREADS)
    assert "TS_02: motion has not been run on branch 'main'" in missing.complaint


def test_show_and_status_tell_what_is_done(tiltflow: Command, finished_copy: str) -> None:
    status = tiltflow("status", finished_copy)
    assert status.code == 0
    assert re.search(r"TS_01(\W+done){10}", status.out)
    assert re.search(r"TS_02(\W+to do){8}", status.out)
    record = json.loads(tiltflow("show", finished_copy, "TS_01", "--json").out)
    assert [view["excluded"] is None for view in record["views"]] == [False] + [True] * 6
    table = tiltflow("show", finished_copy, "TS_01").out
    assert "dark: mean" in table
    assert len(json.loads(tiltflow("show", finished_copy, "--json").out)) == 2


def test_status_tells_why_a_series_failed(tiltflow: Command, tiny_project: str) -> None:
    series = parse_project(tiny_project).series("TS_02")
    series.note_failure("main", "motion", "m[1].mrc: is broken: copy it again")
    ended = tiltflow("status", tiny_project)
    assert "m[1].mrc: is broken: copy it again" in ended.out
    assert re.search(r"TS_02\W+failed", ended.out)


def test_prune_shows_before_it_removes(tiltflow: Command, finished_copy: str) -> None:
    series = parse_project(finished_copy).series("TS_01")
    lost = series.result("erase", "0" * 12)
    lost.finish({"message": "no branch has me"})
    shown = tiltflow("prune", finished_copy)
    assert lost.path in shown.out
    assert "--yes" in shown.out
    assert lost.complete()
    tiltflow("prune", finished_copy, "--yes")
    assert not lost.complete()
    assert series.current("main", "erase").complete()


def test_brackets_in_names_are_printed_as_they_are(tiltflow: Command, own_data: Path) -> None:
    (own_data / "TS_02.mrc.mdoc").unlink()
    folder = own_data.rename(own_data.parent / "my [bold]data")
    project = folder.parent / "p.zarr"
    # Brackets are wildcards, too, and are written as such.
    ended = tiltflow("import", project, "--mdoc", folder.parent / "my*data" / "*.mdoc")
    assert (ended.code, ended.err) == (0, "")
    assert "[bold]data" in ended.out


STOPPED = """
import atexit, os, signal, time
from flows import cli
atexit.register(print, "tidied up")
def app(**_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
cli.app = app
cli.main()
"""


def test_a_service_that_is_stopped_tidies_up_as_after_an_interrupt() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STOPPED],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (ended.returncode, ended.stdout.strip()) == (130, "tidied up")
    assert ended.stderr.startswith("tiltflow: stopped; what is done is kept")


def test_a_server_that_does_not_start_is_told_in_a_line(
    tiltflow: Command, tiny_project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_server(*_: Any, **__: Any) -> None:
        raise RuntimeError("Timed out while attempting to connect to ephemeral Prefect API server.")

    monkeypatch.setattr("flows.session.session", no_server)
    complaint = tiltflow("run", tiny_project, "--until", "motion").complaint
    assert "embedded server does not answer: try again when the machine is less busy" in complaint
