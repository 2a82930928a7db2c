"""CTF correction in strips as a step: which CTF and hand each view gets, and never twice."""

from __future__ import annotations

import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from kernels.ctf_correct import Correction
from kernels.ctf_planes import automatic_step
from kernels.ctf_slope import lay_strips, slope_in_raw
from kernels.ctf_strip_correct import correct_strips, margin_of
from tasks.chunks.ctf2d import BASE_BYTES, correct_view, memory_of_view
from tasks.chunks.dose import Weighting
from tasks.ctf import ctf
from tasks.ctf2d import ctf2d
from tasks.ctf3d import ctf3d
from tasks.ctf_provenance import CTF_CORRECTED, already_corrected
from tasks.ctf_views import ctf_of_views
from tasks.discover import find_sources
from tasks.errors import UnusableData, WrongParameter
from tasks.export import export_series
from tasks.ingest import read_series
from tasks.parameters import (
    Ctf2dParameters,
    Ctf3dParameters,
    CtfParameters,
    Execution,
    ImportParameters,
    TransformParameters,
)
from tasks.record import CtfEstimate, TiltSeries
from tasks.result import Result
from tasks.store import Series, parse_project
from tasks.transform import transform

THREADS = Execution(cluster="threads", workers=2)
PIXEL = 5.4


@pytest.fixture
def copy(tmp_path: Path, finished_project: str) -> Series:
    project = shutil.copytree(finished_project, tmp_path / "p.zarr")
    return parse_project(str(project)).series("TS_01")


def correct(series: Series, **given: Any) -> Result:
    parameters = Ctf2dParameters(**{"alignment": "nominal", **given})
    ctf2d.fn(series.project.url, series.name, parameters, "main", THREADS)
    return series.current("main", "ctf2d")


def nominal(series: Series) -> TiltSeries:
    """Return the record without alignment."""
    keys = {step: series.pointer("main", step) or "" for step in ("motion", "exclude", "ctf")}
    return series.record_of(keys)


@pytest.mark.parametrize("hand", [1, -1])
def test_every_view_is_corrected_by_its_ctf_tilt_axis_and_hand(copy: Series, hand: int) -> None:
    made = correct(copy, correction="multiply", hand=hand, images="erase")
    record, source = nominal(copy), copy.current("main", "erase").images()
    assert made.images().shape == source.shape
    step = automatic_step(2 * PIXEL, 300.0) / 2
    for i, known in enumerate(ctf_of_views(record)):
        slope = slope_in_raw(record.geometry(i), hand)
        assert np.hypot(slope.x, slope.y) == pytest.approx(
            abs(np.tan(np.radians(record.views[i].tilt_angle))), abs=1e-9
        )
        strips = lay_strips((128, 128), PIXEL, slope, step)
        expected = correct_strips(
            source[i], known.ctf, PIXEL, slope, strips, Correction("multiply")
        )
        np.testing.assert_allclose(made.images()[i], expected, atol=1e-6)
        assert made.images()[i].mean() == pytest.approx(source[i].mean(), rel=0.02)


def aligned_by(series: Series, step: str) -> TiltSeries:
    """Return the record with one alignment."""
    steps = ("motion", "exclude", "ctf", step)
    return series.record_of({name: series.pointer("main", name) or "" for name in steps})


def turn_axis(series: Series, step: str, by: float, more_tilt: float = 0.0) -> None:
    """Let an alignment have found another tilt axis, and other tilts."""
    result = series.current("main", step)
    decides = result.attributes()["decides"]
    for view in decides["views"]:
        if view.get("geometry"):
            view["geometry"]["axis"] += by
            view["geometry"]["tilt"] += more_tilt
    result.group().update_attributes({"decides": decides})


def test_strips_follow_the_axis_that_an_alignment_has_found(copy: Series) -> None:
    turn_axis(copy, "coarse", 20.0, more_tilt=3.0)
    given = {"correction": "multiply", "defocus_tolerance": 200.0, "hand": 1, "images": "erase"}
    made = correct(copy, alignment="coarse", **given)
    record, source = aligned_by(copy, "coarse"), copy.current("main", "erase").images()
    for i in record.included:
        view = record.geometry(i)
        assert view.axis == pytest.approx(nominal(copy).geometry(i).axis + 20.0, abs=3.0)
        slope = slope_in_raw(view, 1)
        strips = lay_strips((128, 128), PIXEL, slope, 200.0)
        ctf = ctf_of_views(record)[i].ctf
        expected = correct_strips(source[i], ctf, PIXEL, slope, strips, Correction("multiply"))
        np.testing.assert_allclose(made.images()[i], expected, atol=1e-6)
    assert "geometry: coarse" in made.attributes()["message"]
    assert made.attributes()["inputs"]["coarse"] == copy.pointer("main", "coarse")
    other = correct(copy, **given)
    assert other.key != made.key
    assert np.abs(other.images()[-1] - made.images()[-1]).max() > 0.01


