from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from kernels.motion_local import LocalField
from tasks.export import export_series
from tasks.export_motion import local_fields, write_motion
from tasks.formats.star import read_star
from tasks.parameters import MotionParameters, Pipeline

ROWS, COLUMNS = 80, 96  # of the movies
PIXEL = 1.35


def relion_shift(path: Path, frame: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return by RELION's formula the shift (y, x) that undoes the motion at pixels y, x.

    As `Micrograph::getShiftAt` of RELION 3.1 has it; `frame` from 1.
    """
    blocks = read_star(path)
    table = blocks["global_shift"]
    shift = [table.floats(f"rlnMicrographShift{axis}")[frame - 1] for axis in "XY"]
    assert -9999 not in shift
    local = [0 * x, 0 * x]
    if blocks["general"].value("rlnMotionModelVersion") == "1":
        c = blocks["local_motion_model"].floats("rlnMotionModelCoeff")
        z = frame - int(blocks["general"].value("rlnMicrographStartFrame"))
        u, v = x / COLUMNS - 0.5, y / ROWS - 0.5
        t = np.array([z, z**2, z**3])
        local = [
            (a[0:3] @ t) + (a[3:6] @ t) * u + (a[6:9] @ t) * u * u
            + (a[9:12] @ t) * v + (a[12:15] @ t) * v * v + (a[15:18] @ t) * u * v
            for a in (c[:18], c[18:])
        ]  # fmt: skip
    return np.stack([shift[1] + local[1], shift[0] + local[0]])


PLACES = np.meshgrid(np.arange(0, ROWS, 7.0), np.arange(0, COLUMNS, 9.0), indexing="ij")


def displacement(motion, view: int, frame: int, shape=(ROWS, COLUMNS)) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Return where the result says that the specimen at PLACES is in a frame, from 0."""
    y, x = (
        (place - whole // 2) / kept
        for place, whole, kept in zip(PLACES, (ROWS, COLUMNS), shape, strict=True)
    )
    moved = motion.array("shifts")[view, frame][:, None, None] + 0 * np.stack([y, x])
    stored = motion.array("local")[view]
    known = np.isfinite(stored[frame]).all(axis=1)
    if known.any():
        moved = moved + LocalField(stored[:, known]).at(y, x)[frame]
    return moved


def export(run, out: Path, to: str = "imod") -> list[str]:  # type: ignore[no-untyped-def]
    said: list[str] = []
    export_series(run.series.project.url, "TS_01", "main", to, out, said.append)
    return said


@pytest.mark.parametrize("crop", [None, (40, 64)])
def test_relion_finds_the_specimen_where_we_do(fake_run, tmp_path: Path, crop) -> None:  # type: ignore[no-untyped-def]
    run = fake_run(pipeline=Pipeline(motion=MotionParameters(crop=crop)))
    motion = run.motion()
    export(run, tmp_path)
    for view, order in ((0, 6), (3, 2), (5, 5)):  # second order, none, first order
        star = tmp_path / "TS_01" / "motion" / f"TS_01_{order}.star"
        for frame in range(4):
            expected = displacement(motion, view, frame, crop or (ROWS, COLUMNS))
            assert frame == 0 or np.abs(expected).max() > 0.1
            found = relion_shift(star, frame + 1, *PLACES)
            np.testing.assert_allclose(-found, expected, atol=2e-6)


def test_frames_left_out_are_marked_and_the_first_one_used_is_the_zero(
    fake_run, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    motion = run.motion()
    motion.array("shifts")[0, 0] = np.nan
    motion.array("local")[0, 0] = np.nan
    assert export(run, tmp_path)
    star = tmp_path / "TS_01" / "motion" / "TS_01_6.star"
    blocks = read_star(star)
    assert blocks["general"].value("rlnMicrographStartFrame") == "2"
    assert blocks["general"].value("rlnImageSizeZ") == "4"
    for axis in "XY":
        assert blocks["global_shift"].floats(f"rlnMicrographShift{axis}")[0] == -9999
    zero = displacement(motion, 0, 1)
    for frame in (1, 2, 3):
        found = relion_shift(star, frame + 1, *PLACES)
        np.testing.assert_allclose(-found, displacement(motion, 0, frame) - zero, atol=2e-6)
    rows = list(csv.DictReader((tmp_path / "TS_01" / "motion.csv").open(encoding="utf-8")))
    assert (rows[0]["frame"], rows[0]["shift_x_A"], rows[0]["local_rms_A"]) == ("1", "", "")
    assert rows[1]["shift_x_A"] != ""


def test_what_relions_polynomial_cannot_hold_is_said(fake_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    motion = run.motion()
    assert not any("polynomial" in line for line in export(run, tmp_path))
    local = motion.array("local")[:]
    local[0, :, 5:] = np.arange(4)[:, None, None] / 10  # third order: x³ and its like
    motion.array("local")[:] = local
    assert any("polynomial leaves out up to 1.2 Å" in line for line in export(run, tmp_path))


def test_the_table_has_every_frame_of_every_view(fake_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    motion = run.motion()
    export(run, tmp_path)
    rows = list(csv.DictReader((tmp_path / "TS_01" / "motion.csv").open(encoding="utf-8")))
    assert [(row["view"], row["frame"]) for row in rows] == [
        (str(view), str(frame)) for view in range(1, 8) for frame in range(1, 5)
    ]
    last = rows[3]
    assert (last["series"], last["tilt_angle_deg"], last["movie"]) == (
        "TS_01",
        "-47",
        "TS_01_6.mrc",
    )
    y, x = motion.array("shifts")[0, 3]
    assert float(last["shift_x_A"]) == pytest.approx(x * PIXEL, abs=1e-4)
    assert float(last["shift_y_A"]) == pytest.approx(y * PIXEL, abs=1e-4)
    assert [rows[4 * i]["model"] for i in (0, 3, 6)] == ["local", "global", "none"]
    # Averaged over a fine grid, not from the coefficients as the code has it.
    y, x = np.meshgrid(*2 * [(np.arange(400) + 0.5) / 400 - 0.5], indexing="ij")
    moved = LocalField(motion.array("local")[0, :, :5]).at(y, x)[3] * PIXEL
    assert float(last["local_rms_A"]) == pytest.approx(
        np.sqrt((moved**2).sum(axis=0).mean()), rel=1e-3
    )
    assert {row["local_rms_A"] for row in rows if row["model"] != "local"} == {"0.0000"}


def test_views_of_one_file_have_files_of_their_own(fake_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    motion, record = run.motion(), run.series.record("main")
    movie = record.views[0].movie
    shared = record.model_copy(
        update={"views": tuple(v.model_copy(update={"movie": movie}) for v in record.views)}
    )
    write_motion(tmp_path / "motion", tmp_path / "motion.csv", shared, motion, lambda line: None)
    names = {path.name for path in (tmp_path / "motion").iterdir()}
    assert names == {f"TS_01_6_view{i:03d}.star" for i in range(1, 8)}


def test_eer_movies_name_their_grouping_and_sampling(fake_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    motion, record = run.motion(), run.series.record("main")
    first = record.views[0]
    movie = first.movie.model_copy(update={"name": "a.eer"})
    views = (first.model_copy(update={"movie": movie, "grouping": 21}), *record.views[1:])
    acquisition = record.acquisition.model_copy(update={"eer_sampling": 2})
    eer = record.model_copy(update={"views": views, "acquisition": acquisition})
    write_motion(tmp_path / "motion", tmp_path / "motion.csv", eer, motion, lambda line: None)
    pairs = read_star(tmp_path / "motion" / "a.star")["general"].pairs
    assert (pairs["rlnEERUpsampling"], pairs["rlnEERGrouping"]) == ("2", "21")
    assert "EER" not in (tmp_path / "motion" / "TS_01_4.star").read_text()


def test_stacks_have_no_motion_to_write(fake_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    motion, record = run.motion(), run.series.record("main")
    stack = record.model_copy(
        update={"views": tuple(v.model_copy(update={"frames": 1}) for v in record.views)}
    )
    said: list[str] = []
    write_motion(tmp_path / "motion", tmp_path / "motion.csv", stack, motion, said.append)
    assert not list(tmp_path.glob("motion*"))
    assert said == ["TS_01: one frame in each view: no motion"]


@pytest.mark.parametrize("to", ["imod", "mrc"])
def test_results_of_the_first_version_have_shifts_alone(fake_run, tmp_path: Path, to: str) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    motion = run.motion(older=True)
    assert local_fields(motion) == [None] * 7
    export(run, tmp_path, to)
    star = next(tmp_path.rglob("TS_01_6.star"))
    assert "local_motion_model" not in read_star(star)
    moved = motion.array("shifts")[0]
    found = np.stack([relion_shift(star, i, np.zeros(()), np.zeros(())) for i in range(1, 5)])
    np.testing.assert_allclose(-found, moved, atol=1e-6)
    assert not list(tmp_path.rglob("*_odd.st"))


def test_another_reference_frame_is_said(fake_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run(pipeline=Pipeline(motion=MotionParameters(reference_frame=3)))
    motion = run.motion()
    for name in ("shifts", "local"):
        values = motion.array(name)[:]
        motion.array(name)[:] = values - values[:, 2:3]
    assert any("where it was in frame 3" in line for line in export(run, tmp_path))
    star = tmp_path / "TS_01" / "motion" / "TS_01_6.star"
    zero = displacement(motion, 0, 0)
    for frame in range(4):
        found = relion_shift(star, frame + 1, *PLACES)
        np.testing.assert_allclose(-found, displacement(motion, 0, frame) - zero, atol=2e-6)
