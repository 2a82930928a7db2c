from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.discover import find_sources, mdoc_source, series_name
from tasks.errors import UnusableData, UserError
from tasks.formats.errors import FormatError
from tasks.formats.mdoc import read_mdoc
from tasks.formats.mrc import write_stack
from tasks.ingest import read_series, store_series
from tasks.parameters import ImportParameters
from tasks.record import ImportedField, TiltSeries
from tasks.store import parse_project

REAL = "empiar10164_mdoc"


def write_movie(path: Path, shape: tuple[int, int, int] = (3, 16, 16), seed: int = 0) -> None:
    counts = np.random.default_rng(seed).poisson(3, shape).astype(np.int16)
    write_stack(path, counts, 1.35)


@pytest.fixture(scope="module")
def movies(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny movie of every name that the tutorial's mdoc lists."""
    folder = tmp_path_factory.mktemp("frames")
    for i, view in enumerate(read_mdoc(shared_data / REAL / "TS_01.mrc.mdoc").views):
        write_movie(folder / str(view.movie_name), seed=i)
    return folder


@pytest.fixture
def read(shared_data: Path, movies: Path) -> Callable[..., TiltSeries]:
    """Return the function that imports the tutorial's mdoc as a user would."""

    def of(name: str = "TS_01.mrc.mdoc", **given: Any) -> TiltSeries:
        told = {"pixel_size": 1.35, "voltage": 300, "dose": 3, "movies": str(movies), **given}
        parameters = ImportParameters(mdoc="x", **{k: v for k, v in told.items() if v is not None})
        return read_series.fn(mdoc_source(shared_data / REAL / name), parameters)

    return of


def line(record: TiltSeries, field: str) -> ImportedField:
    (found,) = [line for line in record.import_report if line.field == field]
    return found


def test_the_tutorial_series_has_its_views_in_order(read: Callable[..., TiltSeries]) -> None:
    record = read()
    assert record.name == "TS_01"
    assert len(record.views) == 41
    assert [round(view.tilt_angle) for view in record.views] == list(range(-60, 61, 3))
    taken = sorted(record.views, key=lambda view: view.order)
    assert [round(v.tilt_angle) for v in taken[:9]] == [0, 3, -3, -6, 6, 9, -9, -12, 12]
    assert [view.order for view in taken] == list(range(1, 42))
    assert [view.prior_dose for view in taken] == [3.0 * i for i in range(41)]
    assert {view.dose for view in record.views} == {3.0}
    assert {view.frames for view in record.views} == {3}
    assert taken[0].movie.name == "TS_01_000_0.0.mrc"
    assert record.shape == (16, 16)


def test_the_tutorial_series_has_its_acquisition(read: Callable[..., TiltSeries]) -> None:
    record = read()
    about = record.acquisition
    assert (about.tilt_axis, about.pixel_size, about.voltage) == (85.3, 1.35, 300)
    assert (about.cs, about.amplitude_contrast, about.magnification) == (2.7, 0.07, 105000)
    pixel = line(record, "pixel size")
    assert (pixel.value, pixel.source) == ("1.35 Å", "user")
    assert "5.4 Å" in str(pixel.conflict)
    assert "movie header" not in str(pixel.conflict)
    assert line(record, "tilt axis").source == "mdoc title"
    assert line(record, "tilt axis").conflict is None  # RotationAngle 175.3 − 90 agrees
    assert "TS_01_000_0.0.mrc has 3, the mdoc says 8" in str(line(record, "frames").conflict)


def test_the_dark_view_of_the_tutorial_series_is_left_out(
    read: Callable[..., TiltSeries],
) -> None:
    record = read()
    reasons = {i: view.excluded for i, view in enumerate(record.views) if view.excluded}
    assert list(reasons) == [0]
    match = re.fullmatch(r"dark: mean 2\.75 where about (\d+) is expected", str(reasons[0]))
    assert match is not None
    assert 300 <= float(match[1]) <= 325
    assert read(dark_threshold=0).views[0].excluded is None


def test_line_ends_make_no_difference(read: Callable[..., TiltSeries]) -> None:
    lf, crlf = read(), read("TS_01_crlf_original.mrc.mdoc")
    assert crlf.name == "TS_01_crlf_original"
    assert crlf.model_copy(update={"name": lf.name}) == lf


def test_the_pixel_of_movies_of_the_mdocs_geometry_comes_from_its_binning(
    shared_data: Path, tmp_path: Path
) -> None:
    views = read_mdoc(shared_data / REAL / "TS_01.mrc.mdoc").views
    for view in views:
        # As wide and high to SerialEM's 924 × 958 as 3710 × 3838 is, one frame, mostly a hole.
        write_sparse(tmp_path / str(view.movie_name), (1, 3838, 3710))
    parameters = ImportParameters(mdoc="x", voltage=300, dose=3, movies=str(tmp_path))
    record = read_series.fn(mdoc_source(shared_data / REAL / "TS_01.mrc.mdoc"), parameters)
    assert record.acquisition.pixel_size == pytest.approx(1.35)
    assert line(record, "pixel size").source == "mdoc PixelSpacing / binning"


def write_sparse(path: Path, shape: tuple[int, int, int]) -> None:
    from tasks.formats.mrc_header import header_bytes

    origin, numbers = (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)
    header = header_bytes(shape, np.dtype("<i2"), 1.35, origin, ("x",), 0, numbers)
    path.write_bytes(header)
    os.truncate(path, len(header) + 2 * int(np.prod(shape)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"voltage": None}, r"TS_01\.mrc\.mdoc: has no Voltage: give --voltage"),
        ({"dose": None}, r"TS_01\.mrc\.mdoc: says nothing of the dose: give --dose"),
        ({"gain": "/none/gain.mrc"}, r"/none/gain\.mrc: no such file: correct the path of the"),
        ({"defects": "/none/d.txt"}, r"/none/d\.txt: no such file"),
        ({"movies": "/none"}, r"41 of 41 movies are missing, the first is /none/TS_01_000_0\.0"),
    ],
)
def test_what_is_not_known_is_asked_for(
    read: Callable[..., TiltSeries], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnusableData, match=message) as caught:
        read(**given)
    assert "\n" not in str(caught.value)


