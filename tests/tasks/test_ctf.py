"""The CTF step on a series of known CTFs, tilts and hand, on a small one, and on files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctf_images import angle_between, field, tilted_gradient

from kernels.ctf import Ctf
from tasks.ctf import ctf
from tasks.ctf_estimate import PROFILES
from tasks.errors import UnusableData
from tasks.export_ctf import write_defoci
from tasks.parameters import CtfParameters, Execution, Pipeline
from tasks.record import Acquisition, CtfEstimate, FileIdentity, TiltSeries, View
from tasks.result_keys import result_key
from tasks.steps import STEPS, inputs_of
from tasks.store import Series, parse_project
from tasks.work import Outcome

HAND, SIZE, PIXEL, AXIS = -1, 384, 5.4, 85.3
# So many views, equally tilted, that the hand can be sure; the last one is dark.
TILTS = (-45.0, -40.0, -35.0, -30.0, -25.0, 0.0, 25.0, 30.0, 35.0, 40.0, 45.0, 60.0)
EXCLUDED = len(TILTS) - 1
INCLUDED = range(EXCLUDED)

Run = Callable[..., Outcome]


def truth_of(view: int) -> Ctf:
    middle = 22000.0 + 70 * view
    return Ctf(middle + 250, middle - 250, 40.0)


@cache
def images() -> np.ndarray:
    """Return images of random structure on a plane, tilted about an axis."""
    stack = np.zeros((len(TILTS), SIZE, SIZE), np.float32)
    for i in INCLUDED:
        gradient = tilted_gradient(TILTS[i], AXIS, HAND)
        image = field(SIZE, PIXEL, truth_of(i), seed=i, signal=6.0, gradient=gradient)
        stack[i] = 100 + 10 * image
    return stack


def record_of_views() -> TiltSeries:
    views = [
        View(
            tilt_angle=tilt,
            order=i + 1,
            prior_dose=3.0 * i,
            dose=3.0,
            frames=1,
            movie=FileIdentity(
                path=f"/raw/{i}.mrc", name=f"{i}.mrc", size=i, digest=f"{i:x}", mtime_ns=0
            ),
        )
        for i, tilt in enumerate(TILTS)
    ]
    acquisition = Acquisition(voltage=300, pixel_size=PIXEL, tilt_axis=AXIS)
    return TiltSeries(name="TS_01", acquisition=acquisition, shape=(SIZE, SIZE), views=tuple(views))


def write(series: Series, step: str, views: list[dict[str, Any]]) -> None:
    """Write a complete result of a step as a run would, or what there is of it but arrays."""
    parameters = getattr(Pipeline(), step)
    keys = {name: series.pointer("main", name) for name in inputs_of(STEPS[step], parameters)}
    inputs = {name: key for name, key in keys.items() if key is not None}
    result = series.result(step, result_key(STEPS[step], parameters, series.imported(), inputs))
    if step == "motion":
        result.create_array("images", images().shape, (1, SIZE, SIZE))[:] = images()
    result.finish(
        {
            "step": step,
            "parameters": parameters.model_dump(mode="json"),
            "inputs": inputs,
            "decides": {"views": views, "series": {}},
            "table": [],
        }
    )
    series.point("main", step, result.key)


def planted_in(project: str, excluded: Iterable[int] = (EXCLUDED,)) -> tuple[Series, Run]:
    series = parse_project(project).add_series(record_of_views())
    write(series, "motion", [])
    write(series, "exclude", [{"excluded": "dark" if i in excluded else None} for i in range(12)])
    step = partial(ctf.fn, project, "TS_01", branch="main")
    return series, partial(step, execution=Execution(cluster="threads", workers=2))


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Series, Run]:
    """Return a series of known CTFs, its last view dark and excluded, and the step for it."""
    return planted_in(str(tmp_path / "project.zarr"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Series, str]:
    """Return such a series after the step, and the step's message."""
    series, step = planted_in(str(tmp_path_factory.mktemp("measured") / "project.zarr"))
    return series, step(CtfParameters()).message


def estimates_of(record: TiltSeries) -> list[CtfEstimate]:
    assert record.views[EXCLUDED].ctf is None
    found = [view.ctf for view in record.views[:EXCLUDED]]
    assert None not in found
    return [one for one in found if one is not None]


