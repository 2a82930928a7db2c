from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ome_zarr_models.v05.image import Image

from kernels import geometry
from kernels.deformation import Deformation, displacements
from tasks.alignment import DEFORMATION, stored
from tasks.box import blocks, chosen_binning
from tasks.errors import WrongParameter
from tasks.parameters import Execution, ReconstructParameters
from tasks.reconstruct import reconstruct, without_effect
from tasks.result import Result
from tasks.store import Series, parse_project

ONE, TWO = (Execution(cluster="threads", workers=n) for n in (1, 2))
VOXEL = 5.4


@pytest.fixture
def done(finished_project: str) -> Series:
    return parse_project(finished_project).series("TS_01")


@pytest.fixture
def copy(tmp_path: Path, finished_project: str) -> Series:
    project = shutil.copytree(finished_project, tmp_path / "p.zarr")
    return parse_project(str(project)).series("TS_01")


def tomogram(series: Series, execution: Execution = TWO, **given: Any) -> Result:
    parameters = ReconstructParameters(**given)
    reconstruct.fn(series.project.url, series.name, parameters, "main", execution)
    return series.current("main", "reconstruct")


def test_levels_halve_and_average(done: Series) -> None:
    result = done.current("main", "reconstruct")
    fine, half = result.array("0")[:], result.array("1")[:]
    assert fine.shape == (444, 128, 128)  # 2400 Å of 5.4 Å
    assert half.shape == (222, 64, 64)
    assert max(result.array(str(len(list(result.group().arrays())) - 1)).shape) <= 128
    averaged = fine.reshape(222, 2, 64, 2, 64, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(half, averaged, atol=1e-4)
    assert np.isfinite(fine).all()
    assert result.array("0").chunks == (64, 64, 64)


def test_the_stored_tomogram_is_valid_ome_zarr(done: Series) -> None:
    result = done.current("main", "reconstruct")
    attributes = Image.from_zarr(result.group()).ome_attributes
    (scale,) = attributes.multiscales
    assert scale.datasets[0].coordinateTransformations[0].scale == [VOXEL] * 3
    names = {name for name, _ in result.group().arrays()}
    assert {dataset.path for dataset in scale.datasets} == names  # and no helping array


def test_its_attributes_say_what_it_is(done: Series) -> None:
    about = done.current("main", "reconstruct").attributes()
    assert about["pixel_size"] == VOXEL
    assert (about["binning"], about["alignment"]) == (1, "markerfree")
    assert about["centre"] == [0.0, 0.0, 0.0]
    values = done.current("main", "reconstruct").array("0")[:]
    for name, found in (
        ("mean", values.mean(dtype=float)),
        ("standard deviation", values.std(dtype=float)),
        ("minimum", values.min()),
        ("maximum", values.max()),
    ):
        assert about["statistics"][name] == pytest.approx(float(found), rel=1e-4, abs=1e-4)


def test_the_split_over_workers_changes_no_voxel(copy: Series) -> None:
    options: dict[str, Any] = {"thickness": 400.0, "alignment": "coarse"}
    result = tomogram(copy, ONE, **options)
    alone = result.array("0")[:]
    copy.project.delete(result.path)
    np.testing.assert_array_equal(tomogram(copy, TWO, **options).array("0")[:], alone)


def test_a_volume_shifted_along_z_shows_the_same_specimen(copy: Series) -> None:
    thick = tomogram(copy, thickness=100 * VOXEL).array("0")[:]
    shifted = tomogram(copy, thickness=60 * VOXEL, z_shift=20 * VOXEL).array("0")[:]
    # Plane n // 2 of each lies at its z-shift, and a volume runs upward.
    np.testing.assert_allclose(shifted[10:50], thick[50 + 20 - 20 : 50 + 20 + 20], atol=0.05)


def test_views_that_are_left_out_do_not_count(copy: Series) -> None:
    before = tomogram(copy, thickness=300.0).array("0")[:]
    images = copy.current("main", "dose").images()
    images[0] = 1e6 * np.random.default_rng(0).random((128, 128))  # the dark one
    copy.project.delete(copy.current("main", "reconstruct").path)
    np.testing.assert_array_equal(tomogram(copy, thickness=300.0).array("0")[:], before)
    images[1] = 50 * np.random.default_rng(0).random((128, 128))
    copy.project.delete(copy.current("main", "reconstruct").path)
    assert np.abs(tomogram(copy, thickness=300.0).array("0")[:] - before).max() > 1


def test_inverting_changes_the_sign_and_float16_little(copy: Series) -> None:
    plain = tomogram(copy, thickness=300.0)
    volume = plain.array("0")[:]
    inverted = tomogram(copy, thickness=300.0, invert=True).array("0")[:]
    np.testing.assert_allclose(inverted, -volume, atol=1e-3 * volume.std())
    small = tomogram(copy, thickness=300.0, storage="float16").array("0")
    assert small.dtype == np.float16
    np.testing.assert_allclose(small[:], volume, atol=2e-3 * np.abs(volume).max())


def test_binned_voxels_are_larger_and_fewer(copy: Series) -> None:
    result = tomogram(copy, binning=2, thickness=324.0)
    assert result.array("0").shape == (30, 64, 64)
    assert result.attributes()["pixel_size"] == 2 * VOXEL


def test_the_sirt_like_filter_keeps_more_of_the_low_frequencies(copy: Series) -> None:
    def smoothness(**given: Any) -> float:
        volume = tomogram(copy, thickness=300.0, **given).array("0")[:]
        return float(np.square(np.diff(volume, axis=2)).mean() / volume.var())

    assert smoothness(sirt_like_iterations=5) < 0.8 * smoothness()


@pytest.mark.parametrize(("pixel", "binning"), [(1.35, 4), (2.7, 2), (5.0, 1), (5.4, 1), (1.0, 5)])
def test_automatic_binning_gives_voxels_of_at_least_5_angstrom(pixel: float, binning: int) -> None:
    assert chosen_binning(ReconstructParameters(), pixel) == binning
    assert chosen_binning(ReconstructParameters(binning=3), pixel) == 3


def test_a_binning_that_leaves_too_little_is_refused(copy: Series) -> None:
    with pytest.raises(WrongParameter, match=r"TS_01: binning 9 leaves 14×14 pixels of 128×128"):
        tomogram(copy, binning=9)


@pytest.mark.parametrize(
    ("method", "bent", "turn"),
    [
        ("wbp", False, (0.0, 0.0)),
        ("wbp", True, (0.0, 0.0)),
        ("wbp", True, (6.0, -4.0)),
        ("sirt", False, (6.0, -4.0)),
    ],
)
@pytest.mark.parametrize("x_tilt", [0.0, 2.5])
def test_points_lie_where_the_alignment_has_them(
    copy: Series, x_tilt: float, method: Any, bent: bool, turn: tuple[float, float]
) -> None:
    coarse = copy.current("main", "coarse")
    decided = coarse.attributes()["decides"]
    shifts = np.random.default_rng(1).normal(0, 20, (7, 2))
    for view, (x, y) in zip(decided["views"], shifts, strict=True):
        if view["geometry"] is not None:
            view["geometry"] |= {"x_tilt": x_tilt, "shift_x": x, "shift_y": y, "stretch": 1.01}
    coefficients = np.zeros((3, 5, 1))
    coefficients[:, 2:, 0] = [[0, 0, 0], [20, 0, -15], [-40, 0, -30]]
    field = Deformation(coefficients, 350.0)
    times = np.linspace(0, 1, 7)
    extra = {DEFORMATION: stored(field, times)} if bent else {}
    coarse.group().update_attributes({"decides": decided, **extra})
    record = copy.record_of(
        {step: copy.pointer("main", step) or "" for step in ("exclude", "coarse")}
    )
    points = np.array([[70.0, -60.0, 80.0], [-110.0, 90.0, -60.0], [20.0, 150.0, 40.0]])
    images = copy.current("main", "dose").images()
    place = (np.arange(128) - 64) * VOXEL
    for i in record.included:
        view, image = record.geometry(i), np.full((128, 128), 100.0)
        moved = points + (displacements(field, points, times[i]) if bent else 0)
        for x, y in geometry.project(moved, view):
            image -= 30 * np.exp(-((place[:, None] - y) ** 2 + (place - x) ** 2) / (2 * 12.0**2))
        images[i] = image
    given: dict[str, Any] = {"angle_offset": turn[0], "x_tilt": turn[1], "method": method}
    volume = -tomogram(copy, thickness=400.0, alignment="coarse", **given).array("0")[:]
    for x, y, z in points @ geometry.turned_frame(x_tilt, *turn).T:
        middle = np.array([z, y, x]) / VOXEL + np.array(volume.shape) // 2
        low = np.rint(middle).astype(int) - 3
        box = volume[tuple(slice(a, a + 7) for a in low)]
        mass = np.maximum(box - 0.5 * box.max(), 0)
        found = [(mass * axis).sum() / mass.sum() for axis in np.indices(box.shape)] + low
        # Six views from −20° to 30° draw a point out along a slanted line: z tells less. Within a
        # layer, off its middle by Z, D is that of a point Z tan θ away.
        assert np.abs(found - middle)[1:].max() < (0.08 if bent else 0.05)
        assert abs(found[0] - middle[0]) < 0.35


def test_parts_of_the_box_are_those_of_the_whole(copy: Series) -> None:
    whole = tomogram(copy, thickness=300.0).array("0")[:]
    part = tomogram(
        copy, thickness="20px", width="40px", length="30px", x_shift="10px", y_shift="-8px",
        z_shift="5px",
    )  # fmt: skip
    z, y, x = (n // 2 for n in whole.shape)
    box = whole[z - 5 : z + 15, y - 23 : y + 7, x - 10 : x + 30]
    np.testing.assert_allclose(part.array("0")[:], box, atol=1e-4 * np.abs(whole).max())
    assert part.attributes()["centre"] == pytest.approx([10 * VOXEL, -8 * VOXEL, 5 * VOXEL])
    with pytest.raises(WrongParameter, match="use a smaller length or y_shift"):
        tomogram(copy, length="100px", y_shift="20px")


@pytest.mark.parametrize("storage", ["int16", "int8"])
def test_integers_are_scaled_by_the_noise(copy: Series, storage: str) -> None:
    plain = tomogram(copy, thickness=300.0).array("0")[:]
    result = tomogram(copy, thickness=300.0, storage=storage)
    array, step = result.array("0"), result.attributes()["integer_step"]
    assert array.dtype == np.dtype(storage)
    inside = np.abs(plain) < step * np.iinfo(storage).max
    assert inside.mean() > 0.98
    assert np.abs(array[:] * step - plain)[inside].max() <= 0.51 * step


@pytest.mark.parametrize("halves", ["views", "frames"])
def test_halves_average_to_the_whole(copy: Series, halves: str) -> None:
    result = tomogram(copy, thickness=300.0, halves=halves)
    whole, odd, even = (result.array(name)[:] for name in ("0", "odd", "even"))
    scale = np.abs(whole).max()
    if halves == "frames":
        np.testing.assert_allclose((odd + even) / 2, whole, atol=1e-5 * scale)
    assert np.abs(odd - even).max() > 0.01 * scale
    curve = result.attributes()["fsc"]
    assert curve["fsc"][2] > 0.3  # both show the specimen
    assert {name for name, _ in result.group().arrays()} >= {"odd", "even"}


@pytest.mark.parametrize("method", ["sirt", "sart"])
def test_iterations_bring_the_projections_nearer_to_the_views(copy: Series, method: str) -> None:
    given: dict[str, Any] = {"thickness": 900.0, "method": method, "alignment": "coarse"}
    result = tomogram(copy, **given, iterations=4, keep_every=2)
    last, before = result.array("0")[:], result.array("iteration-002")[:]
    np.testing.assert_array_equal(result.array("iteration-004")[:], last)
    assert np.abs(last - before).max() > 0
    fewer = tomogram(copy, **given, iterations=2).array("0")[:]
    np.testing.assert_allclose(fewer, before, atol=1e-5 * np.abs(fewer).max())
    positive = tomogram(copy, **given, iterations=2, positive=True, mask="60px").array("0")[:]
    assert positive.max() <= 0  # matter is dark, ice 0
    middle = len(positive) // 2
    assert not positive[: middle - 31].any()
    assert positive[middle - 20 : middle + 20].any()
    warm = tomogram(copy, **given, iterations=1, start="wbp").array("0")[:]
    assert np.corrcoef(warm.ravel(), last.ravel())[0, 1] > 0.3


@pytest.mark.parametrize("differ", [False, True])
def test_with_x_tilt_no_slab_shows_in_iterations(
    copy: Series, monkeypatch: pytest.MonkeyPatch, differ: bool
) -> None:
    if differ:  # rows mix
        coarse = copy.current("main", "coarse")
        decided = coarse.attributes()["decides"]
        for i, view in enumerate(decided["views"]):
            if view["geometry"] is not None:
                view["geometry"]["x_tilt"] = 0.5 * i
        coarse.group().update_attributes({"decides": decided})
    monkeypatch.setattr("tasks.chunks.iterated.BLOCK", 32)
    given: dict[str, Any] = {"thickness": 300.0, "method": "sirt", "alignment": "coarse"}
    given |= {"iterations": 8, "keep_every": 2, "x_tilt": 3.0, "start": "wbp"}
    found = []
    for rows in (128, 64, 32):

        def slabs(*_: Any, rows: int = rows) -> list[tuple[int, int]]:
            return blocks(128, rows)

        monkeypatch.setattr("tasks.reconstruct.slabs_of", slabs)
        result = tomogram(copy, ONE, **given)
        found.append([result.array(name)[:] for name in ("0", "iteration-002")])
        copy.project.delete(result.path)
    assert found[0][0].std() > 0
    for other in found[1:]:
        np.testing.assert_array_equal(other[0], found[0][0])
        np.testing.assert_array_equal(other[1], found[0][1])


@pytest.mark.parametrize("halves", ["views", "frames"])
def test_iterations_are_kept_of_the_whole_beside_its_halves(copy: Series, halves: str) -> None:
    given: dict[str, Any] = {"thickness": 300.0, "method": "sirt", "halves": halves}
    result = tomogram(copy, **given, iterations=2, keep_every=1)
    last = result.array("0")[:]
    kept = [result.array(f"iteration-00{n}")[:] for n in (1, 2)]
    np.testing.assert_allclose(kept[1], last, atol=1e-6 * np.abs(last).max())
    first = tomogram(copy, **given, iterations=1).array("0")[:]
    np.testing.assert_allclose(kept[0], first, atol=1e-6 * np.abs(last).max())


@pytest.mark.parametrize("weighting", ["ramp", "hamming", "exact"])
def test_a_half_of_views_is_the_tomogram_of_those_views(copy: Series, weighting: str) -> None:
    given: dict[str, Any] = {"thickness": 300.0, "weighting": weighting, "alignment": "coarse"}
    halves = tomogram(copy, **given, halves="views")
    odd, even = (halves.array(name)[:] for name in ("odd", "even"))
    exclude = copy.current("main", "exclude")
    decided = exclude.attributes()["decides"]
    for i in copy.record("main").included[1::2]:
        decided["views"][i]["excluded"] = "to see what is left"
    exclude.group().update_attributes({"decides": decided})
    alone = tomogram(copy, **given).array("0")[:]
    np.testing.assert_allclose(odd, alone, atol=1e-5 * np.abs(alone).max())
    assert 0.7 < even.std() / odd.std() < 1.4


def test_options_without_effect_are_named() -> None:
    def named(**given: Any) -> list[str]:
        return without_effect(ReconstructParameters(**given))

    assert named() == named(sirt_like_iterations=5, interpolation="spline") == []
    assert named(positive=True, keep_every=2) == ["--positive", "--keep-every"]
    spline: dict[str, Any] = {"method": "sirt", "interpolation": "spline", "weighting": "exact"}
    assert named(**spline, subsets=4) == ["--interpolation", "--weighting", "--subsets"]
    assert named(**spline, start="wbp") == ["--interpolation"]
    assert named(method="sart", subsets=4, mask="60px") == []


@pytest.mark.parametrize("weighting", ["hamming", "exact"])
def test_other_filters_show_the_same_specimen(copy: Series, weighting: str) -> None:
    plain = tomogram(copy, thickness=600.0).array("0")[:]
    other = tomogram(copy, thickness=600.0, weighting=weighting).array("0")[:]
    assert 0.5 < np.corrcoef(plain.ravel(), other.ravel())[0, 1] < 0.9999


def test_the_logarithm_is_near_the_contrast_where_contrast_is_small(copy: Series) -> None:
    plain = tomogram(copy, thickness=300.0).array("0")[:]
    log = tomogram(copy, thickness=300.0, logarithm=True).array("0")[:]
    assert np.corrcoef(plain.ravel(), log.ravel())[0, 1] > 0.9
    assert np.abs(plain - log).max() > 0


def test_an_angle_offset_turns_the_specimen(copy: Series) -> None:
    plain = tomogram(copy, thickness=300.0).array("0")[:]
    turned = tomogram(copy, thickness=300.0, angle_offset=3.0).array("0")[:]
    assert np.abs(plain - turned).max() > 0.1 * np.abs(plain).max()
    with_x = tomogram(copy, thickness=300.0, x_tilt=2.0).array("0")[:]
    assert np.isfinite(with_x).all()
