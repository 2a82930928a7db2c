"""Every way the data arrives: patterns, stacks, frame sets, EER, Tomography 5."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from eer_files import NX, NY, encoded, write_eer
from import_files import imported, line, taken, write_movie

from tasks.discover import mdoc_source
from tasks.errors import UnusableData
from tasks.formats.errors import FormatError
from tasks.formats.star import read_star
from tasks.ingest import read_series
from tasks.parameters import ImportParameters

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
