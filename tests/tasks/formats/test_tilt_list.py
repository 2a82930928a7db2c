from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.formats.errors import FormatError
from tasks.formats.imod import read_tilts
from tasks.formats.tilt_list import (
    Scheme,
    TiltList,
    acquisition_order,
    parse_range,
    read_tilt_list,
)

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
ANGLES = st.lists(st.integers(-9000, 9000).map(lambda n: n / 100), min_size=1, max_size=30)
SCHEMES: list[Scheme] = ["listed", "dose-symmetric", "bidirectional"]


def written(folder: Path, text: str) -> Path:
    path = folder / "TS_01.rawtlt"
    path.write_bytes(text.encode())
    return path


def test_real_lists_of_one_and_two_columns_agree(shared_data: Path) -> None:
    one = read_tilt_list(shared_data / "pytom_test/test_angles.rawtlt")
    two = read_tilt_list(shared_data / "pytom_test/test_angles_multi_column.rawtlt")
    assert one.angles == two.angles == tuple(range(-51, 52, 3))
    assert one.order is one.dose is two.dose is None
    assert two.order == tuple(range(35))


@pytest.mark.parametrize(
    "name",
    ["cryoet_portal_test/TS_run1.rawtlt", "cryoet_portal_test/TS_run1.tlt", "imod_BBa/BBa.tlt"],
)
def test_real_lists_give_what_imods_reader_gives(shared_data: Path, name: str) -> None:
    path = shared_data / name
    assert read_tilt_list(path).angles == pytest.approx(read_tilts(path), abs=1e-5)


@SAME_FOLDER
@given(
    ANGLES,
    st.randoms(use_true_random=False),
    st.sampled_from([0, 1]),
    st.sampled_from([" ", "\t", ",", ", ", "   "]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_three_columns_come_back_whatever_parts_them(
    tmp_path: Path, angles: list[float], random: object, first: int, apart: str, end: str
) -> None:
    order = list(range(len(angles)))
    random.shuffle(order)  # type: ignore[attr-defined]
    lines = ["# angle order dose"]
    lines += [
        f" {a:+.2f}{apart}{o + first}{apart}{3 + o / 8}  # view"
        for a, o in zip(angles, order, strict=True)
    ]
    found = read_tilt_list(written(tmp_path, end.join(lines) + end + end))
    dose = tuple(3 + o / 8 for o in order)
    assert found == TiltList(tuple(angles), tuple(order), dose)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no tilt angle"),
        ("# nothing\n", "no tilt angle"),
        ("0\nthree\n", r"line 2: tilt angle is 'three', not a number"),
        ("0\n\nnan\n", r"line 3: tilt angle is 'nan'"),
        ("0\n91\n", r"line 2: tilt angle 91 is beyond ±90°"),
        ("-3 0\n0\n", r"line 2: 1 columns, of 2"),
        ("-3 0 1 2\n", r"line 1: 4 columns, of at most 3"),
        ("-3,0\n0,0\n", r"line 2: acquisition order 0 again, as in line 1; number them 0 to 1"),
        ("-3 1\n0 3\n", r"line 2: acquisition order 3 of 2 views; number them 1 to 2"),
        ("-3 2\n0 3\n", r"line 2: acquisition order 3 of 2 views"),
        ("-3 3.5\n0 2\n", r"line 1: acquisition order is '3.5', not a whole number"),
        ("-3 0 1\n0 1 -1\n", r"line 2: dose -1 is negative"),
        ("-3,,0\n", r"line 1: acquisition order is ''"),
        ("\x00\x01", r"line 1: byte .* in a text file"),
    ],
)
def test_nonsense_is_refused_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        read_tilt_list(written(tmp_path, text))


@SAME_FOLDER
@given(st.text(max_size=80) | st.text("0123456789.-+,# \n", max_size=80))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.tlt"
    path.write_text(text, encoding="utf-8", errors="ignore")
    try:
        found = read_tilt_list(path)
    except FormatError:
        return
    n = len(found.angles)
    assert all(abs(angle) <= 90 for angle in found.angles)
    assert found.order is None or sorted(found.order) == list(range(n))
    assert found.dose is None or len(found.dose) == n


