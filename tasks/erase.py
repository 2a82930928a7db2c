"""Erasing of X-ray hits and hot pixels from the views."""

from __future__ import annotations

from typing import Any

from kernels import xray_votes
from tasks.chunks.erase import erase_again, erase_view, match_hits, spots_of, view_unit
from tasks.chunks.images import memory_of_image
from tasks.parameters import EraseParameters, Execution
from tasks.result import Result
from tasks.scatter import Unit
from tasks.work import Outcome, Work, begin, step_task


@step_task("erase")
def erase(
    project: str,
    series: str,
    parameters: EraseParameters = EraseParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Erase hits from every view, one worker per view; writes ``images`` (view, y, x).

    Each view is read and written once; again only where the views together know better.
    Excluded views are copied as they are: in a dark one every electron stands out.
    """
    work = begin("erase", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    source, views = work.input("motion"), work.record.views
    number, *shape = source.images().shape
    work.result.create_array("images", (number, *shape), (1, *shape), axes=("view", "y", "x"))
    used = [i for i, view in enumerate(views) if view.excluded is None]
    reports = work.scatter(
        erase_view,
        [
            Unit(view_unit(i), (source, work.result, i, parameters if i in used else None))
            for i in range(number)
        ],
        memory=memory_of_image((shape[0], shape[1])),
    )
    rows: list[dict[str, Any]] = [dict(reports[view_unit(i)]) for i in range(number)]
    if parameters.compare_views:
        rows = _compared(work, source, used, rows, (shape[0], shape[1]))
    for row in rows:
        row.pop("spots", None)
    counts = {what: sum(row[what] for row in rows) for what in ("hits", "kept")}
    defects = max((row["defects"] for row in rows), default=0)
    return work.finish(
        f"{counts['hits']} hits erased in {number} views"
        + (f", {defects} bad pixels of the detector" if defects else "")
        + (f", {counts['kept']} spots of the specimen kept" if counts["kept"] else ""),
        table=[
            {"view": i, "tilt angle [°]": view.tilt_angle, **row}
            for i, (view, row) in enumerate(zip(views, rows, strict=True), 1)
        ],
    )


def _compared(
    work: Work, source: Result, used: list[int], rows: list[dict[str, Any]], shape: tuple[int, int]
) -> list[dict[str, Any]]:
    """Let the views judge each other's spots; return the rows, those of views done again new."""
    memory = memory_of_image(shape)
    spots = {i: spots_of(rows[i]) for i in used}
    defects = xray_votes.find_defects(list(spots.values()))
    asked = xray_votes.doubtful(spots, shape, defects)
    matches = work.scatter(
        match_hits,
        [
            Unit(
                f"match-{i:03d}",
                (work.result, i, hits, xray_votes.neighbours(i, used), defects.tolist()),
            )
            for i, hits in asked.items()
        ],
        memory=memory,
    )
    candidates = {
        (i, k): {int(j): same for j, same in matches[f"match-{i:03d}"][str(k)].items()}
        for i, hits in asked.items()
        for k in hits
    }
    kept = xray_votes.of_the_specimen(candidates, {i: spots[i].hit for i in used})
    again = [i for i in used if len(defects) or any(view == i for view, _ in kept)]
    redone = work.scatter(
        erase_again,
        [
            Unit(
                f"again-{i:03d}",
                (
                    *(source, work.result, i),
                    *(sorted(k for view, k in kept if view == i), defects.tolist()),
                ),
            )
            for i in again
        ],
        memory=memory,
    )
    return [dict(redone.get(f"again-{i:03d}", row)) for i, row in enumerate(rows)]
