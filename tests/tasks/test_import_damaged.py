"""Damaged mdocs give an error or a record that makes sense."""

from __future__ import annotations

import random
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from import_files import write_movie

from tasks.discover import mdoc_source
from tasks.errors import UserError
from tasks.formats.errors import FormatError
from tasks.ingest import read_series
from tasks.parameters import ImportParameters
from tasks.record import TiltSeries

SAME_FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150
)


@pytest.fixture(scope="module")
def real_mdoc(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a folder with every movie of the real series, and its mdoc."""
    folder = tmp_path_factory.mktemp("fuzz")
    text = (shared_data / "empiar10164_mdoc/TS_01.mrc.mdoc").read_text()
    for name in re.findall(r"frames\\(\S+)", text):
        write_movie(folder / name, 1, 8)
    return folder, text


def read_damaged(folder: Path, data: bytes) -> TiltSeries | None:
    path = folder / "TS_01.mrc.mdoc"
    path.write_bytes(data)
    user = ImportParameters(mdoc="x", voltage=300, dose=3, pixel_size=1.35)
    with suppress(UserError, FormatError):
        return read_series.fn(mdoc_source(path), user)
    return None


@SAME_FOLDER
@given(cut=st.integers(0, 30000))
def test_a_cut_off_mdoc_gives_only_views_that_are_whole(
    real_mdoc: tuple[Path, str], cut: int
) -> None:
    folder, text = real_mdoc
    record = read_damaged(folder, text[:cut].encode())
    whole = read_damaged(folder, text.encode())
    assert whole is not None
    if record is None:
        return
    truth = {view.movie.name: view for view in whole.views}
    for view in record.views:
        expected = truth[view.movie.name]
        assert (view.order, view.prior_dose) == (expected.order, expected.prior_dose)
        assert view.tilt_angle == expected.tilt_angle
    assert record.acquisition.tilt_axis == whole.acquisition.tilt_axis


@SAME_FOLDER
@given(seed=st.integers(0, 10**6))
def test_shuffled_sections_and_keys_give_the_same_record(
    real_mdoc: tuple[Path, str], seed: int
) -> None:
    folder, text = real_mdoc
    rng = random.Random(seed)
    head, *sections = re.split(r"(?=\[ZValue)", text)
    rng.shuffle(sections)
    shuffled = []
    for section in sections:
        first, *keys = [row for row in section.splitlines() if row.strip()]
        rng.shuffle(keys)
        shuffled.append("\n".join([first, *keys]) + "\n\n")
    found = read_damaged(folder, (head + "".join(shuffled)).encode())
    assert found == read_damaged(folder, text.encode())


@SAME_FOLDER
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 29000), st.binary(min_size=0, max_size=12)), min_size=1, max_size=4
    )
)
def test_damaged_bytes_are_an_error_or_leave_a_record_that_makes_sense(
    real_mdoc: tuple[Path, str], changes: list[tuple[int, bytes]]
) -> None:
    folder, text = real_mdoc
    data = bytearray(text.encode())
    for place, noise in changes:
        data[place : place + len(noise)] = noise
    record = read_damaged(folder, bytes(data))
    if record is None:
        return
    assert all(abs(view.tilt_angle) <= 90 for view in record.views)
    assert len({view.movie.name for view in record.views}) == len(record.views)
    assert record.acquisition.pixel_size > 0


@SAME_FOLDER
@given(data=st.binary(max_size=4000))
def test_noise_is_never_a_series(tmp_path: Path, data: bytes) -> None:
    assert read_damaged(tmp_path, data) is None


def test_a_huge_mdoc_is_read_or_refused_in_time(tmp_path: Path) -> None:
    row = b"[ZValue = 0]\nTiltAngle = 1\nNote = " + b"x" * 2_000_000 + b"\n"
    assert read_damaged(tmp_path, row) is None  # no movie
    assert read_damaged(tmp_path, b"[ZValue = 0]\n" + b"a = b\n" * 500_000) is None