def test_ranges_are_written_with_commas_or_colons() -> None:
    angles = tuple(float(angle) for angle in range(-60, 61, 3))
    assert parse_range("-60,60,3", 41) == parse_range(" -60 : 60 : 3", 41) == angles
    assert parse_range("60,-60,3", 41) == parse_range("60,-60,-3", 41) == angles[::-1]
    assert parse_range("12,12,3", 1) == (12.0,)
    thirds = parse_range("-60,60,1.66667", 73)
    assert thirds[-1] == 60
    assert thirds[1] == pytest.approx(-60 + 5 / 3, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "n", "problem"),
    [
        ("-60,60,3", 40, "'-60,60,3' has 41 angles, the stack 40 views"),
        ("-60,60,1e-5", 41, "has 12000001 angles, the stack 41 views"),
        ("-60,60,1e-320", 41, "miss 60"),
        ("-60,60,5000", 1, "miss 60"),
        ("-60,60,7", 18, "steps of 7.0 miss 60"),
        ("-60,60,0", 41, "never reach 60"),
        ("-60,60,-3", 41, "steps of -3.0 never reach 60"),
        ("-60,60", 41, "give first,last,step"),
        ("a,b,c", 41, "give first,last,step"),
        ("-100,60,3", 41, "within ±90"),
        ("nan,60,3", 41, "within ±90"),
        ("-60,60,inf", 41, "within ±90"),
    ],
)
def test_other_ranges_are_refused(text: str, n: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_range(text, n)


@given(st.integers(-900, 900), st.integers(1, 100), st.integers(2, 80), st.booleans())
def test_any_range_has_its_ends_and_steps(first: int, step: int, n: int, down: bool) -> None:
    last = first + (n - 1) * step
    if last > 900:
        return
    ends = (last, first) if down else (first, last)
    angles = parse_range(f"{ends[0] / 10},{ends[1] / 10},{step / 10}", n)
    expected = [(first + i * step) / 10 for i in range(n)]
    assert angles == pytest.approx(expected[::-1] if down else expected, abs=1e-9)


def taken(angles: list[float], scheme: Scheme) -> list[float]:
    """Return the angles in the order in which they were taken."""
    order = acquisition_order(angles, scheme)
    return [angles[order.index(position)] for position in range(len(angles))]


def test_dose_symmetric_goes_outwards_from_zero() -> None:
    assert taken([-6, -3, 0, 3, 6, 9], "dose-symmetric") == [0, 3, -3, 6, -6, 9]
    # the stage never stops exactly where it is told to
    measured = [-5.98, -3.04, 0.01, 2.97, 6.02]
    assert taken(measured, "dose-symmetric") == [0.01, 2.97, -3.04, 6.02, -5.98]


def test_a_range_without_zero_starts_in_its_middle() -> None:
    assert taken([10, 13, 16, 19, 22], "dose-symmetric") == [16, 19, 13, 22, 10]
    assert taken([-22, -19, -16, -13], "dose-symmetric") == [-16, -13, -19, -22]


def test_bidirectional_takes_the_branch_of_more_views_first() -> None:
    assert taken([-9, -6, -3, 0, 3, 6], "bidirectional") == [0, -3, -6, -9, 3, 6]
    assert taken([-6, -3, 0, 3, 6], "bidirectional") == [0, 3, 6, -3, -6]
    assert taken([3, 1, 2], "bidirectional") == [2, 3, 1]


def test_listed_keeps_the_list() -> None:
    assert acquisition_order([3, -3, 0], "listed") == (0, 1, 2)


@given(ANGLES, st.sampled_from(SCHEMES))
def test_every_order_is_a_permutation(angles: list[float], scheme: Scheme) -> None:
    before = list(angles)
    assert sorted(acquisition_order(angles, scheme)) == list(range(len(angles)))
    assert angles == before


@given(ANGLES)
def test_dose_symmetric_is_outwards_on_either_side(angles: list[float]) -> None:
    sequence = taken(angles, "dose-symmetric")
    start = sequence[0]
    upper = [angle for angle in sequence if angle >= start]
    lower = [angle for angle in sequence if angle <= start]
    assert upper == sorted(upper)
    assert lower == sorted(lower, reverse=True)


@given(ANGLES)
def test_bidirectional_turns_once(angles: list[float]) -> None:
    sequence = taken(sorted(set(angles)), "bidirectional")
    rises = [b > a for a, b in pairwise(sequence)]
    assert sum(a != b for a, b in pairwise(rises)) <= 1


def test_other_schemes_and_angles_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'spiral': expected one of listed, dose-symmetric"):
        acquisition_order([0.0], "spiral")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tilt angle nan: expected a finite number"):
        acquisition_order([0.0, math.nan], "listed")
