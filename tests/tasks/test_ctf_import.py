from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctf_views import at, defoci, without
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.ctf_import import imported_ctf
from tasks.errors import UnusableData
from tasks.formats.ctffind import CtffindRow, read_ctffind, write_ctffind
from tasks.formats.errors import FormatError
from tasks.formats.relion_ctf import read_relion_ctf
from tasks.record import TiltSeries

SAME_FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200
)
EXCLUDED = 6  # the last of seven


@pytest.fixture
def record(fake_run: Callable[..., Any]) -> TiltSeries:
    """Return a record of seven views, of which the last is excluded."""
    return without(fake_run().series.imported(), EXCLUDED)


@pytest.fixture
def table(tmp_path: Path) -> Callable[[Sequence[int]], Path]:
    """Return the function that writes a CTFFIND table of micrographs; defocus 1e4 Å · number."""

    def write(numbers: Sequence[int]) -> Path:
        rows = [CtffindRow(n, 1e4 * n, 1e4 * n, 10, 0, 0.1, 5) for n in numbers]
        write_ctffind(tmp_path / "a.txt", rows)
        return tmp_path / "a.txt"

    return write


def star(folder: Path, rows: str, columns: str = "rlnMicrographMovieName") -> Path:
    names = [*columns.split(), "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
    heads = "".join(f"_{name}\n" for name in names)
    (folder / "a.star").write_text(f"data_TS_01\n\nloop_\n{heads}{rows}")
    return folder / "a.star"


# -- CTFFIND -----------------------------------------------------------------------------------


def test_aretomos_real_table_goes_by_number(record: TiltSeries, shared_data: Path) -> None:
    path = shared_data / "cryoet_portal_test/TS_run1_ctffind4.txt"
    found = imported_ctf(path, at(record, [-4.38, -1.98, 2.013]))
    for row, estimate in zip(read_ctffind(path), found.estimates, strict=True):
        assert estimate is not None
        assert (estimate.defocus_u, estimate.defocus_v) == (row.defocus_u, row.defocus_v)
        assert (estimate.astigmatism_angle, estimate.score, estimate.fit_resolution) == (
            row.astigmatism_angle, row.score, row.fit_resolution,
        )  # fmt: skip
    assert found.doubts == ("TS_run1_ctffind4.txt: its column of handedness is not used",)


@pytest.mark.parametrize(
    ("numbers", "views"),
    [
        (range(1, 8), [2, 3, 5, 6, 7]),  # all views
        (range(1, 6), [1, 2, 3, 4, 5]),  # those that are included, counted
        ([2, 3, 5, 6, 7], [2, 3, 5, 6, 7]),  # the same, numbered by all views
        ([2, 3, 6], [2, 3, None, 6, None]),
    ],
)
def test_numbers_of_a_table_count_all_views_or_the_included_ones(
    record: TiltSeries,
    table: Callable[[Sequence[int]], Path],
    numbers: Sequence[int],
    views: Sequence[int | None],
) -> None:
    series = without(record, 0, 3)
    found = imported_ctf(table(numbers), series)
    expected: list[float | None] = [None if n is None else 1e4 * n for n in views]
    assert defoci(found) == [None, *expected[:2], None, *expected[2:]]
    assert found.doubts == (("a.txt has no CTF of view 5, 7",) if None in views else ())


@pytest.mark.parametrize(
    ("numbers", "match"),
    [
        ([1, 2, 3, 4], r"4 rows, TS_01 has 7 views of which 6 are not excluded: exclude the views"),
        (range(1, 9), r"micrograph 8, TS_01 has 7 views"),
        ([0, 1, 2], r"micrograph 0, TS_01 has 7 views"),
        ([1, 1, 2], r"micrograph 1 comes twice"),
        ([7], r"has no CTF of a view of TS_01 that is not excluded"),
    ],
)
def test_a_table_that_may_mean_other_views_is_refused(
    record: TiltSeries, table: Callable[[Sequence[int]], Path], numbers: list[int], match: str
) -> None:
    with pytest.raises(UnusableData, match=match):
        imported_ctf(table(numbers), record)


def test_what_ctffind_calls_failed_is_not_reliable_and_zero_is_unknown(
    record: TiltSeries, tmp_path: Path
) -> None:
    rows = [CtffindRow(i, 2e4, 2e4, 0, 0, 0.1, [5.0, np.inf, 0.0][i % 3]) for i in range(1, 8)]
    rows[2] = CtffindRow(3, 2e4, 2e4, 0, 0, 0.0, 0.0)
    write_ctffind(tmp_path / "a.txt", rows)
    first, second, third, *_ = imported_ctf(tmp_path / "a.txt", record).estimates
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.reliable, first.problem, first.fit_resolution) == (
        False, "a.txt: the fit failed", None,
    )  # fmt: skip
    assert (second.reliable, second.fit_resolution, second.score) == (True, None, 0.1)
    assert (third.reliable, third.score) == (True, None)


@pytest.mark.parametrize("values", ["-2e4 -1.9e4 0 0", "2e7 2e7 0 0", "2e4 2e4 400 0", "0 0 0 0"])
def test_what_cannot_be_a_ctf_is_refused_with_its_value(
    record: TiltSeries, tmp_path: Path, values: str
) -> None:
    (tmp_path / "a.txt").write_text("".join(f"{i} {values} 0.1 5\n" for i in range(1, 8)))
    with pytest.raises(UnusableData, match=r"a\.txt: micrograph 1: an? .*: (give|correct)"):
        imported_ctf(tmp_path / "a.txt", record)


