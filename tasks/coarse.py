"""Coarse alignment: each view against its neighbours, then all of them at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from kernels.align_axis import differs
from kernels.align_closure import Closure
from kernels.fourier import binned_shape
from kernels.geometry import View
from tasks.alignment import DEFORMATION, dose_times, stored
from tasks.chunks.alignment import REDUCED, reduce_some_views
from tasks.chunks.dose import Weighting
from tasks.chunks.images import memory_of_image
from tasks.coarse_rounds import AXIS_RANGE, MOST_TURNS, SETTLED, Ties
from tasks.errors import UnusableData, WrongParameter
from tasks.parameters import CoarseParameters, Execution
from tasks.scatter import Unit
from tasks.session_axes import settled_axis
from tasks.steps import file_of
from tasks.work import Outcome, Work, begin, step_task

SMALLEST_SIDE = 32  # pixels of a reduced view
VIEWS_PER_UNIT = 6


@step_task("coarse")
def coarse(
    project: str,
    series: str,
    parameters: CoarseParameters = CoarseParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Shift every view that is not excluded onto the others, or take a file's word for it.

    The axis stays as imported, but where the user says another, lets the views or the session
    decide, and for half a turn where the CTF's hand is −1 and the user asks.
    """
    parameters = settled_axis(parameters, project, series, branch)
    work = begin("coarse", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    path = file_of(parameters, "alignment_from", series)
    if path is not None:
        return _taken(work, path)
    record = work.record
    pixel_size = reduce_views(work, parameters.pixel_size)
    turned = parameters.turn_axis_on_hand and record.hand == -1
    views = [record.geometry(i) for i in range(len(record.views))]
    if parameters.axis_start is not None:
        views = [replace(view, axis=parameters.axis_start) for view in views]
    views = [_turned(view, turned) for view in views]
    used = [view.excluded is None for view in record.views]
    found = _align(work, views, used, pixel_size, parameters)
    told = [_told(found, used), found.axis]
    if parameters.turn_axis_on_hand:
        told.append(f"axis turned to {views[0].axis:.1f}°" if turned else "axis left as it is")
    return work.finish(
        ", ".join(filter(None, told)) + _doubts(found, used),
        views=decided_geometry(found.views, used),
        series={"hand": 1} if turned else None,
        table=[
            {
                "view": i + 1,
                "tilt angle [°]": view.tilt,
                "shift x [Å]": view.shift_x,
                "shift y [Å]": view.shift_y,
                "confidence [σ]": float(found.closure.confidence[i]),
                "agreeing links": float(np.nan_to_num(found.closure.agreeing[i])),
                "doubt": _doubt(found.closure, i),
            }
            for i, view in enumerate(found.views)
            if used[i]
        ],
    )


@dataclass(frozen=True)
class Found:
    """Where the views lie, how sure that is, and what is said of the tilt axis."""

    views: list[View]
    closure: Closure
    axis: str


def _align(
    work: Work,
    views: list[View],
    used: list[bool],
    pixel_size: float,
    parameters: CoarseParameters,
) -> Found:
    """Tie the views together, and again wherever axis or magnifications have changed."""
    said = ""
    ties = Ties(work, views, used, pixel_size, parameters, "turn-0")
    pairs, closure = ties.close()
    given = views[0].axis
    for turn in range(1, MOST_TURNS + 1):
        seen = None if parameters.axis not in AXIS_RANGE else ties.axis(closure)
        if seen is None:
            break
        axis, error = seen
        if parameters.axis == "check":
            if differs(axis, given, error):
                said = (
                    f"the views suggest an axis of {axis:.1f}° ± {error:.1f}°, given {given:.1f}°"
                )
            break
        moved = abs(axis - ties.views[0].axis)
        said = f"axis {axis:.2f}° ± {error:.2f}°, given {given:.1f}°"
        ties = replace(
            ties,
            views=[replace(view, axis=axis) for view in ties.views],
            # Once it is found, no half turn away from it is looked at again.
            parameters=parameters.model_copy(update={"axis": "refine"}),
            stage=f"turn-{turn}",
        )
        pairs, closure = ties.close()
        if moved < SETTLED:
            break
    if parameters.search_magnification:
        ties = replace(ties, views=ties.magnified(pairs, closure), stage="sized")
        pairs, closure = ties.close()
    if parameters.reference == "cumulative" and closure.tied.any():
        closure = ties.followed(closure)
    return Found(ties.moved(closure), closure, said)


def _told(found: Found, used: list[bool]) -> str:
    heights = found.closure.confidence[np.array(used)]
    return f"{sum(used)} views, median confidence {float(np.median(heights)):.0f} σ"


def _doubt(closure: Closure, index: int) -> str:
    """Return what is wrong with a view's links, nothing if they are right."""
    if not closure.tied[index]:
        return "not found: placed like its neighbour"
    return "links contradict" if closure.agreeing[index] < 0.5 else ""


def _doubts(found: Found, used: list[bool]) -> str:
    """Return the views that are named in the message, by what is wrong with them."""
    named: dict[str, list[str]] = {}
    for i, view in enumerate(found.views):
        doubt = _doubt(found.closure, i) if used[i] else ""
        if doubt:
            named.setdefault(doubt, []).append(f"{i + 1} ({view.tilt:.0f}°)")
    return "".join(f"; {doubt}: {', '.join(names)}" for doubt, names in named.items())


def _taken(work: Work, path: Path) -> Outcome:
    """Take the geometry of the views from a file."""
    from tasks.import_alignment import imported_deformation, imported_geometry

    record, (_, ny, nx) = work.record, work.input("dose").images().shape
    taken = imported_geometry(path, record, (ny, nx), work.image_pixel_size)
    views = taken.views
    left = [i for i in record.included if i in taken.missing]
    used = [view.excluded is None and i not in left for i, view in enumerate(record.views)]
    if not any(used):
        raise UnusableData(f"{path}: has no view that is not left out: give another file")
    times = dose_times(record)
    views, bent = imported_deformation(path, views, times.tolist(), (ny, nx), work.image_pixel_size)
    told = f"{sum(used)} views, alignment from {path.name}"
    if bent:
        told += f", local shifts to ± {bent.residual:.1f} Å"
    if left:
        names = ", ".join(f"{i + 1} ({record.views[i].tilt_angle:.0f}°)" for i in left)
        told += f"; left out, as they are not in it: {names}"
    decided = decided_geometry(views, used)
    for i in left:
        decided[i]["excluded"] = f"not in {path.name}"
    return work.finish(
        f"{told}; {taken.said}" if taken.said else told,
        extra={DEFORMATION: stored(bent.deformation if bent else None, times)},
        views=decided,
        table=[
            {
                "view": i + 1,
                "tilt angle [°]": view.tilt,
                "axis [°]": view.axis,
                "shift x [Å]": view.shift_x,
                "shift y [Å]": view.shift_y,
            }
            for i, view in enumerate(views)
            if used[i]
        ],
    )


def _turned(view: View, turned: bool) -> View:
    """Return a view with its axis turned by half a turn, which reverses the hand."""
    return replace(view, axis=(view.axis + 360.0) % 360.0 - 180.0) if turned else view


def reduce_views(work: Work, pixel_size: float) -> float:
    """Write ``reduced``, the views binned to about `pixel_size`; return their real one [Å]."""
    source = work.input("dose")
    views, *full = source.images().shape
    binning = max(1, round(pixel_size / work.image_pixel_size))
    shape, _ = binned_shape((full[0], full[1]), binning)
    if min(shape) < SMALLEST_SIDE:
        raise WrongParameter(
            f"{work.series.name}: a pixel of {pixel_size:g} Å reduces the views to "
            f"{shape[0]}×{shape[1]}: use a smaller {work.step.name}.pixel_size"
        )
    weighting = Weighting.of(source)
    work.result.create_array(REDUCED, (views, *shape), (1, *shape))
    rest = (binning, work.image_pixel_size * binning, weighting)
    work.scatter(
        reduce_some_views,
        [
            Unit(
                f"reduce-{i:03d}",
                (source, work.result, list(range(i, min(i + VIEWS_PER_UNIT, views))), *rest),
            )
            for i in range(0, views, VIEWS_PER_UNIT)
        ],
        memory=memory_of_image((full[0], full[1])),
    )
    return work.image_pixel_size * binning


def decided_geometry(views: list[View], used: list[bool]) -> list[dict[str, object]]:
    """Return what an alignment decides: the geometry of the views that took part."""
    return [
        {"geometry": asdict(view) if taking_part else None}
        for view, taking_part in zip(views, used, strict=True)
    ]
