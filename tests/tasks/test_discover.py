"""Which series a folder holds: mdocs of series, of single movies, montages, and names alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.describe import describe
from tasks.discover import Found, Source, find_sources, mdoc_source
from tasks.errors import UnusableData
from tasks.formats.mdoc import MontageError
from tasks.parameters import ImportParameters

# What each of the real mdocs of other kinds comes to: (series, views) or the reason.
VARIANTS = {
    "frame_set_single.mdoc": ("s_mmm", 1),
    "frame_set_multiple.mdoc": ("frame_set_multiple", 20),
    "montage_section.mdoc": "Montage = 1: its sections are pieces of one image",
    "montage_section_multiple.mdoc": "Montage = 1: its sections are pieces of one image",
}

MOVIE = """T = SerialEM: here
Voltage = 300

[FrameSet = 0]
TiltAngle = {tilt}
StagePosition = {stage} -457.4
PixelSpacing = 1.3
ExposureDose = 3
RotationAngle = 175
SubFramePath = X:\\frames\\{name}
DateTime = 08-Oct-21  07:{minute:02d}:00
"""


def write_movies(
    folder: Path,
    tilts: tuple[float, ...],
    prefix: str = "grid",
    first: int = 100,
    stage: float = -142.0,
    minute: int = 0,
) -> None:
    for i, tilt in enumerate(tilts):
        name = f"{prefix}_{first + i:05d}_{tilt:.1f}_Oct08_07.{minute + i:02d}.00.tif"
        text = MOVIE.format(tilt=tilt, stage=stage, name=name, minute=minute + i)
        (folder / f"{name}.mdoc").write_text(text)


def found(folder: Path) -> Found:
    return find_sources(ImportParameters(mdoc=str(folder / "*.mdoc")))


def tilts_of(source: Source) -> list[float | None]:
    assert source.mdoc is not None
    return [view.tilt_angle for view in source.mdoc.views_by_time]


@pytest.mark.parametrize("name", VARIANTS)
def test_the_real_variants_come_to_what_is_expected(shared_data: Path, name: str) -> None:
    source = mdoc_source(shared_data / "mdoc_variants" / name)
    expected = VARIANTS[name]
    if isinstance(expected, str):
        assert isinstance(source.fault, MontageError)
        assert expected in str(source.fault)
        with pytest.raises(MontageError):
            describe(source, ImportParameters(mdoc="x"))
        return
    assert source.fault is None
    assert source.mdoc is not None
    assert (source.name, len(source.mdoc.views)) == expected


def test_montages_found_by_wildcards_are_left_out_with_the_reason(shared_data: Path) -> None:
    both = found(shared_data / "mdoc_variants")
    assert [source.name for source in both.sources] == ["frame_set_multiple", "s_mmm"]
    assert [path.name for path, _ in both.left_out] == [
        "montage_section.mdoc",
        "montage_section_multiple.mdoc",
    ]
    assert all("pieces of one image" in reason for _, reason in both.left_out)


def test_a_folder_of_montages_alone_is_an_error(shared_data: Path) -> None:
    pattern = str(shared_data / "mdoc_variants/montage*.mdoc")
    with pytest.raises(UnusableData, match=r"montage_section\.mdoc: Montage = 1"):
        find_sources(ImportParameters(mdoc=pattern))


def test_a_montage_of_one_piece_for_each_angle_is_a_tilt_series(tmp_path: Path) -> None:
    text = "Montage = 1\nVoltage = 200\n"
    for i, tilt in enumerate((0, 3, -3)):
        text += f"\n[ZValue = {i}]\nPieceCoordinates = 0 0 {i}\nTiltAngle = {tilt}\n"
    path = tmp_path / "TS_1.mrc.mdoc"
    path.write_text(text)
    assert tilts_of(mdoc_source(path)) == [0, 3, -3]
    path.write_text(text.replace("0 0 1", "0 3400 1"))
    assert isinstance(mdoc_source(path).fault, MontageError)


def test_movies_with_an_mdoc_each_make_one_series_in_order_of_time(tmp_path: Path) -> None:
    write_movies(tmp_path, (0, 3, -3, -6, 6))
    (source,) = found(tmp_path).sources
    assert (source.name, tilts_of(source)) == ("grid", [0, 3, -3, -6, 6])


def test_several_targets_of_one_folder_are_told_apart_by_name(tmp_path: Path) -> None:
    write_movies(tmp_path, (0, 3, -3), prefix="ts_001")
    write_movies(tmp_path, (0, 3), prefix="ts_002")
    assert {s.name: len(tilts_of(s)) for s in found(tmp_path).sources} == {"ts_001": 3, "ts_002": 2}


def test_a_stage_that_has_moved_or_an_angle_that_comes_back_begins_a_series(
    tmp_path: Path,
) -> None:
    write_movies(tmp_path, (0, 3, -3))
    write_movies(tmp_path, (0, 3, -3), first=103, minute=10, stage=-100)
    write_movies(tmp_path, (0, 3), first=106, minute=20, stage=-100)
    assert {s.name: tilts_of(s) for s in found(tmp_path).sources} == {
        "grid": [0, 3, -3],
        "grid_2": [0, 3, -3],
        "grid_3": [0, 3],
    }


def test_a_movie_taken_again_at_once_stays_in_its_series(tmp_path: Path) -> None:
    write_movies(tmp_path, (0, 3, 3, -3))
    (source,) = found(tmp_path).sources
    assert tilts_of(source) == [0, 3, 3, -3]


def test_mdocs_of_movies_that_a_series_lists_add_nothing(tmp_path: Path) -> None:
    write_movies(tmp_path, (0, 3))
    text = "Voltage = 300\n"
    for i, path in enumerate(sorted(tmp_path.glob("*.tif.mdoc"))):
        text += f"\n[ZValue = {i}]\nTiltAngle = {i}\nSubFramePath = D:\\{path.stem}\n"
    (tmp_path / "TS_1.mrc.mdoc").write_text(text)
    assert [source.name for source in found(tmp_path).sources] == ["TS_1"]


def test_an_mdoc_that_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    write_movies(tmp_path, (0, 3))
    (tmp_path / "broken.mdoc").write_text("nothing here\n")
    sources = {source.name: source for source in found(tmp_path).sources}
    assert sources["grid"].fault is None
    assert "no [ZValue = n] or [FrameSet = n] section" in str(sources["broken"].fault)


def test_a_series_that_is_there_twice_fails_alone(tmp_path: Path) -> None:
    for name in ("TS_01.mdoc", "TS_01.mrc.mdoc", "TS_01.st.mdoc", "TS_02.mdoc"):
        (tmp_path / name).write_text(f"[ZValue = 0]\nSubFramePath = {name}_0.tif\n")
    first, second = found(tmp_path).sources
    assert (first.name, second.name, second.fault) == ("TS_01", "TS_02", None)
    with pytest.raises(UnusableData, match=r"same series name 'TS_01' as .*TS_01\.mdoc: rename"):
        describe(first, ImportParameters(mdoc="x"))


def test_brackets_in_a_folders_name_stand_for_themselves(tmp_path: Path) -> None:
    folder = tmp_path / "grid [2]"
    folder.mkdir()
    write_movies(folder, (0, 3))
    assert [source.name for source in found(folder).sources] == ["grid"]


def test_the_mdoc_of_a_movie_need_not_name_it(tmp_path: Path) -> None:
    write_movies(tmp_path, (0, 3))
    for path in tmp_path.glob("*.mdoc"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(text for text in lines if "SubFramePath" not in text))
        (tmp_path / path.stem).write_bytes(b"movie")
    (source,) = found(tmp_path).sources
    told = describe(source, ImportParameters(mdoc="x"))
    assert [path.name[:14] for path in told.files.values()] == ["grid_00100_0.0", "grid_00101_3.0"]


def test_a_series_cut_from_the_movies_before_it_is_doubted(tmp_path: Path) -> None:
    write_movies(tmp_path, (0, 3, -3))
    write_movies(tmp_path, (0, -3), first=103, minute=10)
    for path in list(tmp_path.glob("*.mdoc")):
        (tmp_path / path.stem).write_bytes(b"movie")
    first, second = (describe(s, ImportParameters(mdoc="x")) for s in found(tmp_path).sources)
    assert first.doubts == ()  # the other series' movies are not taken for unlisted ones
    ((field, _, _, doubt),) = second.doubts
    assert (field, "0.0° came again" in str(doubt)) == ("series", True)


def test_movies_are_found_by_their_names(tmp_path: Path) -> None:
    for name in ("TS_01_000_0.0", "TS_01_001_3.0", "TS_02_000_0.0"):
        (tmp_path / f"{name}.mrc").touch()
    pattern = str(tmp_path / "{TS}_{TO}_{TA}.mrc")
    sources = find_sources(ImportParameters(pattern=pattern)).sources
    assert [(s.name, len(s.movies)) for s in sources] == [("TS_01", 2), ("TS_02", 1)]


def test_stacks_are_named_by_their_files(tmp_path: Path) -> None:
    for name in ("b.st", "a.st"):
        (tmp_path / name).touch()
    sources = find_sources(ImportParameters(stack=str(tmp_path / "*.st"))).sources
    assert [(s.name, s.is_stack) for s in sources] == [("a", True), ("b", True)]
    with pytest.raises(UnusableData, match=r"\*\.ali: no such stack"):
        find_sources(ImportParameters(stack=str(tmp_path / "*.ali")))
