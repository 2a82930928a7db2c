from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from kernels import wbp
from kernels.backproject_planes import reference_backproject_planes
from kernels.ctf import ctf_2d
from kernels.ctf_planes import lay_planes, novactf_planes
from kernels.deformation import Deformation
from kernels.fine_rows import fine_rows
from kernels.fourier import frequencies, irfft2, rfft2
from kernels.geometry import View
from tasks.alignment import DEFORMATION, stored
from tasks.box import blocks
from tasks.ctf3d import aligned_ctfs, ctf3d
from tasks.ctf3d_planes import Plan, planned
from tasks.errors import UnusableData, WrongParameter
from tasks.parameters import Ctf3dParameters, Execution, ReconstructParameters
from tasks.reconstruct import reconstruct
from tasks.result import Result
from tasks.store import Series, parse_project

ONE, TWO = (Execution(cluster="threads", workers=n) for n in (1, 2))
VOXEL = 5.4
SMALL: dict[str, Any] = {"thickness": 300.0, "check_hand": False}


@pytest.fixture
def copy(tmp_path: Path, finished_project: str) -> Series:
    project = shutil.copytree(finished_project, tmp_path / "p.zarr")
    return parse_project(str(project)).series("TS_01")


def corrected(series: Series, execution: Execution = TWO, **given: Any) -> Result:
    parameters = Ctf3dParameters.model_validate({**SMALL, "alignment": "coarse", **given})
    ctf3d.fn(series.project.url, series.name, parameters, "main", execution)
    return series.current("main", "ctf3d")


def volume(series: Series, **given: Any) -> NDArray[np.float32]:
    return np.asarray(corrected(series, **given).array("0")[:], dtype=np.float32)


def use_tilt_series_with_noise(series: Series) -> None:
    images = series.current("main", "dose").images()
    noise = np.random.default_rng(3).normal(0, 5, images.shape).astype(np.float32)
    # Short of Nyquist, where the astigmatism of a frequency has no sign.
    ky, kx = frequencies(images.shape[1:], noise)
    images[:] = 100 + irfft2(rfft2(noise) * (np.hypot(ky, kx) < 0.42), images.shape[1:])


@pytest.mark.parametrize("correction", ["multiply", "wiener"])
@pytest.mark.parametrize("blend", [False, True])
def test_it_is_the_plain_sum_over_planes(copy: Series, correction: str, blend: bool) -> None:
    use_tilt_series_with_noise(copy)
    interpolation = {"multiply": "linear", "wiener": "spline"}[correction]
    found = volume(
        copy, correction=correction, blend=blend, defocus_step=200.0, interpolation=interpolation
    )
    record = copy.record("main")
    plain = copy.current("main", "ctf3d")
    used = record.included
    views = [
        copy.record_of(
            {step: copy.pointer("main", step) or "" for step in ("exclude", "coarse")}
        ).geometry(i)
        for i in used
    ]
    shape = found.shape
    planes = lay_planes(views, shape, VOXEL, step=200.0, hand=record.hand or 1, blend=blend)
    assert plain.attributes()["planes"]["count"] == planes.count.tolist()
    # The views as `reconstruct` has them, filtered by rows; planes made one by one, untransposed.
    from kernels.backproject import aligned_projection
    from kernels.plane_images import padded_shape
    from tasks.chunks.aligned import OneView, Source
    from tasks.chunks.dose import Weighting

    dose = copy.current("main", "dose")
    source = Source(dose, None, None, VOXEL, 1, (128, 128), Weighting.of(dose))
    ctfs = aligned_ctfs(record, used, views)
    margin = max(32, int(np.ceil(max(c.defocus for c in ctfs) * 0.0197 / VOXEL**2)))
    images = []
    row_filter = wbp.ramp(wbp.padded_width(128), 0.35, 0.035)
    for n, (i, view) in enumerate(zip(used, views, strict=True)):
        (image,) = source.aligned(OneView(i, view))
        image = wbp.filter_views(image, row_filter)
        wide, high = padded_shape(128, 128, min(margin, 64))
        way = (np.arange(wide - 128) + 1) / (wide - 128 + 1)
        first, last = (part.mean(1, keepdims=True) for part in (image[:, :8], image[:, -8:]))
        whole = np.concatenate([image, last + (first - last) * way], 1)
        way = ((np.arange(high - 128) + 1) / (high - 128 + 1))[:, None]
        first, last = (part.mean(0) for part in (whole[:8], whole[-8:]))
        whole = np.concatenate([whole, last + (first - last) * way], 0)
        for offset in planes.defocus_offsets(n):
            ky, kx = frequencies(whole.shape, whole, VOXEL)
            transfer = -ctf_2d(ky, kx, ctfs[n].with_offset(float(offset)))
            factor = transfer
            if correction == "wiener":
                k = np.hypot(ky, kx)
                factor = transfer / (transfer**2 + np.exp(k / 0.05) / 10.0)
            if interpolation == "spline":
                turn = 2 * np.pi * VOXEL * kx
                factor = factor * 60 / (33 + 26 * np.cos(turn) + np.cos(2 * turn))
            images.append(
                irfft2((rfft2(whole.astype(np.float32)) * factor), whole.shape)[:128, :128]
            )
    rows = np.stack(images).astype(np.float32)
    projection = aligned_projection(views, shape, 128, VOXEL)
    if interpolation == "spline":
        rows, projection = fine_rows(rows), projection.fine()
    expected = reference_backproject_planes(
        rows,
        projection,
        planes,
        shape,
        y_middle=63.5,
        weights=wbp.angular_steps([view.tilt for view in views]),
    )
    # What interpolation leaves at Nyquist along the rows has an astigmatism without a sign.
    found, expected = (gaussian_filter1d(v, 1.0, axis=1) for v in (found, expected))
    error = found - expected
    assert np.sqrt(np.mean(error**2)) < 1e-3 * expected.std()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999999


