from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.formats import imod
from tasks.formats.ctffind import CtffindRow, read_ctffind, write_ctffind
from tasks.formats.errors import FormatError
from tasks.formats.imod_commands import write_newst, write_tilt
from tasks.formats.imod_defocus import DefocusRow, read_defocus, write_defocus
from tasks.formats.imod_geometry import tilt_volume

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
READERS = [imod.read_tilts, imod.read_xf, imod.read_command, imod.read_excluded, imod.read_points,
           read_defocus, read_ctffind]  # fmt: skip
numbers = st.floats(-9999, 9999)


def file_of(folder: Path, text: str) -> Path:
    (folder / "x").write_text(text)
    return folder / "x"


def test_bba_transforms_and_angles_read(shared_data: Path) -> None:
    matrices, shifts = imod.read_xf(shared_data / "imod_BBa/BBa.xf")
    assert (matrices.shape, shifts.shape) == ((61, 2, 2), (61, 2))
    np.testing.assert_array_equal(matrices[0], [[0.9787406, -0.1898027], [0.1861717, 0.9824202]])
    np.testing.assert_array_equal(shifts[0], [-20.199, 1.220])
    tilts = imod.read_tilts(shared_data / "imod_BBa/BBa.tlt")
    assert (tilts.shape, tilts[0], tilts[1]) == ((61,), 65.06, 63.01)
    assert not imod.read_tilts(shared_data / "imod_BBa/BBa.xtilt").any()


def test_raw_tilts_of_one_and_of_several_columns_agree(shared_data: Path) -> None:
    one = imod.read_tilts(shared_data / "pytom_test/test_angles.rawtlt")
    path = shared_data / "pytom_test/test_angles_multi_column.rawtlt"
    np.testing.assert_array_equal(one, np.arange(-51, 52, 3))
    np.testing.assert_array_equal(imod.read_tilts(path), one)
    np.testing.assert_array_equal(imod.read_tilts(path, column=1), np.arange(35))


@SAME_FOLDER
@given(arrays(float, st.tuples(st.integers(1, 5), st.just(6)), elements=numbers))
def test_transforms_survive_a_round_trip(tmp_path: Path, table) -> None:  # type: ignore[no-untyped-def]
    imod.write_xf(tmp_path / "a.xf", table[:, :4].reshape(-1, 2, 2), table[:, 4:])
    matrices, shifts = imod.read_xf(tmp_path / "a.xf")
    np.testing.assert_allclose(matrices.reshape(-1, 4), table[:, :4], atol=6e-8)
    np.testing.assert_allclose(shifts, table[:, 4:], atol=6e-4)


@SAME_FOLDER
@given(st.lists(numbers, min_size=1))
def test_angles_survive_a_round_trip(tmp_path: Path, angles: list[float]) -> None:
    imod.write_tilts(tmp_path / "a.tlt", angles)
    np.testing.assert_allclose(imod.read_tilts(tmp_path / "a.tlt"), angles, atol=6e-4)


@SAME_FOLDER
@given(st.sets(st.integers(1, 300)))
def test_lists_of_views_survive_a_round_trip(views: set[int]) -> None:
    assert imod.parse_views(imod.print_views([*views])) == tuple(sorted(views))


def test_lists_of_views_take_ranges_commas_and_spaces(tmp_path: Path) -> None:
    assert imod.parse_views("1,3-5 9, 4") == (1, 3, 4, 5, 9)
    assert imod.print_views([9, 3, 4, 5, 1]) == "1,3-5,9"
    text = "$tilt -StandardInput\n# EXCLUDELIST 7\nEXCLUDELIST 1,3-5\nEXCLUDELIST2 9\nEXCLUDELIST\n"
    assert imod.read_excluded(file_of(tmp_path, text + "EXCLUDELIST2 40-41 # both\n")) == (
        1, 3, 4, 5, 9, 40, 41,
    )  # fmt: skip
    assert imod.read_excluded(file_of(tmp_path, "THICKNESS 100\n")) == ()
    for bad in ("5-3", "a", "1--2", "1-999999999", "-4"):
        with pytest.raises(FormatError, match="write views as 1,3-5"):
            imod.parse_views(bad)


def test_points_survive_a_round_trip(tmp_path: Path) -> None:
    points = (imod.FiducialPoint(1, 41, 10.125, -3.5, 0.25), imod.FiducialPoint(2, 1, 0, 0))
    imod.write_points(tmp_path / "a.csv", points)
    assert imod.read_points(tmp_path / "a.csv") == points
    assert (
        (tmp_path / "a.csv")
        .read_text()
        .startswith("marker,view,x_px,y_px,residual_px,sigma_px\n1,41,")
    )