def test_planted_defocus_astigmatism_and_hand_are_found(measured: tuple[Series, str]) -> None:
    series, told = measured
    record, result = series.record("main"), series.current("main", "ctf")
    for i, found in enumerate(estimates_of(record)):
        truth = truth_of(i)
        assert found.reliable
        assert found.problem is None
        assert found.uncertainty is not None
        assert found.uncertainty < 80
        assert abs(found.defocus - truth.defocus) < 4 * found.uncertainty
        assert found.defocus_u - found.defocus_v == pytest.approx(500, abs=150)
        assert angle_between(found.astigmatism_angle, 40) < 8
        assert found.fit_resolution is not None
        assert found.fit_resolution < 13
        assert found.phase_shift == 0
    hand = record.handedness
    assert hand is not None
    assert (record.hand, hand.hand, hand.measured, hand.forced) == (HAND, HAND, HAND, False)
    assert hand.confidence > 0.99
    assert hand.gradient is not None
    assert hand.gradient_error is not None
    assert abs(hand.gradient - HAND) < 3 * hand.gradient_error < 0.3
    assert "hand −1" in told
    assert "turn-axis-on-hand" in told
    about = result.attributes()
    assert (about["pixel_size"], about["spectrum_pixel"]) == (PIXEL, PIXEL)
    gradients = {row["view"]: row for row in about["gradients"]}
    assert sorted(gradients) == list(INCLUDED)
    for i, row in gradients.items():
        slope = HAND * np.tan(np.radians(record.views[i].tilt_angle))
        assert abs(row["gradient_x"] - slope) < 4 * row["gradient_x_error"] < 0.4
        assert abs(row["gradient_y"]) < 4 * row["gradient_y_error"]
    for row in about["expected"]:
        assert row["view"] in INCLUDED
        assert abs(row["defocus"] - truth_of(row["view"]).defocus) < 4 * row["sigma"]
    assert len(about["expected"]) == len(INCLUDED)


