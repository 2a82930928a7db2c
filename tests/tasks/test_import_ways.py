"""Every way the data arrives: patterns, stacks, frame sets, EER, Tomography 5, broken mdocs."""

from __future__ import annotations

import random
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eer_files import NX, NY, encoded, write_eer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.detector import orient_reference
from kernels.simulate import gain_reference
from tasks.discover import find_sources, mdoc_source
from tasks.errors import UnusableData, UserError
from tasks.formats.errors import FormatError
from tasks.formats.mrc import write_stack
from tasks.formats.star import read_star
from tasks.import_gain import check_orientation, with_orientation
from tasks.ingest import read_series
from tasks.parameters import Execution, ImportParameters
from tasks.record import ImportedField, TiltSeries

SAME_FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150
)
THREADS = Execution(cluster="threads", workers=2)


def write_movie(path: Path, frames: int = 3, size: int = 16, pixel: float = 1.35) -> None:
    values = np.random.default_rng(len(path.name)).poisson(3, (frames, size, size))
    write_stack(path, values.astype(np.int16), pixel)


def imported(**given: Any) -> TiltSeries:
    told = {"voltage": 300, "dose": 3, "tilt_axis": 85.3, **given}
    user = ImportParameters(**{k: v for k, v in told.items() if v is not None})
    (source,) = find_sources(user).sources
    return read_series.fn(source, user)


def line(record: TiltSeries, field: str) -> ImportedField:
    (found,) = [line for line in record.import_report if line.field == field]
    return found


def taken(record: TiltSeries) -> list[tuple[float, int, float]]:
    """Return (angle, order, prior dose) in order of acquisition."""
    views = sorted(record.views, key=lambda view: view.order)
    return [(view.tilt_angle, view.order, view.prior_dose) for view in views]


# -- by pattern -----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1, 12])
def test_prior_dose_counts_from_the_first_movie_whatever_its_number(
    tmp_path: Path, first: int
) -> None:
    for i, tilt in enumerate((0.0, 3.0, -3.0, -6.0)):
        write_movie(tmp_path / f"TS_01_{first + i:03d}_{tilt}.mrc")
    record = imported(pattern=str(tmp_path / "{TS}_{TO}_{TA}.mrc"))
    assert record.name == "TS_01"
    assert taken(record) == [(0, 1, 0), (3, 2, 3), (-3, 3, 6), (-6, 4, 9)]
    assert record.acquisition.pixel_size == pytest.approx(1.35)
    assert line(record, "tilt angles").source == "{TA} in the names"
    assert line(record, "order").source == "{TA} in the names"


def test_a_number_without_a_movie_has_irradiated_the_specimen(tmp_path: Path) -> None:
    for i, tilt in ((1, 0.0), (2, 3.0), (4, -6.0), (5, 6.0), (6, 9.0), (7, -9.0)):
        write_movie(tmp_path / f"TS_01_{i:03d}_{tilt}_x.mrc")
    record = imported(pattern=str(tmp_path / "{TS}_{TO}_{TA}_*.mrc"))
    assert [dose for _, _, dose in taken(record)] == [0, 3, 9, 12, 15, 18]
    assert "no movie of 3" in str(line(record, "order").conflict)


def test_numbers_that_count_something_else_only_tell_the_order(tmp_path: Path) -> None:
    for i, tilt in ((40, 0.0), (80, 3.0), (120, -3.0)):
        write_movie(tmp_path / f"TS_01_{i:03d}_{tilt}.mrc")
    record = imported(pattern=str(tmp_path / "{TS}_{TO}_{TA}.mrc"))
    assert [dose for _, _, dose in taken(record)] == [0, 3, 6]
    assert "many are missing" in str(line(record, "order").conflict)


@pytest.mark.parametrize("needed", ["voltage", "dose", "tilt_axis"])
def test_what_names_cannot_tell_is_asked_for(tmp_path: Path, needed: str) -> None:
    write_movie(tmp_path / "TS_01_001_0.0.mrc")
    with pytest.raises(UnusableData, match=f"--{needed.replace('_', '-')}"):
        imported(pattern=str(tmp_path / "{TS}_{TO}_{TA}.mrc"), **{needed: None})


# -- as stacks ------------------------------------------------------------------------------------

