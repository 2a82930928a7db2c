"""A tiny project whose results are written by hand: no movies, no computing, no Dask."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from tasks import plots_ctf, plots_ctf_view, plots_erase, plots_motion, plots_power
from tasks.choice import settled, settled_ctf, usable_ctf
from tasks.parameters import Pipeline
from tasks.record import Acquisition, FileIdentity, ImportedField, TiltSeries, View
from tasks.result import Result
from tasks.result_keys import result_key
from tasks.steps import STEPS, inputs_of
from tasks.store import Series, parse_project

TILTS = (-47.0, -20.0, 0.0, 13.0, 30.0, 47.0, 50.0)
EXCLUDED = 6  # index of the dark view
FRAMES = 4
MODELS = ("local", "local", "local", "global", "global", "local", "none")
FUNCTIONS = (5, 5, 5, 0, 0, 2, 0)  # of the local motion of each view, of 9 that there are


def imported(name: str = "TS_01", shape: tuple[int, int] = (80, 96)) -> TiltSeries:
    """Return a record of seven views as imported."""
    views = [
        View(
            tilt_angle=tilt,
            order=order,
            prior_dose=3.0 * (order - 1),
            dose=3.0,
            frames=FRAMES,
            movie=FileIdentity(
                path=f"/raw/{name}_{order}.mrc",
                name=f"{name}_{order}.mrc",
                size=order,
                digest=f"{order:x}",
                mtime_ns=0,
            ),
        )
        for tilt, order in zip(TILTS, (6, 4, 1, 2, 3, 5, 7), strict=True)
    ]
    return TiltSeries(
        name=name,
        acquisition=Acquisition(voltage=300, pixel_size=1.35, tilt_axis=85.3),
        shape=shape,
        views=tuple(views),
        import_report=(
            ImportedField(field="pixel size", value="1.35 Å", source="mdoc"),
            ImportedField(
                field="tilt axis", value="85.3°", source="mdoc", conflict="title says <84.1°>"
            ),
        ),
    )


class FakeRun:
    """Writes results of a series on a branch, named as a run would name them."""

    def __init__(self, series: Series, pipeline: Pipeline, branch: str) -> None:
        self.series, self.pipeline, self.branch = series, pipeline, branch

    def begin(self, step: str) -> Result:
        """Return the result of a step whose inputs are those of the branch."""
        key = result_key(
            STEPS[step], getattr(self.pipeline, step), self.series.imported(), self.inputs(step)
        )
        return self.series.result(step, key)

    def inputs(self, step: str) -> dict[str, str]:
        """Return the keys of what a step reads."""
        keys = {}
        for name in inputs_of(STEPS[step], getattr(self.pipeline, step)):
            key = self.series.pointer(self.branch, name)
            assert key is not None, f"{step} needs {name}"
            keys[name] = key
        return keys

    def finish(
        self,
        step: str,
        message: str = "done",
        views: list[dict[str, Any]] | None = None,
        table: list[dict[str, Any]] | None = None,
        **extra: Any,
    ) -> Result:
        """Make a result complete, and let the branch use it."""
        result = self.begin(step)
        now = datetime.now(UTC).isoformat()
        result.finish(
            {
                "step": step,
                "version": STEPS[step].version,
                "parameters": getattr(self.pipeline, step).model_dump(mode="json"),
                "inputs": self.inputs(step),
                "software": {"tiltflow": "0.1.0"},
                "started": now,
                "ended": now,
                "decides": {"views": views or [], "series": {}},
                "message": message,
                "table": table or [],
                **extra,
            }
        )
        self.series.point(self.branch, step, result.key)
        return result

    def motion(self, older: bool = False) -> Result:
        """Write images, halves and motion: all different, so that a swap shows.

        `older`: only what the first version wrote of motion, and no halves, as of a stack.
        """
        binning = self.pipeline.motion.binning
        rows, columns = (int(n // binning) for n in self.series.imported().shape)
        rng = np.random.default_rng(1)
        result, n = self.begin("motion"), len(TILTS)
        for name in ("images",) if older else ("images", "odd", "even"):
            array = result.create_array(name, (n, rows, columns), (1, rows, columns))
            array[:] = rng.normal(100, 10, (n, rows, columns)).astype("float32")
        steps = rng.normal(0, 0.4, (n, FRAMES, 2))
        steps[:, 0] = 0
        shifts = result.create_array("shifts", (n, FRAMES, 2), (1, FRAMES, 2), dtype="float64")
        shifts[:] = steps.cumsum(axis=1)
        views = [
            {"total": 2.0 + i, "early": 1.5, "late": 0.5 + i, "reliable": True} for i in range(n)
        ]
        if not older:
            self.local_motion(result, rng)
            for view, model in zip(views, MODELS, strict=True):
                view |= {"model": model, "reliable": model != "none"}
                view |= {"significance": 12.0, "evidence": 7.5, "local": 0.6 * (model == "local")}
        return self.finish(
            "motion",
            "7 movies, median motion 2.1 Å",
            [{"motion": view} for view in views],
            [{"view": i + 1, "mean": 100.0 - i, "significance [σ]": 9.0} for i in range(n)],
            means=[100.0 - i for i in range(n)],
            profile_step=1 / (64 * 1.35),
        )

    def local_motion(self, result: Result, rng: np.random.Generator) -> None:
        """Write local motion of some views, zero in the first frame, and power spectra."""
        n, most = len(TILTS), 9
        array = result.create_array(
            "local", (n, FRAMES, most, 2), (1, FRAMES, most, 2), dtype="float64"
        )
        local = np.full((n, FRAMES, most, 2), np.nan)
        for i, functions in enumerate(FUNCTIONS):
            steps = rng.normal(0, 0.2, (FRAMES, functions, 2))
            steps[:1] = 0
            local[i, :, :functions] = steps.cumsum(axis=0)
        array[:] = local
        profiles = rng.uniform(1, 1.01, (n, 2, 32)).astype("float32")
        result.create_array("profiles", (n, 2, 32), (1, 2, 32))[:] = profiles

    def exclude(self) -> Result:
        """Leave out the last view."""
        reasons = [None] * EXCLUDED + ["dark: mean 2 where 94 is expected"]
        return self.finish("exclude", "1 of 7", [{"excluded": reason} for reason in reasons])

    def ctf(self) -> Result:
        """Write a defocus for each view that is not excluded."""
        estimates = [
            {
                "defocus_u": 30000.0 + 100 * i,
                "defocus_v": 28000.0,
                "astigmatism_angle": 10.0 + i,
                "fit_resolution": 6.0 + i,
                "score": 0.2,
                "uncertainty": 50.0,
                "reliable": i != 0,
            }
            for i in range(EXCLUDED)
        ]
        result = self.begin("ctf")
        profiles = np.random.default_rng(4).uniform(-1, 1, (len(TILTS), 6, 40))
        profiles[:, 0] = np.linspace(1 / 30, 1 / 5, 40)
        profiles[EXCLUDED] = np.nan
        stored = result.create_array(
            "profiles", profiles.shape, profiles.shape, "float64", by_units=False
        )
        stored[:] = profiles
        return self.finish("ctf", "2.9 µm", [{"ctf": e} for e in estimates] + [{"ctf": None}])

    def align(self, step: str, seed: int = 2, x_tilt: float = 0.0) -> Result:
        """Write a geometry for each view that is not excluded."""
        if step == "markerfree":
            there = bool(usable_ctf(self.series, self.branch))
            chosen = settled_ctf(self.pipeline.markerfree, there)
            self.pipeline = self.pipeline.model_copy(update={"markerfree": chosen})
        rng = np.random.default_rng(seed)
        geometry: list[dict[str, Any]] = [
            {
                "geometry": {
                    "tilt": round(tilt + 0.3, 3),
                    "axis": 85.1 + 0.1 * seed,
                    "shift_x": float(rng.normal(0, 20)),
                    "shift_y": float(rng.normal(0, 20)),
                    "magnification": float(rng.normal(1, 0.01)),
                    "x_tilt": x_tilt,
                }
            }
            for tilt in TILTS[:EXCLUDED]
        ]
        return self.finish(step, "aligned", [*geometry, {"geometry": None}])

    def thickness(self, word: str = "good", **given: float) -> Result:
        """Write where the specimen lies."""
        slab = {"thickness": 1200.0, "centre": -30.0, "pitch": 1.5, "rise": -0.5, **given}
        verdict = {"word": word, "reasons": [] if word == "good" else ["two disagree"]}
        return self.finish("thickness", slab=slab, verdict=verdict, pixel_size=20.25)

    def reconstruct(self, shape: tuple[int, int, int], binning: int = 1, **extra: Any) -> Result:
        """Write a tomogram of random voxels with one level of half the size."""
        if self.pipeline.reconstruct.by_position and not self.series.pointer(
            self.branch, "thickness"
        ):
            self.thickness()
        motion = self.pipeline.motion.binning
        voxel = self.series.imported().acquisition.pixel_size * motion * binning
        result = self.begin("reconstruct")
        volume = np.random.default_rng(3).normal(size=shape).astype("float32")
        for level, values in enumerate((volume, volume[::2, ::2, ::2])):
            chunks = tuple(min(64, n) for n in values.shape)
            result.create_array(str(level), values.shape, chunks)[:] = values
        parameters = self.pipeline.reconstruct
        return self.finish(
            "reconstruct",
            "tomogram",
            pixel_size=voxel,
            binning=binning,
            centre=[0.0, 0.0, 0.0 if parameters.z_shift == "auto" else parameters.z_shift],
            alignment=parameters.alignment,
            shape=list(shape),
            **extra,
        )

    def up_to_alignment(self, x_tilt: float = 0.0) -> None:
        """Write every step before the tomogram."""
        self.motion()
        self.exclude()
        self.ctf()
        self.finish("erase")
        self.finish("dose", images_in=self.begin("motion").path)
        self.align("coarse", 2, x_tilt)
        self.fiducials(enough=False)
        self.align("markerfree", 3, x_tilt)

    def fiducials(self, enough: bool) -> Result:
        """Say whether there are enough beads, and settle the alignment by it."""
        result = self.finish("fiducials", enough_beads=enough)
        self.pipeline = settled(self.pipeline, result)
        return result


@pytest.fixture
def fake_run_class() -> type[FakeRun]:
    """Return what writes results of a series by hand."""
    return FakeRun


@pytest.fixture
def fake_run(tmp_path: Path) -> Callable[..., FakeRun]:
    """Return the function that makes a series in a project and a run to fill it."""

    def make(
        name: str = "TS_01",
        shape: tuple[int, int] = (80, 96),
        pipeline: Pipeline = Pipeline(),
        branch: str = "main",
    ) -> FakeRun:
        project = parse_project(str(tmp_path / "project.zarr"))
        return FakeRun(project.add_series(imported(name, shape)), pipeline, branch)

    return make


@pytest.fixture
def record(fake_run: Callable[..., Any]) -> TiltSeries:
    """Return the record of a series whose CTF is known."""
    run = fake_run()
    run.motion()
    run.exclude()
    run.ctf()
    record: TiltSeries = run.series.record("main")
    return record


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are drawn."""
    drawn: list[Figure] = []

    def keep(figure: Figure) -> str:
        drawn.append(figure)
        return ""

    for module in (plots_ctf, plots_ctf_view, plots_erase, plots_motion, plots_power):
        monkeypatch.setattr(module, "svg", keep)
    return drawn