@pytest.mark.parametrize("halves", ["none", "views"])
def test_workers_and_passes_change_no_byte(
    copy: Series, monkeypatch: pytest.MonkeyPatch, halves: str
) -> None:
    alone = volume(copy, execution=ONE, halves=halves)
    result = copy.current("main", "ctf3d")
    copy.project.delete(result.path)
    monkeypatch.setattr("tasks.tomogram.HELD", 1e-9)  # one slab in each pass
    np.testing.assert_array_equal(volume(copy, execution=TWO, halves=halves), alone)


@pytest.mark.parametrize("interpolation", ["linear", "spline"])
def test_with_x_tilt_no_slab_shows(
    copy: Series, monkeypatch: pytest.MonkeyPatch, interpolation: str
) -> None:
    monkeypatch.setattr("tasks.chunks.ctf3d.AT_ONCE", 40)
    given: dict[str, Any] = {"x_tilt": 8.0, "defocus_step": 100.0, "interpolation": interpolation}
    found = []
    for rows in (128, 64, 32):

        def slabs(*_: Any, rows: int = rows) -> list[tuple[int, int]]:
            return blocks(128, rows)

        monkeypatch.setattr("tasks.ctf3d_planes.slabs_of", slabs)
        found.append(volume(copy, execution=ONE, **given))
        copy.project.delete(copy.current("main", "ctf3d").path)
    assert found[0].std() > 0
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


@pytest.mark.parametrize("halves", ["none", "frames"])
def test_groups_of_views_change_no_byte(
    copy: Series, monkeypatch: pytest.MonkeyPatch, halves: str
) -> None:
    given: dict[str, Any] = {"halves": halves, "check_hand": True}
    alone = corrected(copy, ONE, **given)
    expected, scores = alone.array("0")[:], alone.attributes()["hand_scores"]
    copy.project.delete(alone.path)

    def grouped(*arguments: Any) -> Plan:
        return replace(planned(*arguments), group=4)

    monkeypatch.setattr("tasks.ctf3d.planned", grouped)
    again = corrected(copy, ONE, **given)
    np.testing.assert_array_equal(again.array("0")[:], expected)
    assert again.attributes()["hand_scores"] == scores


def test_hands_are_compared_of_a_specimen_turned_about_x(copy: Series) -> None:
    scores = corrected(copy, x_tilt=4.0, check_hand=True).attributes()["hand_scores"]
    level = corrected(copy, x_tilt=0.0, check_hand=True).attributes()["hand_scores"]
    assert scores["none"] == pytest.approx(level["none"], abs=0.1)


def test_a_box_wider_than_the_views_has_halves_of_frames(copy: Series) -> None:
    # At its edges are planes that no view has.
    result = corrected(copy, width=6000.0, defocus_step=50.0, halves="frames", blend=False)
    assert np.isfinite(result.array("odd")[:]).all()


