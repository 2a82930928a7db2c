from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.formats.errors import FormatError
from tasks.formats.mdoc import read_mdoc
from tasks.formats.movie_names import Named, Pattern, split_name

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

SERIES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,20}", fullmatch=True)
NAMED_SERIES = st.from_regex(r"[A-Za-z][a-z0-9]{0,5}(_[A-Za-z0-9]{1,5}){0,3}", fullmatch=True)
ORDERS = st.integers(0, 9999)
HUNDREDTHS = st.integers(-9000, 9000)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def values(named: Named | None) -> tuple[str, int | None, float | None] | None:
    return None if named is None else (named.series, named.order, named.angle)


# Patterns that people write, and how a person would split the name.
NAMES = [
    ("{TS}_{TO}_{TA}.mrc", "TS_01_000_0.0.mrc", ("TS_01", 0, 0)),
    ("{TS}_{TO}_{TA}.mrc", "TS_01_012_-33.0.mrc", ("TS_01", 12, -33)),
    ("{TS}_{TO}_{TA}.mrc", "TS_01_012_+3.0.mrc", ("TS_01", 12, 3)),
    ("{TS}_{TO}_{TA}.mrc", "TS_1_2_3.mrc", ("TS_1", 2, 3)),
    (
        "{TS}_{TO}_{TA}_*_EER.eer",
        "Position_1_001_-0.00_20220101_123456_EER.eer",
        ("Position_1", 1, 0),
    ),
    (
        "{TS}_{TO}_{TA}_*.eer",
        "Position_1_001_-0.00_20220101_123456_EER.eer",
        ("Position_1", 1, 0),
    ),
    ("{TS}_{TO}_{TA}*.mrc", "grid_7_3.00_12_30_45.mrc", ("grid", 7, 3)),
    ("{TS}_{TO}_{TA}_*.tif", "s_mmm_00993_33.0_Oct08_07.39.05.tif", ("s_mmm", 993, 33)),
    ("{TS}_{TO}[{TA}]*.mrc", "Position_12_001[-3.00]-123.mrc", ("Position_12", 1, -3)),
    ("{TS}{TO}_{TA}.mrc", "TS001_3.0.mrc", ("TS", 1, 3)),
    ("{TS}_{TA}.mrc", "TS_1_-3.0.mrc", ("TS_1", None, -3)),
    ("{TS}{TA}.mrc", "TS_1-3.0.mrc", ("TS_1", None, -3)),
    ("*{TS}_{TO}_{TA}.mrc", "TS_1_2_3.mrc", ("TS_1", 2, 3)),
    ("tilt?_{TS}_{TO}_{TA}.mrc", "tilt7_A_2_3.mrc", ("A", 2, 3)),
]


@pytest.mark.parametrize(("pattern", "name", "expected"), NAMES)
def test_names_are_split_as_a_person_would(
    tmp_path: Path, pattern: str, name: str, expected: tuple[str, int | None, float]
) -> None:
    touch(tmp_path, name)
    (found,) = Pattern(f"{tmp_path}/{pattern}").glob()
    assert values(found) == expected
    assert found.path == tmp_path / name


@SAME_FOLDER
@given(SERIES, ORDERS, HUNDREDTHS, st.booleans())
def test_any_series_order_and_angle_come_back(
    tmp_path: Path, series: str, order: int, hundredths: int, plus: bool
) -> None:
    angle = hundredths / 100
    name = f"{series}_{order:03d}_{angle:{'+' if plus else ''}.2f}.mrc"
    touch(tmp_path, name)
    (found,) = Pattern(f"{tmp_path}/{{TS}}_{{TO}}_{{TA}}.mrc").glob()
    (tmp_path / name).unlink()
    assert values(found) == (series, order, angle)


@given(NAMED_SERIES, ORDERS, st.integers(-900, 900), st.sampled_from(["Oct08_07.39.05", "2_1_30"]))
def test_what_serialem_writes_is_guessed(
    series: str, order: int, tenths: int, written_at: str
) -> None:
    angle = tenths / 10
    name = f"{series}_{order:05d}_{angle:.1f}_{written_at}.tif"
    assert values(split_name(name)) == (series, order, angle)
    assert values(split_name(rf"D:\frames of mine\{series}_{order}_{angle:.1f}.mrc")) == (
        series,
        order,
        angle,
    )


def test_all_movies_of_the_real_mdoc_are_guessed(shared_data: Path) -> None:
    mdoc = read_mdoc(next((shared_data / "empiar10164_mdoc").glob("*.mdoc")))
    for view in mdoc.views:
        named = split_name(view.movie_name or "")
        assert named is not None
        assert named.series == "TS_01"
        assert named.angle == pytest.approx(view.tilt_angle, abs=0.05)
    orders = [n.order for v in mdoc.views_by_time if (n := split_name(v.movie_name or ""))]
    assert orders == list(range(41))


@pytest.mark.parametrize(
    "name", ["", "movie.tif", "TS_01.mrc", "TS_01_95.0.mrc", "FoilHole_1_Data_2_20220101_1234.eer"]
)
def test_other_names_are_not_guessed(name: str) -> None:
    assert split_name(name) is None


@given(st.text(max_size=60) | st.text("0123456789_.+-aT", max_size=60))
def test_no_name_makes_the_guess_fail(name: str) -> None:
    if named := split_name(name):
        assert named.angle is not None
        assert abs(named.angle) <= 90


def test_a_megabyte_of_a_name_is_no_trouble() -> None:
    assert split_name("1" * 2**20) is None
    assert split_name("a_" * 2**19) is None


