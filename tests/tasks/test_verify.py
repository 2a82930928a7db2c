"""The judge of the demo must pass what is right, and only that."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.parameters import Execution, Pipeline, ReconstructParameters
from tasks.reconstruct import reconstruct
from tasks.record import Geometry
from tasks.simulate import simulate_dataset
from tasks.store import Series, parse_project
from tasks.truth import SeriesTruth, SimulationParameters, Truth
from tasks.verify import Line, compare

THREADS = Execution(cluster="threads", workers=2)
LEVEL: dict[str, Any] = {"z_shift": 0.0, "angle_offset": 0.0, "x_tilt": 0.0}
SIZE = 256
BINNING = 2
Change = Callable[[Geometry], dict[str, float]]
CONSISTENT = "bead positions against one rigid model, rms"
PLANTED = "beads against the planted ones, rms"
MIRROR = "and against their mirror image"
IN_TOMOGRAM = "beads found in the tomogram"


@pytest.fixture(scope="module")
def true_project(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Truth]:
    """Return a project whose results are the planted truth: only the images are real."""
    from flows.tomogram import STEP_TASKS
    from tasks.discover import mdoc_source
    from tasks.ingest import read_series, store_series
    from tasks.parameters import ImportParameters

    folder = tmp_path_factory.mktemp("truth")
    truth = simulate_dataset(
        folder / "data",
        SimulationParameters(
            seed=8,  # one that has four beads which no view cuts off
            size=SIZE,
            series=1,
            frames=3,
            max_tilt=45,
            tilt_step=5,
            dark_views=(-45.0,),
            dose=6.0,
        ),
    )
    project = str(folder / "p.zarr")
    gain = str(folder / "data/gain.mrc")
    source = mdoc_source(folder / "data/TS_01.mrc.mdoc")
    store_series.fn(project, read_series.fn(source, ImportParameters(mdoc="x", gain=gain)))
    for step in ("motion", "exclude", "erase", "dose"):
        parameters = getattr(Pipeline(), step)
        STEP_TASKS[step].fn(project, "TS_01", parameters, "main", THREADS)
    series = parse_project(project).series("TS_01")
    write_ctf(series, truth.series[0])
    return project, truth


def finish(series: Series, step: str, views: list[dict[str, Any]]) -> None:
    result = series.result(step, "0" * 12)
    inputs = {name: series.pointer("main", name) for name in ("dose", "exclude")}
    result.finish({"inputs": inputs, "decides": {"views": views, "series": {}}})
    series.point("main", step, result.key)


def write_ctf(series: Series, truth: SeriesTruth, offset: float = 0.0) -> None:
    estimates = [
        {
            "defocus_u": view.defocus_u + offset,
            "defocus_v": view.defocus_v + offset,
            "astigmatism_angle": 0.0,
            "fit_resolution": 10.0,
            "score": 1.0,
        }
        for view in truth.views
    ]
    finish(series, "ctf", [{"ctf": estimate} for estimate in estimates])


def write_alignment(series: Series, truth: SeriesTruth, change: Change) -> None:
    """Write the planted geometry, changed; images stand as their first frames do."""
    geometry = []
    for view in truth.views:
        planted = view.geometry
        x, y = view.frame_shifts[0] if not view.dark else (0.0, 0.0)
        seen = planted.model_copy(
            update={"shift_x": planted.shift_x + x, "shift_y": planted.shift_y + y}
        )
        geometry.append(seen.model_copy(update=change(seen)).model_dump())
    finish(series, "coarse", [{"geometry": fields} for fields in geometry])


@pytest.fixture
def judged(true_project: tuple[str, Truth], tmp_path: Path) -> Callable[[Change], dict[str, Line]]:
    """Return the function that falsifies the geometry, reconstructs, and compares."""
    project, truth = true_project

    def judge(change: Change, **place: float) -> dict[str, Line]:
        copy = str(shutil.copytree(project, tmp_path / "copy.zarr", dirs_exist_ok=True))
        series = parse_project(copy).series("TS_01")
        write_alignment(series, truth.series[0], change)
        parameters = ReconstructParameters(
            alignment="coarse", binning=BINNING, thickness=2400.0, **{**LEVEL, **place}
        )
        reconstruct.fn(copy, "TS_01", parameters, "main", THREADS)
        return {line.what: line for line in compare(copy, truth)}

    return judge


def test_the_planted_geometry_passes_every_line_about_beads(
    judged: Callable[[Change], dict[str, Line]],
) -> None:
    lines = judged(lambda view: {})
    about_beads = [line for what, line in lines.items() if "bead" in what or "axis" in what]
    assert {line.what: line.found for line in about_beads if not line.passed} == {}
    assert len(about_beads) == 4
    assert lines[CONSISTENT].found < 8
    assert lines[PLANTED].found < 8


def test_beads_are_found_where_a_turned_specimen_has_them(
    judged: Callable[..., dict[str, Line]],
) -> None:
    lines = judged(lambda view: {}, angle_offset=-2.5, x_tilt=1.5, z_shift=30.0)
    assert lines[IN_TOMOGRAM].passed
    assert lines[PLANTED].passed


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        (lambda g: {"tilt": -g.tilt}, {PLANTED, MIRROR}),
        (lambda g: {"axis": g.axis + 180, "tilt": g.tilt}, {"tilt-axis error"}),
        (lambda g: {"axis": g.axis + 5}, {"tilt-axis error", CONSISTENT}),
        (lambda g: {"axis": -g.axis}, {"tilt-axis error", CONSISTENT, PLANTED}),
        (lambda g: {"shift_x": -g.shift_x}, {CONSISTENT}),
        (lambda g: {"shift_x": g.shift_y, "shift_y": g.shift_x}, {CONSISTENT}),
        (lambda g: {"magnification": 1.1 * g.magnification}, {PLANTED}),
    ],
    ids=[
        "tilts of the other sign",
        "axis turned round",
        "axis 5° off",
        "axis of the other sign",
        "a shift of the other sign",
        "x and y exchanged",
        "wrong scale",
    ],
)
def test_a_falsified_geometry_misses(
    judged: Callable[[Change], dict[str, Line]], change: Change, missed: set[str]
) -> None:
    lines = judged(change)
    assert missed <= {what for what, line in lines.items() if not line.passed}


def test_a_tomogram_upside_down_has_no_beads_where_they_are_expected(
    true_project: tuple[str, Truth], tmp_path: Path, judged: Callable[[Change], dict[str, Line]]
) -> None:
    judged(lambda view: {})
    series = parse_project(str(tmp_path / "copy.zarr")).series("TS_01")
    volume = series.current("main", "reconstruct").array("0")
    values = volume[:]
    volume[:] = values[::-1]
    (line,) = found_in(tmp_path, true_project[1])
    assert not line.passed
    volume[:] = -values
    (line,) = found_in(tmp_path, true_project[1])
    assert not line.passed


def test_beads_are_dark_at_their_planted_places(
    true_project: tuple[str, Truth], tmp_path: Path, judged: Callable[[Change], dict[str, Line]]
) -> None:
    judged(lambda view: {})
    series = parse_project(str(tmp_path / "copy.zarr")).series("TS_01")
    result = series.current("main", "reconstruct")
    volume, voxel = result.array("0")[:], result.attributes()["pixel_size"]
    shape = np.array(volume.shape)
    beads = np.array(true_project[1].series[0].beads)[:, ::-1] / voxel + shape // 2
    inside = ((beads > 8) & (beads < shape - 9)).all(axis=1)
    places = np.rint(beads[inside]).astype(int)
    assert len(places) >= 3
    depths = np.array(
        [
            volume[tuple(slice(c - 1, c + 2) for c in place)].mean() - volume.mean()
            for place in places
        ]
    )
    assert np.median(depths) < -4 * volume.std()


def test_wrong_defocus_and_wrong_motion_miss(
    true_project: tuple[str, Truth], tmp_path: Path, judged: Callable[[Change], dict[str, Line]]
) -> None:
    judged(lambda view: {})
    project, truth = str(tmp_path / "copy.zarr"), true_project[1]
    series = parse_project(project).series("TS_01")
    write_ctf(series, truth.series[0], offset=2000.0)
    shifts = series.current("main", "motion").array("shifts")
    shifts[:] = -shifts[:]
    missed = {line.what for line in compare(project, truth) if not line.passed}
    assert {
        "defocus error, median over views",
        "defocus error, 90 % of views within",
        "motion error, median over views",
    } <= missed


def test_a_number_that_is_not_one_passes_nothing() -> None:
    for least in (True, False):
        assert not Line("TS", "x", float("nan"), 1.0, "", least).passed
    assert Line("TS", "x", 1.0, 1.0, "").passed
    assert Line("TS", "x", 1.0, 1.0, "", least=True).passed


def found_in(folder: Path, truth: Truth) -> list[Line]:
    return [line for line in compare(str(folder / "copy.zarr"), truth) if line.what == IN_TOMOGRAM]