STACK = """PixelSpacing = 2.7
Voltage = 200
ImageFile = a.st
ImageSize = 16 16

[T = Tilt axis angle = 84.0, binning = 2]
"""


def stack(folder: Path, name: str = "a.st", sections: int = 5) -> Path:
    write_movie(folder / name, sections, pixel=2.7)
    return folder / name


def test_a_stack_with_an_mdoc_has_its_sections_by_angle_and_order(tmp_path: Path) -> None:
    path = stack(tmp_path, sections=3)
    text = STACK
    for i, (tilt, minute) in enumerate(((-3, 2), (0, 0), (3, 1))):
        text += f"\n[ZValue = {i}]\nTiltAngle = {tilt}\nDateTime = 30-Nov-2015  15:2{minute}:38\n"
    path.with_name("a.st.mdoc").write_text(text)
    record = imported(stack=str(path), tilt_axis=None, voltage=None)
    assert [(v.tilt_angle, v.first_frame, v.frames, v.order) for v in record.views] == [
        (-3, 1, 1, 3),
        (0, 2, 1, 1),
        (3, 3, 1, 2),
    ]
    about = record.acquisition
    assert (about.tilt_axis, about.voltage, about.pixel_size) == (84, 200, 2.7)
    assert line(record, "order").value == "by DateTime"
    path.with_name("a.st.mdoc").write_text(text + "\n[ZValue = 3]\nTiltAngle = 6\n")
    with pytest.raises(UnusableData, match=r"a\.st: has 3 sections, a\.st\.mdoc tells of 4"):
        imported(stack=str(path))


@pytest.mark.parametrize("suffix", [".rawtlt", ".tlt"])
def test_a_list_beside_a_stack_gives_its_angles(tmp_path: Path, suffix: str) -> None:
    path = stack(tmp_path)
    path.with_suffix(suffix).write_text("-6\n-3\n0\n3\n6\n")
    record = imported(stack=str(path))
    assert [view.tilt_angle for view in record.views] == [-6, -3, 0, 3, 6]
    assert line(record, "tilt angles").source == str(f"a{suffix}")
    assert "not known" in str(line(record, "order").conflict)
    assert taken(record)[0] == (-6, 1, 0)


@pytest.mark.parametrize(
    ("order", "expected"),
    [("dose-symmetric", [0, 3, -3, 6, -6]), ("listed", [-6, -3, 0, 3, 6])],
)
def test_the_order_of_a_stack_is_as_the_user_says(
    tmp_path: Path, order: str, expected: list[float]
) -> None:
    path = stack(tmp_path)
    record = imported(stack=str(path), angles="-6,6,3", order=order)
    assert [angle for angle, _, _ in taken(record)] == expected
    assert [dose for _, _, dose in taken(record)] == [0, 3, 6, 9, 12]
    assert line(record, "order").conflict is None


def test_a_list_with_order_and_dose_gives_these_too(tmp_path: Path) -> None:
    path = stack(tmp_path, sections=3)
    (tmp_path / "a_TLT.txt").write_text("-3 3 2.5\n0 1 2\n3 2 2\n")
    record = imported(stack=str(path), angles=str(tmp_path / "{TS}_TLT.txt"), dose=None)
    assert taken(record) == [(0, 1, 0), (3, 2, 2), (-3, 3, 4)]
    assert [view.dose for view in record.views] == [2.5, 2, 2]


@pytest.mark.parametrize(
    ("angles", "told"),
    [
        (None, r"a\.st: its header tells no tilt angles.*--angles"),
        ("mdoc", r"a\.st: no mdoc beside it"),
        ("/none/{TS}.tlt", r"/none/a\.tlt: no such file"),
        ("-6,6,4", r"a\.st: --angles -6,6,4: "),
        ("-60,60,3", r"41.*5"),
    ],
)
def test_a_stack_without_usable_angles_is_refused(
    tmp_path: Path, angles: str | None, told: str
) -> None:
    with pytest.raises(UnusableData, match=told):
        imported(stack=str(stack(tmp_path)), angles=angles)


def test_a_list_of_another_length_is_refused(tmp_path: Path) -> None:
    path = stack(tmp_path)
    path.with_suffix(".tlt").write_text("-3\n0\n3\n")
    with pytest.raises(FormatError, match=r"a\.tlt: 3 tilt angles for the 5 sections of a\.st"):
        imported(stack=str(path))


