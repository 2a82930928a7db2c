"""Aligned stacks: planted spots land where geometry, or IMOD's newstack, says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.dose import weight_image
from kernels.geometry import aligned_from_raw
from kernels.reduce import reduce_image
from tasks.errors import UnusableData
from tasks.formats.imod import read_xf, write_xf
from tasks.parameters import Execution, TransformParameters
from tasks.result import Result
from tasks.store import Series, parse_project
from tasks.transform import transform

TWO = Execution(cluster="threads", workers=2)
PIXEL, SIZE, VIEWS = 5.4, 128, 7


@pytest.fixture
def copy(tmp_path: Path, finished_project: str) -> Series:
    project = shutil.copytree(finished_project, tmp_path / "p.zarr")
    return parse_project(str(project)).series("TS_01")


def stack(series: Series, **given: Any) -> Result:
    transform.fn(series.project.url, series.name, TransformParameters(**given), "main", TWO)
    return series.current("main", "transform")


def plant(series: Series, spot: tuple[float, float], sigma: float = 5.0) -> None:
    """Replace the erased views by one spot on a grey ground, `spot` (x, y) from index n // 2."""
    rows, columns = np.indices((SIZE, SIZE)) - SIZE // 2
    image = 10 + np.exp(-((columns - spot[0]) ** 2 + (rows - spot[1]) ** 2) / (2 * sigma**2))
    images = series.current("main", "erase").array("images")
    for i in range(VIEWS):
        images[i] = image.astype(np.float32)


def place(image: np.ndarray, sigma: float) -> np.ndarray:
    """Return index (x, y) of the spot, by its centroid in a window that moves with it."""
    values = image.astype(np.float64) - 10
    rows, columns = np.indices(image.shape)
    y, x = (float(i) for i in np.unravel_index(values.argmax(), values.shape))
    for _ in range(40):
        window = values * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
        y += 2 * ((rows * window).sum() / window.sum() - y)
        x += 2 * ((columns * window).sum() / window.sum() - x)
    return np.array([x, y])


@pytest.mark.parametrize("alignment", ["coarse", "markerfree"])
@pytest.mark.parametrize("binning", [1.0, 2.0, 2.3])
def test_a_spot_lands_where_the_alignment_says(
    copy: Series, alignment: str, binning: float
) -> None:
    plant(copy, (9.0, -14.0))
    images = stack(copy, images="erase", alignment=alignment, binning=binning).images()
    keys = {step: copy.pointer("main", step) or "" for step in ("coarse", "markerfree")}
    record = copy.record_of({alignment: keys[alignment]})
    assert images.shape == (6, *(int(SIZE / binning),) * 2)
    seen = 0
    for section in range(6):
        view = record.geometry(section + 1)  # the first view is dark, and dropped
        (aligned,) = aligned_from_raw([[9.0 * PIXEL, -14.0 * PIXEL]], view) / (PIXEL * binning)
        if np.abs(aligned).max() < 44 / binning:
            found = place(images[section], 5.0 / binning) - images.shape[1] // 2
            np.testing.assert_allclose(found, aligned, atol=0.01)
            seen += 1
    assert seen >= 3


@pytest.mark.parametrize("binning", [1.0, 2.0, 4.0])
def test_a_spot_lands_where_newstack_puts_it_with_a_real_solution(
    copy: Series, tmp_path: Path, shared_data: Path, binning: float
) -> None:
    matrices, shifts = read_xf(shared_data / "imod_BBa" / "BBa.xf")
    lines = [0, 10, 20, 30, 40, 50, 60]
    write_xf(tmp_path / "TS_01.xf", matrices[lines], shifts[lines])
    matrices, shifts = read_xf(tmp_path / "TS_01.xf")
    spot = np.array([11.0, 6.0])
    plant(copy, (11.0, 6.0), sigma=8.0)
    result = stack(
        copy, images="erase", xf=str(tmp_path / "{TS}.xf"), binning=binning, excluded="keep"
    )
    images = result.images()
    # newstack: raw and aligned pixels from the centres of the images, at (n − 1) / 2.
    from_centre = spot + SIZE // 2 - (SIZE - 1) / 2
    for i, (matrix, shift) in enumerate(zip(matrices, shifts, strict=True)):
        expected = (matrix @ from_centre + shift) / binning + (images.shape[1] - 1) / 2
        np.testing.assert_allclose(place(images[i], 8.0 / binning), expected, atol=0.01)
    assert result.attributes()["alignment"] == "xf"
    assert result.attributes()["centre"] == [(images.shape[1] - 1) / 2] * 2
    assert result.attributes()["inputs"].keys() == {"erase", "exclude"}