def test_what_the_user_says_beats_the_mdoc_and_is_noted(read: Callable[..., TiltSeries]) -> None:
    record = read(tilt_axis=84, initial_dose=2, cs=1.4, amplitude_contrast=0.1)
    assert record.acquisition.tilt_axis == 84
    assert line(record, "tilt axis").conflict == (
        "mdoc title says 85.3°; mdoc RotationAngle − 90° says 85.3°"
    )
    assert (record.acquisition.cs, record.acquisition.amplitude_contrast) == (1.4, 0.1)
    assert min(view.prior_dose for view in record.views) == 2


# -- small mdocs of our own -----------------------------------------------------------------

VIEW = """[ZValue = {i}]
TiltAngle = {tilt}
PixelSpacing = 2
MinMaxMean = 0 9 {mean}
SubFramePath = D:\\a\\{movie}
NumSubFrames = 3
DateTime = 30-Nov-15  15:2{i}:38

"""
HEADER = """PixelSpacing = 2
Voltage = 300
ImageSize = 16 16

[T = Tilt axis angle = 0.0, binning = 1]

"""


def write_series(folder: Path, tilts: tuple[float, ...] = (0, 3, -3, -6, 6)) -> Path:
    text = HEADER
    for i, tilt in enumerate(tilts):
        movie = f"m{i}.mrc"
        text += VIEW.format(i=i, tilt=tilt, mean=100, movie=movie)
        write_movie(folder / movie, seed=i)
    path = folder / "TS_07.mrc.mdoc"
    path.write_text(text)
    return path


def read_own(path: Path, **given: Any) -> TiltSeries:
    return read_series.fn(mdoc_source(path), ImportParameters(mdoc="x", **{"dose": 3, **given}))


def test_movies_are_found_beside_the_mdoc_or_in_its_folder_frames(tmp_path: Path) -> None:
    path = write_series(tmp_path)
    beside = read_own(path)
    (tmp_path / "frames").mkdir()
    for movie in tmp_path.glob("*.mrc"):
        movie.rename(tmp_path / "frames" / movie.name)
    inside = read_own(path)
    assert [v.movie.digest for v in inside.views] == [v.movie.digest for v in beside.views]
    assert inside.views[0].movie.path == str(tmp_path / "frames" / "m3.mrc")


def test_a_tilt_axis_of_zero_is_a_value(tmp_path: Path) -> None:
    assert read_own(write_series(tmp_path)).acquisition.tilt_axis == 0.0


def test_a_missing_movie_is_named(tmp_path: Path) -> None:
    path = write_series(tmp_path)
    (tmp_path / "m2.mrc").unlink()
    with pytest.raises(UnusableData, match=r"1 of 5 movies are missing.*m2\.mrc.*--allow-missing"):
        read_own(path)


