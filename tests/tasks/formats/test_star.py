from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.formats.errors import FormatError
from tasks.formats.relion_motion import read_motion_star, write_motion_star
from tasks.formats.star import StarBlock, read_star, write_star

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

JUNK = ["data_", "data_a", "loop_", "_a #1", "_b 2", "1 2", "'x", '"', "#", ";", "_", "é 'a b'"]


def star_of(folder: Path, text: str) -> dict[str, StarBlock]:
    (folder / "x.star").write_text(text)
    return read_star(folder / "x.star")


def test_relions_table_of_the_tutorial_series_reads(shared_data: Path) -> None:
    blocks = read_star(shared_data / "empiar10164_relion5_star/220728_TS_01.star")
    (table,) = blocks.values()
    assert table.name == "220728_TS_01"
    assert (len(table.rows), len(table.columns)) == (41, 29)
    angles = table.floats("rlnTomoNominalStageTiltAngle")
    assert np.rint(angles[:9]).tolist() == [0, 3, -3, -6, 6, 9, -9, -12, 12]
    np.testing.assert_allclose(table.floats("rlnMicrographPreExposure"), 3 * np.arange(41))
    assert table.column("rlnTomoProjW")[0] == "[0,0,0,1]"
    assert table.column("rlnMicrographMovieName")[2] == "frames/TS_01_002_-3.0.mrc"


def test_relions_tomogram_tables_read(shared_data: Path) -> None:
    job = shared_data / "pytom_test/relion5_project_example/Tomograms/job009"
    table = read_star(job / "tomograms.star")["global"]
    assert set(table.floats("rlnTomoHand")) == {-1}
    for block in read_star(job / "tilt_series/tomo200528_107.star").values():
        assert block.rows


def test_pairs_quotes_comments_and_several_blocks_read(tmp_path: Path) -> None:
    text = """# top
data_a
_one  1 # after
_two 'it''s' # x
_three "a # b"
data_
loop_
_x #1
_y #2

"" 'don't stop'
a#b _c

data_empty
"""
    blocks = star_of(tmp_path, text.replace("'it''s'", "'it s'").replace("\n", "\r\n"))
    assert blocks["a"].pairs == {"one": "1", "two": "it s", "three": "a # b"}
    assert blocks[""].rows == (("", "don't stop"), ("a#b", "_c"))
    assert blocks["empty"].rows == ()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("data_a\nloop_\n_x\n_y\n1 2\n3\n", r"x\.star, line 6: 1 words, not 2 values of the loop"),
        ("data_a\nloop_\n_x\n1\nloop_\n_y\n", "line 5: two loops in data_a"),
        ("data_a\n_x\n", "line 2: 1 words, not a name and its value; complete the line"),
        ("data_a\ndata_a\n", "line 2: data_a appears twice"),
        ("hello\n", "line 1: 'hello' before any data_ block"),
        ("\n", "no data_ block"),
        ("data_a\n;text\n;\n", "line 2: a text block"),
    ],
)
def test_bad_files_are_named_by_line(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(FormatError, match=match):
        star_of(tmp_path, text)


def test_missing_names_are_told_with_those_that_exist(tmp_path: Path) -> None:
    block = star_of(tmp_path, "data_a\n_p 1\nloop_\n_x #1\nq\n")["a"]
    with pytest.raises(FormatError, match="no column _y in data_a; columns are x"):
        block.column("y")
    with pytest.raises(FormatError, match="no _q in data_a"):
        block.value("q")
    with pytest.raises(FormatError, match="_x is 'q', not a number"):
        block.floats("x")


@SAME_FOLDER
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(st.sampled_from(JUNK))
        .map("\n".join).map(str.encode),
    )
)  # fmt: skip
def test_no_input_raises_anything_but_a_format_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.star").write_bytes(content)
    for read in (read_star, read_motion_star):
        with suppress(FormatError):
            read(tmp_path / "x.star")


words = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=8)
words = words.filter(lambda w: w.isprintable() and w.lower() not in {"nan", "inf", "-nan", "-inf"})
words = words.filter(lambda w: not ("'" in w and '"' in w))
names = st.text("abXY09", min_size=1)


@SAME_FOLDER
@given(
    names,
    st.dictionaries(names, words, max_size=3),
    st.lists(names, min_size=2, max_size=2, unique=True),
    st.lists(st.tuples(words, words), max_size=4),
)
def test_what_is_written_reads_back(tmp_path: Path, name, pairs, columns, rows) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.star"
    block = StarBlock(name, pairs, tuple(columns), tuple(rows), str(path))
    write_star(path, [block, StarBlock("", {"x": "1"})])
    read = read_star(path)
    assert (read[name].pairs, read[name].columns) == (pairs, tuple(columns))
    assert read[name].rows == tuple(rows)
    assert read[""].pairs == {"x": "1"}


