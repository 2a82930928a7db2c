"""Marker-free refinement: each view is matched with a projection of all the others."""

from __future__ import annotations

from kernels.geometry import View
from tasks.chunks.alignment import REDUCED, match_views, memory_of_matching
from tasks.coarse import decided_geometry, reduce_views
from tasks.parameters import Execution, MarkerfreeParameters
from tasks.scatter import Unit
from tasks.work import Outcome, begin, step_task

# Mean correlation of views with their references: 0.4 to 0.8 where there is something to match,
# 0.02 where there is nothing.
LEAST_SCORE = 0.1


@step_task("markerfree")
def markerfree(
    project: str,
    series: str,
    parameters: MarkerfreeParameters = MarkerfreeParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Refine the shifts of every view that is not excluded, and the tilt axis of all of them.

    The specimen's origin is put into the middle of the dense matter. Where the views show nothing
    to match, the coarse alignment is kept, and the result says so.
    """
    work = begin("markerfree", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    record = work.record
    pixel_size = reduce_views(work, parameters.pixel_size)
    used = [view.excluded is None for view in record.views]
    start = [record.geometry(i) for i in range(len(record.views))]
    shape = work.result.array(REDUCED).shape[1:]
    report = work.scatter(
        match_views,
        [Unit("match", (work.result, start, used, pixel_size, parameters))],
        memory=memory_of_matching(
            (shape[0], shape[1]), len(start), round(parameters.thickness / pixel_size)
        ),
    )["match"]
    low, high = report["depths"]
    found = report["score"] >= LEAST_SCORE
    views = [View(**fields) for fields in report["views"]] if found else start
    scores = sorted(
        score for score, taking_part in zip(report["scores"], used, strict=True) if taking_part
    )
    told = (
        f"tilt axis {views[used.index(True)].axis:.2f}°, median correlation "
        f"{scores[len(scores) // 2]:.2f}, matter {high - low:.0f} Å thick"
        if found
        else f"the views do not match (mean correlation {report['score']:.2f}): coarse shifts kept"
    )
    return work.finish(
        told,
        views=decided_geometry(views, used),
        table=[
            {
                "view": i + 1,
                "tilt angle [°]": view.tilt,
                "axis [°]": view.axis,
                "shift x [Å]": view.shift_x,
                "shift y [Å]": view.shift_y,
                "correlation": report["scores"][i],
                "last move [Å]": report["moves"][i],
            }
            for i, view in enumerate(views)
            if used[i]
        ],
        extra={"depths": [low, high], "matched": found},
    )
