"""A view that is left out leaves no trace: as if it had never been in the stack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.tomogram import STEP_TASKS
from kernels.ctf import Ctf, ctf_2d
from tasks.discover import find_sources
from tasks.formats.mrc import write_stack
from tasks.ingest import read_series, store_series
from tasks.parameters import Execution, ImportParameters, Pipeline
from tasks.store import Series, parse_project

PIXEL = 2.7
TILTS = (-16.0, -12.0, -8.0, -4.0, 0.0, 4.0, 8.0, 12.0, 16.0)
SIZE = 128
OUT = (0, 5)  # indices of the views left out: an end, and one in the middle
STEPS = (
    "motion",
    "exclude",
    "ctf",
    "erase",
    "dose",
    "coarse",
    "markerfree",
    "thickness",
    "reconstruct",
)
PIPELINE: dict[str, dict[str, Any]] = {
    "exclude": {"views": {"TS": ",".join(str(i + 1) for i in OUT)}},
    "dose": {"keep_noise": True},
    "coarse": {"pixel_size": 5.4},
    "markerfree": {"pixel_size": 5.4, "thickness": 200.0},
    # By the coarse alignment, which is equal to the last digits: what iterates to a tolerance is
    # equal to 1e-5 (test_the_alignment_is_the_same).
    "thickness": {"height": 1200.0, "alignment": "coarse"},
    "reconstruct": {"thickness": 200.0, "binning": 2, "alignment": "coarse"},
}


def views_of_a_specimen() -> np.ndarray[Any, Any]:
    """Return counts (view, y, x) of a texture that moves, with hits and a bad pixel.

    The views that are left out are the worst that can be: nothing but noise, far too bright.
    """
    rng = np.random.default_rng(7)
    y, x = np.meshgrid(np.fft.fftfreq(SIZE), np.fft.rfftfreq(SIZE), indexing="ij")
    rings = ctf_2d(y / PIXEL, x / PIXEL, Ctf(21e3, 20e3, 30))
    spectrum = np.fft.rfft2(rng.normal(size=(SIZE, SIZE))) * rings * np.exp(-8 * (x**2 + y**2))
    texture = 60 + 25 * np.fft.irfft2(spectrum, (SIZE, SIZE))
    stack = [rng.poisson(np.clip(np.roll(texture, rng.integers(-5, 6, 2), (0, 1)), 1, None))
             for _ in TILTS]  # fmt: skip
    for i in OUT:
        stack[i] = rng.poisson(900, (SIZE, SIZE))
    counts = np.array(stack, dtype=np.int16)
    counts[:, 30, 40] = 3000
    counts[3, 80:82, 90] = 900
    return counts


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Series, Series]:
    """Return the series with its views masked, and the one from which they were removed."""
    counts = views_of_a_specimen()
    folder = tmp_path_factory.mktemp("masked")
    everything = tuple(range(len(TILTS)))
    kept = tuple(i for i in everything if i not in OUT)
    masked = run(folder / "masked", counts, everything, PIPELINE)
    removed = run(folder / "removed", counts, kept, {**PIPELINE, "exclude": {}})
    return masked, removed


def run(
    folder: Path,
    counts: np.ndarray[Any, Any],
    chosen: Sequence[int],
    pipeline: dict[str, dict[str, Any]],
) -> Series:
    folder.mkdir()
    write_stack(folder / "TS.st", counts[list(chosen)], PIXEL)
    (folder / "TS.rawtlt").write_text("".join(f"{TILTS[i]}\n" for i in chosen))
    given = ImportParameters(
        stack=str(folder / "TS.st"), dose=3, tilt_axis=85, voltage=300, pixel_size=PIXEL
    )
    (source,) = find_sources(given).sources
    record = read_series.fn(source, given)
    # The views removed have been taken all the same: their dose and their place in time stay.
    views = [
        view.model_copy(update={"order": i + 1, "prior_dose": 3.0 * i})
        for view, i in zip(record.views, chosen, strict=True)
    ]
    project = str(folder / "p.zarr")
    store_series.fn(project, record.model_copy(update={"views": tuple(views)}))
    parameters = Pipeline.model_validate(pipeline)
    execution = Execution(cluster="threads", workers=2)
    for step in STEPS:
        STEP_TASKS[step].fn(project, "TS", getattr(parameters, step), "main", execution)
    return parse_project(project).series("TS")


def test_exactly_those_views_are_left_out(both: tuple[Series, Series]) -> None:
    masked, removed = (series.record("main") for series in both)
    assert tuple(i for i, view in enumerate(masked.views) if view.excluded is not None) == OUT
    assert all(view.excluded is None for view in removed.views)


@pytest.mark.parametrize("step", ["motion", "erase"])
def test_the_images_are_the_same(both: tuple[Series, Series], step: str) -> None:
    masked, removed = (series.current("main", step).images()[:] for series in both)
    np.testing.assert_allclose(np.delete(masked, OUT, axis=0), removed, rtol=1e-5)


def test_the_ctf_is_the_same(both: tuple[Series, Series]) -> None:
    masked, removed = (series.record("main") for series in both)
    assert masked.hand == removed.hand
    for i, view in zip(masked.included, removed.views, strict=True):
        one, other = masked.views[i].ctf, view.ctf
        assert one is not None
        assert other is not None
        for name, value in one.model_dump().items():
            expected = getattr(other, name)
            if isinstance(expected, float):
                expected = pytest.approx(expected, rel=1e-5)
            assert value == expected, name
    assert any(view.ctf and view.ctf.reliable for view in removed.views)


@pytest.mark.parametrize("step", ["coarse", "markerfree"])
def test_the_alignment_is_the_same(both: tuple[Series, Series], step: str) -> None:
    found = []
    for series in both:
        views = series.current("main", step).attributes()["decides"]["views"]
        found.append([list(v["geometry"].values()) for v in views if v["geometry"]])
    # Matching iterates to a tolerance: it ends within 2e-4 pixels of the same place.
    near = 1e-5 if step == "coarse" else 1e-3
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=near)
    assert np.ptp(np.array(found[1])[:, 2]) > 5  # Å: there was something to align


def test_the_tomogram_is_the_same(both: tuple[Series, Series]) -> None:
    masked, removed = (series.current("main", "reconstruct").array("0")[:] for series in both)
    np.testing.assert_allclose(masked, removed, atol=1e-5 * float(removed.std()))