def test_the_real_defocus_file_keeps_its_numbers(tmp_path: Path, shared_data: Path) -> None:
    path = shared_data / "pytom_test/test_imod.defocus"
    defocus = read_defocus(path)
    assert (defocus.version, len(defocus.rows), defocus.inverted) == (2, 35, False)
    assert defocus.rows[0] == DefocusRow(1, 1, -50.99, -50.99, 30830, 30830)
    write_defocus(tmp_path / "again.defocus", defocus.rows, version=2)
    assert read_defocus(tmp_path / "again.defocus") == defocus
    again = [[float(w) for w in line.split()] for line in (tmp_path / "again.defocus").open()]
    assert again == [[float(w) for w in line.split()] for line in path.open()]
    nm = np.loadtxt(shared_data / "pytom_test/test_defocus.txt")
    np.testing.assert_allclose([row.defocus_u / 10 for row in defocus.rows], nm)


@pytest.mark.parametrize(
    ("flags", "words", "expected"),
    [
        (0, "4000", (40000, 40000, 0, 0, 0)),
        (16, "4000", (40000, 40000, 0, 0, 0)),
        (1, "4000 3900 30", (40000, 39000, 30, 0, 0)),
        (3, "4000 3900 0.5235988", (40000, 39000, 30, 0, 0)),
        (4, "4000 90", (40000, 40000, 0, 90, 0)),
        (12, "4000 1.5707963", (40000, 40000, 0, 90, 0)),
        (5, "4000 3900 30 90", (40000, 39000, 30, 90, 0)),
        (31, "4000 3900 0.5235988 1.5707963", (40000, 39000, 30, 90, 0)),
        (37, "4000 3900 30 90 0.02", (40000, 39000, 30, 90, 0.02)),
    ],
)
def test_the_flags_of_version_3_say_what_the_columns_are(
    tmp_path: Path, flags: int, words: str, expected: tuple[float, ...]
) -> None:
    text = f"{flags} 0 0. 0. 0 3\n1 1 -60.0 -60.0 {words}\n"
    defocus = read_defocus(file_of(tmp_path, text))
    assert (defocus.version, defocus.inverted) == (3, bool(flags & 16))
    (row,) = defocus.rows
    found = (row.defocus_u, row.defocus_v, row.astigmatism_angle, row.phase_shift, row.cut_on)
    assert found == pytest.approx(expected, rel=1e-6)


@SAME_FOLDER
@given(st.lists(st.tuples(numbers, numbers, st.floats(-90, 90), st.floats(0, 180)), min_size=1))
def test_defocus_survives_a_round_trip(tmp_path: Path, values) -> None:  # type: ignore[no-untyped-def]
    rows = [DefocusRow(i, i, -3, -3, *row) for i, row in enumerate(values, 1)]
    write_defocus(tmp_path / "a.defocus", rows)
    read = read_defocus(tmp_path / "a.defocus").rows
    for old, new in zip(rows, read, strict=True):
        assert (new.defocus_u, new.defocus_v) == pytest.approx(
            (old.defocus_u, old.defocus_v), abs=0.051
        )
        assert (new.astigmatism_angle, new.phase_shift) == pytest.approx(
            (old.astigmatism_angle, old.phase_shift), abs=0.0051
        )


def test_the_written_layout_is_what_novactf_reads(tmp_path: Path) -> None:
    write_defocus(tmp_path / "a.defocus", [DefocusRow(1, 1, -60, -60, 40000, 39000, 30)])
    assert (tmp_path / "a.defocus").read_text() == (
        "1\t0\t0.\t0.\t0\t3\n1\t1\t-60.00\t-60.00\t4000.00\t3900.00\t30.00\n"
    )


def test_views_from_0_of_old_imod_are_counted_from_1(tmp_path: Path) -> None:
    defocus = read_defocus(file_of(tmp_path, "0 0 -3 -3 4000 2\n1 2 0 3 4100\n"))
    assert [(r.first, r.last) for r in defocus.rows] == [(1, 1), (2, 3)]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("1 0 0. 0. 0 4\n1 1 0 0 4000\n", "line 1: version 4"),
        ("1 0 0. 0. 0 3\n1 1 0 0 4000\n", "line 2: 5 columns in '1 1 0 0 4000', not 7"),
        ("1 1 0 0 nan 2\n", "line 1: value is 'nan', not a number"),
        ("3 1 0 0 4000 2\n", "views 3 to 1"),
        ("\n", "no lines"),
        ("1 0 0. 0. 0 3\n", "line 1: no rows below"),
    ],
)
def test_bad_defocus_files_are_named_by_line(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(FormatError, match=match):
        read_defocus(file_of(tmp_path, text))


@SAME_FOLDER
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.lists(st.sampled_from([*"0123", "1e999", "nan", "inf", "-", "1_0", "EXCLUDELIST",
                                      "1e5", "marker,view,x_px,y_px,residual_px", "1,2,3,4,x",
                                      "4-", "9-1", "é", "2e300"]), max_size=8).map(" ".join)
        ).map(lambda lines: "\n".join(lines).encode()),
    )
)  # fmt: skip
def test_no_input_raises_anything_but_a_format_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    for read in READERS:
        with suppress(FormatError):
            read(tmp_path / "x")


