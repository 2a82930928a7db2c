"""Marker-free refinement: each view is matched with a projection of all the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.geometry import View
from kernels.tracks import Tracks
from tasks import cluster
from tasks.alignment import DEFORMATION, dose_times
from tasks.bead_store import read_tracks
from tasks.choice import settled_ctf, usable_ctf
from tasks.chunks.alignment import REDUCED
from tasks.chunks.markerfree import align_views, memory_of_matching
from tasks.coarse import decided_geometry, reduce_views
from tasks.errors import WrongParameter
from tasks.markerfree_told import MISMATCH, patch_rows, told, view_rows
from tasks.parameters import Execution, MarkerfreeParameters
from tasks.record import TiltSeries
from tasks.scatter import Unit
from tasks.store import parse_project
from tasks.work import Outcome, Work, begin, step_task

# Observed places of the patches: view, point, x, y, standard error [Å].
TRACKS = "tracks"
# Of a cluster on this machine, whose other workers are idle meanwhile.
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
    there = bool(usable_ctf(parse_project(project).series(series), branch))
    parameters = settled_ctf(parameters, there)
    work = begin("markerfree", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    check_regions(work, parameters)
    record = work.record
    pixel_size = reduce_views(work, parameters.pixel_size)
    used = [view.excluded is None for view in record.views]
    start = [record.geometry(i) for i in range(len(record.views))]
    shape = work.result.array(REDUCED).shape[1:]
    local_threads = min(MOST_THREADS, cluster.worker_count(execution))
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
                    pretilt_of(record, start) if parameters.reads_ctf else None,
                    hands_of(record) if parameters.reads_ctf else None,
                    record.acquisition.pixel_size,
                    local_threads if cluster.here(execution) else None,
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
        told(report, views, taking),
        views=decided,
        table=view_rows(report, views, used, taking),
        extra={
            "verdict": verdict,
            "matched": not failed,
            "depths": report["depths"],
            "axis": report["axis"],
            "tilt_offset": report["offset"],
            "slab": report["slab"],
            DEFORMATION: None if failed or not local else local["deformation"],
            "patches": patch_rows(local) if local else [],
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


def pretilt_of(record: TiltSeries, views: Sequence[View]) -> tuple[float, float] | None:
    """Return the tilt offset that the defocus gradient leaves to views, and its error [degrees]."""
    if record.pretilt is None:
        return None
    # An imported alignment may have one in its angles already.
    had = [views[i].tilt - record.views[i].tilt_angle for i in record.included]
    return record.pretilt.about_axis - float(np.median(had)), record.pretilt.about_error


def check_regions(work: Work, parameters: MarkerfreeParameters) -> None:
    """Raise WrongParameter for a region outside of the movies."""
    binning = work.image_pixel_size / work.record.acquisition.pixel_size
    ny, nx = (round(n * binning) for n in work.input("dose").images().shape[1:])
    for x, y in parameters.regions_listed():
        if not (0 <= x < nx and 0 <= y < ny):
            raise WrongParameter(
                f"{work.series.name}: region {x:g},{y:g} is outside of the views of {nx}×{ny} "
                "pixels: correct markerfree.regions"
            )
