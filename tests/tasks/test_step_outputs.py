"""A step whose output on a fixed input changes must get a new version, which names its results.

After raising a step's version in tasks/steps.py, record its new output beside it::

    python tests/tasks/test_step_outputs.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.tomogram import STEP_TASKS
from kernels.ctf import Ctf, ctf_2d
from kernels.fourier import frequencies
from kernels.geometry import View
from kernels.geometry import project as project_points
from tasks.discover import mdoc_source
from tasks.formats.imod import FiducialPoint, write_points
from tasks.formats.mrc import write_stack
from tasks.ingest import read_series, store_series
from tasks.parameters import AlignParameters, Execution, ImportParameters, Pipeline
from tasks.steps import STEPS
from tasks.store import Series, parse_project

RECORDED = Path(__file__).with_name("step_outputs.json")
TILTS = (0.0, 2.0, -2.0, -4.0, 4.0, 6.0, -6.0)
SIZE, FRAMES, PIXEL = 128, 3, 2.7
PARAMETERS = Pipeline.model_validate(
    {"coarse": {"pixel_size": 5.4}, "markerfree": {"pixel_size": 5.4, "thickness": 200.0}}
    | {"thickness": {"height": 1200.0}, "reconstruct": {"thickness": 200.0}}
)
BEADS = np.random.default_rng(2).uniform(-280, 280, (9, 3)) * (1, 1, 0.4)  # Å
TOLERANCE = 2e-3  # of a value, or of how far values spread: processors round differently


def write_movies(folder: Path) -> Path:
    """Write movies of one texture with Thon rings, which moves by whole pixels, and noise.

    Nothing of the simulator is used, and rounding to counts keeps them the same everywhere.
    """
    rng = np.random.default_rng(1)
    ky, kx = frequencies((SIZE, SIZE), np.zeros(1, np.float32), PIXEL)
    spectrum = np.fft.rfft2(rng.normal(size=(SIZE, SIZE))) * ctf_2d(ky, kx, Ctf(21e3, 20e3, 30))
    texture = 12 * np.fft.irfft2(spectrum * np.exp(-60 * (ky**2 + kx**2)), (SIZE, SIZE))
    texture[40:46, 70:76] -= 25
    text = f"PixelSpacing = {PIXEL}\nVoltage = 300\n[T = Tilt axis angle = 85.3, binning = 1]\n"
    for order, tilt in enumerate(TILTS):
        place = rng.integers(-6, 7, 2)
        frames = [
            np.rint(40 + np.roll(texture, np.add(place, (t * (order % 3 - 1), t)), (0, 1)))
            + rng.integers(-3, 4, (SIZE, SIZE))
            for t in range(FRAMES)
        ]
        movie = np.clip(frames, 0, 200).astype(np.int16)
        movie[1, 90 + order, 20] = 900  # an X-ray
        write_stack(folder / f"m{order}.mrc", movie, PIXEL)
        text += f"\n[ZValue = {order}]\nTiltAngle = {tilt}\nSubFramePath = m{order}.mrc\n"
    (folder / "fixed.mdoc").write_text(text)
    return folder / "fixed.mdoc"


def write_beads(path: Path) -> None:
    """Write where beads would be seen, to 0.3 pixels: the movies have none."""
    rng = np.random.default_rng(3)
    points = []
    for i, tilt in enumerate(sorted(TILTS)):
        places = project_points(BEADS, View(tilt, 84.9, 7.0 * i, -4.0 * i, 1 + 1e-3 * i)) / PIXEL
        for j, (x, y) in enumerate(places + rng.normal(0, 0.3, places.shape) + SIZE // 2):
            points.append(FiducialPoint(j + 1, i + 1, x, y))
    write_points(path, points)


def run(folder: Path) -> Series:
    project = str(folder / "p.zarr")
    write_beads(folder / "beads.csv")
    align = AlignParameters(beads_from=str(folder / "beads.csv"))
    pipeline = PARAMETERS.model_copy(update={"align": align})
    given = ImportParameters(mdoc="x", dose=3.0)
    store_series.fn(project, read_series.fn(mdoc_source(write_movies(folder)), given))
    for step in STEPS:
        execution = Execution(cluster="threads", workers=2)
        STEP_TASKS[step].fn(project, "fixed", getattr(pipeline, step), "main", execution)
    return parse_project(project).series("fixed")


def output_of(series: Series, step: str) -> dict[str, list[float]]:
    """Return statistics of everything that a step has written or decided."""
    result = series.current("main", step)
    values: dict[str, Any] = {name: array[:] for name, array in result.group().arrays()}
    for i, view in enumerate(result.attributes()["decides"]["views"]):
        for kind, decided in view.items():
            fields = decided if isinstance(decided, dict) else {kind: decided is not None}
            for name, decision in fields.items():
                # Of a word any number does that another word does not have.
                value = sum(decision.encode()) if isinstance(decision, str) else decision
                values.setdefault(f"{kind}.{name}", np.zeros(len(TILTS)))[i] = value or 0
    return {name: statistics(array) for name, array in sorted(values.items())}


def statistics(array: Any) -> list[float]:
    """Return mean, deviation and two moments that notice a flip or a transposition."""
    flat = np.nan_to_num(np.asarray(array, dtype=np.float64)).ravel()
    ramp = np.linspace(-1, 1, flat.size)
    moments = (flat.mean(), flat.std(), (flat * ramp).mean(), (flat * np.cos(37 * ramp)).mean())
    return [float(f"{value:.6g}") for value in moments]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return run(tmp_path_factory.mktemp("fixed"))


@pytest.mark.parametrize("step", STEPS)
def test_the_output_on_a_fixed_input_is_the_recorded_one_of_this_version(
    series: Series, step: str
) -> None:
    recorded = json.loads(RECORDED.read_text())[step]
    assert recorded["version"] == STEPS[step].version, f"record it: python {Path(__file__).name}"
    found = output_of(series, step)
    assert sorted(found) == sorted(recorded["output"])
    for name, expected in recorded["output"].items():
        spread = max(abs(expected[0]), expected[1])
        assert found[name] == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE * spread), (
            f"{name} of {step} changed: if nothing before it did, raise its version in "
            f"tasks/steps.py and record the new output: python tests/tasks/{Path(__file__).name}"
        )


def record() -> None:
    with tempfile.TemporaryDirectory() as folder:
        series = run(Path(folder))
        outputs = {
            step: {"version": STEPS[step].version, "output": output_of(series, step)}
            for step in STEPS
        }
    before = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    for step, found in outputs.items():
        if found != before.get(step):
            print(f"{step}: version {found['version']} recorded", file=sys.stderr)
    RECORDED.write_text(json.dumps(outputs, indent=1) + "\n")


if __name__ == "__main__":
    record()
