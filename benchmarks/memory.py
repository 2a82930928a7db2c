"""What slabs of an unbinned tomogram take in a worker of 8 GB, beside what the task states.

python benchmarks/memory.py                  # three slabs of 3710 × 3838 × 1400 from 41 views
python benchmarks/memory.py --views 11 --height 300 --storage int16
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from dataclasses import asdict
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="tiltflow-prefect-"))

import numpy as np
import psutil

from kernels.geometry import View
from tasks import cluster
from tasks.parameters import Execution, Parameters, Pipeline, ReconstructParameters
from tasks.reconstruct import reconstruct
from tasks.record import Acquisition, FileIdentity, TiltSeries
from tasks.record import View as RecordView
from tasks.result_keys import result_key
from tasks.steps import STEPS, inputs_of
from tasks.store import Series, parse_project
from tasks.work import Work

SIZE, PIXEL, AXIS = (3838, 3710), 1.35, 0.0
SLABS, ROWS = 3, 128


def made(series: Series, name: str, parameters: Parameters, views: Any = (), **extra: Any) -> Any:
    """Let the branch have a complete result of a step, without running it."""
    inputs = {
        before: series.pointer("main", before) or ""
        for before in inputs_of(STEPS[name], parameters)
    }
    result = series.result(name, result_key(STEPS[name], parameters, series.imported(), inputs))
    now = datetime.now(UTC).isoformat()
    result.finish(
        {"step": name, "version": STEPS[name].version, "inputs": inputs, "message": ""}
        | {"parameters": parameters.model_dump(mode="json"), "started": now, "ended": now}
        | {"decides": {"views": list(views), "series": {}}, "table": [], **extra}
    )
    series.point("main", name, result.key)
    return result


def prepared(folder: str, n_views: int) -> Series:
    """Return a series of noise, aligned."""
    tilts = np.linspace(-60, 60, n_views)
    movies = [
        FileIdentity(path=f"/{i}", name=f"{i}", size=1, digest="0", mtime_ns=0)
        for i in range(n_views)
    ]
    record = TiltSeries(
        name="S",
        acquisition=Acquisition(voltage=300, pixel_size=PIXEL, tilt_axis=AXIS),
        shape=SIZE,
        views=tuple(
            RecordView(tilt_angle=t, order=i, prior_dose=3.0 * i, dose=3.0, frames=1, movie=movie)
            for i, (t, movie) in enumerate(zip(tilts.tolist(), movies, strict=True), 1)
        ),
    )
    series, pipeline = parse_project(f"{folder}/p.zarr").add_series(record), Pipeline()
    motion = made(series, "motion", pipeline.motion, means=[4.0] * n_views)
    images = motion.create_array("images", (n_views, *SIZE), (1, *SIZE))
    rng = np.random.default_rng(0)
    noise = rng.poisson(4, SIZE).astype(np.float32)
    for i in range(n_views):
        images[i] = np.roll(noise, 977 * i)
    made(series, "exclude", pipeline.exclude, [{"excluded": None}] * n_views)
    made(series, "erase", pipeline.erase)
    made(series, "dose", pipeline.dose, images_in=motion.path)
    views = [{"geometry": asdict(View(t, AXIS, 20.0, -10.0))} for t in tilts.tolist()]
    made(series, "coarse", pipeline.coarse, views)
    return series


class Peaks(threading.Thread):
    """Watches the memory of the worker, ten times a second, and what each kind of unit stated."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest: dict[str, int] = {}
        self.stated: dict[str, int] = {}
        self.now, self.stop = "", False

    def run(self) -> None:
        """Watch until told to stop."""
        while not self.stop:
            for child in psutil.Process().children(recursive=True):
                try:
                    used = child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
                self.highest[self.now] = max(self.highest.get(self.now, 0), used)
            time.sleep(0.1)

    def watched(self, whole: Any) -> Any:
        """Return `Work.scatter` or `Work.hold`, which notes what runs and what it stated."""

        @wraps(whole)
        def watched(work: Any, function: Any, units: Any, memory: int) -> Any:
            self.now = function.__name__
            self.stated[self.now] = memory
            return whole(work, function, units, memory)

        return watched


def main() -> None:
    """Reconstruct three slabs; print the peak of the worker's memory and what was stated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", type=int, default=41)
    parser.add_argument("--height", type=int, default=1400, help="voxels")
    parser.add_argument("--storage", default="float32")
    parser.add_argument("--memory", default="8GB", help="of the worker")
    parser.add_argument("--folder", type=Path, default=None, help="where 10 GB fit")
    given = parser.parse_args()
    parameters = ReconstructParameters(
        alignment="coarse",
        binning=1,
        thickness=f"{given.height}px",
        length=f"{SLABS * ROWS}px",
        z_shift=0.0,
        angle_offset=0.0,
        x_tilt=0.0,
        storage=given.storage,
    )
    peaks = Peaks()
    for name in ("scatter", "hold"):
        setattr(Work, name, peaks.watched(getattr(Work, name)))
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        series = prepared(folder, given.views)
        execution = Execution(cluster="local", workers=1, memory=given.memory)
        with cluster.opened(execution) as running:
            peaks.start()
            outcome = reconstruct.fn(series.project.url, "S", parameters, "main", running)
            peaks.stop = True
            peaks.join()
    print(f"{outcome.message}, {outcome.seconds:.0f} s")
    held = 4 * given.views * max(SIZE) * SLABS * ROWS
    for name in ("filter_view", "back_project_slab"):  # later ones have what these leave
        stated, peak = peaks.stated[name], peaks.highest.get(name, 0)
        print(
            f"{name}: peak {peak / 1e9:.2f} GB; stated {stated / 1e9:.2f} GB, rows held "
            f"{held / 1e9:.2f} GB: {100 * peak / (stated + held):.0f} %"
        )


if __name__ == "__main__":
    main()
