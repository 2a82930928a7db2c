"""Marker-free refinement: each view is matched with a projection of all the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.geometry import View
from kernels.tracks import Tracks
from tasks import cluster
from tasks.alignment import DEFORMATION, dose_times
from tasks.bead_store import read_tracks
from tasks.chunks.alignment import REDUCED
from tasks.chunks.markerfree import align_views, memory_of_matching
from tasks.coarse import decided_geometry, reduce_views
from tasks.parameters import Execution, MarkerfreeParameters
from tasks.record import TiltSeries
from tasks.scatter import Unit
from tasks.work import Outcome, Work, begin, step_task

# Observed places of the patches: view, point, x, y, standard error [Å].
TRACKS = "tracks"
MISMATCH = "does not match the other views"
MOST_THREADS = 8


@step_task("markerfree")
def markerfree(
    project: str,
    series: str,
    parameters: MarkerfreeParameters = MarkerfreeParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Refine shifts, axis and local deformation of the views that are not excluded.

    The specimen's origin is put into the middle of the dense matter. Where the views show nothing
    to match, the coarse alignment is kept, and the verdict says so.
    """
    work = begin("markerfree", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    record = work.record
    pixel_size = reduce_views(work, parameters.pixel_size)
    used = [view.excluded is None for view in record.views]
    start = [record.geometry(i) for i in range(len(record.views))]
    shape = work.result.array(REDUCED).shape[1:]
    pretilt = record.pretilt
    report = work.scatter(
        align_views,
        [
            Unit(
                "align",
                (
                    work.result,
                    start,
                    used,
                    pixel_size,
                    [view.dose for view in record.views],
                    dose_times(record).tolist(),
                    (pretilt.about_axis, pretilt.about_error) if pretilt else None,
                    hands_of(record),
                    record.acquisition.pixel_size,
                    min(MOST_THREADS, cluster.worker_count(execution)),
                    parameters,
                    beads_of(work) if parameters.joins_beads else None,
                ),
            )
        ],
        memory=memory_of_matching(
            (shape[0], shape[1]), len(start), round(parameters.thickness / pixel_size)
        ),
    )["align"]
    verdict = report["verdict"]
    failed = verdict["word"] == "failed"
    views = start if failed else [View(**fields) for fields in report["views"]]
    taking = used if failed or not parameters.leave_out else report["used"]
    local = report["local"]
    if local:
        rows = np.array(local["tracks"], dtype=np.float64).reshape(-1, 5)
        if len(rows):
            work.result.create_array(TRACKS, rows.shape, rows.shape, "float64", by_units=False)[
                :
            ] = rows
    decided = decided_geometry(views, taking)
    for i, row in enumerate(decided):
        if used[i] and not taking[i]:
            row["excluded"] = MISMATCH
    return work.finish(
        _told(report, views, taking),
        views=decided,
        table=_table(report, views, used, taking),
        extra={
            "verdict": verdict,
            "matched": not failed,
            "depths": report["depths"],
            "axis": report["axis"],
            "tilt_offset": report["offset"],
            "slab": report["slab"],
            DEFORMATION: None if failed or not local else local["deformation"],
            "patches": _patches(local) if local else [],
            "held_out": local["predicted"] if local else {},
            "refined": local["refined"] if local else [],
            "hybrid": report["hybrid"],
        },
    )


def beads_of(work: Work) -> Tracks | None:
    """Return the tracks of beads in the views that are not excluded, None without beads."""
    found = work.input("fiducials")
    if "tracks" not in found.group():
        return None
    tracks, _ = read_tracks(found, len(work.record.views))
    used = np.array([view.excluded is None for view in work.record.views])
    return tracks.chosen(used[tracks.view])


def hands_of(record: TiltSeries) -> tuple[int, int] | None:
    """Return which hand is expected for the axis, and which the spectra show, where both are."""
    known = record.handedness
    if known is None or known.hand is None or known.measured is None or not known.forced:
        return None
    return known.hand, known.measured


def _told(report: dict[str, Any], views: list[View], taking: list[bool]) -> str:
    verdict, (low, high) = report["verdict"], report["depths"]
    if verdict["word"] == "failed":
        return f"failed: {'; '.join(verdict['reasons'])}: coarse shifts kept"
    scores = sorted(score for score, flag in zip(report["scores"], taking, strict=True) if flag)
    axis, offset = report["axis"]["error"], report["offset"]["angle"]
    parts = [
        f"tilt axis {views[taking.index(True)].axis:.2f}°" + (f" ± {axis:.2f}°" if axis else ""),
        f"median correlation {scores[len(scores) // 2]:.2f}",
        f"matter {high - low:.0f} Å thick",
        "tilt offset "
        + (f"{offset:+.1f}°".replace("-", "−") if offset is not None else "undetermined"),
    ]
    local = report["local"]
    if local:
        parts.append(
            f"local deformation known to ± {local['error']:.1f} Å"
            if local["deformation"]
            else "no local deformation"
        )
    if (hybrid := report["hybrid"]) and hybrid["beads"]:
        parts.append(f"{hybrid['beads']} beads {'joined' if hybrid['taken'] else 'left aside'}")
    told = f"{verdict['word']}: {', '.join(parts)}"
    return told if not verdict["reasons"] else f"{told}; but {'; '.join(verdict['reasons'])}"


def _table(
    report: dict[str, Any], views: list[View], used: list[bool], taking: list[bool]
) -> list[dict[str, Any]]:
    patches: list[list[float]] = [[] for _ in views]
    if report["local"]:
        rows = zip(report["local"]["tracks"], report["local"]["residuals"], strict=True)
        for (view, *_), residual in rows:
            patches[int(view)].append(residual[0] ** 2 + residual[1] ** 2)
    return [
        {
            "view": i + 1,
            "tilt angle [°]": view.tilt,
            "axis [°]": view.axis,
            "shift x [Å]": view.shift_x,
            "shift y [Å]": view.shift_y,
            "correlation": report["scores"][i],
            "last move [Å]": report["moves"][i],
            "patches": len(patches[i]),
            "patches' residual [Å]": float(np.sqrt(np.mean(patches[i]))) if patches[i] else None,
            "excluded": "" if taking[i] else MISMATCH,
        }
        for i, view in enumerate(views)
        if used[i]
    ]


def _patches(local: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each patch: where it is, how well it is seen, what remains."""
    scores = np.array(local["patch_scores"])
    rows = np.array(local["tracks"], dtype=np.float64).reshape(-1, 5)
    squares = np.square(np.array(local["residuals"]).reshape(-1, 2)).sum(axis=1)
    found = []
    for j, (x, y, z) in enumerate(local["points"]):
        mine = rows[:, 1] == j
        seen = scores[:, j] > 0
        found.append(
            {
                "patch": j + 1,
                "X [Å]": x,
                "Y [Å]": y,
                "Z [Å]": z,
                "views": int(mine.sum()),
                "correlation": float(np.median(scores[seen, j])) if seen.any() else 0.0,
                "standard error [Å]": float(np.median(rows[mine, 4])) if mine.any() else None,
                "residual [Å]": float(np.sqrt(squares[mine].mean())) if mine.any() else None,
                "kept": float(np.mean(np.array(local["weights"])[mine])) if mine.any() else 0.0,
            }
        )
    return found