def focus(series: Series) -> None:
    """Give all views a defocus so small that no zero of the CTF lies below Nyquist."""
    ctf = series.current("main", "ctf")
    decided = ctf.attributes()["decides"]
    for view in decided["views"]:
        if view["ctf"]:
            view["ctf"] |= {"defocus_u": 1000.0, "defocus_v": 1000.0}
    ctf.group().update_attributes({"decides": decided})


@pytest.mark.parametrize("turn", [(0.0, 0.0), (6.0, -4.0)])
def test_a_deformation_is_undone_at_every_height(copy: Series, turn: tuple[float, float]) -> None:
    # With a CTF that changes nothing, it is the tomogram of `reconstruct`, which has layers, too.
    focus(copy)
    coefficients = np.zeros((3, 5, 1))
    coefficients[:, :, 0] = [[30, 0, 20, 0, 0], [0, 10, 20, 0, -15], [40, 0, -40, 0, -30]]
    bent = stored(Deformation(coefficients, 350.0), np.linspace(0, 1, 7))
    copy.current("main", "coarse").group().update_attributes({DEFORMATION: bent})
    given: dict[str, Any] = {"thickness": 900.0, "angle_offset": turn[0], "x_tilt": turn[1]}
    result = corrected(copy, **given)
    found = result.array("0")[:]
    assert "middle plane" not in result.attributes()["message"]
    parameters = ReconstructParameters(alignment="coarse", **given)
    reconstruct.fn(copy.project.url, copy.name, parameters, "main", TWO)
    plain = copy.current("main", "reconstruct").array("0")[:]
    np.testing.assert_allclose(found, plain, atol=1e-4 * np.abs(plain).max())


def test_without_defocus_planes_flips_do_nothing(copy: Series) -> None:
    focus(copy)
    found = volume(copy)
    given = ReconstructParameters(alignment="coarse", thickness=300.0)
    reconstruct.fn(copy.project.url, copy.name, given, "main", TWO)
    plain = copy.current("main", "reconstruct").array("0")[:]
    np.testing.assert_allclose(found, plain, atol=1e-4 * np.abs(plain).max())
    # But near the edges of the views, where a spline's coefficients depend on what pads them.
    found = volume(copy, interpolation="spline")
    given = given.model_copy(update={"interpolation": "spline"})
    reconstruct.fn(copy.project.url, copy.name, given, "main", TWO)
    fine = copy.current("main", "reconstruct").array("0")[:]
    assert np.abs(fine - plain).max() > 1e-2 * np.abs(plain).max()
    inside = np.s_[..., 16:-16]
    np.testing.assert_allclose(found[inside], fine[inside], atol=1e-4 * np.abs(fine).max())


def test_halves_of_views_average_to_the_whole(copy: Series) -> None:
    result = corrected(copy, halves="views")
    whole, odd, even = (result.array(name)[:] for name in ("0", "odd", "even"))
    np.testing.assert_allclose((odd + even) / 2, whole, atol=1e-5 * np.abs(whole).max())
    curve = result.attributes()["fsc"]
    assert len(curve["k"]) == len(curve["fsc"])
    assert -1.001 < min(curve["fsc"]) <= max(curve["fsc"]) < 1.001


def test_it_says_how_the_views_were_corrected(copy: Series) -> None:
    result = corrected(copy, check_hand=True, hand=-1, defocus_step="auto", resolution=20.0)
    about = result.attributes()
    assert about["ctf_corrected"]["by"] == "ctf3d"
    assert about["ctf_corrected"]["hand"] == -1
    assert about["planes"]["step_A"] == pytest.approx(20.0**2 / (4 * 0.0196875), rel=1e-3)
    assert set(about["hand_scores"]) == {"as used", "opposite", "none", "error"}
    assert about["hand_scores"]["error"] > 0
    assert about["shape"] == list(result.array("0").shape)


def test_novactfs_planes_are_as_many_for_all_views(copy: Series) -> None:
    counts = corrected(copy, compat="novactf", defocus_step=100.0).attributes()["planes"]["count"]
    assert len(set(counts)) == 1
    assert counts[0] % 2 == 1


