from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.formats.aretomo import (
    Alignment,
    AlnView,
    LocalShift,
    is_aln,
    read_aln,
    tilt_lines,
    write_aln,
)
from tasks.formats.errors import FormatError

MADE = Alignment(
    (3710, 3838, 4),
    (
        AlnView(1, -3.0, 85.3012, 1.0, 12.25, -30.5),
        AlnView(2, 0.0, 85.3012, 1.001, 0.0, 0.0),
        AlnView(3, 3.0, 85.3012, 0.999, -7.125, 44.0),
    ),
    ((0, -6.0),),
    (LocalShift(0, 0, -900.0, 850.5, 1.25, -0.5), LocalShift(2, 1, 10, 20, 3.5, 4.25, False)),
    1.5,
    -0.25,
    1120.0,
)


def test_an_alignment_survives_a_round_trip(tmp_path: Path) -> None:
    write_aln(tmp_path / "a.aln", MADE)
    assert is_aln(tmp_path / "a.aln")
    assert read_aln(tmp_path / "a.aln") == MADE


def test_a_file_of_another_program_is_read(shared_data: Path) -> None:
    path = shared_data / "cryoet_portal_test" / "TS_run1.aln"
    found = read_aln(path)
    assert found.size == (10, 20, 3)
    assert [view.section for view in found.views] == [0, 1, 2]  # counted from 0 there
    assert found.views[1] == AlnView(1, 0.0, 88.3389, 1.0, 57.299, 74.242)
    assert found.local == found.dark == ()


@pytest.mark.parametrize(("dark", "first"), [("", 1), ("# DarkFrame = 0 0 -3\n", 0)])
def test_a_dark_section_0_tells_that_a_file_counts_from_0(
    tmp_path: Path, dark: str, first: int
) -> None:
    text = f"# RawSize = 10 20 3\n{dark}1 80 1 0 0 1 1 1 0 0\n2 80 1 0 0 1 1 1 0 3\n"
    (tmp_path / "a.aln").write_text(text)
    found = read_aln(tmp_path / "a.aln")
    assert [view.section for view in found.views] == [1 - first, 2 - first]
    assert found.dark == (((0, -3.0),) if dark else ())
    assert found.sure == bool(dark)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# AreTomo Alignment\n", r"has no RawSize, or no views; give an \.aln"),
        ("# RawSize = 10 20 1\n1 2 3\n", r"line 2: 3 columns in '1 2 3'; 10 are needed"),
        ("# RawSize = 10 20 1\n1 x 1 0 0 1 1 1 0 0\n", r"line 2: .*'x'"),
        ("# RawSize = 10 20 1\n5 80 1 0 0 1 1 1 0 0\n", r"section 5 of 1"),
        ("# RawSize = 10 20 1\n1 80 0 0 0 1 1 1 0 0\n", r"magnification 0; correct"),
        ("# RawSize = 9 9 2\n1 80 1 0 0 1 1 1 0 0\n1 80 1 0 0 1 1 1 0 3\n", "line 3: section 1 ag"),
        ("# RawSize = 9 9 1\n1 80 1 0 0 1 1 1 0 0\n# Local Alignment\n0 1 2\n", "3 columns of a"),
    ],
)
def test_an_unusable_file_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.aln").write_text(text)
    with pytest.raises(FormatError, match=told):
        read_aln(tmp_path / "a.aln")


def test_the_list_of_tilts_has_order_and_dose() -> None:
    text = tilt_lines(np.array([-3.0, 0.0]), np.array([2, 1]), np.array([3.0, 3.0]))
    assert [line.split() for line in text.splitlines()] == [
        ["-3.00", "2", "3.000"],
        ["0.00", "1", "3.000"],
    ]