@given(st.text("{}TSOA*?[]/_.x", max_size=30))
def test_only_patterns_of_known_placeholders_are_taken(text: str) -> None:
    placeholders = re.findall(r"\{.*?\}", text)
    with suppress(FormatError):
        Pattern(text)
        assert "{TA}" in placeholders
        assert set(placeholders) <= {"{TS}", "{TO}", "{TA}"}


def test_movies_come_sorted_by_series_and_order(tmp_path: Path) -> None:
    touch(tmp_path, "b_2_3.mrc", "a_10_6.mrc", "a_9_3.mrc", "b_1_0.mrc", "a_1_3.mdoc")
    found = Pattern(f"{tmp_path}/{{TS}}_{{TO}}_{{TA}}.mrc").glob()
    assert [values(n) for n in found] == [("a", 9, 3), ("a", 10, 6), ("b", 1, 0), ("b", 2, 3)]


def test_folders_may_hold_wildcards_and_placeholders(tmp_path: Path) -> None:
    touch(tmp_path, "day 1/TS_1_1_3.mrc", "day 2/TS_2_1_6.mrc", "other.mrc")
    found = Pattern(f"{tmp_path}/*/{{TS}}_{{TO}}_{{TA}}.mrc").glob()
    assert [values(n) for n in found] == [("TS_1", 1, 3), ("TS_2", 1, 6)]

    touch(tmp_path, "raw/TS_3/001_-3.0.tif", "raw/TS_4/001_+3.0.tif", "raw/TS_4/note.txt")
    found = Pattern(f"{tmp_path}/raw/{{TS}}/{{TO}}_{{TA}}.tif").glob()
    assert [values(n) for n in found] == [("TS_3", 1, -3), ("TS_4", 1, 3)]


def test_a_repeated_placeholder_must_agree(tmp_path: Path) -> None:
    touch(tmp_path, "A_1/A_1_1_2.mrc", "A_1/B_1_1_2.mrc")
    found = Pattern(f"{tmp_path}/{{TS}}/{{TS}}_{{TO}}_{{TA}}.mrc").glob()
    assert [values(n) for n in found] == [("A_1", 1, 2)]


def test_hidden_and_half_written_names_and_folders_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a_1_0.mrc", ".a_2_3.mrc", "a_3_6.mrc/x", "a_4_9.mrc.part")
    found = Pattern(f"{tmp_path}/{{TS}}_{{TO}}_{{TA}}.mrc").glob()
    assert [n.order for n in found] == [1]


def test_without_order_there_is_none(tmp_path: Path) -> None:
    touch(tmp_path, "a_-3.mrc", "a_0.mrc", "a_12.mrc")
    found = Pattern(f"{tmp_path}/{{TS}}_{{TA}}.mrc").glob()
    assert [values(n) for n in found] == [("a", None, -3), ("a", None, 0), ("a", None, 12)]


def test_one_folder_names_the_only_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "grid 1/001_-3.0.tif")
    (found,) = Pattern(f"{tmp_path}/grid 1/{{TO}}_{{TA}}.tif").glob()
    assert found.series == "grid 1"
    monkeypatch.chdir(tmp_path / "grid 1")
    (found,) = Pattern("{TO}_{TA}.tif").glob()
    assert values(found) == ("grid 1", 1, -3)


def test_the_home_folder_may_be_shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a_1_0.mrc")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert Pattern("~/{TS}_{TO}_{TA}.mrc").glob()[0].path == tmp_path / "a_1_0.mrc"


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("x/{TS}_{TO}_{ANGLE}.mrc", "unknown placeholder '{ANGLE}'; use {TS}, {TO}, {TA}"),
        ("x/{TS}_{TA.mrc", "unknown placeholder '{TA.mrc'"),
        ("x/{TS}_{TO}.mrc", "no {TA}"),
        ("x/*/{TO}_{TA}.mrc", "no {TS}, but several folders; put {TS}"),
        ("x/**/{TS}_{TO}_{TA}.mrc", "** is not known"),
        ("", "no {TA}"),
    ],
)
def test_a_faulty_pattern_says_what_to_write(pattern: str, problem: str) -> None:
    with pytest.raises(FormatError, match=re.escape(problem)):
        Pattern(pattern)


def test_a_pattern_that_matches_nothing_shows_a_file_that_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "day1/TS_01_3.0_007.mrc", "day1/a.txt")
    for pattern in ("day1/{TS}_{TO}_[{TA}].mrc", "*/{TS}_{TO}_[{TA}].mrc"):
        with pytest.raises(FormatError, match=re.escape("day1 has, say, TS_01_3.0_007.mrc")):
            Pattern(f"{tmp_path}/{pattern}").glob()
    with pytest.raises(FormatError, match=r"there is no folder .*day2; check"):
        Pattern(f"{tmp_path}/day2/{{TS}}_{{TO}}_{{TA}}.mrc").glob()
    os.mkdir(tmp_path / "day2")
    with pytest.raises(FormatError, match=r"day2 is empty"):
        Pattern(f"{tmp_path}/day2/{{TS}}_{{TO}}_{{TA}}.mrc").glob()


def test_two_movies_of_one_order_are_both_named(tmp_path: Path) -> None:
    touch(tmp_path, "a_001_3.0.mrc", "a_1_-3.0.mrc")
    with pytest.raises(
        FormatError, match=r"a_1_-3.0.mrc and .*a_001_3.0.mrc are both movie 1 of a"
    ):
        Pattern(f"{tmp_path}/{{TS}}_{{TO}}_{{TA}}.mrc").glob()