def test_a_file_of_the_views_that_are_used_is_taken_for_those(copy: Series, tmp_path: Path) -> None:
    matrices = np.tile(np.eye(2), (VIEWS, 1, 1))
    shifts = np.arange(2.0 * VIEWS).reshape(VIEWS, 2)
    write_xf(tmp_path / "all.xf", matrices, shifts)
    write_xf(tmp_path / "used.xf", matrices[1:], shifts[1:])
    every, used = (
        stack(copy, xf=str(tmp_path / name), excluded="drop").images()[:]
        for name in ("all.xf", "used.xf")
    )
    np.testing.assert_array_equal(every, used)
    write_xf(tmp_path / "other.xf", matrices[:3], shifts[:3])
    with pytest.raises(UnusableData, match=r"3 lines, and TS_01 has 7 views, 6 without those left"):
        stack(copy, xf=str(tmp_path / "other.xf"))


def test_sides_are_swapped_where_the_axis_is_nearer_to_x(copy: Series, tmp_path: Path) -> None:
    erased = copy.current("main", "erase")
    copy.project.delete(f"{erased.path}/images")
    narrow = erased.create_array("images", (VIEWS, 128, 96), (1, 128, 96), by_units=False)
    narrow[:] = np.random.default_rng(0).normal(10, 1, (VIEWS, 128, 96)).astype(np.float32)
    for axis, auto in ((85.3, (96, 128)), (-120.0, (96, 128)), (170.0, (128, 96))):
        c, s = np.cos(np.radians(axis)), np.sin(np.radians(axis))
        write_xf(tmp_path / "a.xf", [[[c, s], [-s, c]]] * VIEWS, np.zeros((VIEWS, 2)))
        shapes = {
            swap: stack(copy, images="erase", xf=str(tmp_path / "a.xf"), swap=swap).images().shape
            for swap in ("auto", "yes", "no")
        }
        assert shapes == {"auto": (6, *auto), "yes": (6, 96, 128), "no": (6, 128, 96)}


def test_outside_of_a_view_is_its_mean_and_its_edge_fades(copy: Series, tmp_path: Path) -> None:
    write_xf(tmp_path / "a.xf", [np.eye(2)] * VIEWS, [[50.0, 0.0]] * VIEWS)
    source = copy.current("main", "erase").images()[2]
    image = stack(copy, images="erase", xf=str(tmp_path / "a.xf")).images()[1]
    np.testing.assert_allclose(image[:, :50], source.mean(), rtol=1e-5)
    np.testing.assert_allclose(image[8:-8, 58:], source[8:-8, 8:78], atol=1e-3)
    assert np.abs(image[:, 50] - source.mean()).max() < 0.05 * source.std() * 3
    rows = copy.current("main", "transform").attributes()["table"]
    assert rows[1]["filled"] == pytest.approx(50 / 128, abs=0.02)


def test_views_are_weighted_by_dose_or_not_as_asked(copy: Series, tmp_path: Path) -> None:
    write_xf(tmp_path / "a.xf", [np.eye(2)] * VIEWS, np.zeros((VIEWS, 2)))
    plain, weighted = (
        stack(copy, images=images, xf=str(tmp_path / "a.xf"), taper=0)
        for images in ("erase", "dose")
    )
    assert plain.attributes()["dose_weighted"] is False
    assert weighted.attributes()["dose_weighted"] is True
    source = copy.current("main", "erase").images()
    np.testing.assert_allclose(plain.images()[0], source[1], atol=2e-4)
    for i, view in enumerate(copy.imported().views[1:]):
        seen = view.prior_dose + view.dose
        expected = weight_image(source[i + 1], seen, PIXEL, 300.0)
        np.testing.assert_allclose(weighted.images()[i], expected, atol=2e-4)


def test_a_view_is_reduced_by_the_filter_that_is_chosen(copy: Series, tmp_path: Path) -> None:
    # (n − 1) / 2 of 128 and of 32 pixels lie 1.5 pixels apart, measured from n // 2.
    write_xf(tmp_path / "a.xf", [np.eye(2)] * VIEWS, np.full((VIEWS, 2), 1.5))
    source = copy.current("main", "erase").images()[1]
    for chosen in ("fourier", "mitchell"):
        given = {"images": "erase", "xf": str(tmp_path / "a.xf"), "taper": 0, "filter": chosen}
        image = stack(copy, **given, binning=4).images()[0]
        np.testing.assert_allclose(image, reduce_image(source, 4, chosen), atol=2e-4)


def test_the_default_is_unbinned_and_says_how_it_was_made(finished_project: str) -> None:
    series = parse_project(finished_project).series("TS_01")
    result = series.current("main", "transform")
    about = result.attributes()
    assert result.images().shape == (6, 128, 128)
    assert (about["pixel_size"], about["alignment"], about["aligned"]) == (
        PIXEL,
        "markerfree",
        True,
    )
    assert about["centre"] == [64, 64]
    assert about["tilt_angles"] == [series.record("main").geometry(i).tilt for i in range(1, 7)]
    assert about["message"].endswith("aligned by markerfree, dose-weighted")
