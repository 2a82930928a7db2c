from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.formats.errors import FormatError
from tasks.formats.mdoc import Mdoc, read_mdoc, section_from_values, write_mdoc

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
ACCESSORS = [
    "tilt_angle",
    "rotation_angle",
    "pixel_spacing",
    "exposure_dose",
    "exposure_time",
    "dose_rate",
    "frame_doses",
    "min_max_mean",
    "counts_per_electron",
    "divided_by_2",
    "num_sub_frames",
    "movie_name",
    "date_time",
    "voltage",
]


def mdoc_of(folder: Path, text: str | bytes) -> Mdoc:
    path = folder / "x.mdoc"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_mdoc(path)


def test_the_tutorial_series_reads_alike_with_lf_and_crlf(shared_data: Path) -> None:
    lf = read_mdoc(shared_data / "empiar10164_mdoc/TS_01.mrc.mdoc")
    crlf = read_mdoc(shared_data / "empiar10164_mdoc/TS_01_crlf_original.mrc.mdoc")
    assert len(lf.sections) == 41
    assert [s.fields for s in lf.sections] == [s.fields for s in crlf.sections]
    assert (lf.header, lf.titles) == (crlf.header, crlf.titles)
    assert lf.ignored == ()
    assert (lf.tilt_axis, lf.binning, lf.pixel_spacing, lf.voltage) == (85.3, 4, 5.4, None)
    taken = [round(v.tilt_angle) for v in lf.views_by_time]
    assert taken[:9] == [0, 3, -3, -6, 6, 9, -9, -12, 12]
    assert sorted(taken) == list(range(-60, 61, 3))


def test_a_view_of_the_tutorial_series_has_its_values(shared_data: Path) -> None:
    view = read_mdoc(shared_data / "empiar10164_mdoc/TS_01.mrc.mdoc").views[0]
    assert (view.rotation_angle, view.exposure_dose, view.exposure_time) == (175.3, 0, 0.8)
    assert view.divided_by_2
    assert view.num_sub_frames == 8
    assert view.movie_name == "TS_01_000_0.0.mrc"
    assert view.min_max_mean == (5, 1403, 623.699)
    assert view.date_time == datetime(2015, 11, 30, 15, 21, 38)
    assert (view.dose_rate, view.frame_doses, view.counts_per_electron) == (None, (), None)


def test_the_mdoc_of_one_movie_is_one_view(shared_data: Path) -> None:
    mdoc = read_mdoc(shared_data / "mdoc_variants/frame_set_single.mdoc")
    (view,) = mdoc.views
    assert view.kind == "FrameSet"
    assert mdoc.voltage == 300
    assert view.frame_doses == ((0.63824, 12),)
    assert view.movie_name == "s_mmm_00993_33.0_Oct08_07.39.05.tif"
    assert mdoc.titles[0].startswith("SerialEM: UMass_Krios")
    assert mdoc.tilt_axis is None


def test_a_frame_set_with_views_has_the_views(shared_data: Path) -> None:
    mdoc = read_mdoc(shared_data / "mdoc_variants/frame_set_multiple.mdoc")
    assert mdoc.sections[0].kind == "FrameSet"
    assert [v.number for v in mdoc.views] == list(range(len(mdoc.sections) - 1))
    assert mdoc.views_by_time == mdoc.views


@pytest.mark.parametrize("name", ["montage_section", "montage_section_multiple"])
def test_montages_are_refused_with_the_reason(shared_data: Path, name: str) -> None:
    path = shared_data / f"mdoc_variants/{name}.mdoc"
    with pytest.raises(FormatError, match="Montage = 1: its sections are pieces of one image"):
        read_mdoc(path)
    assert read_mdoc(path, montage=True).tilt_axis in {-86.7, 85.5}