def test_a_movie_that_was_lost_still_irradiated_the_specimen(tmp_path: Path) -> None:
    path = write_series(tmp_path)
    (tmp_path / "m2.mrc").unlink()
    record = read_own(path, allow_missing=True)
    assert line(record, "movies").conflict == "missing: m2.mrc"
    taken = sorted(record.views, key=lambda view: view.order)
    assert [(v.order, v.prior_dose, v.movie.name) for v in taken] == [
        (1, 0, "m0.mrc"),
        (2, 3, "m1.mrc"),
        (4, 9, "m3.mrc"),
        (5, 12, "m4.mrc"),
    ]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: os.truncate(d / "m1.mrc", 1500), r"m1\.mrc: "),
        (lambda d: (d / "m1.mrc").write_bytes(b""), r"m1\.mrc: "),
        (lambda d: (d / "m1.mrc").write_text("no movie" * 500), r"m1\.mrc: "),
        (
            lambda d: write_movie(d / "m4.mrc", (3, 16, 20)),
            r"m4\.mrc: frames of 16×20 pixels, but .*m0\.mrc has 16×16: one series needs one size",
        ),
        (
            lambda d: replace_text(d, "m3.mrc", "m1.mrc"),
            r"sections 1 and 3 name the same movie m1\.mrc: correct one SubFramePath",
        ),
        (
            lambda d: replace_text(d, "SubFramePath = D:\\a\\m3.mrc\n", ""),
            r"\[ZValue = 3\] has no SubFramePath",
        ),
        (lambda d: replace_text(d, "TiltAngle = -6\n", ""), r"\[ZValue = 3\] has no TiltAngle"),
        (lambda d: replace_text(d, "TiltAngle = -6", "TiltAngle = six"), r"mdoc.*'six'"),
        (lambda d: (d / "TS_07.mrc.mdoc").write_text(HEADER), r"TS_07\.mrc\.mdoc: "),
        (lambda d: (d / "TS_07.mrc.mdoc").write_bytes(b""), r"TS_07\.mrc\.mdoc: "),
        (lambda d: (d / "TS_07.mrc.mdoc").write_bytes(os.urandom(5000)), r"TS_07\.mrc\.mdoc"),
    ],
    ids=[
        "truncated movie",
        "empty movie",
        "no MRC",
        "two sizes",
        "a movie twice",
        "no movie",
        "no angle",
        "angle in words",
        "no views",
        "empty mdoc",
        "noise",
    ],
)
def test_bad_data_is_one_line_that_names_the_file(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    path = write_series(tmp_path)
    spoil(tmp_path)
    with pytest.raises((UserError, FormatError), match=message) as caught:
        read_own(path)
    assert "\n" not in str(caught.value)


def replace_text(folder: Path, old: str, new: str) -> None:
    path = folder / "TS_07.mrc.mdoc"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_frames_of_other_sizes_than_the_mdocs_stack_take_its_pixel_as_it_is(
    tmp_path: Path,
) -> None:
    path = write_series(tmp_path)
    for stack in ("900 900", "16 99"):
        path.write_text(path.read_text().replace("ImageSize = 16 16", f"ImageSize = {stack}"))
        assert read_own(path).acquisition.pixel_size == 2
        path.write_text(path.read_text().replace(f"ImageSize = {stack}", "ImageSize = 16 16"))


def test_angles_recorded_twice_and_odd_times_are_noted(tmp_path: Path) -> None:
    path = write_series(tmp_path, (0, 3, 3.01, -6))
    assert "recorded twice" in str(line(read_own(path), "tilt angles").conflict)
    text = path.read_text().replace("15:20:38", "15:29:38")
    path.write_text(text)
    record = read_own(path)
    assert "DateTime is used" in str(line(record, "order").conflict)
    assert next(v for v in record.views if v.tilt_angle == 0).order == 4


@pytest.mark.parametrize(
    ("fields", "dose"),
    [
        ("ExposureDose = 2.5", 2.5),
        ("FrameDosesAndNumber = 0.5 6", 3.0),
        ("DoseRate = 8\nExposureTime = 2", 4.0),
        ("CountsPerElectron = 5", 5.0),
    ],
)
def test_the_dose_is_read_from_what_the_mdoc_says(tmp_path: Path, fields: str, dose: float) -> None:
    path = write_series(tmp_path)
    path.write_text(path.read_text().replace("NumSubFrames = 3", f"NumSubFrames = 3\n{fields}"))
    record = read_own(path, dose=None)
    assert [view.dose for view in record.views] == pytest.approx([dose] * 5)


def test_importing_again_keeps_the_results(tmp_path: Path) -> None:
    path, project = write_series(tmp_path), str(tmp_path / "p.zarr")
    store_series.fn(project, read_own(path))
    series = parse_project(project).series("TS_07")
    series.result("motion", "0" * 12).finish({"message": "kept"})
    record = store_series.fn(project, read_own(path, dose=4))
    assert series.imported() == record
    assert series.result("motion", "0" * 12).complete()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("TS_01.mrc.mdoc", "TS_01"),
        ("TS_01.mdoc", "TS_01"),
        ("my series 3.st.mdoc", "my_series_3"),
        ("Größe.mrc.mdoc", "Größe"),
        ("a.b.tif.mdoc", "a.b"),
    ],
)
def test_a_series_is_named_by_its_mdoc(file: str, name: str) -> None:
    assert series_name(Path(file)) == name


def test_no_mdoc_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match=r"\*\.mdoc: no such mdoc: check the path"):
        find_sources(ImportParameters(mdoc=str(tmp_path / "*.mdoc")))


def test_defects_that_do_not_fit_the_frames_are_refused_at_import(
    read: Callable[..., TiltSeries], tmp_path: Path
) -> None:
    path = tmp_path / "defects.txt"
    path.write_text("100000 0 3 1\n")
    with pytest.raises(
        FormatError, match=r"defects\.txt: the rectangle 100000 0 3 1 is not within"
    ):
        read(defects=str(path))