def test_an_aligned_stack_has_its_axis_upright(tmp_path: Path) -> None:
    path = stack(tmp_path, "a.ali")
    path.with_suffix(".tlt").write_text("-6\n-3\n0\n3\n6\n")
    record = imported(stack=str(path), tilt_axis=None)
    assert record.acquisition.tilt_axis == 0
    assert line(record, "tilt axis").source == "aligned stack"
    with pytest.raises(UnusableData, match="--tilt-axis"):
        imported(stack=str(path), tilt_axis=None, aligned=False)


# -- frame sets and Tomography 5 ------------------------------------------------------------------


def test_one_movie_of_several_views_is_cut_as_its_mdoc_says(
    shared_data: Path, tmp_path: Path
) -> None:
    write_movie(tmp_path / "s_mmm_01013_33.0_Oct08_07.46.46.mrc", 243)
    source = mdoc_source(shared_data / "mdoc_variants/frame_set_multiple.mdoc")
    user = ImportParameters(mdoc="x", movies=str(tmp_path))
    record = read_series.fn(source, user)
    views = sorted(record.views, key=lambda view: view.order)
    assert {view.frames for view in views} == {12}
    # Its 243 frames are the 20 × 12 with the beam on and three more, the mdoc counts to 431.
    bounds = [view.first_frame - 1 - 12 * i for i, view in enumerate(views)]
    assert bounds == sorted(bounds)
    assert {*bounds} <= {0, 1, 2, 3}
    assert "blank frames were not saved" in str(line(record, "frames of the views").conflict)
    assert {view.tilt_angle for view in views} == {33}
    assert (views[0].dose, views[1].prior_dose) == (7.66184, 7.66184)
    about = record.acquisition
    assert (about.voltage, about.pixel_size) == (300, 1.2827)
    assert about.tilt_axis == pytest.approx(88.414)
    assert line(record, "prior dose").conflict is None  # PriorRecordDose says the same
    assert "is s_mmm_01013_33.0_Oct08_07.46.46.mrc" in str(line(record, "movie names").conflict)
    write_movie(tmp_path / "s_mmm_01013_33.0_Oct08_07.46.46.mrc", 100)
    with pytest.raises(UnusableData, match=r"431 frames, 240 of them .* has 100: bring"):
        read_series.fn(source, user)
    write_movie(tmp_path / "s_mmm_01013_33.0_Oct08_07.46.46.mrc", 431)
    views = sorted(read_series.fn(source, user).views, key=lambda view: view.order)
    assert [(v.first_frame, v.frames) for v in views[:3]] == [(1, 12), (23, 12), (45, 12)]


def test_the_mdoc_of_one_movie_is_a_series_of_one_view(shared_data: Path, tmp_path: Path) -> None:
    write_movie(tmp_path / "s_mmm_00993_33.0_Oct08_07.39.05.tif.mrc", 12)
    source = mdoc_source(shared_data / "mdoc_variants/frame_set_single.mdoc")
    path = tmp_path / "s_mmm_00993_33.0_Oct08_07.39.05.mrc"
    write_movie(path, 12)
    record = read_series.fn(source, ImportParameters(mdoc="x", movies=str(tmp_path)))
    (view,) = record.views
    assert (record.name, view.dose, view.frames) == ("s_mmm", 7.65892, 12)


TOMOGRAPHY5 = """PixelSpacing = 1.96
Voltage = 300
ImageSize = 16 16
[T = TOMOGRAPHY: TiltAxisAngle = 3.8, Binning = 1]
[ZValue = 0]
TiltAngle = 0.01
RotationAngle = {rotation}
ExposureDose = 3.1
SubFramePath = \\\\offload\\Position_1_001_0.00_20220101_123456_EER.mrc
DateTime = 2022-Jan-01  12:34:56
"""


@pytest.mark.parametrize(("rotation", "doubtful"), [(86.2, False), (-93.8, False), (80, True)])
def test_the_axis_of_tomography_5_has_its_own_convention(
    tmp_path: Path, rotation: float, doubtful: bool
) -> None:
    write_movie(tmp_path / "Position_1_001_0.00_20220101_123456_EER.mrc")
    path = tmp_path / "Position_1.mdoc"
    path.write_text(TOMOGRAPHY5.format(rotation=rotation))
    record = imported(mdoc=str(path), tilt_axis=None, voltage=None, dose=None)
    assert record.acquisition.tilt_axis == pytest.approx(-93.8)
    assert (line(record, "tilt axis").conflict is not None) == doubtful


