from __future__ import annotations

from pathlib import Path

import pytest

from tasks.formats.errors import FormatError
from tasks.formats.view_list import ViewRange, indices_of, read_view_list


def written(folder: Path, text: str) -> Path:
    path = folder / "views.txt"
    path.write_text(text)
    return path


def test_the_list_of_the_tutorial_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "TS_01 1\nTS_03 1\n")
    one = (ViewRange(1, 1, 1),)
    assert read_view_list(path) == {"TS_01": one, "TS_03": (ViewRange(1, 1, 2),)}


def test_ranges_comments_and_several_lines_are_read(tmp_path: Path) -> None:
    text = "# by eye\r\n\r\nTS_03\t1-3,40 # bars\r\nTS_01 2\r\n  TS_03 7, 9\r\n"
    path = written(tmp_path, text)
    assert indices_of(path, "TS_03", 41) == [0, 1, 2, 39, 6, 8]
    assert indices_of(path, "TS_01", 41) == [1]
    assert indices_of(path, "TS_99", 41) == []


def test_a_list_of_comments_names_no_view(tmp_path: Path) -> None:
    assert read_view_list(written(tmp_path, "# none\n")) == {}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("TS_02", r"'TS_02' without views"),
        ("TS_02 a", r"'a' names no views"),
        ("TS_02 0", r"views 0; count from 1"),
        ("TS_02 5-3", r"views 5-3; count from 1"),
        ("TS_02 -3", r"'-3' names no views"),
        ("TS_02 1;2", r"'1;2' names no views"),
        ("TS_02 1.0", r"'1\.0' names no views"),
        ("TS_02 ²", r"'²' names no views"),
    ],
)
def test_a_bad_line_is_refused_by_file_and_number(tmp_path: Path, line: str, told: str) -> None:
    path = written(tmp_path, f"TS_01 1\n{line}\n")
    with pytest.raises(FormatError, match=rf"views\.txt, line 2: {told}"):
        indices_of(path, "TS_01", 41)


def test_a_view_that_a_series_does_not_have_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "TS_01 1\nTS_02 40-42\n")
    with pytest.raises(FormatError, match="line 2: TS_02 has no view 42; it has 1 to 41"):
        indices_of(path, "TS_02", 41)
    assert indices_of(path, "TS_01", 41) == [0]
