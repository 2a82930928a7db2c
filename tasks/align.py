"""Alignment by beads: the bundle adjustment of a series, and what it says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kernels.bead_select import surfaces_of
from kernels.bundle import Solution, solve
from kernels.bundle_model import VARIABLES, Model
from kernels.bundle_select import Selected, Tried, left_out, select
from kernels.bundle_system import Local
from kernels.fourier import Shape
from kernels.geometry import View
from kernels.matching_sweep import centre_across, move_origin
from kernels.tracks import Tracks
from tasks.alignment import DEFORMATION, dose_times, stored
from tasks.bead_store import read_tracks, write_tracks
from tasks.bead_table import tracks_from_table
from tasks.choice import ENOUGH
from tasks.coarse import decided_geometry
from tasks.errors import UnusableData
from tasks.parameters import AlignParameters, Execution
from tasks.steps import file_of
from tasks.work import Outcome, Work, begin, step_task

Floats = NDArray[np.float64]

LEAST_RATIO = 3.0  # measurements per unknown
ONE_BY_ONE = 24  # beads up to which each is left out alone
LOCAL_SPREAD = 50.0  # Å, of coefficients of a deformation


@step_task("align")
def align(
    project: str,
    series: str,
    parameters: AlignParameters = AlignParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Solve shifts, axis, magnification and tilt of every view, and the beads in space.

    Which variables are free is chosen by leaving beads out, or by the user. The specimen's origin
    is put midway between the beads' surfaces and where the images' centres lie on average.
    """
    work = begin("align", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    tracks, start = _tracks(work, parameters), _start(work)
    used = [view.excluded is None for view in work.record.views]
    taking_part = np.array(used)[tracks.view]
    tracks = tracks.chosen(taking_part)
    if not len(tracks.view):
        raise UnusableData(f"{series}: no bead is seen in any view that is not left out")
    with threadpool_limits(1):
        views = _centred(tracks, start, used, parameters)
        selected = _solved(tracks, views, parameters, dose_times(work.record))
        solution = selected.solution
        alone = _left_out(tracks, views, solution, parameters)
    tried = [
        {"model": str(t), "residual of beads left out [Å]": t.score, "chosen": k == selected.chosen}
        for k, t in enumerate(selected.tried)
    ]
    beads = int(np.isfinite(solution.points).all(axis=1).sum())
    solved = np.column_stack([solution.residuals, solution.weights])
    write_tracks(work.result, tracks, solution.points, solved)
    times = dose_times(work.record)
    warnings = _warnings(tracks, solution, used)
    return work.finish(
        f"{beads} beads, {len(tracks.view)} places, mean residual "
        f"{solution.mean_residual / 10:.3f} nm, of beads left out {alone.score / 10:.3f} nm; "
        f"{solution.model}"
        + ("" if solution.local is None else ", local deformation")
        + "".join(f"; {text}" for text in warnings),
        views=decided_geometry(list(solution.views), used),
        table=_table(tracks, solution, used),
        extra={
            "model": asdict(solution.model),
            "tried": tried,
            "mean_residual_A": solution.mean_residual,
            "left_out_residual_A": alone.score,
            "error_factor": solution.factor,
            "measurements": solution.measurements,
            "unknowns": solution.unknowns,
            "ratio": solution.measurements / solution.unknowns,
            "warnings": warnings,
            "beads": _beads(tracks, solution),
            "doubtful": _doubtful(tracks, solution, parameters.threshold),
            "variables": _variables(solution, used),
            "shape": list(_shape(work)),
            "pixel_size": work.image_pixel_size,
            "diameter_A": work.input("fiducials").attributes().get("diameter_A"),
            DEFORMATION: stored(solution.deformation, times),
        },
    )


def _tracks(work: Work, parameters: AlignParameters) -> Tracks:
    """Return the tracks that were found, or those of a user's table."""
    found = work.input("fiducials")
    path = file_of(parameters, "beads_from", work.series.name)
    views = len(work.record.views)
    if path is not None:
        before = read_tracks(found, views)[0] if "tracks" in found.group() else None
        return tracks_from_table(path, views, _shape(work), work.image_pixel_size, before)
    if not found.attributes().get(ENOUGH):
        raise UnusableData(
            f"{work.series.name}: {found.attributes()['message']}: "
            "--set reconstruct.alignment=markerfree, or give beads by --beads-from"
        )
    return read_tracks(found, views)[0]


def _shape(work: Work) -> Shape:
    """Return (ny, nx) of the views."""
    _, rows, columns = work.input("motion").images().shape
    return int(rows), int(columns)


def _start(work: Work) -> list[View]:
    return [work.record.geometry(i) for i in range(len(work.record.views))]


def _centred(
    tracks: Tracks, start: Sequence[View], used: Sequence[bool], parameters: AlignParameters
) -> list[View]:
    """Return the views after a first solution, with their origin in the middle of the beads."""
    try:
        first = solve(tracks, start, robust=parameters.robust, with_errors=False)
    except ValueError as error:
        raise UnusableData(f"the beads do not suffice for an alignment: {error}") from error
    points = first.points[np.isfinite(first.points).all(axis=1)]
    surfaces = surfaces_of(points)
    height = points[:, 2] - points[:, :2] @ np.array(surfaces.slope)
    if surfaces.apart is not None:
        middle = 0.5 * (height[surfaces.side < 0].mean() + height[surfaces.side > 0].mean())
    else:
        middle = float(np.median(height))
    return list(centre_across(move_origin(first.views, float(middle)), used))


def _solved(
    tracks: Tracks, views: Sequence[View], parameters: AlignParameters, times: Floats
) -> Selected:
    robust = parameters.robust
    if parameters.select:
        return select(
            tracks, views, times=times if parameters.local == "auto" else None, robust=robust
        )
    model = Model(**{name: getattr(parameters, name) for name in VARIABLES})
    local = None
    if parameters.local != "off":
        first = solve(tracks, views, model, robust=robust, with_errors=False)
        width = float(np.nanmax(np.abs(first.points[:, :2])))
        local = Local(2, 2, width, times, LOCAL_SPREAD)
        if parameters.local == "auto":
            plain = left_out(tracks, views, model, start=first, robust=robust)
            bent = left_out(tracks, views, model, local=local, robust=robust)
            local = local if bent.score < plain.score else None
    return Selected(solve(tracks, views, model, local=local, robust=robust), (), 0)


def _left_out(
    tracks: Tracks, views: Sequence[View], solution: Solution, parameters: AlignParameters
) -> Tried:
    """Return how well the chosen model predicts beads: one by one where there are not too many."""
    beads = int(np.isfinite(solution.points).all(axis=1).sum())
    return left_out(
        tracks,
        views,
        solution.model,
        local=solution.local,
        start=solution,
        folds=beads if beads <= ONE_BY_ONE else 10,
        robust=parameters.robust,
    )


def _warnings(tracks: Tracks, solution: Solution, used: Sequence[bool]) -> list[str]:
    told = []
    counts = np.bincount(tracks.view, solution.weights > 0, minlength=tracks.n_views)
    blind = [i + 1 for i, flag in enumerate(used) if flag and counts[i] == 0]
    few = [i + 1 for i, flag in enumerate(used) if flag and 0 < counts[i] < 3]
    if blind:
        told.append(f"no beads in views {_listed(blind)}: they keep their coarse alignment")
    if few:
        told.append(f"fewer than 3 beads in views {_listed(few)}")
    ratio = solution.measurements / solution.unknowns
    if ratio < LEAST_RATIO:
        told.append(f"only {ratio:.1f} measurements for each unknown")
    return told


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _table(tracks: Tracks, solution: Solution, used: Sequence[bool]) -> list[dict[str, Any]]:
    rows = []
    for i, view in enumerate(solution.views):
        if not used[i]:
            continue
        lengths = solution.lengths[(tracks.view == i) & np.isfinite(solution.lengths)]
        errors = solution.errors[i]
        rows.append(
            {
                "view": i + 1,
                "tilt angle [°]": view.tilt,
                "axis [°]": view.axis,
                "magnification": view.magnification,
                "shift x [Å]": view.shift_x,
                "shift y [Å]": view.shift_y,
                "error of shift [Å]": float(np.hypot(errors[-2], errors[-1])),
                "beads": len(lengths),
                "mean residual [nm]": float(lengths.mean()) / 10 if len(lengths) else None,
                "largest residual [nm]": float(lengths.max()) / 10 if len(lengths) else None,
            }
        )
    return rows


def _beads(tracks: Tracks, solution: Solution) -> list[dict[str, Any]]:
    """Return one row for each bead that was solved."""
    rows = []
    for j in np.flatnonzero(np.isfinite(solution.points).all(axis=1)).tolist():
        own = tracks.point == j
        rows.append(
            {
                "bead": j + 1,
                "views": int(own.sum()),
                "mean residual [nm]": float(np.nanmean(solution.lengths[own])) / 10,
                "weight": float(solution.weights[own].mean()),
            }
        )
    return rows


def _doubtful(tracks: Tracks, solution: Solution, threshold: float) -> list[dict[str, Any]]:
    """Return the places that are off by more than `threshold` standard errors, worst first."""
    ratio = solution.lengths / (tracks.sigma * solution.factor)
    off = np.flatnonzero(np.nan_to_num(ratio) > threshold)
    return [
        {
            "bead": int(tracks.point[k]) + 1,
            "view": int(tracks.view[k]) + 1,
            "residual [nm]": float(solution.lengths[k]) / 10,
            "standard errors": float(ratio[k]),
        }
        for k in off[np.argsort(ratio[off])[::-1]].tolist()
    ]


def _variables(solution: Solution, used: Sequence[bool]) -> list[dict[str, float]]:
    """Return the standard errors of what was solved, for each view that took part [°, 1, Å]."""
    degrees = np.array([57.29577951, 1, 57.29577951, 57.29577951, 1, 57.29577951, 1, 1])
    names = ("axis", "magnification", "tilt", "x_tilt", "stretch", "skew", "shift_x", "shift_y")
    return [
        {"view": i + 1, **dict(zip(names, (solution.errors[i] * degrees).tolist(), strict=True))}
        for i, flag in enumerate(used)
        if flag
    ]
