"""The presets of the tutorial: every output from movies, on branches that share what they can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import mrcfile
import numpy as np
import pytest

from flows.presets import PRESETS, branch_of
from flows.workflow import Preset
from tasks.simulate import simulate_dataset
from tasks.store import parse_project
from tasks.truth import SimulationParameters

pytestmark = pytest.mark.usefixtures("prefect_server")
Command = Callable[..., Any]

# Those of the tutorial are super-resolution movies; these are so small that they stay as they are.
OWN = ("--cluster", "threads", "--workers", "2", "--set", "motion.binning=1")
# Of each branch of both presets, what it must have.
OUTPUTS = {
    "fiducial": "motion exclude ctf erase dose preprocess coarse fiducials align transform "
    "thickness reconstruct ctf3d",
    "fiducial-coarse": "coarse transform",
    "fiducial-ctf2d": "ctf2d transform reconstruct",
    "fiducial-strips": "ctf",
    "markerfree": "motion exclude ctf erase dose preprocess coarse markerfree transform "
    "thickness reconstruct ctf3d",
    "markerfree-wbp": "reconstruct",
    "markerfree-ctf2d": "ctf2d transform reconstruct",
    "markerfree-strips": "ctf",
}
# How many results of each step both presets make together: no more than differ.
RESULTS = {
    "motion": 1, "exclude": 1, "ctf": 2, "erase": 1, "dose": 1, "preprocess": 1, "coarse": 1,
    "ctf2d": 2, "fiducials": 1, "align": 1, "markerfree": 1, "transform": 5, "thickness": 2,
    "tomogram": 5, "ctf3d": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of one series that holds enough beads."""
    folder = tmp_path_factory.mktemp("empiar") / "data"
    parameters = SimulationParameters(
        seed=1, series=1, size=320, frames=3, max_tilt=48, tilt_step=8, dark_views=(-48.0,)
    )
    simulate_dataset(folder, parameters)
    return folder


def test_the_tutorials_presets_make_every_output_and_nothing_twice(
    tiltflow: Command, movies: Path, tmp_path: Path
) -> None:
    project = str(tmp_path / "hiv.zarr")
    assert tiltflow("import", project, "--mdoc", movies / "*.mdoc").code == 0
    for way in ("fiducial", "markerfree"):
        run = ("run", project, "--preset", f"tutorial-{way}", "--branch", way, *OWN)
        ended = tiltflow(*run)
        assert (ended.code, ended.err) == (0, "")
        told = [line.split()[2] for line in ended.out.splitlines() if "TS_01  branch" in line]
        assert told == [branch for branch in OUTPUTS if branch.startswith(way)]
    series = parse_project(project).series("TS_01")
    for branch, steps in OUTPUTS.items():
        for step in steps.split():
            assert series.current(branch, step).complete(), (branch, step)
    results = [path.name.rpartition("-")[0] for path in Path(project, "TS_01").glob("*-*")]
    assert {name: results.count(name) for name in RESULTS} == RESULTS

    # What is done is done: the same again, or dry, computes nothing.
    assert "nothing to do" in tiltflow(*run).out
    dry = tiltflow(*run, "--dry-run").out
    assert all(f"branch {branch}" in dry for branch in OUTPUTS if branch.startswith("markerfree"))
    assert "be skipped" in dry
    assert "to do" not in dry

    views = series.record("fiducial-ctf2d").views
    assert (views[0].excluded or "").startswith("dark")
    assert all(view.geometry for view in views if view.excluded is None)
    exported(tiltflow, project, tmp_path)


def exported(tiltflow: Command, project: str, out: Path) -> None:
    for branch in ("fiducial", "fiducial-ctf2d", "markerfree"):
        ended = tiltflow(
            "export", project, "--to", "mrc", "--branch", branch, "--out", out / branch
        )
        assert (ended.code, ended.err) == (0, ""), branch
        volume = mrcfile.read(out / branch / "TS_01_rec.mrc")
        assert volume.std() > 0
        assert np.isfinite(volume).all()
    assert (out / "fiducial" / "TS_01_ctf3d_rec.mrc").is_file()
    for program in ("imod", "aretomo"):
        ended = tiltflow(
            *("export", project, "--to", program, "--branch", "fiducial", "--out", out / program)
        )
        assert (ended.code, ended.err) == (0, ""), program
    assert (out / "imod" / "TS_01" / "TS_01.fid.csv").is_file()
    ended = tiltflow("report", project, "--branch", "fiducial-ctf2d", "--out", out / "report")
    assert (ended.code, ended.err) == (0, "")


def test_the_form_offers_every_preset() -> None:
    assert set(get_args(get_args(Preset)[0])) == set(PRESETS)


def test_branches_of_a_preset_are_named_after_the_first() -> None:
    assert branch_of("main", "") == "main"
    assert branch_of("main", "ctf2d") == "main-ctf2d"
    assert all(next(iter(parts)) == "" for parts in PRESETS.values())


def test_a_step_that_is_not_there_is_named(tiltflow: Command, tiny_project: str) -> None:
    ended = tiltflow("run", tiny_project, "--also", "ctf4d")
    assert "--also ctf4d: there are motion" in ended.complaint
