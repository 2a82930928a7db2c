"""Stacks of the erased views: what a section is, which size and levels it has."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.fourier import trim
from kernels.reduce import reduce_image
from tasks.errors import WrongParameter
from tasks.parameters import Execution, PreprocessParameters
from tasks.preprocess import preprocess
from tasks.result import Result
from tasks.store import Series, parse_project

TWO = Execution(cluster="threads", workers=2)
PIXEL, VIEWS = 5.4, 7


@pytest.fixture
def copy(tmp_path: Path, finished_project: str) -> Series:
    project = shutil.copytree(finished_project, tmp_path / "p.zarr")
    return parse_project(str(project)).series("TS_01")


def stack(series: Series, **given: Any) -> Result:
    preprocess.fn(series.project.url, series.name, PreprocessParameters(**given), "main", TWO)
    return series.current("main", "preprocess")


def test_every_view_is_reduced_from_the_erased_one(finished_project: str) -> None:
    series = parse_project(finished_project).series("TS_01")
    result, source = series.current("main", "preprocess"), series.current("main", "erase").images()
    images = result.images()
    assert images.shape == (VIEWS, 32, 32)
    assert images.chunks == (1, 32, 32)
    for i in range(VIEWS):
        np.testing.assert_allclose(images[i], reduce_image(source[i], 4), rtol=1e-6)
    about = result.attributes()
    assert (about["pixel_size"], about["binning"]) == (4 * PIXEL, 4.0)
    assert about["dose_weighted"] is False
    assert about["tilt_angles"] == [view.tilt_angle for view in series.imported().views]


@pytest.mark.parametrize("binning", [1.0, 2.718])
def test_any_factor_gives_its_pixel_size(copy: Series, binning: float) -> None:
    result = stack(copy, binning=binning, filter="lanczos3")
    assert result.images().shape[1:] == (int(128 / binning),) * 2
    assert result.attributes()["pixel_size"] == pytest.approx(PIXEL * binning)


def test_a_crop_keeps_the_centre_and_is_made_before_the_reduction(copy: Series) -> None:
    result = stack(copy, crop=(80, 101), binning=2)
    source = copy.current("main", "erase").images()[3]
    expected = reduce_image(trim(source, (80, 101)), 2)
    np.testing.assert_allclose(result.images()[3], expected, rtol=1e-6)


def test_excluded_views_are_flagged_or_dropped(copy: Series) -> None:
    rows = stack(copy, binning=2).attributes()["table"]
    assert [row["view"] for row in rows] == [row["section"] for row in rows] == [*range(1, 8)]
    assert [bool(row["excluded"]) for row in rows] == [True] + [False] * 6
    kept = stack(copy, binning=2).images()[:]
    dropped = stack(copy, binning=2, excluded="drop")
    np.testing.assert_array_equal(dropped.images()[:], kept[1:])
    rows = dropped.attributes()["table"]
    assert [(row["view"], row["section"]) for row in rows] == [(i + 1, i) for i in range(1, 7)]
    assert len(dropped.attributes()["tilt_angles"]) == 6


def test_levels_are_those_asked_for_and_a_dark_view_stays_dim(copy: Series) -> None:
    result = stack(copy, binning=2, normalise="mean-sd", target_mean=100.0, target_sd=5.0)
    images = result.images()[:]
    np.testing.assert_allclose(images.mean(axis=(1, 2), dtype=np.float64), 100, atol=0.1)
    deviations = images.std(axis=(1, 2))
    np.testing.assert_allclose(deviations[1:], 5, rtol=0.02)
    dark, good = (row["deviation"] for row in result.attributes()["table"][:2])
    assert deviations[0] == pytest.approx(5 * dark / good, rel=0.05)
    assert deviations[0] < 2.5  # alone it would have been stretched to 5
    assert "1 of them dark or left out" in result.attributes()["message"]


def test_a_dim_view_that_was_let_pass_is_not_stretched_either(copy: Series) -> None:
    erased, motion = copy.current("main", "erase"), copy.current("main", "motion")
    images, about = erased.array("images"), motion.attributes()
    images[4] = images[4] * np.float32(0.15)
    means = about["means"]
    means[4] *= 0.15
    motion.group().update_attributes({"means": means})
    rows = stack(copy, binning=2, normalise="mean-sd").attributes()["table"]
    scales = [row["scale"] for row in rows]
    assert scales[4] == pytest.approx(scales[3], rel=0.02)


def test_the_mean_alone_can_be_shifted(copy: Series) -> None:
    plain = stack(copy, binning=2).images()[:]
    images = stack(copy, binning=2, normalise="mean", target_mean=-3.0).images()[:]
    np.testing.assert_allclose(images.mean(axis=(1, 2), dtype=np.float64), -3, atol=0.05)
    np.testing.assert_allclose(images.std(axis=(1, 2)), plain.std(axis=(1, 2)), rtol=1e-4)


def test_edges_fade_to_the_mean(copy: Series) -> None:
    images = stack(copy, binning=2, taper=10, normalise="mean").images()[:]
    outermost = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]])
    assert np.abs(outermost).max() < 0.05 * images.std()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"binning": 12.0}, r"TS_01: binning 12 leaves less than 16 pixels of 128×128: use a sma"),
        ({"crop": (200, 64)}, r"TS_01: crop 200×64 of images of 128×128 pixels: use a smaller pr"),
    ],
)
def test_sizes_that_leave_nothing_are_refused(
    copy: Series, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(WrongParameter, match=message):
        stack(copy, **given)