@pytest.mark.parametrize(
    ("title", "axis"),
    [
        ("[T =     Tilt axis angle = 85.3, binning = 4  spot = 8]", 85.3),
        ("T = Tilt axis angle = 0.0, binning = 1", 0.0),
        ("[T = Tilt Axis Angle = -86.7]", -86.7),
        ("[T = TOMOGRAPHY: TiltAxisAngle = -94.9, binning = 1]", 4.9),
        ("TiltAxisAngle = 175", 95.0),
    ],
)
def test_the_tilt_axis_is_found_in_both_conventions(
    tmp_path: Path, title: str, axis: float
) -> None:
    assert mdoc_of(tmp_path, f"{title}\n[ZValue = 0]\n").tilt_axis == pytest.approx(axis)


def test_line_ends_byte_order_mark_and_order_of_keys_do_not_matter(tmp_path: Path) -> None:
    lines = ["Voltage = 200", "[ZValue = 0]", "DoseRate=3.5", "Note = a = b", "TiltAngle = -3.0"]
    views = []
    for end in ("\n", "\r\n", "\r"):
        for text in (end.join(lines), end.join([*lines[:2], *reversed(lines[2:])])):
            mdoc = mdoc_of(tmp_path, b"\xef\xbb\xbf" + text.encode())
            assert mdoc.voltage == 200
            views.append(dict(sorted(mdoc.views[0].fields.items())))
    assert all(view == views[0] for view in views)
    assert views[0]["Note"] == "a = b"


def test_a_half_written_last_line_is_reported_and_not_lost(tmp_path: Path) -> None:
    mdoc = mdoc_of(tmp_path, "[ZValue = 0]\nTiltAngle = 3\nSubFra")
    assert mdoc.ignored == ((3, "SubFra"),)


@pytest.mark.parametrize(
    ("path", "name"),
    [(r"D:\a\b.tif", "b.tif"), ("/a/b c.eer", "b c.eer"), ("b.mrc", "b.mrc"), ("", None)],
)
def test_movie_names_come_from_both_kinds_of_path(tmp_path: Path, path: str, name: str) -> None:
    mdoc = mdoc_of(tmp_path, f"[ZValue = 0]\nSubFramePath = {path}\n")
    assert mdoc.views[0].movie_name == name


@pytest.mark.parametrize("text", ["30-Nov-15  15:21:38", "30-Nov-2015 15:21:38",
                                  "30-nov-15     15:21:38", "2015-Nov-30 15:21:38",
                                  "2015-11-30T15:21:38"])  # fmt: skip
def test_dates_have_two_or_four_digit_years(tmp_path: Path, text: str) -> None:
    mdoc = mdoc_of(tmp_path, f"[ZValue = 0]\nDateTime = {text}\n")
    assert mdoc.views[0].date_time == datetime(2015, 11, 30, 15, 21, 38)


def test_order_falls_back_on_numbers_when_one_time_is_missing(tmp_path: Path) -> None:
    text = (
        "[ZValue = 1]\nDateTime = 30-Nov-15 10:00:00\n[ZValue = 0]\nDateTime = 30-Nov-15 11:00:00"
    )
    assert [v.number for v in mdoc_of(tmp_path, text).views_by_time] == [1, 0]
    mdoc = mdoc_of(tmp_path, text + "\n[ZValue = 2]\nTiltAngle = 3\n")
    assert [v.number for v in mdoc.views_by_time] == [0, 1, 2]


def test_equal_times_keep_the_order_of_numbers(tmp_path: Path) -> None:
    text = "".join(f"[ZValue = {i}]\nDateTime = 30-Nov-15 10:00:00\n" for i in (2, 0, 1))
    assert [v.number for v in mdoc_of(tmp_path, text).views_by_time] == [0, 1, 2]


def test_messages_name_file_line_value_and_remedy(tmp_path: Path) -> None:
    mdoc = mdoc_of(tmp_path, "\n[ZValue = 7]\nTiltAngle = 3,5\n")
    with pytest.raises(FormatError) as error:
        _ = mdoc.views[0].tilt_angle
    message = str(error.value)
    assert "x.mdoc, line 2: TiltAngle is '3,5', not a number; correct it" in message
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"\x00\x01\x02MAP ", b"", b"hello\n", b"[ZValue = x]\n"])
def test_what_is_no_mdoc_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(FormatError):
        mdoc_of(tmp_path, content)


