"""Dose weighting: said once, applied once, whoever reads the images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.dose import weight_image
from tasks.chunks.dose import Weighting
from tasks.coarse import coarse
from tasks.ctf3d import ctf3d
from tasks.dose import dose
from tasks.errors import WrongParameter
from tasks.parameters import (
    CoarseParameters,
    Ctf3dParameters,
    DoseParameters,
    Execution,
    ImportParameters,
    ReconstructParameters,
)
from tasks.reconstruct import reconstruct
from tasks.simulate import read_truth
from tasks.store import Series, parse_project

THREADS = Execution(cluster="threads")


@pytest.fixture
def copy(tmp_path: Path, finished_project: str) -> str:
    return str(shutil.copytree(finished_project, tmp_path / "p.zarr"))


def series_of(project: str) -> Series:
    return parse_project(project).series("TS_01")


def test_images_stay_as_they_are_and_say_how_they_are_weighted(
    finished_project: str, tiny_data: Path
) -> None:
    done = series_of(finished_project)
    result = done.current("main", "dose")
    assert result.images().path == done.current("main", "erase").images().path
    assert result.attributes()["dose_weighted"] is False
    weighting = Weighting.of(result)
    assert weighting is not None
    planned = [view.prior_dose + 3.0 for view in read_truth(tiny_data).series[0].views]
    assert weighting.exposures == tuple(planned)
    assert result.attributes()["inputs"] == {"erase": done.pointer("main", "erase")}


def test_written_images_are_weighted_by_the_dose_at_their_end(copy: str) -> None:
    dose.fn(copy, "TS_01", DoseParameters(write=True), "main", THREADS)
    done = series_of(copy)
    result, source = done.current("main", "dose"), done.current("main", "erase").images()
    assert result.attributes()["dose_weighted"] is True
    assert Weighting.of(result) is None
    for i, view in enumerate(done.imported().views):
        expected = weight_image(source[i], view.prior_dose + view.dose, 5.4, 300.0)
        np.testing.assert_allclose(result.images()[i], expected, rtol=1e-5, atol=1e-5)


def test_the_middle_of_a_view_has_seen_half_its_dose(copy: str) -> None:
    dose.fn(copy, "TS_01", DoseParameters(moment="middle"), "main", THREADS)
    weighting = Weighting.of(series_of(copy).current("main", "dose"))
    assert weighting is not None
    views = series_of(copy).imported().views
    assert weighting.exposures == tuple(view.prior_dose + view.dose / 2 for view in views)


def test_weights_on_reading_and_written_ones_give_the_same_alignment_and_tomogram(
    copy: str,
) -> None:
    parameters = ReconstructParameters(alignment="coarse", thickness=600.0, binning=2)
    found = {}
    for write in (False, True):
        dose.fn(copy, "TS_01", DoseParameters(write=write), "main", THREADS)
        coarse.fn(copy, "TS_01", CoarseParameters(), "main", THREADS)
        reconstruct.fn(copy, "TS_01", parameters, "main", THREADS)
        done = series_of(copy)
        shifts = [view.geometry.shift_x for view in done.record("main").views if view.geometry]
        found[write] = np.asarray(shifts), done.current("main", "reconstruct").array("0")[:]
    np.testing.assert_allclose(found[True][0], found[False][0], atol=0.05)
    spread = found[False][1].std()
    assert np.abs(found[True][1] - found[False][1]).max() < 0.02 * spread
    dose.fn(copy, "TS_01", DoseParameters(apply=False), "main", THREADS)
    coarse.fn(copy, "TS_01", CoarseParameters(), "main", THREADS)
    reconstruct.fn(copy, "TS_01", parameters, "main", THREADS)
    without = series_of(copy).current("main", "reconstruct").array("0")[:]
    assert np.abs(without - found[False][1]).max() > 0.2 * spread  # weights do something at all


@pytest.mark.parametrize("step", ["reconstruct", "ctf3d"])
def test_halves_of_frames_are_weighted_whether_images_are_written_or_not(
    copy: str, step: str
) -> None:
    given: dict[str, Any] = {"alignment": "coarse", "thickness": 300.0, "halves": "frames"}
    task: Any = {"reconstruct": reconstruct, "ctf3d": ctf3d}[step]
    model: Any = {"reconstruct": ReconstructParameters, "ctf3d": Ctf3dParameters}[step]
    if step == "ctf3d":
        given["check_hand"] = False
    found = {}
    for word, chosen in {
        "read": DoseParameters(),
        "written": DoseParameters(write=True),
        "none": DoseParameters(apply=False),
    }.items():
        dose.fn(copy, "TS_01", chosen, "main", THREADS)
        task.fn(copy, "TS_01", model(**given), "main", THREADS)
        found[word] = series_of(copy).current("main", step).array("odd")[:]
    scale = np.abs(found["read"]).max()
    np.testing.assert_allclose(found["written"], found["read"], atol=1e-5 * scale)
    assert np.abs(found["none"] - found["read"]).max() > 0.05 * scale


def test_images_weighted_before_the_import_are_weighted_no_more(copy: str) -> None:
    from tasks.discover import mdoc_source
    from tasks.ingest import read_series, store_series

    movie = series_of(copy).imported().views[0].movie.path
    mdoc = Path(movie).parents[1] / "TS_01.mrc.mdoc"
    given = ImportParameters(mdoc="x", gain=str(mdoc.parent / "gain.mrc"), dose_weighted=True)
    store_series.fn(copy, read_series.fn(mdoc_source(mdoc), given))
    outcome = dose.fn(copy, "TS_01", DoseParameters(write=True), "main", THREADS)
    assert "before the import" in outcome.message
    result = series_of(copy).current("main", "dose")
    assert result.attributes()["dose_weighted"] is True
    assert Weighting.of(result) is None
    assert result.images().path == series_of(copy).current("main", "erase").images().path


def test_the_ctf_never_sees_weighted_images(finished_project: str) -> None:
    assert "dose" not in series_of(finished_project).current("main", "ctf").attributes()["inputs"]


def test_a_voltage_without_critical_doses_asks_for_the_ratio(copy: str) -> None:
    from tasks.discover import mdoc_source
    from tasks.ingest import read_series, store_series

    movie = series_of(copy).imported().views[0].movie.path
    mdoc = Path(movie).parents[1] / "TS_01.mrc.mdoc"
    given = ImportParameters(mdoc="x", voltage=100, gain=str(mdoc.parent / "gain.mrc"))
    store_series.fn(copy, read_series.fn(mdoc_source(mdoc), given))
    with pytest.raises(WrongParameter, match=r"100.*--critical-dose-ratio"):
        dose.fn(copy, "TS_01", DoseParameters(), "main", THREADS)
    outcome = dose.fn(copy, "TS_01", DoseParameters(critical_dose_ratio=0.4), "main", THREADS)
    assert "weighted" in outcome.message


def test_noise_of_the_sum_is_kept_where_that_is_asked_for() -> None:
    rng = np.random.default_rng(5)
    exposures = (3.0, 30.0, 60.0, 120.0)
    weighting = Weighting(exposures, 300.0, None, exposures)
    plain = Weighting(exposures, 300.0)
    views = rng.normal(size=(len(exposures), 256, 256)).astype(np.float32)
    total, bare = (
        sum(one.weighted(view, i, 2.0) for i, view in enumerate(views))
        for one in (weighting, plain)
    )
    assert np.var(total) == pytest.approx(len(exposures), rel=0.01)
    assert np.var(bare) < 0.5 * len(exposures)
