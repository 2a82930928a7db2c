"""TIFF movies: every compression and type comes back, the bottom row first."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.formats.errors import FormatError
from tasks.formats.movies import open_movie
from tasks.formats.tiff import open_tiff

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
TYPES = ("uint8", "int8", "uint16", "int16", "float32", "float16", "uint32")


def noise(dtype: str = "uint8", shape: tuple[int, ...] = (3, 70, 53)) -> np.ndarray:
    return np.random.default_rng(0).poisson(3, shape).astype(dtype)


def write(path: Path, frames: np.ndarray | list[np.ndarray], **options: Any) -> Path:
    big, order = options.pop("bigtiff", False), options.pop("byteorder", "<")
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as file:
        for frame in frames:
            file.write(frame, photometric="minisblack", metadata=None, **options)
    return path


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_and_compression_comes_back_bottom_row_first(
    tmp_path: Path, dtype: str, compression: str | None, byteorder: str
) -> None:
    data = noise(dtype)
    path = write(tmp_path / "a.tif", data, compression=compression, byteorder=byteorder)
    movie = open_movie(path)
    assert (movie.n_frames, movie.ny, movie.nx, movie.dtype) == (3, 70, 53, data.dtype)
    for i in range(3):
        np.testing.assert_array_equal(movie.frame(i), data[i, ::-1])
        assert movie.frame(i).dtype == data.dtype
        assert movie.frame(i).flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(
    "layout",
    [
        {"rowsperstrip": 16},
        {"rowsperstrip": 1},
        {"rowsperstrip": 16, "compression": "lzw"},
        {"tile": (16, 32), "compression": "zlib"},
        {"tile": (16, 32)},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw", "bigtiff": True},
        {"bigtiff": True},
    ],
    ids=str,
)
def test_strips_tiles_and_predictors_are_put_together(
    tmp_path: Path, layout: dict[str, Any]
) -> None:
    data = noise("uint16")
    movie = open_tiff(write(tmp_path / "a.tif", data, **layout))
    for i in range(3):
        np.testing.assert_array_equal(movie.frame(i), data[i, ::-1])


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((1e8 / 1.35, 1e8 / 1.35), "CENTIMETER", 1.35),
        ((2.54e8 / 0.675, 2.54e8 / 0.675), "INCH", 0.675),
        ((72, 72), "INCH", None),
        ((1, 1), "NONE", None),
        ((1e8, 2e8), "CENTIMETER", None),
    ],
)
def test_the_pixel_size_comes_from_the_resolution_where_it_is_one_of_a_microscope(
    tmp_path: Path, resolution: tuple[float, float], unit: str, expected: float | None
) -> None:
    path = write(tmp_path / "a.tif", noise(), resolution=resolution, resolutionunit=unit)
    found = open_tiff(path).pixel_size
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-6))


@pytest.mark.parametrize("options", [{}, {"compression": "lzw"}, {"bigtiff": True}], ids=str)
def test_a_cut_off_movie_is_refused_wherever_it_ends(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = write(tmp_path / "a.tif", noise(shape=(4, 9, 11)), **options)
    whole = path.read_bytes()
    for size in range(len(whole) - 1, 4, -5):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError, match=r"a\.tif: .*; (copy it again|convert)"):
            open_tiff(path).frame(3)


def test_pages_of_another_size_or_type_are_named(tmp_path: Path) -> None:
    other = [noise()[0], noise(shape=(1, 70, 54))[0]]
    with pytest.raises(FormatError, match="page 2 has 54×70 pixels of 8 bits, page 1 53×70"):
        open_tiff(write(tmp_path / "a.tif", other))
    with pytest.raises(FormatError, match=r"page 2 .* of 16 bits"):
        open_tiff(write(tmp_path / "a.tif", [noise()[0], noise("uint16")[0]]))


def test_colours_and_half_bytes_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 9, 3), np.uint8), photometric="rgb")
    with pytest.raises(FormatError, match=r"3 samples a pixel of 8 bits.*clip unpack"):
        open_tiff(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((8, 8), bool))
    with pytest.raises(FormatError, match="1 samples a pixel of 1 bits"):
        open_tiff(tmp_path / "b.tif")


def test_damaged_data_name_the_page(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(), compression="zlib")
    with tifffile.TiffFile(path) as file:
        page = file.pages[1]
        at, n = page.dataoffsets[0], page.databytecounts[0]
    raw = bytearray(path.read_bytes())
    raw[at : at + n] = b"\xff" * n
    path.write_bytes(raw)
    movie = open_tiff(path)
    np.testing.assert_array_equal(movie.frame(0), noise()[0, ::-1])
    with pytest.raises(FormatError, match=r"page 2 cannot be decoded .*; copy it again"):
        movie.frame(1)


@SAME_FOLDER
@given(st.binary(min_size=1, max_size=60), st.integers(0, 5000))
def test_no_damage_raises_anything_but_a_format_error(tmp_path: Path, junk: bytes, at: int) -> None:
    path = write(tmp_path / "a.tif", noise(shape=(2, 9, 11)), compression="lzw")
    raw = bytearray(path.read_bytes())
    at %= len(raw)
    raw[at : at + len(junk)] = junk
    path.write_bytes(raw)
    try:
        movie = open_movie(path, eer_fractions=1)
        assert movie.frame(0).shape == (movie.ny, movie.nx)
    except FormatError:
        pass


def test_a_movie_travels_by_pickle_without_its_pixels(tmp_path: Path) -> None:
    data = noise(shape=(40, 100, 90))
    sent = pickle.dumps(open_tiff(write(tmp_path / "a.tif", data, rowsperstrip=1)))
    assert len(sent) < 1500
    np.testing.assert_array_equal(pickle.loads(sent).frame(39), data[39, ::-1])


def test_frames_beyond_the_last_are_an_index_error(tmp_path: Path) -> None:
    with pytest.raises(IndexError, match=r"frame 3 of .*a\.tif, which has 3"):
        open_tiff(write(tmp_path / "a.tif", noise())).frame(3)
