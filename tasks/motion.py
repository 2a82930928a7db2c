"""Motion correction: from movies to one image per view."""

from __future__ import annotations

from typing import Any

from kernels.fourier import binned_shape
from kernels.views import dark_views
from tasks.chunks.motion import (
    FUNCTIONS,
    correct_movie,
    cropped_shape,
    frame_range,
    memory_of_movie,
    profile_box,
)
from tasks.parameters import Execution, MotionParameters
from tasks.record import Motion, TiltSeries
from tasks.scatter import Unit
from tasks.work import Outcome, Work, begin, step_task


@step_task("motion")
def motion(
    project: str,
    series: str,
    parameters: MotionParameters = MotionParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Correct every movie of a series, one worker per movie.

    Writes, sorted by tilt angle:

    - ``images`` and, if the views have several frames, the halves ``odd`` (1st, 3rd, … frame)
      and ``even`` (view, y, x) float32, odd + even = images; ``weighted`` by dose if asked for;
    - ``shifts`` (view, frame, 2): displacement (y, x) of the specimen in each frame relative to
      the reference frame [pixels of the movie], NaN for frames left out;
    - ``local`` (view, frame, function, 2): coefficients of `kernels.motion_local.LocalField`,
      NaN where a movie has none;
    - ``profiles`` (view, 2, bin): power of the sum without and with motion undone, by frequency
      in steps of the attribute ``profile_step`` [1/Å].
    """
    work = begin("motion", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    record = work.record
    step = _create_arrays(work, parameters)

    def unit(name: str, index: int, parameters: MotionParameters) -> Unit:
        view = record.views[index]
        arguments = (work.result, index, view, record.acquisition, record.shape, parameters)
        return Unit(name, arguments)

    used = [frame_range(view, parameters) for view in record.views]
    most = max(last - first for first, last in used)
    memory = memory_of_movie(record.shape, record.acquisition, parameters, most)
    units = [unit(f"view-{i:03d}", i, parameters) for i in range(len(record.views))]
    reports = work.scatter(correct_movie, units, memory=memory)
    rows = [reports[one.name] for one in units]
    # A few X-rays in an almost empty movie can look like motion: dark movies are only summed.
    still = parameters.model_copy(update={"align": False})
    dark = dark_views([row["mean"] for row in rows], [view.tilt_angle for view in record.views])
    moved = [found.index for found in dark if rows[found.index]["total"]]
    again = [unit(f"dark-{index:03d}", index, still) for index in moved]
    reports = work.scatter(correct_movie, again, memory=memory)
    for index, one in zip(moved, again, strict=True):
        rows[index] = {**reports[one.name], "model": "none"}
    for found in dark:
        rows[found.index]["reliable"] = False
    return work.finish(
        _message(rows),
        views=[{"motion": {name: row[name] for name in Motion.model_fields}} for row in rows],
        table=_table(record, rows),
        extra={"means": [row["mean"] for row in rows], "profile_step": step},
    )


def _create_arrays(work: Work, parameters: MotionParameters) -> float:
    """Make the arrays of the result; return the step of the profiles [1/Å]."""
    record = work.record
    shape, _ = binned_shape(cropped_shape(parameters.crop, record.shape), parameters.binning)
    views, frames = len(record.views), max(view.frames for view in record.views)
    names = ["images"] + ["odd", "even"] * (frames > 1) + ["weighted"] * parameters.dose_weighted
    for name in names:
        work.result.create_array(name, (views, *shape), (1, *shape), axes=("view", "y", "x"))
    for name, each in (("shifts", (frames, 2)), ("local", (frames, FUNCTIONS, 2))):
        work.result.create_array(name, (views, *each), (1, *each), dtype="float64")
    box = profile_box(shape)
    work.result.create_array("profiles", (views, 2, box // 2), (1, 2, box // 2))
    return 1 / (box * record.acquisition.pixel_size * parameters.binning)


def _message(rows: list[dict[str, Any]]) -> str:
    counts = {model: sum(row["model"] == model for row in rows) for model in ("local", "none")}
    if all(row["model"] == "sum" for row in rows):
        return f"{len(rows)} movies summed as they are"
    lengths = sorted(row["total"] for row in rows if row["reliable"])
    text = f"{len(rows)} movies, "
    text += f"median motion {lengths[len(lengths) // 2]:.1f} Å" if lengths else "no motion found"
    text += f", {counts['local']} with local motion" if counts["local"] else ""
    lost = sum(not row["reliable"] for row in rows)
    return text + (f", {lost} without signal" if lost else "")


def _table(record: TiltSeries, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "view": i,
            "tilt angle [°]": view.tilt_angle,
            "movie": view.movie.name,
            "mean": row["mean"],
            "bad pixels": row["bad pixels"],
            "model": row["model"],
            "motion [Å]": row["total"],
            "early [Å]": row["early"],
            "late [Å]": row["late"],
            "local [Å]": row["local"],
            "significance [σ]": row["significance"],
            "evidence": row["evidence"],
            "reliable": row["reliable"],
        }
        for i, (view, row) in enumerate(zip(record.views, rows, strict=True), 1)
    ]
