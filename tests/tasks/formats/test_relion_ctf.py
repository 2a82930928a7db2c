from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.formats.errors import FormatError
from tasks.formats.relion_ctf import RelionCtf, read_relion_ctf, write_relion_ctf
from tasks.formats.star import read_star

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
numbers = st.floats(-9e4, 9e4)

MICROGRAPHS = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
1 300.0

data_micrographs

loop_
_rlnMicrographName #1
_rlnDefocusU #2
_rlnDefocusV #3
_rlnDefocusAngle #4
_rlnPhaseShift #5
_rlnCtfMaxResolution #6
MotionCorr/job002/frames/a_0_0.mrc 20000 19000 12.5 90 inf
MotionCorr/job002/frames/a_3_0.mrc 21000 20000 -12.5 91 0
"""


def star_of(folder: Path, text: str) -> Path:
    (folder / "x.star").write_text(text)
    return folder / "x.star"


def test_relions_real_table_of_a_series_reads(shared_data: Path) -> None:
    rows = read_relion_ctf(shared_data / "empiar10164_relion5_star/220728_TS_01.star")
    assert len(rows) == 41
    assert rows[0] == RelionCtf(
        "frames/TS_01_000_0.0.mrc", 39424.761719, 38845.8125, 55.762489, 0.0, 0.031995, 8.63491,
        0.001, 1, 0.0, 8,
    )  # fmt: skip


def test_relions_real_table_of_tifs_reads(shared_data: Path) -> None:
    job = shared_data / "pytom_test/relion5_project_example/Tomograms/job009"
    rows = read_relion_ctf(job / "tilt_series/tomo200528_107.star")
    assert rows[1].name is not None
    assert rows[1].name.endswith("tomo200528_107_-48.0_May31_00.24.05.tif")
    assert (rows[1].defocus_u, rows[1].max_resolution) == (21833.007812, 11.173266)
    with pytest.raises(FormatError, match="no column _rlnDefocusU; give the file of one series"):
        read_relion_ctf(job / "tomograms.star")


def test_a_table_of_micrographs_reads_beside_its_optics(tmp_path: Path) -> None:
    first, second = read_relion_ctf(star_of(tmp_path, MICROGRAPHS))
    assert first.name == "MotionCorr/job002/frames/a_0_0.mrc"
    assert (first.defocus_v, first.defocus_angle, first.phase_shift) == (19000, 12.5, 90)
    assert first.max_resolution == math.inf
    assert (second.max_resolution, second.figure_of_merit, second.tilt_angle) == (None,) * 3


@SAME_FOLDER
@given(st.lists(st.tuples(*[numbers] * 4), min_size=1))
def test_a_table_survives_a_round_trip(tmp_path: Path, values: list[tuple[float, ...]]) -> None:
    rows = [
        RelionCtf(f"a b/{i}.mrc", *row, 0.1, 5.5, 3.0 * i, i, 0.5, 8)
        for i, row in enumerate(values, 1)
    ]
    write_relion_ctf(tmp_path / "a.star", "TS_01", rows)
    for old, new in zip(rows, read_relion_ctf(tmp_path / "a.star"), strict=True):
        assert new.name == old.name
        assert [*vars(new).values()][1:] == pytest.approx([*vars(old).values()][1:], abs=6e-7)


def test_what_is_unknown_everywhere_has_no_column_and_elsewhere_is_zero(tmp_path: Path) -> None:
    rows = [RelionCtf("a", 2e4, 2e4, 0), RelionCtf("b", 2e4, 2e4, 0, 0, None, 7.0)]
    write_relion_ctf(tmp_path / "a.star", "TS_01", rows)
    table = read_star(tmp_path / "a.star")["TS_01"]
    assert not {"rlnCtfFigureOfMerit", "rlnPhaseShift", "rlnTomoTiltMovieIndex"} & {*table.columns}
    assert table.column("rlnCtfMaxResolution") == ("0.000000", "7.000000")
    assert read_relion_ctf(tmp_path / "a.star") == tuple(rows)
    with pytest.raises(FormatError, match="_rlnMicrographMovieName of some rows is unknown"):
        write_relion_ctf(tmp_path / "a.star", "T", [rows[0], RelionCtf(None, 1, 1, 0)])


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("20000", "nan", "_rlnDefocusU is 'nan', not a number"),
        ("_rlnDefocusV #3", "_rlnOther #3", "no column _rlnDefocusV"),
        ("_rlnDefocusU #2", "_rlnOther #2", "no column _rlnDefocusU; give RELION's table"),
        ("_rlnVoltage #2", "_rlnDefocusU #2", "data_optics, data_micrographs all have defoci"),
    ],
)
def test_bad_tables_are_told_by_column(tmp_path: Path, old: str, new: str, match: str) -> None:
    with pytest.raises(FormatError, match=match):
        read_relion_ctf(star_of(tmp_path, MICROGRAPHS.replace(old, new)))
    with pytest.raises(FormatError, match="no rows in data_a"):
        read_relion_ctf(star_of(tmp_path, "data_a\nloop_\n_rlnDefocusU #1\n"))


@SAME_FOLDER
@given(st.lists(st.sampled_from(["\n", " ", "nan", "inf", "1e999", *MICROGRAPHS.split()])))
def test_no_input_raises_anything_but_a_format_error(tmp_path: Path, words: list[str]) -> None:
    text = " ".join(words).replace("loop_", "\nloop_\n").replace("_rln", "\n_rln")
    with suppress(FormatError):
        read_relion_ctf(star_of(tmp_path, "data_a\nloop_\n_rlnDefocusU\n" + text))
