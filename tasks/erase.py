"""Erasing of X-ray hits and hot pixels from the views."""

from __future__ import annotations

from tasks.chunks.images import erase_view, memory_of_image
from tasks.parameters import EraseParameters, Execution
from tasks.scatter import Unit
from tasks.work import Outcome, begin, step_task


@step_task("erase")
def erase(
    project: str,
    series: str,
    parameters: EraseParameters = EraseParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Erase hits from every view, one worker per view; writes ``images`` (view, y, x).

    Excluded views are copied as they are: in a dark one every electron stands out.
    """
    work = begin("erase", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    source = work.input("motion")
    views, *shape = source.images().shape
    work.result.create_array("images", (views, *shape), (1, *shape), axes=("view", "y", "x"))
    reports = work.scatter(
        erase_view,
        [
            Unit(
                f"view-{i:03d}",
                (source, work.result, i, parameters if view.excluded is None else None),
            )
            for i, view in enumerate(work.record.views)
        ],
        memory=memory_of_image((shape[0], shape[1])),
    )
    rows = [reports[f"view-{i:03d}"] for i in range(views)]
    return work.finish(
        f"{sum(row['hits'] for row in rows)} hits erased in {views} views",
        table=[
            {"view": i, "tilt angle [°]": view.tilt_angle, **row}
            for i, (view, row) in enumerate(zip(work.record.views, rows, strict=True), 1)
        ],
    )
