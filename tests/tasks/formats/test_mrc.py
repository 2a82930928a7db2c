from __future__ import annotations

import pickle
import struct
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.formats.errors import FormatError
from tasks.formats.mrc import (
    open_frames,
    read_header,
    read_image,
    read_volume,
    write_stack,
    write_volume,
)

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
TYPES = {"int8": 0, "int16": 1, "float32": 2, "uint16": 6, "float16": 12}


def noise(dtype: str, shape: tuple[int, ...] = (3, 5, 7)) -> np.ndarray:
    values = np.random.default_rng(0).normal(5, 9, shape)  # mrcfile sums float16 in float16
    return np.clip(values * 9, 0, 200).astype(dtype) if dtype[0] == "u" else values.astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("write", [write_stack, write_volume])
def test_written_files_are_valid_and_read_back_here_and_by_mrcfile(
    tmp_path: Path, dtype: str, write, capsys
) -> None:  # type: ignore[no-untyped-def]
    data, path = noise(dtype), tmp_path / "a.mrc"
    header = write(path, data, 1.35, origin=(1, 2, 3), labels=["one", "two"])
    assert mrcfile.validate(path), capsys.readouterr().out
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(mrc.data, data)
        assert mrc.data.dtype == data.dtype
        assert mrc.is_image_stack() == (write is write_stack)
        assert mrc.header.mz == mrc.header.nz == 3
        assert mrc.voxel_size.tolist() == pytest.approx((1.35, 1.35, 1.35), rel=1e-6)
    np.testing.assert_array_equal(read_volume(path), data)
    frames = open_frames(path)
    assert (frames.n_frames, frames.ny, frames.nx, frames.dtype) == (3, 5, 7, data.dtype)
    np.testing.assert_array_equal(frames.frame(2), data[2])
    assert (header.mode, header.shape) == (TYPES[dtype], data.shape)
    assert header.is_volume == (write is write_volume)
    assert header.labels == ("one", "two")
    assert header.origin == (1, 2, 3)
    assert header.pixel_size == pytest.approx(1.35)
    found = (header.minimum, header.maximum, header.mean, header.rms)
    d = data.astype(np.float64)
    assert found == pytest.approx((d.min(), d.max(), d.mean(), d.std()), rel=1e-5)


def test_unsigned_bytes_read_back_unsigned(tmp_path: Path) -> None:
    data = noise("uint8")
    header = write_stack(tmp_path / "a.mrc", data, 1.0)
    assert header.mode == 0
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mrc"), data)
    assert open_frames(tmp_path / "a.mrc", signed=True).dtype == np.int8


def bytes_file(path: Path, low: float, high: float, stamp: int = 0, flags: int = 0) -> Path:
    write_stack(path, np.full((1, 2, 2), 200, np.uint8), 1.0)
    raw = bytearray(path.read_bytes())
    raw[76:84] = struct.pack("<2f", low, high)
    raw[152:160] = struct.pack("<2i", stamp, flags)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("low", "high", "stamp", "flags", "signed"),
    [
        (0, 255, 0, 0, False),
        (-128, 127, 0, 0, True),
        (0, 0, 0, 0, False),
        (0, -1, 0, 0, False),
        (-100, 130, 0, 0, True),
        (-1, 250, 0, 0, False),
        (float("nan"), 0, 0, 0, False),
        (0, 255, 1146047817, 1, True),
        (-128, 127, 1146047817, 4, False),
        (-128, 127, 7, 1, True),
    ],
)
def test_the_sign_of_bytes_follows_imod(tmp_path: Path, low, high, stamp, flags, signed) -> None:  # type: ignore[no-untyped-def]
    path = bytes_file(tmp_path / "a.mrc", low, high, stamp, flags)
    assert read_image(path)[0, 0] == (200 - 256 if signed else 200)


def test_mrcfile_writes_signed_bytes_that_read_signed(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "a.mrc", noise("int8")):
        pass
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mrc"), noise("int8"))


def test_big_endian_files_and_extended_headers_are_read(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(noise("float32").astype(">f4"))
        mrc.set_extended_header(np.zeros(64, "V1"))
    frames = open_frames(tmp_path / "a.mrc")
    assert frames.header.dtype == ">f4"
    assert frames.header.data_offset == 1024 + 64
    assert frames.frame(1).dtype == np.float32
    np.testing.assert_array_equal(frames.frame(1), noise("float32")[1])


def packed_file(path: Path, data: np.ndarray, mode: int, flags: int = 0, label: str = "") -> Path:
    """Write 4-bit values, two in a byte, as SerialEM does."""
    even = np.pad(data, [(0, 0), (0, 0), (0, data.shape[2] % 2)])
    write_stack(path, even[:, :, ::2] | (even[:, :, 1::2] << 4), 1.5, labels=[label or "x"])
    raw = bytearray(path.read_bytes())
    if mode == 101:
        raw[0:4] = struct.pack("<i", data.shape[2])
    raw[12:16] = struct.pack("<i", mode)
    raw[152:160] = struct.pack("<2i", 1146047817 if flags else 0, flags)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("nx", "mode", "flags", "label"),
    [
        (8, 101, 0, ""),
        (7, 101, 0, ""),
        (8, 0, 16 | 4, ""),
        (8, 0, 0, "SerialEMCCD: Dose frac. image, 4 bits packed  r/f 0"),
    ],
)
def test_two_values_in_a_byte_are_unpacked_the_low_half_first(
    tmp_path: Path, nx: int, mode: int, flags: int, label: str
) -> None:
    data = np.random.default_rng(0).integers(0, 16, (3, 5, nx), dtype=np.uint8)
    path = packed_file(tmp_path / "a.mrc", data, mode, flags, label)
    frames = open_frames(path)
    assert (frames.n_frames, frames.ny, frames.nx, frames.dtype) == (3, 5, nx, np.uint8)
    for i in range(3):
        np.testing.assert_array_equal(frames.frame(i), data[i])
    np.testing.assert_array_equal(read_volume(path), data)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="expected of 3 sections"):
        open_frames(path)