@SAME_FOLDER
@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.sampled_from(
                [
                    "[ZValue = 0]",
                    "[FrameSet = 1]",
                    "[T = Tilt axis angle = x]",
                    "T = binning =",
                    "TiltAngle = é",
                    "DateTime = 31-Feb-15  9:99:99",
                    "DateTime = 99-99-99 1:1:1",
                    "NumSubFrames = 1e300",
                    "= 3",
                    "[]",
                    "FrameDosesAndNumber = 1 2 3",
                    "MinMaxMean = 1 nan 3",
                    "[",
                    "[ZValue = 1e999]",
                    "Voltage = inf",
                    "SubFramePath = ///",
                    "ExposureDose = 1_0",
                    "DateTime = 30-Nov-0000 1:22:33",
                ]
            )
        ).map(lambda lines: "\n".join(["[ZValue = 3]", *lines]).encode()),
    )
)
def test_no_input_raises_anything_but_a_format_error(tmp_path: Path, content: bytes) -> None:
    try:
        mdoc = mdoc_of(tmp_path, content)
    except FormatError:
        return
    for record, names in [(mdoc, ("tilt_axis", "binning", "voltage", "views_by_time"))] + [
        (section, ACCESSORS) for section in mdoc.sections
    ]:
        for name in names:
            with suppress(FormatError):
                getattr(record, name)


keys = st.text("abcXYZ019_", min_size=1).filter(lambda key: key not in {"T"})
values = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"))).map(str.strip)
values = values.filter(
    lambda v: v.isprintable() and not {"nan", "inf", "-nan", "-inf"} & {*v.lower().split()}
)


@SAME_FOLDER
@given(
    st.dictionaries(keys.filter(lambda key: key != "Montage"), values),
    st.lists(values, max_size=3),
    st.lists(st.dictionaries(keys, values), min_size=1, max_size=3),
)
def test_what_is_written_reads_back(tmp_path: Path, header, titles, sections) -> None:  # type: ignore[no-untyped-def]
    written = Mdoc(
        tmp_path / "y.mdoc",
        header,
        tuple(titles),
        tuple(section_from_values(i, fields) for i, fields in enumerate(sections)),
    )
    write_mdoc(written.path, written)
    read = read_mdoc(written.path)
    assert (read.header, read.titles) == (header, tuple(titles))
    assert [s.fields for s in read.sections] == sections


def test_the_tutorial_mdoc_survives_a_round_trip(tmp_path: Path, shared_data: Path) -> None:
    original = read_mdoc(shared_data / "empiar10164_mdoc/TS_01.mrc.mdoc")
    write_mdoc(tmp_path / "again.mdoc", original)
    again = read_mdoc(tmp_path / "again.mdoc")
    assert (again.header, again.titles) == (original.header, original.titles)
    assert [s.fields for s in again.sections] == [s.fields for s in original.sections]
    text = (tmp_path / "again.mdoc").read_text()
    original_text = original.path.read_text().replace("    ]", "]")
    assert text.split() == original_text.split()


def test_simulated_values_are_printed_as_serialem_does(tmp_path: Path) -> None:
    taken = datetime(2026, 1, 2, 3, 4, 5)
    values = {"TiltAngle": -3.0, "DividedBy2": False, "MinMaxMean": (0, 9.5, 1.25),
              "DateTime": taken}  # fmt: skip
    view = section_from_values(4, values)
    assert [*view.fields.values()] == ["-3", "0", "0 9.5 1.25", "02-Jan-26  03:04:05"]
    assert view.date_time == taken


def test_nan_is_not_written(tmp_path: Path) -> None:
    view = section_from_values(0, {"TiltAngle": float("nan")})
    with pytest.raises(FormatError, match="TiltAngle is 'nan'"):
        write_mdoc(tmp_path / "z.mdoc", Mdoc(tmp_path, {}, (), (view,)))
    assert [*tmp_path.iterdir()] == []