@pytest.mark.parametrize("hand", [1, -1])
def test_novactfs_way_lessens_defoci_by_a_shift_that_is_given(
    copy: Series, monkeypatch: pytest.MonkeyPatch, hand: int
) -> None:
    offsets = {}

    def kept(*given: Any, **more: Any) -> Any:
        made = novactf_planes(*given, **more)
        nz, ny, nx = given[1]
        middle = [(n - 1) / 2 for n in (nx, ny, nz)]
        level = np.stack([made.x, made.y, made.z], 1) @ middle + made.offset
        offsets[shift] = made.step * level
        return made

    monkeypatch.setattr("tasks.ctf3d.novactf_planes", kept)
    for shift in ("auto", 40.0):
        corrected(copy, compat="novactf", hand=hand, z_shift=shift)
    np.testing.assert_allclose(offsets["auto"], 0.0, atol=1e-9)
    np.testing.assert_allclose(offsets[40.0], -hand * 40.0, atol=1e-9)


def test_novactfs_way_multiplies_too(copy: Series) -> None:
    flipped = volume(copy, compat="novactf")
    made = corrected(copy, compat="novactf", correction="multiply")
    assert made.attributes()["ctf_corrected"]["mode"] == "multiply"
    assert "as by novaCTF, nearest plane" in made.attributes()["message"]
    assert np.abs(made.array("0")[:] - flipped).max() > 0.05 * flipped.std()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"correction": "wiener"}, "correction wiener: use flip or multiply"),
        ({"first_peak_intact": True}, "first_peak_intact: leave it out"),
        ({"interpolation": "spline"}, "interpolation spline: use linear"),
    ],
)
def test_what_novactf_does_not_have_is_refused(
    copy: Series, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(WrongParameter, match=f"^TS_01: ctf3d: novaCTF has no {said}"):
        corrected(copy, compat="novactf", **given)


def test_missing_estimates_are_interpolated_and_none_at_all_is_refused(copy: Series) -> None:
    record = copy.record("main")
    used = record.included
    views = list(record.views)
    views[used[2]] = views[used[2]].model_copy(update={"ctf": None})
    gap = record.model_copy(update={"views": tuple(views)})
    flat = [View(0.0, 0.0)] * len(used)
    whole, filled = aligned_ctfs(record, used, flat), aligned_ctfs(gap, used, flat)
    between = sorted((whole[1].defocus, whole[3].defocus))
    assert between[0] <= filled[2].defocus <= between[1]
    none = record.model_copy(
        update={"views": tuple(v.model_copy(update={"ctf": None}) for v in record.views)}
    )
    with pytest.raises(UnusableData, match="TS_01: no view has a CTF"):
        aligned_ctfs(none, used, flat)


@pytest.mark.parametrize("storage", ["int16", "int8"])
def test_integers_hold_the_values(copy: Series, storage: str) -> None:
    plain = volume(copy)
    result = corrected(copy, storage=storage)
    array, step = result.array("0"), result.attributes()["integer_step"]
    assert array.dtype == np.dtype(storage)
    inside = np.abs(plain) < step * np.iinfo(storage).max
    assert inside.mean() > 0.99
    error = np.abs(array[:] * step - plain)[inside]
    assert error.max() <= 0.51 * step


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_a_run_that_goes_on_says_and_stores_the_same(
    copy: Series, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    given: dict[str, Any] = {"storage": storage, "check_hand": True}
    undisturbed = corrected(copy, **given)
    about, values = undisturbed.attributes(), undisturbed.array("0")[:]
    copy.project.delete(undisturbed.path)

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tasks.ctf3d.complete", stopped)  # all slabs are written by then
        with pytest.raises(KeyboardInterrupt):
            corrected(copy, **given)
    resumed = corrected(copy, **given)
    for name in ("hand_scores", "message", "statistics", "integer_step"):
        assert resumed.attributes().get(name) == about.get(name)
    np.testing.assert_array_equal(resumed.array("0")[:], values)


def test_hands_are_compared_though_a_run_was_killed_before(
    copy: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tasks.ctf3d.complete", killed)
        with pytest.raises(KeyboardInterrupt):
            corrected(copy, ONE, check_hand=True)
    (result,) = (r for r in copy.results() if r.step == "ctf3d" and not r.complete())
    scores = result.unit("hands")
    assert scores is not None
    copy.project.delete_object(f"{result.path}/unit/hands.json")
    found = corrected(copy, ONE, check_hand=True)
    assert found.key == result.key
    assert found.attributes()["hand_scores"] == scores
