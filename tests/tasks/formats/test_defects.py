from __future__ import annotations

from pathlib import Path

import pytest

from tasks.formats.defects import read_defects
from tasks.formats.errors import FormatError


def test_defects_are_rectangles_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "defects.txt"
    path.write_text("0 5 1 20\n12 0 3 4\n")
    assert read_defects(path) == [(0, 5, 1, 20), (12, 0, 3, 4)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1 2 3\n", "line 1: 3 values; write x y width height"),
        ("1 2 3 4\n1 2 3 4 5\n", "line 2: 5 values"),
        ("1 2 x 4\n", "line 1: .*width"),
        ("-1 2 3 4\n", "the rectangle -1 2 3 4"),
        ("1 2 0 4\n", "the rectangle 1 2 0 4"),
    ],
)
def test_a_line_that_is_no_rectangle_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "defects.txt"
    path.write_text(text)
    with pytest.raises(FormatError, match=told):
        read_defects(path)
