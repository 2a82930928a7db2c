from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tasks.errors import UnusableData
from tasks.identity import BLOCK, SAMPLES, checked_path, identify

LARGE = 3 * SAMPLES * BLOCK + 17  # so large that only a part of it is read


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    path = tmp_path / "a" / "movie.mrc"
    path.parent.mkdir()
    path.write_bytes(os.urandom(LARGE))
    return path


def flip_byte(path: Path, place: int, keep_time: bool = False) -> None:
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        old = file.read(1)
        file.seek(place)
        file.write(bytes([old[0] ^ 1]))
    later = status.st_mtime_ns + (0 if keep_time else 10**9)
    os.utime(path, ns=(later, later))


def test_a_moved_file_is_the_same_file(movie: Path, tmp_path: Path) -> None:
    before = identify(movie)
    shutil.copy(movie, tmp_path / "movie.mrc")
    after = identify(tmp_path / "movie.mrc")
    assert (after.name, after.size, after.digest) == (before.name, before.size, before.digest)
    assert after.path != before.path


@pytest.mark.parametrize("place", [0, BLOCK - 1, LARGE - 1])
def test_a_changed_byte_of_the_header_or_the_end_is_noticed(movie: Path, place: int) -> None:
    before = identify(movie)
    flip_byte(movie, place)
    assert identify(movie).digest != before.digest
    with pytest.raises(UnusableData, match=r"movie\.mrc: its content changed since the import"):
        checked_path(before)


@pytest.mark.parametrize("size", [0, 1, 1000, BLOCK, BLOCK + 1])
def test_every_byte_of_a_small_file_counts(tmp_path: Path, size: int) -> None:
    path = tmp_path / "small"
    path.write_bytes(bytes(size))
    digests = {identify(path).digest}
    places = sorted({0, size // 2, max(size - 1, 0)}) if size else []
    for place in places:
        flip_byte(path, place)
        digests.add(identify(path).digest)
        flip_byte(path, place)
    assert len(digests) == 1 + len(places)


def test_a_touched_file_with_the_same_content_is_accepted(movie: Path) -> None:
    before = identify(movie)
    os.utime(movie, ns=(1, 1))
    assert checked_path(before) == movie


def test_a_truncated_file_is_refused_with_both_sizes(movie: Path) -> None:
    before = identify(movie)
    os.truncate(movie, LARGE - 1)
    with pytest.raises(UnusableData, match=f"has {LARGE - 1} bytes, had {LARGE} at the import"):
        checked_path(before)


def test_a_missing_file_is_named_with_the_remedy(movie: Path) -> None:
    before = identify(movie)
    movie.unlink()
    with pytest.raises(UnusableData, match=rf"{movie}: missing since the import: put it back"):
        checked_path(before)
