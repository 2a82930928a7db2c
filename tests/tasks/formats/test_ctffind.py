from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.formats.ctffind import CtffindRow, read_avrot, read_ctffind, write_avrot, write_ctffind
from tasks.formats.defocus_list import read_defocus_list
from tasks.formats.errors import FormatError

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
numbers = st.floats(-9999, 9999)
profiles = arrays(
    float, st.tuples(st.integers(1, 3), st.just(6), st.integers(1, 5)), elements=st.floats(-99, 99)
)


def file_of(folder: Path, text: str) -> Path:
    (folder / "x").write_text(text)
    return folder / "x"


def test_aretomos_real_table_keeps_its_hand(shared_data: Path) -> None:
    rows = read_ctffind(shared_data / "cryoet_portal_test/TS_run1_ctffind4.txt")
    assert rows[0] == CtffindRow(1, 72249.28, 71262.08, -42.32, 0, 0.1138, 28.4226, hand=1)
    assert [row.view for row in rows] == [1, 2, 3]


def test_columns_beyond_the_seventh_are_kept(tmp_path: Path) -> None:
    text = "# c\n1.0 2e4 1.9e4 12 0.5 0.1 inf{}\n"
    found = {}
    for tail in ("", " -1", " 85.3 10 1200"):
        (row,) = read_ctffind(file_of(tmp_path, text.format(tail)))
        assert row.fit_resolution == float("inf")
        assert row.phase_shift == pytest.approx(28.6479, rel=1e-5)
        found[tail] = (row.tilt_axis, row.tilt, row.thickness, row.hand)
    assert [*found.values()] == [(None,) * 4, (None, None, None, -1), (85.3, 10, 1200, None)]
    with pytest.raises(FormatError, match="line 2: 9 columns"):
        read_ctffind(file_of(tmp_path, text.format(" 1 2")))


@SAME_FOLDER
@given(st.lists(st.tuples(*[numbers] * 5, st.one_of(numbers, st.just(float("inf")))), min_size=1))
def test_tables_survive_a_round_trip(tmp_path: Path, values) -> None:  # type: ignore[no-untyped-def]
    rows = [CtffindRow(i, *row) for i, row in enumerate(values, 1)]
    write_ctffind(tmp_path / "a.txt", rows, comments=["Pixel size: 1.35 Å"])
    for old, new in zip(rows, read_ctffind(tmp_path / "a.txt"), strict=True):
        assert [*vars(new).values()][:7] == pytest.approx([*vars(old).values()][:7], abs=4e-5)
    lines = [line for line in (tmp_path / "a.txt").open() if line[0] != "#"]
    assert {len(line.split()) for line in lines} == {7}


@SAME_FOLDER
@given(profiles)
def test_profiles_survive_a_round_trip(tmp_path: Path, curves: np.ndarray) -> None:
    write_avrot(tmp_path / "a_avrot.txt", curves, comments=["Number of micrographs: 3\nmore"])
    np.testing.assert_allclose(read_avrot(tmp_path / "a_avrot.txt"), curves, atol=1e-6)


def test_profiles_have_two_sigma_and_comments_at_the_head_only(tmp_path: Path) -> None:
    write_avrot(tmp_path / "a_avrot.txt", np.full((2, 6, 3), 0.25), comments=["one", "two"])
    lines = (tmp_path / "a_avrot.txt").read_text().splitlines()
    assert [line[0] for line in lines] == ["#"] * 3 + ["0"] * 12
    assert lines[8] == "0.500000 0.500000 0.500000"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("1 2\n" * 5, "5 lines of numbers; give 6 for each"),
        ("1 2\n" * 5 + "1\n", "line 6: 1 numbers, not 2"),
        ("1 nan\n" * 6, "line 1: value is 'nan'"),
        ("# 1\n", "0 lines"),
    ],
)
def test_bad_profiles_are_named_by_line(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(FormatError, match=match):
        read_avrot(file_of(tmp_path, text))


@pytest.mark.parametrize("curves", [np.zeros((1, 5, 3)), np.full((1, 6, 3), np.nan), np.zeros(0)])
def test_profiles_that_cannot_be_written_leave_the_old_file(
    tmp_path: Path, curves: np.ndarray
) -> None:
    path = file_of(tmp_path, "old")
    with pytest.raises(FormatError, match="profile"):
        write_avrot(path, curves)
    assert path.read_text() == "old"


def test_a_defocus_list_is_read_in_angstrom(tmp_path: Path) -> None:
    path = file_of(tmp_path, "# nm\n\nTS_01 4000\r\nTS_03\t2750.5  # second session\n")
    assert read_defocus_list(path) == {"TS_01": 40000, "TS_03": 27505}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("TS_01 4000\nTS_02\n", "line 2: 'TS_02' is not a name and a defocus"),
        ("TS_01 4000 3\n", "line 1: 'TS_01 4000 3'"),
        ("TS_01 4 µm\n", "line 1"),
        ("TS_01 four\n", "line 1: defocus is 'four', not a number"),
        ("TS_01 40000\n", "line 1: a defocus of 40000 nm is not within 100 to 20000"),
        ("TS_01 -4000\n", "line 1: a defocus of -4000 nm"),
        ("TS_01 4000\n\nTS_01 4100\n", "line 3: 'TS_01' comes twice"),
        ("# none\n", "no lines"),
    ],
)
def test_bad_defocus_lists_are_named_by_line(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(FormatError, match=match):
        read_defocus_list(file_of(tmp_path, text))


@SAME_FOLDER
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.lists(
                st.sampled_from([*"0123", "1e999", "nan", "inf", "-", "#", "TS", "4e3", "2e300"]),
                max_size=10,
            ).map(" ".join)
        ).map(lambda lines: "\n".join(lines).encode()),
    )
)
def test_no_input_raises_anything_but_a_format_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    for read in (read_ctffind, read_avrot, read_defocus_list):
        with suppress(FormatError):
            read(tmp_path / "x")