def test_a_truncated_movie_names_expected_and_found_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    write_stack(path, noise("int16"), 1.0)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(FormatError, match=r"a\.mrc: 1232 bytes found, 1234 expected of 3 sections"):
        open_frames(path)


def test_a_file_with_sections_that_the_header_lacks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    write_stack(path, noise("int16"), 1.0)
    path.write_bytes(path.read_bytes() + bytes(69))
    assert open_frames(path).n_frames == 3
    path.write_bytes(path.read_bytes() + bytes(1))
    with pytest.raises(FormatError, match="1304 bytes found, 1234 expected"):
        open_frames(path)


@pytest.mark.parametrize("mode", [3, 4, 16])
def test_modes_without_real_pixels_are_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.mrc"
    write_stack(path, noise("int16"), 1.0)
    raw = bytearray(path.read_bytes())
    raw[12:16] = struct.pack("<i", mode)
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=f"mode {mode} .* convert it"):
        open_frames(path)


@SAME_FOLDER
@given(st.binary(max_size=200), st.integers(0, 1023))
def test_no_header_raises_anything_but_a_format_error(tmp_path: Path, junk: bytes, at: int) -> None:
    path = tmp_path / "a.mrc"
    write_stack(path, noise("int16"), 1.0)
    raw = bytearray(path.read_bytes())
    raw[at : at + len(junk)] = junk
    path.write_bytes(raw)
    try:
        frames = open_frames(path)
    except FormatError:
        return
    assert frames.frame(0).shape == (frames.ny, frames.nx)


def test_writing_streams_from_an_iterator_and_appears_when_complete(tmp_path: Path) -> None:
    path, seen = tmp_path / "a.mrc", []
    path.write_text("old")

    def slices():  # type: ignore[no-untyped-def]
        for image in noise("float32"):
            seen.append(path.read_text())
            yield image

    write_volume(path, slices(), 2.0)
    assert seen == ["old"] * 3
    np.testing.assert_array_equal(read_volume(path), noise("float32"))
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_leave_the_old_file(tmp_path: Path, bad: float) -> None:
    path, data = tmp_path / "a.mrc", noise("float32")
    path.write_text("old")
    data[1, 2, 3] = bad
    with pytest.raises(FormatError, match=r"a\.mrc: slice 1 has values"):
        write_stack(path, data, 1.0)
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_modes_convert_with_rounding_and_refuse_overflow(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    write_stack(path, [np.array([[0.6, 254.7]])], 1.0, mode=0)
    assert read_image(path).tolist() == [[1, 255]]
    write_stack(path, [np.array([[-2.4, 1e4]])], 1.0, mode=1)
    assert read_image(path).tolist() == [[-2, 10000]]
    for mode, value in [(0, 255.6), (0, -1), (1, 4e4), (12, 7e4), (2, 1e39)]:
        with pytest.raises(FormatError, match="cannot hold"):
            write_stack(path, [np.array([[float(value)]])], 1.0, mode=mode)


@pytest.mark.parametrize(
    ("data", "options", "match"),
    [
        ([np.zeros((2, 2)), np.zeros((2, 3))], {}, r"slice 1 has shape \(2, 3\)"),
        ([], {}, "no slices"),
        (np.zeros((1, 2, 2), complex), {}, "complex128"),
        (np.zeros((1, 2, 2)), {"mode": 3}, "mode 3"),
        (np.zeros((1, 2, 2)), {"labels": ["é"]}, "labels"),
        (np.zeros((1, 2, 2)), {"origin": (0, np.nan, 0)}, "pixel size or origin nan"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, data, options, match) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FormatError, match=match):
        write_stack(tmp_path / "a.mrc", data, 1.0, **options)


def test_frames_travel_by_pickle_without_the_pixels(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.mrc", noise("int16", (2, 300, 300)), 1.0)
    sent = pickle.dumps(open_frames(tmp_path / "a.mrc"))
    assert len(sent) < 1000
    np.testing.assert_array_equal(
        pickle.loads(sent).frame(1), noise("int16", (2, 300, 300))[1]
    )  # fmt: skip


def test_a_missing_pixel_size_is_none_and_a_missing_file_an_os_error(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "a.mrc", noise("int16")) as mrc:
        mrc.header.cella = (0, 0, 0)
    assert read_header(tmp_path / "a.mrc").pixel_size is None
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "b.mrc")


def test_format_errors_travel_by_pickle() -> None:
    error = FormatError("a.mrc", "bad\nvalue", "mend it", 3)
    assert str(pickle.loads(pickle.dumps(error))) == "a.mrc, line 3: bad value; mend it"