@pytest.mark.parametrize("hand", [1, -1])
def test_an_axis_turned_by_half_a_turn_reverses_the_measured_hand(copy: Series, hand: int) -> None:
    decides = copy.current("main", "ctf").attributes()["decides"]
    decides["series"] |= {
        "hand": hand,
        "handedness": {"hand": hand, "measured": hand, "confidence": 1.0},
    }
    copy.current("main", "ctf").group().update_attributes({"decides": decides})
    given = {"alignment": "coarse", "correction": "multiply", "defocus_tolerance": 200.0}
    made = correct(copy, **given)
    before = made.images()[:]
    assert made.attributes()[CTF_CORRECTED]["hand"] == hand
    copy.project.delete(made.path)
    turn_axis(copy, "coarse", 180.0)  # as by the word of the user, or of another program
    turned = correct(copy, **given)
    assert turned.attributes()[CTF_CORRECTED]["hand"] == -hand
    used = nominal(copy).included
    np.testing.assert_allclose(turned.images()[:][list(used)], before[list(used)], atol=1e-3)


def test_alone_the_step_takes_the_alignment_that_there_is(copy: Series) -> None:
    steps = ("fiducials", "align", "markerfree", "coarse")
    found = []
    for gone in (None, *steps):
        if gone is not None:
            copy.point("main", gone, None)
        found.append(correct(copy, alignment="auto").attributes()["parameters"]["alignment"])
    assert found[0] in ("fiducial", "markerfree")
    assert found[1] in ("markerfree", "coarse")  # as without beads
    assert found[-2:] == ["coarse", "nominal"]


def test_a_pretilt_of_the_nominal_tilts_is_not_added_to_those_that_have_it(copy: Series) -> None:
    ctf = copy.current("main", "ctf")
    decides = ctf.attributes()["decides"]
    decides["series"]["pretilt"] = {
        **{"about_axis": 10.0, "across_axis": 0.0},
        **{"about_error": 1.0, "across_error": 1.0},
    }
    ctf.group().update_attributes({"decides": decides})
    turn_axis(copy, "coarse", 0.0, more_tilt=10.0)  # as an alignment that found it, too
    rows = {
        alignment: correct(copy, alignment=alignment, pretilt=True, defocus_tolerance=50.0)
        for alignment in ("nominal", "coarse")
    }
    spans = {
        alignment: [row["highest [Å]"] - row["lowest [Å]"] for row in made.attributes()["table"]]
        for alignment, made in rows.items()
    }
    used = nominal(copy).included
    np.testing.assert_allclose(
        *([spans[alignment][i] for i in used] for alignment in ("coarse", "nominal")), rtol=0.02
    )


@pytest.mark.parametrize("hand", [1, -1])
def test_a_hand_that_the_rings_contradict_is_told_of(
    copy: Series, monkeypatch: pytest.MonkeyPatch, hand: int
) -> None:
    # The small views have no rings: they are made as if hand +1 were right.
    def scored(_: Result, index: int, *given: Any) -> list[list[float]]:
        tilt = nominal(copy).views[index].tilt_angle
        right = (given[2].x * np.sin(np.radians(tilt))) * np.cos(np.radians(85.3)) > 0
        one = [0.08 + 0.001 * index, 0.01, 0.05]
        return [one if right else [one[1], one[0], one[2]]] * 2

    monkeypatch.setattr("tasks.ctf2d_score.can_tell", lambda *_: True)
    monkeypatch.setattr("tasks.ctf2d_score.score_view", scored)
    decides = copy.current("main", "ctf").attributes()["decides"]
    for view in decides["views"]:
        if view["ctf"]:
            view["ctf"] |= {"reliable": True}
    copy.current("main", "ctf").group().update_attributes({"decides": decides})
    about = correct(copy, hand=hand).attributes()
    assert set(about["hand_scores"]) == {"as used", "opposite", "none", "error"}
    wrong = "hand −1 looks wrong: the rings agree better with +1 (by 0.0"
    assert (wrong in about["message"]) == (hand == -1)
    assert correct(copy, hand=hand, check_hand=False).attributes()["hand_scores"] == {}


