"""Beads found and views aligned by them, as tasks, on a drawn series."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bead_series import bead_points, draw, tilted_views

from kernels.geometry import View, aligned_from_raw, fit_points, project, tilted
from tasks.align import align
from tasks.alignment import deformation_of
from tasks.bead_store import read_solved, read_tracks
from tasks.bead_table import tracks_from_table
from tasks.choice import ENOUGH
from tasks.discover import find_sources
from tasks.errors import UnusableData
from tasks.export import export_series
from tasks.fiducials import fiducials
from tasks.formats.imod import FiducialPoint, read_tilts, read_xf, write_points
from tasks.formats.imod_model import read_fiducials
from tasks.formats.mrc import write_stack
from tasks.ingest import read_series, store_series
from tasks.parameters import (
    AlignParameters,
    Execution,
    FiducialParameters,
    ImportParameters,
    Pipeline,
    ReconstructParameters,
    TransformParameters,
)
from tasks.plots_alignment import alignment_plots
from tasks.reconstruct import reconstruct
from tasks.store import Series, parse_project
from tasks.transform import transform

THREADS = Execution(cluster="threads", workers=2)
LEVEL: dict[str, Any] = {"z_shift": 0.0, "angle_offset": 0.0, "x_tilt": 0.0}
TILTS = np.arange(-54.0, 55, 9)
SIZE, PIXEL = 288, 8.0
DARK = 2  # left out


def import_drawn(folder: Path, beads: int) -> tuple[Series, np.ndarray, list[View]]:
    """Draw a series, import it as a stack and take it to its coarse alignment."""
    from flows.tomogram import STEP_TASKS

    rng = np.random.default_rng(6)
    views = tilted_views(rng, TILTS, shift=30.0)
    points = bead_points(rng, beads, 900, 1100) if beads else np.zeros((0, 3))
    images = [draw(rng, points, v, SIZE, PIXEL) for v in views]
    write_stack(folder / "TS.st", np.array(images), PIXEL)
    (folder / "TS.rawtlt").write_text("".join(f"{tilt}\n" for tilt in TILTS))
    given = ImportParameters(
        stack=str(folder / "TS.st"), voltage=300, dose=3, tilt_axis=85.3, pixel_size=PIXEL
    )
    url = str(folder / "p.zarr")
    (source,) = find_sources(given).sources
    store_series.fn(url, read_series.fn(source, given))
    pipeline = Pipeline.model_validate(
        {"exclude": {"views": {"TS": str(DARK + 1)}}, "coarse": {"pixel_size": 16.0}}
    )
    for step in ("motion", "exclude", "erase", "dose", "coarse"):
        STEP_TASKS[step].fn(url, "TS", getattr(pipeline, step), "main", THREADS)
    return parse_project(url).series("TS"), points, views


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Series, np.ndarray, list[View]]:
    """Return a series of which the beads are found and the views aligned, and its truth."""
    series, points, views = import_drawn(tmp_path_factory.mktemp("drawn"), 14)
    url = series.project.url
    fiducials.fn(url, "TS", FiducialParameters(), "main", THREADS)
    align.fn(url, "TS", AlignParameters(), "main", THREADS)
    return series, points, views


def misfit(series: Series, points: np.ndarray, views: list[View]) -> float:
    record = series.record("main")
    used = list(record.included)
    found = [record.geometry(i) for i in used]
    raw = np.stack([project(points, views[i]) for i in used])
    seen = (np.abs(raw) < SIZE * PIXEL / 2).all(axis=2)
    fitted = fit_points(raw, seen, found)
    apart = [
        aligned_from_raw(r, v) - tilted(fitted, v)[:, :2] for r, v in zip(raw, found, strict=True)
    ]
    return float(np.sqrt((np.array(apart)[seen] ** 2).sum(axis=-1).mean()))


def test_the_beads_are_found_and_the_views_aligned(
    drawn: tuple[Series, np.ndarray, list[View]],
) -> None:
    series, points, views = drawn
    found = series.current("main", "fiducials").attributes()
    assert found[ENOUGH]
    assert found["beads"] == len(points)
    assert found["diameter_A"] == pytest.approx(100, rel=0.12)
    assert (found["surfaces"], found["surfaces_apart_A"]) == (2, pytest.approx(980, abs=60))
    assert misfit(series, points, views) < 0.2 * PIXEL
    tracks, places = read_tracks(series.current("main", "align"), len(TILTS))
    assert not (tracks.view == DARK).any()
    # The specimen's origin lies midway between the beads' surfaces.
    heights = np.sort(places[:, 2])
    assert abs(heights[:7].mean() + heights[7:].mean()) / 2 < 30


def test_views_left_out_have_no_geometry_and_others_have_one(
    drawn: tuple[Series, np.ndarray, list[View]],
) -> None:
    decided = drawn[0].current("main", "align").attributes()["decides"]["views"]
    assert [view["geometry"] is None for view in decided] == [i == DARK for i in range(len(TILTS))]


def test_the_result_tells_of_itself(drawn: tuple[Series, np.ndarray, list[View]]) -> None:
    result = drawn[0].current("main", "align")
    about = result.attributes()
    assert about["ratio"] == about["measurements"] / about["unknowns"] > 3
    assert about["mean_residual_A"] < about["left_out_residual_A"] < 2 * about["mean_residual_A"]
    assert len(about["beads"]) == 14
    assert sum(tried["chosen"] for tried in about["tried"]) == 1
    assert all(row["standard errors"] > 3 for row in about["doubtful"])
    assert deformation_of(result) is None
    tracks, _ = read_tracks(result, len(TILTS))
    solved = read_solved(result)
    lengths = np.hypot(solved[:, 0], solved[:, 1])
    assert lengths.mean() == pytest.approx(about["mean_residual_A"])
    rows = {row["view"]: row for row in about["table"]}
    own = tracks.view == 5
    assert rows[6]["mean residual [nm]"] == pytest.approx(lengths[own].mean() / 10)
    errors = {row["view"]: row for row in about["variables"]}
    assert 0 < errors[6]["shift_x"] < 5


def test_an_edited_table_is_solved_in_place_of_what_was_found(
    drawn: tuple[Series, np.ndarray, list[View]], tmp_path: Path
) -> None:
    series, points, views = drawn
    url = str(shutil.copytree(series.project.url, tmp_path / "p.zarr"))
    copy = parse_project(url).series("TS")
    tracks, _ = read_tracks(copy.current("main", "align"), len(TILTS))
    places = tracks.xy / PIXEL + SIZE // 2
    rows = [
        FiducialPoint(j + 1, v + 1, x, y)
        for j, v, (x, y) in zip(tracks.point, tracks.view, places, strict=True)
        if j != 3
    ]
    rows += [
        FiducialPoint(99, i + 1, *(project(points[:1], v)[0] / PIXEL + SIZE // 2))
        for i, v in enumerate(views)
    ]
    write_points(tmp_path / "TS.fid.csv", rows)
    parameters = AlignParameters(
        beads_from=str(tmp_path / "{TS}.fid.csv"), select=False, magnification="all", local="off"
    )
    align.fn(url, "TS", parameters, "main", THREADS)
    about = copy.current("main", "align").attributes()
    assert len(about["beads"]) == 14  # one deleted, one added
    assert about["model"]["magnification"] == "all"
    assert misfit(copy, points, views) < 0.25 * PIXEL


def test_places_that_were_not_touched_keep_their_errors(
    drawn: tuple[Series, np.ndarray, list[View]], tmp_path: Path
) -> None:
    tracks, _ = read_tracks(drawn[0].current("main", "align"), len(TILTS))
    places = tracks.xy / PIXEL + SIZE // 2
    rows = [
        FiducialPoint(j + 1, v + 1, x + (0.5 if k == 0 else 0), y)
        for k, (j, v, (x, y)) in enumerate(zip(tracks.point, tracks.view, places, strict=True))
    ]
    write_points(tmp_path / "b.csv", rows)
    again = tracks_from_table(tmp_path / "b.csv", len(TILTS), (SIZE, SIZE), PIXEL, tracks)
    assert again.sigma[1:] == pytest.approx(tracks.sigma[1:])
    assert again.sigma[0] == 1.5 * PIXEL
    np.testing.assert_allclose(again.xy[1:], tracks.xy[1:], atol=0.01 * PIXEL)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (FiducialPoint(1, 14, 5.0, 5.0), r"b\.csv: view 14 of 13: correct the number"),
        (FiducialPoint(1, 1, 5.0, 5.0), r"b\.csv: marker 1 is twice in view 1: delete one row"),
    ],
)
def test_a_wrong_row_of_a_table_is_named(tmp_path: Path, row: FiducialPoint, told: str) -> None:
    write_points(tmp_path / "b.csv", [FiducialPoint(1, 1, 9.0, 9.0), row])
    with pytest.raises(UnusableData, match=told):
        tracks_from_table(tmp_path / "b.csv", 13, (SIZE, SIZE), PIXEL)


def test_a_field_without_beads_says_so_and_cannot_be_aligned_by_them(tmp_path: Path) -> None:
    series, _, _ = import_drawn(tmp_path, 0)
    url = series.project.url
    fiducials.fn(url, "TS", FiducialParameters(), "main", THREADS)
    about = series.current("main", "fiducials").attributes()
    assert about[ENOUGH] is False
    assert about["message"].startswith("too few beads: no beads where 4 are needed")
    with pytest.raises(UnusableData, match=r"TS: too few beads.*alignment=markerfree"):
        align.fn(url, "TS", AlignParameters(), "main", THREADS)


def test_a_number_of_beads_and_regions_are_obeyed(
    drawn: tuple[Series, np.ndarray, list[View]], tmp_path: Path
) -> None:
    series, _, _ = drawn
    url = str(shutil.copytree(series.project.url, tmp_path / "p.zarr"))
    half = ((0.0, 0.0, SIZE / 2, SIZE),)
    parameters = FiducialParameters(beads=4, exclude_regions=half)
    fiducials.fn(url, "TS", parameters, "main", THREADS)
    result = parse_project(url).series("TS").current("main", "fiducials")
    tracks, _ = read_tracks(result, len(TILTS))
    assert tracks.n_points == 4
    lowest = int(np.argmin(np.abs(TILTS)))
    assert (tracks.xy[tracks.view == lowest, 0] > -10).all()


def test_what_is_exported_for_imod_tells_the_beads_again(
    drawn: tuple[Series, np.ndarray, list[View]], tmp_path: Path
) -> None:
    series, points, views = drawn
    export_series(series.project.url, "TS", "main", "imod", tmp_path)
    folder = tmp_path / "TS"
    tracks, _ = read_tracks(series.current("main", "align"), len(TILTS))
    again = tracks_from_table(folder / "TS.fid.csv", len(TILTS), (SIZE, SIZE), PIXEL, tracks)
    order = np.lexsort((tracks.view, tracks.point))
    np.testing.assert_allclose(again.xy, tracks.xy[order], atol=0.002 * PIXEL)
    np.testing.assert_allclose(again.sigma, tracks.sigma[order])
    contours = read_fiducials(folder / "TS.fid")
    assert len(contours) == 14
    for contour in contours:
        for x, y, view in contour:
            raw = project(points, views[int(view)]) / PIXEL + SIZE // 2
            assert np.hypot(*(raw - (x, y)).T).min() < 1.5
    assert (folder / "TS.xyz.csv").read_text().startswith("marker,x_A,y_A,z_A,views,")
    log = (folder / "TS.resid.txt").read_text()
    assert "mean residual" in log
    assert "models tried" in log
    # The transforms fit the true beads, in IMOD's own terms.
    matrices, shifts = read_xf(folder / "TS.xf")
    tilts = np.radians(read_tilts(folder / "TS.tlt"))
    used = [i for i in range(len(TILTS)) if i != DARK]
    raw = np.stack([project(points, views[i]) / PIXEL + SIZE // 2 for i in used])
    centre = (SIZE - 1) / 2
    seen = np.einsum("vab,vpb->vpa", matrices[used], raw - centre) + shifts[used][:, None]
    rows = np.stack([np.cos(tilts[used]), np.sin(tilts[used])], axis=1)
    fitted = np.linalg.lstsq(rows, seen[:, :, 0], rcond=None)[0]
    across = seen[:, :, 0] - rows @ fitted
    along = seen[:, :, 1] - seen[:, :, 1].mean(axis=0)
    assert np.sqrt((across**2 + along**2).mean()) < 0.3


def test_gold_is_taken_out_of_aligned_stacks_and_tomograms(
    drawn: tuple[Series, np.ndarray, list[View]], tmp_path: Path
) -> None:
    series, _, _ = drawn
    url = str(shutil.copytree(series.project.url, tmp_path / "p.zarr"))
    copy = parse_project(url).series("TS")
    _, beads = read_tracks(copy.current("main", "align"), len(TILTS))
    depth = {}
    for erase in (False, True):
        given: dict[str, Any] = {"alignment": "fiducial", "erase_gold": erase}
        transform.fn(url, "TS", TransformParameters(**given), "main", THREADS)
        stack = np.asarray(copy.current("main", "transform").images()[:])
        reconstruct.fn(
            url, "TS", ReconstructParameters(thickness=1600.0, **LEVEL, **given), "main", THREADS
        )
        volume = copy.current("main", "reconstruct").array("0")[:]
        middle = np.array(volume.shape) // 2
        places = np.rint(beads[:, ::-1] / PIXEL).astype(int) + middle
        kept = places[((places > 4) & (places < np.array(volume.shape) - 5)).all(axis=1)]
        depth[erase] = (
            np.mean([-(view - np.median(view)).min() / view.std() for view in stack]),
            -volume[tuple(kept.T)].mean() / volume.std(),
        )
    assert depth[False][0] > 1.5 * depth[True][0]
    assert depth[False][1] > 3 > 1 > abs(depth[True][1])


def test_regions_are_read_from_the_command_line() -> None:
    given = FiducialParameters.model_validate({"exclude_regions": "0,0,20,40 50,6,7,8"})
    assert given.exclude_regions == ((0, 0, 20, 40), (50, 6, 7, 8))
    with pytest.raises(ValueError, match="no list of x,y,width,height"):
        FiducialParameters.model_validate({"exclude_regions": "1,2,3"})


def test_the_report_draws_the_alignment(drawn: tuple[Series, np.ndarray, list[View]]) -> None:
    series, _, _ = drawn
    record, result = series.record("main"), series.current("main", "align")
    plots = alignment_plots(record, result, series.current("main", "erase"))
    assert len(plots) == 4
    assert all(plot.uri.startswith("data:image/svg+xml;base64,") for plot in plots)
    assert "14 beads" in plots[0].alt
    assert "free are shifts, rotation" in plots[1].alt
    # Of a branch that uses another alignment nothing is drawn.
    coarse = series.record_of({s: series.pointer("main", s) or "" for s in ("exclude", "coarse")})
    assert alignment_plots(coarse, result, None) == alignment_plots(record, None, None) == []