# -- what the folder has besides ------------------------------------------------------------------


def mdoc_of_three(folder: Path) -> Path:
    text = "PixelSpacing = 1.35\nVoltage = 300\nImageSize = 16 16\n"
    for i, tilt in enumerate((0.0, 3.0, -3.0)):
        write_movie(folder / f"TS_05_{i:03d}_{tilt}.mrc")
        text += f"\n[ZValue = {i}]\nTiltAngle = {tilt}\nSubFramePath = D:\\TS_05_{i:03d}_{tilt}.mrc"
    (folder / "TS_05.mdoc").write_text(text + "\n")
    return folder / "TS_05.mdoc"


def test_movies_of_the_series_that_the_mdoc_does_not_list_are_noted(tmp_path: Path) -> None:
    path = mdoc_of_three(tmp_path)
    assert all(line.field != "unlisted movies" for line in imported(mdoc=str(path)).import_report)
    write_movie(tmp_path / "TS_05_003_-6.0.mrc")
    write_movie(tmp_path / "TS_06_003_-6.0.mrc")
    assert line(imported(mdoc=str(path)), "unlisted movies").value == "TS_05_003_-6.0.mrc"


def test_angles_missing_in_the_mdoc_come_from_the_movies_names(tmp_path: Path) -> None:
    path = mdoc_of_three(tmp_path)
    path.write_text(path.read_text().replace("TiltAngle", "Angle"))
    assert [view.tilt_angle for view in imported(mdoc=str(path)).views] == [-3, 0, 3]


def test_a_movie_whose_name_has_another_angle_is_doubted(tmp_path: Path) -> None:
    path = mdoc_of_three(tmp_path)
    path.write_text(path.read_text().replace("TiltAngle = 3.0", "TiltAngle = 33.0"))
    told = line(imported(mdoc=str(path)), "tilt angles").conflict
    assert told == "TS_05_001_3.0.mrc is said to be at 33°"


def test_an_mdoc_without_movies_points_to_its_stack(tmp_path: Path) -> None:
    path = mdoc_of_three(tmp_path)
    path.write_text(re.sub("SubFramePath.*", "", path.read_text()))
    stack(tmp_path, "TS_05", 3)
    with pytest.raises(UnusableData, match="use --stack"):
        imported(mdoc=str(path))


def test_a_dose_that_no_specimen_stands_is_doubted(tmp_path: Path) -> None:
    path = mdoc_of_three(tmp_path)
    assert "is it that of one view" in str(
        line(imported(mdoc=str(path), dose=150), "prior dose").conflict
    )


# -- EER ------------------------------------------------------------------------------------------


def eer_series(folder: Path, counts: tuple[int, ...] = (12, 12, 13)) -> str:
    for i, (tilt, count) in enumerate(zip((0.0, 3.0, -3.0), counts, strict=True)):
        frames = [encoded([(r, i, 0, 0), (5, 7, 1, 1)]) for r in range(count)]
        write_eer(folder / f"P_{i:03d}_{tilt}_EER.eer", frames)
    return str(folder / "{TS}_{TO}_{TA}_EER.eer")


def test_raw_frames_of_eer_are_grouped_by_dose(tmp_path: Path) -> None:
    record = imported(pattern=eer_series(tmp_path), dose=2, eer_dose=0.5)
    assert [(v.frames, v.grouping) for v in record.views] == [(4, 3), (4, 3), (4, 3)]
    assert record.shape == (NY, NX)
    assert record.acquisition.pixel_size == pytest.approx(0.75)
    assert "1 of 13 raw frames" in str(line(record, "raw frames in a frame").conflict)


@pytest.mark.parametrize("sampling", [1, 2, 4])
def test_super_resolution_of_eer_makes_the_pixel_smaller(tmp_path: Path, sampling: int) -> None:
    record = imported(
        pattern=eer_series(tmp_path), pixel_size=1.5, eer_sampling=sampling, eer_grouping=5
    )
    assert record.shape == (NY * sampling, NX * sampling)
    assert record.acquisition.pixel_size == 1.5 / sampling
    assert record.acquisition.eer_sampling == sampling
    assert [(v.frames, v.grouping) for v in record.views] == [(2, 5)] * 3


