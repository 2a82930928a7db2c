"""Erasing and dose weighting: from images to images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from kernels.dose import weight_image
from tasks.dose import dose
from tasks.erase import erase
from tasks.parameters import DoseParameters, EraseParameters, Execution
from tasks.store import Series, parse_project
from tasks.truth import read_truth

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


def test_views_are_weighted_by_the_dose_at_their_end(done: Series, tiny_data: Path) -> None:
    weighted, record = done.current("main", "dose"), done.imported()
    assert weighted.attributes()["dose_weighted"] is True
    source = done.current("main", "erase").images()
    for i, planned in enumerate(read_truth(tiny_data).series[0].views):
        exposure = planned.prior_dose + 3.0
        assert record.views[i].prior_dose == planned.prior_dose
        expected = weight_image(source[i], exposure, 5.4, 300.0)
        np.testing.assert_allclose(weighted.images()[i], expected, rtol=1e-5, atol=1e-5)
    doses = [row["dose at the end [e/Å²]"] for row in weighted.attributes()["table"]]
    assert sorted(doses) == [3.0 * i for i in range(1, 8)]


def test_weighting_reads_erased_images_that_are_never_weighted_before(done: Series) -> None:
    inputs = done.current("main", "dose").attributes()["inputs"]
    assert inputs == {"erase": done.pointer("main", "erase")}
    for step in ("motion", "erase"):
        assert "dose_weighted" not in done.current("main", step).attributes()
    # Estimating the CTF never sees weighted images.
    assert "dose" not in done.current("main", "ctf").attributes()["inputs"]


def test_a_voltage_without_critical_doses_asks_for_the_ratio(
    tmp_path: Path, finished_project: str
) -> None:
    from tasks.discover import mdoc_source
    from tasks.ingest import read_series, store_series
    from tasks.parameters import ImportParameters

    project = str(shutil.copytree(finished_project, tmp_path / "p.zarr"))
    movie = parse_project(project).series("TS_01").imported().views[0].movie.path
    mdoc = Path(movie).parents[1] / "TS_01.mrc.mdoc"
    given = ImportParameters(mdoc="x", voltage=100, gain=str(mdoc.parent / "gain.mrc"))
    store_series.fn(project, read_series.fn(mdoc_source(mdoc), given))
    with pytest.raises(ValueError, match="100"):
        dose.fn(project, "TS_01", DoseParameters(), "main", THREADS)
    outcome = dose.fn(project, "TS_01", DoseParameters(critical_dose_ratio=0.5), "main", THREADS)
    assert "7 views weighted" in outcome.message