@pytest.mark.parametrize(
    "write",
    [
        lambda p: imod.write_tilts(p, [0, np.nan]),
        lambda p: imod.write_xf(p, [[[1, 0], [0, np.inf]]], [[0, 0]]),
        lambda p: imod.write_xf(p, [[[1, 0], [0, 1]]], [[0, 0], [0, 0]]),
        lambda p: imod.write_points(p, [imod.FiducialPoint(1, 1, np.nan, 0)]),
        lambda p: write_defocus(p, [DefocusRow(1, 1, 0, 0, np.nan, 0)]),
        lambda p: write_defocus(p, [DefocusRow(1, 1, 0, 0, 1, 1, cut_on=1)]),
        lambda p: write_defocus(p, []),
        lambda p: write_ctffind(p, [CtffindRow(1, 1, 1, 1, 1, 1, np.nan)]),
        lambda p: write_ctffind(p, [CtffindRow(1, np.inf, 1, 1, 1, 1, 1)]),
        lambda p: write_newst(p, stack="a\n", aligned="b", transforms="c", size=(1, 1)),
        lambda p: write_tilt(p, aligned="a", output="b", tilt_file="c", excluded=[0],
                             volume=tilt_volume(8, 8, (4, 8, 8))),
    ],
)  # fmt: skip
def test_writers_refuse_what_is_not_a_number_and_leave_the_old_file(tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    path = file_of(tmp_path, "old")
    with pytest.raises(FormatError, match="x"):
        write(path)
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_command_files_hold_their_parameters(tmp_path: Path) -> None:
    write_tilt(
        tmp_path / "tilt.com",
        aligned="TS_01.ali",
        output="TS_01_full_rec.mrc",
        tilt_file="TS_01.tlt",
        xtilt_file="TS_01.xtilt",
        volume=tilt_volume(928, 960, (340, 960, 928), 4),
        excluded=[41, 1, 2, 3],
        sirt_like_iterations=8,
    )
    text = (tmp_path / "tilt.com").read_text()
    assert "\n$tilt -StandardInput\n" in text
    assert imod.read_excluded(tmp_path / "tilt.com") == (1, 2, 3, 41)
    entries = imod.read_command(tmp_path / "tilt.com")
    assert entries["THICKNESS"] == "1360"
    assert entries["SHIFT"] == "2.0000 -2.0000"
    assert entries["XTILTFILE"] == "TS_01.xtilt"
    assert entries["FakeSIRTiterations"] == "8"
    assert entries["EXCLUDELIST"] == "1-3,41"
    assert float(entries["RADIAL"].split()[1]) == pytest.approx(0.035 * 2**0.5, abs=1e-5)
    write_newst(tmp_path / "newst.com", stack="TS_01.st", aligned="TS_01.ali",
                transforms="TS_01.xf", size=(928, 960), binning=4)  # fmt: skip
    entries = imod.read_command(tmp_path / "newst.com")
    assert (entries["SizeToOutputInXandY"], entries["BinByFactor"]) == ("928,960", "4")


def test_an_inverted_gradient_is_flagged(tmp_path):
    path = tmp_path / "a.defocus"
    write_defocus(path, [DefocusRow(1, 1, -3.0, -3.0, 2e4, 1.9e4, 10.0)], inverted=True)
    assert read_defocus(path).inverted


def test_a_table_of_points_that_a_person_has_edited_is_read(tmp_path: Path) -> None:
    text = "view, marker ,x_px,y_px,note\r\n 3,7, 10.5 ,20,moved\r\n4,7,11,21\r\n"
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert imod.read_points(tmp_path / "a.csv") == (
        imod.FiducialPoint(7, 3, 10.5, 20.0),
        imod.FiducialPoint(7, 4, 11.0, 21.0),
    )


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("1,2,3", r"line 2: too few columns in '1,2,3'; complete the line"),
        ("1,2,3,4,5,6,7", r"line 2: 7 columns in .*; give 6"),
        ("1,2,x,4,5,6", r"line 2: .*'x'"),
    ],
)
def test_an_unusable_row_of_points_is_named(tmp_path: Path, row: str, told: str) -> None:
    (tmp_path / "a.csv").write_text("marker,view,x_px,y_px,residual_px,sigma_px\n" + row + "\n")
    with pytest.raises(FormatError, match=told):
        imod.read_points(tmp_path / "a.csv")