def test_more_raw_frames_in_a_frame_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match=r"P_000_0\.0_EER\.eer: has 12 raw frames.*fewer"):
        imported(pattern=eer_series(tmp_path), eer_grouping=20)


# -- the gain's orientation -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def flat_series(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Return movies taken through a gain of ±10 % structure, and the gain."""
    folder = tmp_path_factory.mktemp("flat")
    rng = np.random.default_rng(3)
    gain = gain_reference((128, 160), rng)
    for i, tilt in enumerate(range(0, 48, 3)):
        counts = rng.poisson(3 / gain, (4, 128, 160)).astype(np.uint8)
        write_stack(folder / f"TS_01_{i:03d}_{tilt}.0.mrc", counts, 1.35)
    write_stack(folder / "turned.mrc", np.flip(gain, axis=0)[None], 1.35)
    write_stack(folder / "quarter.mrc", orient_reference(gain, 1)[None], 1.35)
    write_stack(folder / "flat.mrc", np.ones_like(gain)[None], 1.35)
    return folder, gain


def with_gain(folder: Path, **given: Any) -> TiltSeries:
    user = ImportParameters(
        pattern=str(folder / "{TS}_{TO}_{TA}.mrc"), voltage=300, dose=3, tilt_axis=85, **given
    )
    (source,) = find_sources(user).sources
    record = read_series.fn(source, user)
    return with_orientation(record, check_orientation.fn([record], THREADS), user)


def test_a_gain_that_lies_otherwise_is_warned_about(flat_series: tuple[Path, np.ndarray]) -> None:
    folder, _ = flat_series
    wrong = with_gain(folder, gain=str(folder / "turned.mrc"))
    assert "fits the movies better" in str(line(wrong, "gain orientation").conflict)
    right = with_gain(folder, gain=str(folder / "turned.mrc"), gain_flip="up-down")
    assert line(right, "gain orientation").conflict is None


@pytest.mark.parametrize(("file", "rotation"), [("turned.mrc", None), ("quarter.mrc", 3)])
def test_auto_takes_the_orientation_that_the_movies_show(
    flat_series: tuple[Path, np.ndarray], file: str, rotation: int | None
) -> None:
    folder, gain = flat_series
    record = with_gain(folder, gain=str(folder / file), gain_orientation="auto")
    about = record.acquisition
    from tasks.formats.mrc import read_image

    turned = orient_reference(read_image(folder / file), about.gain_rotation, about.gain_flip)
    np.testing.assert_array_equal(turned, gain)
    assert rotation in (None, about.gain_rotation)


def test_auto_without_structure_asks_the_user(flat_series: tuple[Path, np.ndarray]) -> None:
    folder, _ = flat_series
    flat = str(folder / "flat.mrc")
    with pytest.raises(UnusableData, match=r"cannot tell.*--gain-rotate"):
        with_gain(folder, gain=flat, gain_orientation="auto")
    assert "cannot tell" in str(line(with_gain(folder, gain=flat), "gain orientation").conflict)


# -- the tutorial's series as RELION has it -------------------------------------------------------


def test_relions_table_of_the_tutorial_series_is_reproduced(
    shared_data: Path, tmp_path: Path
) -> None:
    (table,) = read_star(shared_data / "empiar10164_relion5_star/220728_TS_01.star").values()
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    for row in rows:
        write_movie(tmp_path / Path(row["rlnMicrographMovieName"]).name, 8)
    source = mdoc_source(shared_data / "empiar10164_mdoc/TS_01.mrc.mdoc")
    user = ImportParameters(mdoc="x", movies=str(tmp_path), voltage=300, dose=3, pixel_size=0.675)
    views = {view.movie.name: view for view in read_series.fn(source, user).views}
    assert len(rows) == 41
    for row in rows:
        view = views.pop(Path(row["rlnMicrographMovieName"]).name)
        assert view.tilt_angle == pytest.approx(
            float(row["rlnTomoNominalStageTiltAngle"]), abs=6e-4
        )
        assert view.order == int(row["rlnTomoTiltMovieIndex"])
        assert view.prior_dose == float(row["rlnMicrographPreExposure"])
        assert view.frames == int(row["rlnTomoTiltMovieFrameCount"])
    assert not views


# -- broken mdocs ---------------------------------------------------------------------------------


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