def test_real_tables_survive_a_round_trip(tmp_path: Path, shared_data: Path) -> None:
    blocks = read_star(shared_data / "empiar10164_relion5_star/220728_TS_01.star")
    write_star(tmp_path / "a.star", blocks.values())
    again = read_star(tmp_path / "a.star")
    assert [b.rows for b in again.values()] == [b.rows for b in blocks.values()]
    assert " [0,0,0,1]\n" in (tmp_path / "a.star").read_text()


MOVED = np.array([[1.5, -2.0], [2.0, -2.25], [3.5, 0.0]])
SIZE = (3, 7676, 7420)


def test_motion_has_relions_sign_and_starts_at_zero(tmp_path: Path) -> None:
    path = tmp_path / "m.star"
    local = np.arange(36) / 7
    write_motion_star(path, "frames/TS_01_000_0.0.mrc", SIZE, 0.675, 2, MOVED, local, 0.375, 3.0)
    blocks = read_star(path)
    assert [*blocks] == ["general", "global_shift", "local_motion_model"]
    general = blocks["general"]
    assert general.value("rlnMicrographMovieName") == "frames/TS_01_000_0.0.mrc"
    sizes = [general.value(f"rlnImageSize{axis}") for axis in "XYZ"]
    assert sizes == ["7420", "7676", "3"]
    assert float(general.value("rlnMicrographBinning")) == 2
    assert float(general.value("rlnMicrographPreExposure")) == 3
    assert general.value("rlnMotionModelVersion") == "1"
    shift = blocks["global_shift"]
    assert shift.column("rlnMicrographFrameNumber") == ("1", "2", "3")
    assert shift.floats("rlnMicrographShiftX").tolist() == [0, -0.5, -2]
    assert shift.floats("rlnMicrographShiftY").tolist() == [0, 0.25, -2]
    model = blocks["local_motion_model"]
    assert model.column("rlnMotionModelCoeffsIdx")[-1] == "35"
    np.testing.assert_allclose(model.floats("rlnMotionModelCoeff"), -local, rtol=1e-8)


def test_motion_reads_back_as_displacement(tmp_path: Path) -> None:
    path = tmp_path / "m.star"
    write_motion_star(path, "a b.tif", SIZE, 0.675, 2, MOVED)
    motion = read_motion_star(path)
    np.testing.assert_allclose(motion.displacement, MOVED - MOVED[0], atol=1e-6)
    assert (motion.movie_name, motion.size, motion.pixel_size) == ("a b.tif", SIZE, 0.675)
    assert motion.local is None
    assert read_star(path)["general"].value("rlnMotionModelVersion") == "0"


def test_frames_left_out_read_back_as_such(tmp_path: Path) -> None:
    moved = np.concatenate([[[np.nan, np.nan]], MOVED, [[np.nan, np.nan]]])
    write_motion_star(tmp_path / "m.star", "a.eer", (5, 8, 8), 0.675, 2, moved, eer=(2, 21))
    table = read_star(tmp_path / "m.star")["global_shift"]
    assert table.floats("rlnMicrographShiftX").tolist() == [-9999, 0, -0.5, -2, -9999]
    motion = read_motion_star(tmp_path / "m.star")
    np.testing.assert_allclose(motion.displacement, moved - MOVED[0], atol=1e-6)
    assert motion.first_frame == 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"displacement": MOVED * [1, np.nan]}, "displacement nan at position 1"),
        ({"displacement": MOVED * np.nan}, "displacement nan"),
        ({"displacement": MOVED[:2]}, r"displacement of shape \(2, 2\); give \(3, 2\)"),
        ({"local": np.zeros(18)}, "18 local coefficients; give 36"),
        ({"local": np.full(36, np.inf)}, "local coefficient -inf"),
        ({"dose_per_frame": np.nan}, "value nan"),
    ],
)
def test_motion_that_is_no_motion_is_refused(tmp_path: Path, options, match: str) -> None:  # type: ignore[no-untyped-def]
    arguments = {"displacement": MOVED, **options}
    with pytest.raises(FormatError, match=match):
        write_motion_star(tmp_path / "m.star", "a", SIZE, 0.675, 2, **arguments)
    assert [*tmp_path.iterdir()] == []