def test_spectra_show_the_rings_of_the_views_own_defocus(measured: tuple[Series, str]) -> None:
    series, _ = measured
    result = series.current("main", "ctf")
    spectra, profiles = result.array("spectra"), result.array("profiles")
    box = spectra.shape[1]
    assert spectra.shape == (len(TILTS), box, box // 2 + 1)
    assert spectra.chunks == (1, box, box // 2 + 1)
    assert (spectra[EXCLUDED] == 0).all()
    assert (spectra[:EXCLUDED].min(axis=(1, 2)) >= 0).all()
    assert (spectra[:EXCLUDED].max(axis=(1, 2)) > 0).all()
    assert profiles.shape[:2] == (len(TILTS), len(PROFILES))
    assert np.isnan(profiles[EXCLUDED]).all()
    frequency, _, data, fit, correlation, noise = np.moveaxis(profiles[:EXCLUDED], 1, 0)
    assert (np.diff(frequency, axis=1) > 0).all()
    assert frequency.max() <= 0.5 / PIXEL
    low = frequency[0] < 1 / 13
    for i in INCLUDED:
        assert np.corrcoef(data[i, low], fit[i, low])[0, 1] > 0.9
    assert np.median(correlation[:, low]) > 0.9
    assert (noise > 0).all()


def test_a_forced_hand_that_the_rings_contradict_is_told(planted: tuple[Series, Run]) -> None:
    series, step = planted
    told = step(CtfParameters(hand=1)).message
    record = series.record("main")
    assert record.handedness is not None
    assert (record.hand, record.handedness.measured, record.handedness.forced) == (1, HAND, True)
    assert "the rings say hand −1" in told
    assert "+1 was forced" in told
    assert "turn-axis-on-hand" not in told
    agreed = step(CtfParameters(hand=-1)).message
    assert "hand −1 as told" in agreed
    assert "the rings say" not in agreed
    assert "was forced" not in agreed


def test_views_without_rings_get_what_the_others_expect_and_say_why(
    planted: tuple[Series, Run],
) -> None:
    series, step = planted
    stored = series.current("main", "motion").array("images")
    stored[4] = np.random.default_rng(9).normal(100, 10, (SIZE, SIZE)).astype(np.float32)
    told = step(CtfParameters()).message
    found = estimates_of(series.record("main"))
    assert [i for i, one in enumerate(found) if not one.reliable] == [4]
    lost = found[4]
    assert lost.problem is not None
    assert "no clear rings" in lost.problem
    assert abs(lost.defocus - truth_of(4).defocus) < 600
    assert lost.uncertainty is not None
    assert lost.uncertainty > max(one.uncertainty or 0 for one in found if one.reliable)
    assert "1 of 11 views not from their own rings" in told


def test_incoherent_views_tell_nothing_of_each_other(planted: tuple[Series, Run]) -> None:
    series, step = planted
    step(CtfParameters(coherent=False))
    assert series.current("main", "ctf").attributes()["expected"] == []
    for i, found in enumerate(estimates_of(series.record("main"))):
        assert found.uncertainty is not None
        assert abs(found.defocus - truth_of(i).defocus) < 4 * found.uncertainty


@pytest.mark.parametrize("name", ["TS_01.defocus", "TS_01_ctffind.txt", "TS_01_ctf.star"])
def test_a_ctf_that_was_exported_comes_in_again(
    measured: tuple[Series, str], planted: tuple[Series, Run], tmp_path: Path, name: str
) -> None:
    exported = measured[0].record("main")
    result = measured[0].current("main", "ctf")
    write_defoci(tmp_path, exported, result, PIXEL, lambda line: None)
    series, step = planted
    told = step(CtfParameters(ctf_from=str(tmp_path / name))).message
    record = series.record("main")
    for before, after in zip(estimates_of(exported), estimates_of(record), strict=True):
        assert after.defocus_u == pytest.approx(before.defocus_u, abs=0.2)
        assert after.defocus_v == pytest.approx(before.defocus_v, abs=0.2)
        assert angle_between(after.astigmatism_angle, before.astigmatism_angle) < 0.02
        assert after.uncertainty is None
    # Only IMOD's file tells the hand.
    assert record.hand == (HAND if name.endswith(".defocus") else None)
    assert "median defocus 2.2" in told
    assert list(series.current("main", "ctf").group().array_keys()) == []


def test_the_users_hand_beats_that_of_a_file(
    measured: tuple[Series, str], planted: tuple[Series, Run], tmp_path: Path
) -> None:
    write_defoci(tmp_path, measured[0].record("main"), None, PIXEL, lambda line: None)
    series, step = planted
    told = step(CtfParameters(ctf_from=str(tmp_path / "{TS}.defocus"), hand=1)).message
    assert series.record("main").hand == 1
    assert "hand +1 as told" in told
    assert "the file says hand −1, +1 was forced" in told


@pytest.mark.parametrize("method", ["2d", "strips"])
@pytest.mark.parametrize(("value", "why"), [(5.0, "all pixels are equal"), (np.nan, "no numbers")])
def test_a_view_without_a_spectrum_is_named(
    planted: tuple[Series, Run], method: Any, value: float, why: str
) -> None:
    series, step = planted
    series.current("main", "motion").array("images")[3] = value
    with pytest.raises(UnusableData, match=rf"^view 4: .*{why}: leave it out"):
        step(CtfParameters(method=method))


def test_a_series_without_views_is_refused_in_one_line(tmp_path: Path) -> None:
    _, step = planted_in(str(tmp_path / "project.zarr"), excluded=range(len(TILTS)))
    with pytest.raises(UnusableData, match=r"^TS_01: every view is excluded: include some$"):
        step(CtfParameters())


# -- a simulated series of seven small views, the first dark ------------------------------------


@pytest.fixture
def done(finished_project: str) -> Series:
    return parse_project(finished_project).series("TS_01")


def test_every_view_that_is_not_dark_has_an_estimate(done: Series) -> None:
    views = done.record("main").views
    assert views[0].ctf is None
    for view in views[1:]:
        assert view.ctf is not None
        assert 4000 <= view.ctf.defocus <= 61000
        assert -90 <= view.ctf.astigmatism_angle <= 90
        assert view.ctf.uncertainty is None or view.ctf.uncertainty > 0
        assert view.ctf.uncertainty is not None or not view.ctf.reliable
        assert view.ctf.reliable == (view.ctf.problem is None)
    spectra = done.current("main", "ctf").array("spectra")
    assert (spectra[0] == 0).all()
    assert (spectra[1:].sum(axis=(1, 2)) > 0).all()


def test_a_hand_that_so_few_views_cannot_tell_is_not_claimed(done: Series) -> None:
    record = done.record("main")
    assert record.handedness is not None
    assert record.handedness.measured in (1, None)
    assert record.hand == record.handedness.hand == record.handedness.measured
    assert 0.5 <= record.handedness.confidence <= 1
    about = done.current("main", "ctf").attributes()
    assert about["pixel_size"] == about["spectrum_pixel"] == 5.4
