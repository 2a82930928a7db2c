"""One door for every kind of movie: the content decides, not the name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tasks.formats.errors import FormatError
from tasks.formats.movies import file_kind, open_movie
from tasks.formats.mrc import write_stack

DATA = np.random.default_rng(0).poisson(2, (3, 14, 18)).astype(np.int16)


@pytest.mark.parametrize("name", ["a.mrc", "a.mrcs", "a.st", "a.tif", "a.TIFF", "a.eer", "a"])
def test_the_content_decides_not_the_name(tmp_path: Path, name: str) -> None:
    write_stack(tmp_path / name, DATA, 1.25)
    mrc = open_movie(tmp_path / name)
    assert file_kind(tmp_path / name) == "mrc"
    tifffile.imwrite(tmp_path / name, DATA[:, ::-1], photometric="minisblack", compression="lzw")
    tiff = open_movie(tmp_path / name)
    assert file_kind(tmp_path / name) == "tiff"
    for movie in (mrc, tiff):
        assert movie.path == tmp_path / name
        assert (movie.n_frames, movie.ny, movie.nx, movie.dtype) == (3, 14, 18, np.int16)
    assert (mrc.pixel_size, tiff.pixel_size) == (pytest.approx(1.25), None)
    assert [tiff.frame(i).tolist() for i in range(3)] == DATA.tolist()


def test_the_same_image_in_mrc_and_tiff_has_the_same_orientation(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.mrc", DATA, 1.0)
    # TIFF stores the top row first.
    tifffile.imwrite(tmp_path / "a.tif", DATA[:, ::-1], photometric="minisblack")
    mrc, tiff = open_movie(tmp_path / "a.mrc"), open_movie(tmp_path / "a.tif")
    for i in range(3):
        np.testing.assert_array_equal(mrc.frame(i), tiff.frame(i))


@pytest.mark.parametrize("content", [b"", b"[ZValue = 0]\n" * 200, b"II*\0\x08\0\0\0"])
def test_what_is_no_movie_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mrc").write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.mrc: .*; "):
        open_movie(tmp_path / "a.mrc")


def test_a_missing_movie_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_movie(tmp_path / "a.eer")
