"""A series of noise in a project, aligned, as the benchmarks of whole steps take it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from kernels.geometry import View
from tasks.parameters import Parameters, Pipeline
from tasks.record import Acquisition, FileIdentity, TiltSeries
from tasks.record import View as RecordView
from tasks.result_keys import result_key
from tasks.steps import STEPS, inputs_of
from tasks.store import Series, parse_project


def series_of_noise(
    folder: str, n_views: int, size: tuple[int, int], pixel: float, axis: float = 0.0
) -> Series:
    """Return a series of images (rows, columns), its steps up to coarse and ctf being done.

    `pixel` in Å, `axis` in degrees.
    """
    tilts = np.linspace(-60, 60, n_views).tolist()
    movies = [
        FileIdentity(path=f"/{i}", name=f"{i}", size=1, digest="0", mtime_ns=0)
        for i in range(n_views)
    ]
    record = TiltSeries(
        name="S",
        acquisition=Acquisition(voltage=300, pixel_size=pixel, tilt_axis=axis),
        shape=size,
        views=tuple(
            RecordView(tilt_angle=t, order=i, prior_dose=3.0 * i, dose=3.0, frames=1, movie=movie)
            for i, (t, movie) in enumerate(zip(tilts, movies, strict=True), 1)
        ),
    )
    series, pipeline = parse_project(f"{folder}/p.zarr").add_series(record), Pipeline()
    motion = _done(series, "motion", pipeline.motion, means=[4.0] * n_views)
    images = motion.create_array("images", (n_views, *size), (1, *size))
    noise = np.random.default_rng(0).poisson(4, size).astype(np.float32)
    for i in range(n_views):
        images[i] = np.roll(noise, 977 * i)
    _done(series, "exclude", pipeline.exclude, [{"excluded": None}] * n_views)
    defocus = {"defocus_u": 30000.0, "defocus_v": 29500.0, "astigmatism_angle": 20.0}
    _done(series, "ctf", pipeline.ctf, [{"ctf": defocus}] * n_views)
    _done(series, "erase", pipeline.erase)
    _done(series, "dose", pipeline.dose, images_in=motion.path)
    views = [{"geometry": asdict(View(t, axis, 20.0, -10.0))} for t in tilts]
    _done(series, "coarse", pipeline.coarse, views)
    return series


def _done(series: Series, name: str, parameters: Parameters, views: Any = (), **extra: Any) -> Any:
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