# -- RELION ------------------------------------------------------------------------------------


def test_relions_real_table_goes_by_name_of_the_movie(
    record: TiltSeries, shared_data: Path
) -> None:
    path = shared_data / "empiar10164_relion5_star/220728_TS_01.star"
    rows = sorted(read_relion_ctf(path), key=lambda row: row.tilt_angle or 0.0)
    names = [f"{(row.name or '').split('/')[-1]}" for row in rows]
    series = at(record, [row.tilt_angle or 0.0 for row in rows], names)
    found = imported_ctf(path, series)
    assert found.doubts == ()
    assert [e and (e.defocus_u, e.defocus_v, e.astigmatism_angle) for e in found.estimates] == [
        (row.defocus_u, row.defocus_v, row.defocus_angle) for row in rows
    ]
    by_angle = imported_ctf(path, at(record, [view.tilt_angle for view in series.views]))
    assert by_angle.estimates == found.estimates
    (doubt,) = by_angle.doubts
    assert doubt == "220728_TS_01.star: its movies have other names: matched by nominal tilt angle"


def test_names_of_micrographs_are_those_of_movies_as_relion_makes_them(
    record: TiltSeries, tmp_path: Path
) -> None:
    series = at(record, [-3.0, 3.0], ["TS_002_-3.0.eer", "TS_001_3.0.eer"])
    rows = "".join(
        f"job002/{name}.mrc {defocus} {defocus} 0\n"
        for name, defocus in (("TS_001_3_0", 3e4), ("TS_009_9_0", 1e4), ("TS_002_-3_0", 2e4))
    )
    found = imported_ctf(star(tmp_path, rows, "rlnMicrographName"), series)
    assert defoci(found) == [2e4, 3e4]


def test_rows_of_relion_without_a_view_or_with_several_are_told(
    record: TiltSeries, tmp_path: Path
) -> None:
    one = "TS_01_1.mrc 2e4 2e4 0\n"  # the view at 0°
    found = imported_ctf(star(tmp_path, one), record)
    assert defoci(found) == [None, None, 2e4, None, None, None, None]
    assert found.doubts == ("a.star has no CTF of view 1, 2, 4, 5, 6",)
    with pytest.raises(UnusableData, match=r"TS_01_1\.mrc comes 2 times"):
        imported_ctf(star(tmp_path, 2 * one), record)
    with pytest.raises(UnusableData, match=r"x\.mrc is no movie of TS_01 and there is no _rlnTomo"):
        imported_ctf(star(tmp_path, "x.mrc 2e4 2e4 0\n"), record)
    both = "rlnMicrographMovieName rlnTomoNominalStageTiltAngle"
    with pytest.raises(UnusableData, match=r"neither x\.mrc is a movie nor 7° an angle of TS_01"):
        imported_ctf(star(tmp_path, "x.mrc 7 2e4 2e4 0\n", both), record)
    with pytest.raises(UnusableData, match=r"0° may be one of several views"):
        imported_ctf(star(tmp_path, 2 * "x.mrc 0 2e4 2e4 0\n", both), record)
    assert imported_ctf(star(tmp_path, "TS_01_1.mrc 9 2e4 2e4 0\n", both), record).doubts[0] == (
        "a.star: TS_01_1.mrc at 9°, here at 0°"
    )


# -- any file ----------------------------------------------------------------------------------


def test_the_format_is_told_by_the_content(
    record: TiltSeries, tmp_path: Path, shared_data: Path
) -> None:
    with pytest.raises(FormatError, match="1 columns in the first line; give CTFFIND's table"):
        imported_ctf(shared_data / "pytom_test/test_defocus.txt", record)
    with pytest.raises(UnusableData, match=r"nothing\.star: no such file or directory: put"):
        imported_ctf(tmp_path / "nothing.star", record)
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(FormatError, match="no lines"):
        imported_ctf(tmp_path / "empty", record)


WORDS = [
    "data_", "loop_", "\n", "\n", "\n", "_rlnDefocusU", "_rlnDefocusV", "_rlnMicrographName",
    "_rlnTomoNominalStageTiltAngle", "TS_01_1.mrc", "1", "2", "3", "0", "-47", "-20", "13", "2e4",
    "3000", "inf", "nan", "-1", "1e308", "16", "#", "3 0 0 0 0 3", "1 1 -47 -47 3000 2",
    "1 2e4 2e4 0 0 0.1 5", "1000000000",
]  # fmt: skip


@SAME_FOLDER
@given(st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join))
def test_any_text_is_read_or_refused_in_one_line_that_names_the_file(
    tmp_path: Path, record: TiltSeries, text: str
) -> None:
    (tmp_path / "x").write_text(text.replace("\n ", "\n"))
    found, refused = None, ""
    try:
        found = imported_ctf(tmp_path / "x", record)
    except (FormatError, UnusableData) as error:
        refused = str(error)
    if found is None:
        assert refused.startswith(str(tmp_path / "x"))
        assert "\n" not in refused
        return
    assert any(found.estimates)
    for estimate in filter(None, found.estimates):
        estimate.model(record.acquisition)  # refuses what is not finite


@SAME_FOLDER
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path: Path, record: TiltSeries, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with suppress(FormatError, UnusableData):
        imported_ctf(tmp_path / "x", record)
