"""Erasing and dose weighting: from images to images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tasks.erase import erase
from tasks.parameters import EraseParameters, Execution
from tasks.store import Series, parse_project

THREADS = Execution(cluster="threads", workers=2)


@pytest.fixture
def done(finished_project: str) -> Series:
    return parse_project(finished_project).series("TS_01")


def test_images_stay_one_view_a_chunk(done: Series) -> None:
    for step in ("erase", "dose"):
        images = done.current("main", step).images()
        assert images.shape == (7, 128, 128)
        assert images.chunks == (1, 128, 128)
        assert images.dtype == np.float32


def test_only_hits_are_changed_and_excluded_views_are_copied(done: Series) -> None:
    before = done.current("main", "motion").images()[:]
    erased = done.current("main", "erase")
    changed = (erased.images()[:] != before).sum(axis=(1, 2))
    pixels = [row["pixels"] for row in erased.attributes()["table"]]
    assert changed[0] == 0  # the dark view
    assert all(n <= limit for n, limit in zip(changed, pixels, strict=True))
    assert sum(pixels) < 0.002 * before.size


def test_planted_hits_are_gone(tmp_path: Path, finished_project: str, tiny_data: Path) -> None:
    project = str(shutil.copytree(finished_project, tmp_path / "p.zarr"))
    series = parse_project(project).series("TS_01")
    images = series.current("main", "motion").array("images")
    spoiled = images[3]
    places = [(20, 30), (64, 64), (100, 17)]
    for y, x in places:
        spoiled[y, x] += 400
    images[3] = spoiled
    erase.fn(project, "TS_01", EraseParameters(peak=8.5), "main", THREADS)
    clean = series.current("main", "erase").images()[3]
    for y, x in places:
        assert abs(clean[y, x] - np.median(clean)) < 6 * clean.std()
    # The fill is random, yet the same at every run.
    again = str(shutil.copytree(project, tmp_path / "again.zarr"))
    series = parse_project(again).series("TS_01")
    series.project.delete(series.current("main", "erase").path)
    erase.fn(again, "TS_01", EraseParameters(peak=8.5), "main", THREADS)
    np.testing.assert_array_equal(series.current("main", "erase").images()[3], clean)
