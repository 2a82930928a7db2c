"""Motion correction: from movies to one image per view."""

from __future__ import annotations

from kernels.fourier import binned_shape
from kernels.views import dark_views
from tasks.chunks.motion import correct_movie, memory_of_movie
from tasks.parameters import Execution, MotionParameters
from tasks.scatter import Unit
from tasks.work import Outcome, begin, step_task


@step_task("motion")
def motion(
    project: str,
    series: str,
    parameters: MotionParameters = MotionParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Correct every movie of a series, one worker per movie.

    Writes ``images``, ``odd`` and ``even`` (view, y, x) float32, sorted by tilt angle, and
    ``shifts`` (view, frame, 2): displacement (y, x) of the specimen in each frame relative to
    the first [pixels of the movie], NaN for frames left out.
    """
    work = begin("motion", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    record = work.record
    shape, _ = binned_shape(record.shape, parameters.binning)
    views, frames = len(record.views), max(view.frames for view in record.views)
    for name in ("images", "odd", "even"):
        work.result.create_array(name, (views, *shape), (1, *shape), axes=("view", "y", "x"))
    work.result.create_array("shifts", (views, frames, 2), (1, frames, 2), dtype="float64")

    def unit(name: str, index: int, parameters: MotionParameters) -> Unit:
        view = record.views[index]
        arguments = (work.result, index, view, record.acquisition, record.shape, parameters)
        return Unit(name, arguments)

    reports = work.scatter(
        correct_movie,
        [unit(f"view-{i:03d}", i, parameters) for i in range(views)],
        memory=memory_of_movie(record.shape, frames),
    )
    rows = [reports[f"view-{i:03d}"] for i in range(views)]
    # A few X-rays in an almost empty movie can look like motion: dark movies are only summed.
    still = parameters.model_copy(update={"align": False})
    dark = dark_views([row["mean"] for row in rows], [view.tilt_angle for view in record.views])
    again = work.scatter(
        correct_movie,
        [unit(f"dark-{found.index:03d}", found.index, still) for found in dark],
        memory=memory_of_movie(record.shape, frames),
    )
    for found in dark:
        rows[found.index] = {**again[f"dark-{found.index:03d}"], "reliable": False}
    lengths = sorted(row["total"] for row in rows if row["reliable"])
    lost = sum(not row["reliable"] for row in rows)
    typical = f"median motion {lengths[len(lengths) // 2]:.1f} Å" if lengths else "no motion found"
    return work.finish(
        f"{views} movies, {typical}" + (f", {lost} without signal" if lost else ""),
        views=[
            {"motion": {name: row[name] for name in ("total", "early", "late", "reliable")}}
            for row in rows
        ],
        table=[
            {
                "view": i,
                "tilt angle [°]": view.tilt_angle,
                "movie": view.movie.name,
                "mean": row["mean"],
                "motion [Å]": row["total"],
                "early [Å]": row["early"],
                "late [Å]": row["late"],
                "significance [σ]": row["significance"],
                "reliable": row["reliable"],
            }
            for i, (view, row) in enumerate(zip(record.views, rows, strict=True), 1)
        ],
        extra={"means": [row["mean"] for row in rows]},
    )
