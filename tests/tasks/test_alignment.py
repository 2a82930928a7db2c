"""Coarse alignment and its refinement, as tasks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from kernels.geometry import View, aligned_from_raw
from tasks.coarse import coarse
from tasks.errors import WrongParameter
from tasks.parameters import CoarseParameters, Execution
from tasks.store import Series, parse_project

THREADS = Execution(cluster="threads", workers=2)


@pytest.fixture
def done(finished_project: str) -> Series:
    return parse_project(finished_project).series("TS_01")


@pytest.mark.parametrize("step", ["coarse", "markerfree"])
def test_every_view_that_is_kept_has_a_geometry_and_no_other(done: Series, step: str) -> None:
    decided = done.current("main", step).attributes()["decides"]
    assert [view["geometry"] is None for view in decided["views"]] == [True] + [False] * 6
    assert decided["series"] == {}
    for view, imported in zip(decided["views"][1:], done.imported().views[1:], strict=True):
        assert view["geometry"]["tilt"] == pytest.approx(imported.tilt_angle, abs=0.5)
        assert abs(view["geometry"]["axis"] - 85.3) <= 3.01


@pytest.mark.parametrize("step", ["coarse", "markerfree"])
def test_helping_arrays_are_gone_when_a_step_is_done(done: Series, step: str) -> None:
    result = done.current("main", step)
    kept = {"coarse": ["zarr.json"], "markerfree": ["tracks", "zarr.json"]}
    assert done.project.names(result.path) == kept[step]


def test_the_shifts_of_a_flat_specimen_are_found(tmp_path: Path, finished_project: str) -> None:
    project = str(shutil.copytree(finished_project, tmp_path / "p.zarr"))
    series = parse_project(project).series("TS_01")
    images, record = series.current("main", "dose").images(), series.imported()
    rng = np.random.default_rng(4)
    texture = gaussian_filter(rng.normal(size=(400, 400)), 2.0).astype(np.float32)
    planted = rng.uniform(-40, 40, (7, 2))
    planted[3] = 0  # the untilted view, which the others are brought to
    for i, view in enumerate(record.views):
        true = View(view.tilt_angle, 85.3, *planted[i])
        y, x = (np.indices((128, 128)) - 64) * 5.4
        seen = aligned_from_raw(np.column_stack([x.ravel(), y.ravel()]), true)
        seen[:, 0] /= np.cos(np.radians(view.tilt_angle))  # all matter lies in the plane Z = 0
        values = map_coordinates(texture, seen[:, ::-1].T / 5.4 + 200, order=3)
        images[i] = 100 + 200 * values.reshape(128, 128)
    coarse.fn(project, "TS_01", CoarseParameters(low_pass=0.3), "main", THREADS)
    geometry = series.current("main", "coarse").attributes()["decides"]["views"]
    shifts = np.array([[g["geometry"][f"shift_{a}"] for a in "xy"] for g in geometry[1:]])
    error = (shifts - shifts[2]) - planted[1:]
    assert np.abs(error).max() < 5.4  # a pixel


def test_the_step_gives_the_same_on_one_worker_and_on_two(
    tmp_path: Path, finished_project: str, done: Series
) -> None:
    project = str(shutil.copytree(finished_project, tmp_path / "p.zarr"))
    series = parse_project(project).series("TS_01")
    series.project.delete(series.current("main", "coarse").path)
    coarse.fn(project, "TS_01", CoarseParameters(), "main", Execution(cluster="threads", workers=1))
    ours, theirs = (s.current("main", "coarse").attributes()["decides"] for s in (series, done))
    assert ours == theirs


def test_a_pixel_that_leaves_too_little_is_refused(tmp_path: Path, finished_project: str) -> None:
    project = str(shutil.copytree(finished_project, tmp_path / "p.zarr"))
    with pytest.raises(WrongParameter, match=r"40 Å reduces the views to 18×18: use a"):
        coarse.fn(project, "TS_01", CoarseParameters(pixel_size=40.0), "main", THREADS)
