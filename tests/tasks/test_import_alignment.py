from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kernels.geometry import View, aligned_from_raw, image_matrix, project
from tasks.errors import UnusableData
from tasks.formats.aretomo import Alignment, AlnView, write_aln
from tasks.formats.errors import FormatError
from tasks.formats.imod import read_xf, write_tilts, write_xf
from tasks.formats.imod_geometry import xf_from_view
from tasks.import_alignment import imported_geometry
from tasks.record import TiltSeries

SHAPE, PIXEL = (80, 96), 2.7


def views_of(record: TiltSeries) -> list[View]:
    rng = np.random.default_rng(1)
    return [
        View(round(v.tilt_angle + 0.3, 2), 84.7, *rng.normal(0, 30, 2), 1.002, 0.0, 1.01, -0.4)
        for v in record.views
    ]


def write_imod(folder: Path, views: list[View]) -> Path:
    lines = [
        xf_from_view(image_matrix(v), v.shift_x / PIXEL, v.shift_y / PIXEL, SHAPE[1], SHAPE[0])
        for v in views
    ]
    write_xf(folder / "a.xf", [a for a, _ in lines], [d for _, d in lines])
    write_tilts(folder / "a.tlt", [v.tilt for v in views])
    return folder / "a.xf"


def test_imods_files_give_the_views_back(record: TiltSeries, tmp_path: Path) -> None:
    views = views_of(record)
    found = imported_geometry(write_imod(tmp_path, views), record, SHAPE, PIXEL).views
    for ours, theirs in zip(views, found, strict=True):
        assert vars(theirs) == pytest.approx(vars(ours), abs=0.003 * PIXEL)


def test_files_without_the_views_left_out_are_taken_for_the_others(
    record: TiltSeries, tmp_path: Path
) -> None:
    views = views_of(record)
    path = write_imod(tmp_path, [views[i] for i in record.included])
    found = imported_geometry(path, record, SHAPE, PIXEL).views
    assert len(record.included) == len(views) - 1
    for i in record.included:
        assert found[i].shift_x == pytest.approx(views[i].shift_x, abs=0.003 * PIXEL)
    left = found[-1]
    assert (left.tilt, left.shift_x) == (record.views[-1].tilt_angle, 0.0)


def test_without_a_tlt_the_angles_are_the_nominal_ones(record: TiltSeries, tmp_path: Path) -> None:
    path = write_imod(tmp_path, views_of(record))
    path.with_suffix(".tlt").unlink()
    found = imported_geometry(path, record, SHAPE, PIXEL).views
    assert [v.tilt for v in found] == [v.tilt_angle for v in record.views]


def test_aretomos_file_means_the_same_as_imods(record: TiltSeries, tmp_path: Path) -> None:
    views = [replace(v, stretch=1.0, skew=0.0) for v in views_of(record)]
    lines = [
        # The origin of .xf and .aln is the pixel-edge centre (n − 1) / 2, ours index n // 2.
        AlnView(
            i,
            v.tilt,
            v.axis,
            v.magnification,
            v.shift_x / PIXEL + 0.5,
            v.shift_y / PIXEL + 0.5,
        )
        for i, v in enumerate(views[:-1])
    ]
    dark = ((len(views) - 1, record.views[-1].tilt_angle),)
    write_aln(tmp_path / "a.aln", Alignment((SHAPE[1], SHAPE[0], len(views)), tuple(lines), dark))
    found = imported_geometry(tmp_path / "a.aln", record, SHAPE, PIXEL).views
    for ours, theirs in zip(views[:-1], found, strict=False):
        assert vars(theirs) == pytest.approx(vars(ours), abs=0.006)
    points = np.random.default_rng(2).uniform(-90, 90, (5, 3))
    for ours, theirs in zip(views[:-1], found, strict=False):
        apart = aligned_from_raw(project(points, ours), theirs) - project(
            points, replace(ours, axis=0.0, magnification=1.0, shift_x=0.0, shift_y=0.0)
        )
        assert np.abs(apart).max() < 0.02


