"""References of every format agree with movies of the same camera."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.formats.dm import read_dm_image
from tasks.formats.errors import FormatError
from tasks.formats.gain_files import match_reference, read_reference
from tasks.formats.movies import file_kind, open_movie
from tasks.formats.mrc import write_stack

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
GAIN = np.random.default_rng(0).normal(1, 0.1, (12, 20)).astype(np.float32)
DATA_TYPES = {"float32": (2, 6), "uint8": (6, 10), "int16": (1, 2), "uint16": (10, 4)}
DATA_TYPES |= {"int32": (7, 3), "float64": (12, 7)}


class DmWriter:
    """Writes tags as DigitalMicrograph does, either version, either byte order."""

    def __init__(self, version: int, order: str) -> None:
        self.wide, self.order, self.version = "Q" if version == 4 else "I", order, version

    def directory(self, entries: list[tuple[str, bytes | list]]) -> bytes:
        return struct.pack(f">BB{self.wide}", 1, 0, len(entries)) + b"".join(
            self.entry(name, value) for name, value in entries
        )

    def entry(self, name: str, value: bytes | list) -> bytes:
        content = self.directory(value) if isinstance(value, list) else value
        head = struct.pack(">BH", 20 if isinstance(value, list) else 21, len(name)) + name.encode()
        size = struct.pack(">Q", len(content)) if self.version == 4 else b""
        return head + size + content

    def value(self, kinds: list[int], data: bytes) -> bytes:
        return struct.pack(f">4s{1 + len(kinds)}{self.wide}", b"%%%%", len(kinds), *kinds) + data

    def number(self, value: int) -> bytes:
        return self.value([5], struct.pack(f"{self.order}I", value))

    def image(self, pixels: np.ndarray) -> list:
        data_type, kind = DATA_TYPES[pixels.dtype.name]
        data = pixels.astype(pixels.dtype.newbyteorder(self.order)).tobytes()
        return [
            ("Calibrations", [("Unit", self.value([20, 4, 2], b"nm\0\0"))]),
            ("Data", self.value([20, kind, pixels.size], data)),
            ("DataType", self.number(data_type)),
            ("Dimensions", [("", self.number(n)) for n in pixels.shape[::-1]]),
        ]

    def write(self, path: Path, images: list[np.ndarray]) -> Path:
        box = self.value([15, 0, 2, 0, 3, 0, 6], bytes(8))
        many = self.value([20, 15, 0, 2, 0, 2, 0, 7, 5], bytes(50))
        tree = [
            ("Box", box),
            ("Many", many),
            ("Title", self.value([18, 4], "gain".encode("utf-16-le"))),
            ("ImageList", [("", [("ImageData", self.image(image))]) for image in images]),
        ]
        root = self.directory(tree)
        head = struct.pack(f">I{self.wide}I", self.version, len(root), self.order == "<")
        path.write_bytes(head + root + bytes(8))
        return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("dtype", DATA_TYPES)
def test_the_largest_image_of_a_dm_file_is_read_bottom_row_first(
    tmp_path: Path, dtype: str, version: int, order: str
) -> None:
    thumbnail = np.zeros((3, 4), np.uint8)
    data = (GAIN * 100).astype(dtype)
    for images in ([thumbnail, data], [data, thumbnail]):
        path = DmWriter(version, order).write(tmp_path / "a.dm4", images)
        assert file_kind(path) == "dm"
        found = read_reference(path)
        np.testing.assert_array_equal(found, data[::-1])
        assert found.dtype == data.dtype


def test_more_than_ten_images_keep_their_dimensions(tmp_path: Path) -> None:
    images = [np.full((2, 2 + i), i, np.uint8) for i in range(12)]
    path = DmWriter(4, "<").write(tmp_path / "a.dm4", images)
    np.testing.assert_array_equal(read_dm_image(path), images[-1])


def test_stacks_and_files_without_images_are_refused(tmp_path: Path) -> None:
    path = DmWriter(4, "<").write(tmp_path / "a.dm4", [np.zeros((2, 3, 4), np.float32)])
    with pytest.raises(FormatError, match="an image of 4×3×2 pixels and data type 2"):
        read_reference(path)
    with pytest.raises(FormatError, match="no image in it"):
        read_reference(DmWriter(3, ">").write(tmp_path / "b.dm3", []))
    with pytest.raises(FormatError, match="a DigitalMicrograph file as movie; convert it"):
        open_movie(path)


def test_a_cut_off_dm_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path = DmWriter(4, "<").write(tmp_path / "a.dm4", [GAIN])
    whole = path.read_bytes()[:-8]  # the last eight bytes hold nothing
    for size in range(len(whole) - 1, 16, -11):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError, match=r"a\.dm4: .*; copy it again"):
            read_reference(path)


@SAME_FOLDER
@given(st.binary(min_size=1, max_size=40), st.integers(0, 10_000))
def test_no_damage_raises_anything_but_a_format_error(tmp_path: Path, junk: bytes, at: int) -> None:
    path = DmWriter(4, "<").write(tmp_path / "a.dm4", [GAIN])
    raw = bytearray(path.read_bytes())
    at %= len(raw)
    raw[at : at + len(junk)] = junk
    path.write_bytes(raw)
    with suppress(FormatError):
        assert read_reference(path).ndim == 2


def test_formats_of_one_reference_agree(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.mrc", GAIN[None], 1.0)
    tifffile.imwrite(tmp_path / "a.gain", GAIN[::-1])
    DmWriter(4, "<").write(tmp_path / "a.dm4", [GAIN[::-1]])
    for name in ("a.mrc", "a.gain", "a.dm4"):
        np.testing.assert_array_equal(read_reference(tmp_path / name), GAIN)


def test_the_first_page_of_a_gain_file_counts(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.gain", bigtiff=True) as file:
        file.write(GAIN)
        file.write(np.zeros((3, 3, 3), np.uint8))
    np.testing.assert_array_equal(read_reference(tmp_path / "a.gain"), GAIN[::-1])


def test_a_movie_is_no_reference(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.mrc", [GAIN, GAIN], 1.0)
    with pytest.raises(FormatError, match="2 sections; give a file of one image"):
        read_reference(tmp_path / "a.mrc")


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_reference_takes_the_sampling_of_the_frames_and_back(factor: int) -> None:
    shape = (12 * factor, 20 * factor)
    fine = match_reference("a.gain", GAIN, shape)
    assert fine.shape == shape
    np.testing.assert_array_equal(fine[::factor, ::factor], GAIN)
    np.testing.assert_array_equal(fine[factor - 1 :: factor, factor - 1 :: factor], GAIN)
    np.testing.assert_allclose(match_reference("a.gain", fine, GAIN.shape), GAIN, rtol=1e-6)


@pytest.mark.parametrize("shape", [(20, 12), (36, 60), (24, 20)])
def test_a_reference_of_another_size_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(FormatError, match=r"a\.gain: 12×20 pixels after rotation, the movies"):
        match_reference("a.gain", GAIN, shape)
