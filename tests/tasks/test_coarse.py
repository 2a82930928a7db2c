"""The step coarse: what it does with bad views, its options, alignments from files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from kernels.geometry import View, aligned_from_raw
from tasks.coarse import coarse
from tasks.errors import UnusableData
from tasks.import_alignment import Taken
from tasks.parameters import CoarseParameters, Execution
from tasks.store import Series, parse_project

THREADS = Execution(cluster="threads", workers=2)
PIXEL = 5.4
Run = Callable[..., tuple[str, dict]]


def flat(tilt: float, axis: float, shift: np.ndarray, size: float = 1.0) -> np.ndarray:
    """A view of a texture in the plane Z = 0."""
    texture = gaussian_filter(np.random.default_rng(4).normal(size=(500, 500)), 1.5)
    y, x = (np.indices((128, 128)) - 64) * PIXEL
    seen = aligned_from_raw(
        np.column_stack([x.ravel(), y.ravel()]), View(tilt, axis, *shift, magnification=size)
    )
    seen[:, 0] /= np.cos(np.radians(tilt))
    values = map_coordinates(texture, seen[:, ::-1].T / PIXEL + 250, order=3)
    return (100 + 200 * values.reshape(128, 128)).astype(np.float32)


@pytest.fixture
def series(tmp_path: Path, finished_project: str) -> Series:
    """A series of seven views kept, at known places, of a flat specimen."""
    project = str(shutil.copytree(finished_project, tmp_path / "p.zarr"))
    series = parse_project(project).series("TS_01")
    images = series.current("main", "dose").images()
    for i, view in enumerate(series.imported().views):
        images[i] = flat(view.tilt_angle, 85.3, planted()[i])
    return series


def planted() -> np.ndarray:
    shifts = np.random.default_rng(4).uniform(-40, 40, (7, 2))
    shifts[3] = 0
    return shifts


@pytest.fixture
def run(series: Series) -> Run:
    def go(**parameters: object) -> tuple[str, dict]:
        values = CoarseParameters.model_validate({"pixel_size": 5.4, **parameters})
        coarse.fn(series.project.url, "TS_01", values, "main", THREADS)
        attributes = series.current("main", "coarse").attributes()
        return attributes["message"], attributes

    return go


def off(attributes: dict, without: int | None = None) -> float:
    """Largest error of the views' shifts, against the untilted view's [Å]."""
    views = attributes["decides"]["views"][1:]
    shifts = np.array([[v["geometry"][f"shift_{a}"] for a in "xy"] for v in views])
    errors = np.abs(shifts - shifts[2] - planted()[1:]).max(axis=1)
    return float(np.delete(errors, [] if without is None else [without - 1]).max())


@pytest.mark.parametrize(
    "options", [{}, {"reference": "cumulative"}, {"search_magnification": True}]
)
def test_planted_shifts_come_back_with_every_option(run: Run, options: dict) -> None:
    message, attributes = run(**options)
    assert off(attributes) < PIXEL
    assert "axis" not in message
    assert ";" not in message


def test_a_blank_view_that_nobody_flagged_is_named(run: Run, series: Series) -> None:
    series.current("main", "dose").images()[5] = 7.0
    message, attributes = run()
    assert "; not found: placed like its neighbour: 6 (" in message
    row = next(row for row in attributes["table"] if row["view"] == 6)
    assert row["doubt"] == "not found: placed like its neighbour"
    assert off(attributes, without=5) < PIXEL


def test_the_geometry_can_come_from_a_file(
    run: Run, series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def imported_geometry(path: Path, record: object, shape: object, pixel: float) -> Taken:
        asked.append((path, shape, pixel))
        return Taken([View(float(i), 80.0, 10.0 * i, -5.0) for i in range(7)], frozenset())

    module = ModuleType("tasks.import_alignment")
    module.imported_geometry = imported_geometry  # type: ignore[attr-defined]
    module.imported_deformation = lambda _, views, *rest: (views, None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tasks.import_alignment", module)
    (tmp_path / "TS_01.xf").write_text("1 0 0 1 0 0\n")
    message, attributes = run(alignment_from=str(tmp_path / "{TS}.xf"))
    assert message == "6 views, alignment from TS_01.xf"
    assert asked == [(tmp_path / "TS_01.xf", (128, 128), 5.4)]
    views = attributes["decides"]["views"]
    assert views[0]["geometry"] is None
    assert views[2]["geometry"]["shift_x"] == 20.0
    # Another content is another result.
    key = series.current("main", "coarse").key
    (tmp_path / "TS_01.xf").write_text("1 0 0 1 2 0\n")
    run(alignment_from=str(tmp_path / "{TS}.xf"))
    assert series.current("main", "coarse").key != key


def test_views_that_a_file_leaves_out_are_left_out_and_named(
    run: Run, series: Series, tmp_path: Path
) -> None:
    kept = [i for i in range(1, 7) if i != 4]
    angles = [view.tilt_angle for view in series.imported().views]
    lines = [f"{i + 1} 85.3 1 {i} 0 1 1 1 0 {angles[i]}" for i in kept]
    head = "# AreTomo Alignment\n# RawSize = 128 128 7\n# BetaOffset = 0.50\n"
    (tmp_path / "TS_01.aln").write_text(head + "\n".join(lines) + "\n")
    message, attributes = run(alignment_from=str(tmp_path / "{TS}.aln"))
    assert message == (
        "5 views, alignment from TS_01.aln; left out, as they are not in it: "
        f"5 ({angles[4]:.0f}°); its BetaOffset of 0.5° about x is not applied"
    )
    for later in ("align", "markerfree"):
        series.point("main", later, None)
    series.point("main", "reconstruct", None)
    record = series.record("main")
    assert record.views[4].excluded == "not in TS_01.aln"
    assert record.included == (1, 2, 3, 5, 6)
    assert [row["view"] for row in attributes["table"]] == [2, 3, 4, 6, 7]


def test_a_missing_file_is_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match=r"TS_01\.aln: .* correct coarse.alignment_from"):
        run(alignment_from=str(tmp_path / "{TS}.aln"))


@pytest.mark.parametrize("mode", ["given", "check", "refine", "search"])
def test_the_axis_is_kept_or_replaced_as_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    def find_axis(*_: object) -> dict[str, float]:
        return {"axis": 80.0, "error": 0.2}

    monkeypatch.setattr("tasks.coarse_rounds.find_axis", find_axis)
    message, attributes = run(axis=mode)
    axis = attributes["decides"]["views"][1]["geometry"]["axis"]
    assert axis == (85.3 if mode in ("given", "check") else 80.0)
    told = {
        "given": "σ",
        "check": "σ, the views suggest an axis of 80.0° ± 0.2°, given 85.3°",
    }
    assert told.get(mode, "σ, axis 80.00° ± 0.20°, given 85.3°") in message
    assert ("axis" in message) == (mode != "given")