@pytest.mark.parametrize("name", ["a.xf", "a.aln"])
def test_a_file_of_another_series_is_refused(record: TiltSeries, tmp_path: Path, name: str) -> None:
    views = views_of(record)
    path = write_imod(tmp_path, views[:4])
    if name == "a.aln":
        write_aln(tmp_path / name, Alignment((96, 80, 4), (AlnView(1, 0, 80, 1, 0, 0),)))
        path = tmp_path / name
    with pytest.raises(UnusableData, match=rf"{name}: .*and TS_01 has 7.*of this series"):
        imported_geometry(path, record, SHAPE, PIXEL)


def write_lines(folder: Path, record: TiltSeries, rows: str, head: str = "") -> Path:
    path = folder / "a.aln"
    size = f"{SHAPE[1]} {SHAPE[0]} {len(record.views)}"
    path.write_text(f"# AreTomo Alignment\n# RawSize = {size}\n{head}{rows}")
    return path


def rows_of(record: TiltSeries, first: int, views: range, offset: float = 0.0) -> str:
    """Lines whose TX is the number of the view, from 0."""
    return "".join(
        f"{i + first} 85.3 1 {i} 0 1 1 1 0 {record.views[i].tilt_angle + offset:.2f}\n"
        for i in views
    )


def test_a_file_from_0_whose_first_section_is_dark_is_read_as_such(
    record: TiltSeries, tmp_path: Path
) -> None:
    path = write_lines(
        tmp_path, record, rows_of(record, 0, range(1, 7), 4.0), "# DarkFrame = 0 0 -47.0\n"
    )
    found = imported_geometry(path, record, SHAPE, PIXEL)
    assert found.missing == {0}
    numbers = [v.shift_x / PIXEL + 0.5 for v in found.views[1:]]
    assert numbers == pytest.approx([1, 2, 3, 4, 5, 6], abs=0.01)


def test_lines_of_other_views_are_refused_by_their_tilt(record: TiltSeries, tmp_path: Path) -> None:
    # From 0, but nothing shows it: no line of section 0, nor a dark one.
    path = write_lines(tmp_path, record, rows_of(record, 0, range(1, 7)))
    with pytest.raises(
        FormatError, match=r"a\.aln, line 3: TILT -20, and view 1 of TS_01 is at -47"
    ):
        imported_geometry(path, record, SHAPE, PIXEL)
    swapped = rows_of(record, 1, range(7)).replace(
        "5 85.3 1 4 0 1 1 1 0 30.00", "5 85 1 4 0 1 1 1 0 41"
    )
    with pytest.raises(FormatError, match=r"line 7: TILT 41, and view 5 of TS_01 is at 30°; give"):
        imported_geometry(write_lines(tmp_path, record, swapped), record, SHAPE, PIXEL)


def test_an_offset_that_all_tilts_share_is_none_of_the_file(
    record: TiltSeries, tmp_path: Path
) -> None:
    path = write_lines(tmp_path, record, rows_of(record, 1, range(7), 9.0))
    assert imported_geometry(path, record, SHAPE, PIXEL).views[2].tilt == 9.0
    # Where the last is missing, the file must say so itself.
    few = rows_of(record, 1, range(6), 9.0)
    with pytest.raises(FormatError, match="line 3: TILT -38"):
        imported_geometry(write_lines(tmp_path, record, few), record, SHAPE, PIXEL)
    path = write_lines(tmp_path, record, few, "# AlphaOffset = 9.00\n")
    assert imported_geometry(path, record, SHAPE, PIXEL).missing == {6}


def test_what_is_said_of_a_rotation_about_x(record: TiltSeries, tmp_path: Path) -> None:
    path = write_lines(tmp_path, record, rows_of(record, 1, range(7)), "# BetaOffset = -1.50\n")
    found = imported_geometry(path, record, SHAPE, PIXEL)
    assert found.said == "its BetaOffset of −1.5° about x is not applied"


def test_missing_files_and_mirrors_are_told(record: TiltSeries, tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match=r"b\.xf: no such file: correct coarse"):
        imported_geometry(tmp_path / "b.xf", record, SHAPE, PIXEL)
    path = write_imod(tmp_path, views_of(record))
    matrices, shifts = read_xf(path)
    matrices[2] *= [[1, 1], [-1, -1]]
    write_xf(path, matrices, shifts)
    with pytest.raises(UnusableData, match=r"a\.xf: line of view 3: .*mirrors: correct it"):
        imported_geometry(path, record, SHAPE, PIXEL)