def test_views_whose_rings_are_too_alike_are_not_compared(copy: Series) -> None:
    assert correct(copy).attributes()["hand_scores"] == {}  # 128 pixels: half a micrometre


def test_the_remedy_of_far_too_many_strips_is_what_made_them(copy: Series) -> None:
    for given, name in (
        ({"defocus_tolerance": 0.001}, "defocus_tolerance"),
        ({"strip_width": 1, "defocus_tolerance": 1e4}, "strip_width"),
        ({"strip_width": 1}, "strip_width"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tasks.ctf2d.MOST_STRIPS", 60)
            with pytest.raises(WrongParameter, match=f"use a larger ctf2d.{name}$"):
                correct(copy, **given)


def test_the_measured_hand_is_taken_and_the_other_one_differs(copy: Series) -> None:
    measured = copy.record("main").hand
    about = correct(copy).attributes()
    assert about[CTF_CORRECTED] == {"by": "ctf2d", "mode": "flip", "hand": measured or 1}
    fine = {"defocus_tolerance": 100.0}
    one, other = (np.asarray(correct(copy, hand=h, **fine).images()[:]) for h in (1, -1))
    assert np.abs(one[-1] - other[-1]).max() > 0.01
    assert np.array_equal(one[3], other[3])  # 0° has no sides


def test_widths_of_strips_and_of_blending_are_kept(copy: Series) -> None:
    rows = correct(copy, defocus_tolerance=1e5, strip_width=20, interpolation=10).attributes()
    for row in rows["table"]:
        if row["tilt angle [°]"]:
            # To be even, strips are a little narrower.
            assert 15 < row["strip width [pixels]"] <= 20.0001
        else:
            assert (row["strips"], row["strip width [pixels]"]) == (1, None)
    few = correct(copy, defocus_tolerance=300.0).attributes()["table"]
    for row in few:
        if row["strips"] > 1:
            assert row["highest [Å]"] - row["lowest [Å]"] <= 300.0001 * (row["strips"] - 1)


def test_dose_that_is_still_to_be_weighted_stays_so(copy: Series) -> None:
    made = correct(copy)
    assert Weighting.of(made) == Weighting.of(copy.current("main", "dose"))
    assert Weighting.of(made) is not None
    assert made.attributes()["dose_weighted"] is False
    assert Weighting.of(correct(copy, images="erase")) is None


def test_views_without_a_ctf_are_named(copy: Series) -> None:
    ctf = copy.current("main", "ctf")
    decides = ctf.attributes()["decides"]
    for view in decides["views"]:
        if view["ctf"]:
            view["ctf"] |= {"reliable": True}
    decides["views"][4]["ctf"] = None
    ctf.group().update_attributes({"decides": decides})
    about = correct(copy, correction="multiply").attributes()
    assert about["message"].endswith("CTF from their neighbours: views 5")
    assert about["table"][4]["CTF from"] == "view 4 and 6"
    assert about["table"][3]["CTF from"] == "itself"
    ends = [about["table"][i]["defocus [Å]"] for i in (3, 5)]
    assert about["table"][4]["defocus [Å]"] == pytest.approx(np.mean(ends))


def with_ctfs(record: TiltSeries, **changed: dict[str, Any] | None) -> TiltSeries:
    views = []
    for i, view in enumerate(record.views):
        given = changed.get(f"v{i}", {})
        ctf = None if given is None or view.ctf is None else view.ctf.model_copy(update=given)
        views.append(view.model_copy(update={"ctf": ctf}))
    return record.model_copy(update={"views": tuple(views)})


def test_missing_ctfs_lie_between_those_of_the_neighbours_in_tilt(record: TiltSeries) -> None:
    # Tilts −47, −20, 0, 13, 30, 47, 50 in order 6, 4, 1, 2, 3, 5, 7.
    changed = with_ctfs(
        record,
        v1={"defocus_u": 31000.0, "defocus_v": 30000.0, "astigmatism_angle": 80.0},
        v2=None,
        v3={"defocus_u": 21000.0, "defocus_v": 20000.0, "astigmatism_angle": -80.0},
        v4={"phase_shift": 40.0},
        v5={"phase_shift": 60.0},
    )
    found = ctf_of_views(changed)
    middle = found[2]
    assert middle.views == (1, 3)
    assert middle.ctf.defocus == pytest.approx(30500 - 10000 * 20 / 33)
    # Across ±90° the directions are near to each other: nothing cancels but by cos 20°.
    assert abs(abs(middle.ctf.astigmatism_angle) - 90) < 10
    assert middle.ctf.astigmatism > 1000 * np.cos(np.radians(20)) - 1
    last = found[6]
    assert (last.views, last.ctf.defocus_u) == ((5,), pytest.approx(30500.0))
    assert last.ctf.phase_shift == 0.0  # as the sixth exposure, the one before it, has it
    assert [one.views for one in found if len(one.views) == 1][:2] == [(0,), (1,)]


def test_a_fit_of_noise_counts_only_where_there_is_nothing_else(record: TiltSeries) -> None:
    lost = {"reliable": False, "uncertainty": None, "defocus_u": 5000.0, "defocus_v": 5000.0}
    assert ctf_of_views(with_ctfs(record, v3=lost))[3].views == (2, 4)
    known = {"reliable": False, "uncertainty": 300.0}  # what the other views expect
    assert ctf_of_views(with_ctfs(record, v3=known))[3].views == (3,)
    all_lost = with_ctfs(record, **{f"v{i}": lost for i in range(6)})
    assert ctf_of_views(all_lost)[3].ctf.defocus == 5000.0
    with pytest.raises(UnusableData, match="TS_01: no view has a CTF: `tiltflow ctf`"):
        ctf_of_views(with_ctfs(record, **dict.fromkeys((f"v{i}" for i in range(7)), None)))


def test_an_imported_ctf_counts_without_an_uncertainty(record: TiltSeries) -> None:
    plain = CtfEstimate(defocus_u=1e4, defocus_v=1e4, astigmatism_angle=0.0)
    views = [view.model_copy(update={"ctf": plain}) for view in record.views]
    found = ctf_of_views(record.model_copy(update={"views": tuple(views)}))
    assert [one.views for one in found] == [(i,) for i in range(7)]


def test_corrected_images_are_never_corrected_again(copy: Series) -> None:
    assert already_corrected(copy.current("main", "dose")) is None
    assert already_corrected(correct(copy)) == correct(copy).attributes()[CTF_CORRECTED]
    dose = copy.current("main", "dose")
    dose.group().update_attributes({CTF_CORRECTED: {"by": "another program", "mode": "flip"}})
    with pytest.raises(
        WrongParameter, match=r"TS_01: ctf2d: the images of dose-\w+ are already corrected.*flip"
    ):
        correct(copy, correction="multiply")


def test_images_that_came_corrected_are_never_corrected_again(copy: Series, tmp_path: Path) -> None:
    record = copy.imported()
    constants = record.acquisition.model_copy(update={"ctf_corrected": True})
    copy.project.add_series(record.model_copy(update={"acquisition": constants}))
    more = "or import with --ctf-corrected no if they are not$"
    with pytest.raises(WrongParameter, match=f"ctf2d: the images of .*: leave ctf2d out, {more}"):
        correct(copy)  # though results are there
    given = Ctf3dParameters(alignment="coarse", thickness=300.0)
    with pytest.raises(WrongParameter, match=f"leave ctf3d out, {more}"):
        ctf3d.fn(copy.project.url, "TS_01", given, "main", THREADS)
    with pytest.raises(WrongParameter, match=rf"leave ctf out \(run --until reconstruct\), {more}"):
        ctf.fn(copy.project.url, "TS_01", CtfParameters(), "main", THREADS)
    transform.fn(
        copy.project.url, "TS_01", TransformParameters(alignment="coarse"), "main", THREADS
    )
    about = copy.current("main", "transform").attributes()
    assert about[CTF_CORRECTED]["by"] == "another program"
    export_series(copy.project.url, "TS_01", "main", "mrc", tmp_path)
    user = ImportParameters(stack=str(tmp_path / "*_ali.mrc"), voltage=300, dose=3, tilt_axis=0)
    (source,) = find_sources(user).sources
    again = read_series.fn(source, user)
    assert again.acquisition.ctf_corrected
    assert any("CTF-corrected (unknown)" in line.source for line in again.import_report)


def test_what_is_made_from_corrected_images_is_corrected(copy: Series) -> None:
    made = correct(copy)
    given = TransformParameters(images="ctf2d", alignment="coarse")
    transform.fn(copy.project.url, "TS_01", given, "main", THREADS)
    stack = copy.current("main", "transform")
    assert stack.attributes()[CTF_CORRECTED] == made.attributes()[CTF_CORRECTED]
    assert stack.attributes()["dose_weighted"] is True
    # A result that says nothing is known by what its images come from.
    made.series.result("transform", stack.key).group().attrs.pop(CTF_CORRECTED)
    assert CTF_CORRECTED not in stack.attributes()
    assert already_corrected(stack) is not None
    plain = TransformParameters(alignment="coarse")
    transform.fn(copy.project.url, "TS_01", plain, "main", THREADS)
    assert already_corrected(copy.current("main", "transform")) is None


def test_broken_images_and_useless_values_are_told(copy: Series) -> None:
    with pytest.raises(WrongParameter, match=r"strips of 0\.001 Å.*larger ctf2d\.defocus_tol"):
        correct(copy, defocus_tolerance=0.001)
    ctf = copy.current("main", "ctf")
    decides = ctf.attributes()["decides"]
    decides["series"]["pretilt"] = None
    ctf.group().update_attributes({"decides": decides})
    with pytest.raises(WrongParameter, match="TS_01: the ctf step knows no pre-tilt"):
        correct(copy, pretilt=True)
    images = copy.current("main", "erase").array("images")
    broken = np.asarray(images[2])
    broken[5, 5] = np.nan
    images[2] = broken
    with pytest.raises(UnusableData, match="TS_01: view 3 has pixels that are no numbers"):
        correct(copy, correction="multiply")


@pytest.mark.parametrize("word", ["good", "doubtful"])
def test_strips_follow_the_plane_that_was_measured_where_that_is_sure(
    copy: Series, word: str
) -> None:
    measured = copy.current("main", "thickness")
    slab = {"thickness": 300.0, "centre": 0.0, "pitch": 6.0, "rise": 0.0}
    measured.group().update_attributes(
        {"slab": slab, "verdict": {"word": word, "reasons": ["two disagree"]}}
    )
    (step,) = {"align", "markerfree", "coarse"} & set(measured.attributes()["inputs"])
    aligned = copy.record_of({"exclude": copy.pointer("main", "exclude") or "",
                              step: measured.attributes()["inputs"][step]})  # fmt: skip
    raw = nominal(copy)
    made = correct(copy, by_position=True, defocus_tolerance=50.0).attributes()
    more = float(np.median([aligned.geometry(i).tilt - raw.geometry(i).tilt for i in raw.included]))
    pitch = 6.0 + more if word == "good" else 0.0
    assert f"turned by {pitch:.1f}°".replace("-", "−") in made["message"]
    wide = made["table"][-1]
    tilt = np.radians(raw.views[-1].tilt_angle + pitch)
    expected = 128 * PIXEL * abs(np.tan(tilt))
    assert wide["highest [Å]"] - wide["lowest [Å]"] == pytest.approx(expected, rel=0.15)


def test_the_pretilt_adds_to_the_tilt(copy: Series) -> None:
    ctf = copy.current("main", "ctf")
    decides = ctf.attributes()["decides"]
    decides["series"]["pretilt"] = {
        **{"about_axis": 10.0, "across_axis": 0.0},
        **{"about_error": 1.0, "across_error": 1.0},
    }
    ctf.group().update_attributes({"decides": decides})
    rows = {
        on: correct(copy, pretilt=on, defocus_tolerance=50.0).attributes()["table"]
        for on in (False, True)
    }
    spans = {
        on: [row["highest [Å]"] - row["lowest [Å]"] for row in table] for on, table in rows.items()
    }
    tilts = [row["tilt angle [°]"] for row in rows[True]]
    assert spans[False][tilts.index(20.0)] == pytest.approx(
        spans[True][tilts.index(10.0)], rel=1e-6
    )


def test_a_unit_takes_no_more_memory_than_is_stated(record: TiltSeries) -> None:
    shape = (700, 650)
    image = np.random.default_rng(0).normal(10, 1, (1, *shape)).astype(np.float32)
    held = cast("Result", SimpleNamespace(images=image.copy, array=lambda name: image.copy()))
    ctf = replace(ctf_of_views(record)[0].ctf, defocus_u=30000.0)
    slope = slope_in_raw(record.geometry(0), 1)
    strips = lay_strips(shape, 2.7, slope, 500.0)
    margin, how = margin_of(ctf, 2.7, strips), Correction("wiener")
    correct_view(held, held, 0, ctf, 2.7, slope, strips, how, margin)  # compiles
    tracemalloc.start()
    correct_view(held, held, 0, ctf, 2.7, slope, strips, how, margin)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.5 < peak / (memory_of_view(shape, margin) - BASE_BYTES) < 1
