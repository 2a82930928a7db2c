"""Coarse alignment: each view against its neighbours, then all of them at once."""

from __future__ import annotations

from dataclasses import asdict, replace

from kernels.align_coarse import PairShift, move_view, neighbour_pairs, solve_shifts
from kernels.fourier import binned_shape
from kernels.geometry import View
from tasks.chunks.alignment import REDUCED, measure_pairs, reduce_view
from tasks.chunks.dose import Weighting
from tasks.chunks.images import memory_of_image
from tasks.errors import WrongParameter
from tasks.parameters import CoarseParameters, Execution
from tasks.scatter import Unit
from tasks.work import Outcome, Work, begin, step_task

SMALLEST_SIDE = 32  # pixels of a reduced view
PAIRS_PER_UNIT = 8


@step_task("coarse")
def coarse(
    project: str,
    series: str,
    parameters: CoarseParameters = CoarseParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Shift every view that is not excluded onto its neighbours.

    The axis stays as imported, but for half a turn where the CTF's hand is −1 and the user asks.
    """
    work = begin("coarse", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    record = work.record
    pixel_size = reduce_views(work, parameters.pixel_size)
    turned = parameters.turn_axis_on_hand and record.hand == -1
    views = [_turned(record.geometry(i), turned) for i in range(len(record.views))]
    tilts = [view.tilt for view in views]
    used = [view.excluded is None for view in record.views]
    pairs = neighbour_pairs(tilts, used, parameters.neighbours)
    agreement = [0.0] * len(views)
    for turn in range(parameters.iterations):
        measured = _measure(work, turn, pairs, views, pixel_size, parameters)
        shifts, confidence = solve_shifts(pairs, measured, tilts)
        agreement = [float(value) for value in confidence]
        views = [
            move_view(view, float(dy) * pixel_size, float(dx) * pixel_size)
            for view, (dy, dx) in zip(views, shifts, strict=True)
        ]
    told = f"{sum(used)} views, median confidence {sorted(agreement)[len(agreement) // 2]:.0f} σ"
    if parameters.turn_axis_on_hand:
        told += f", axis turned to {views[0].axis:.1f}°" if turned else ", axis left as it is"
    return work.finish(
        told,
        views=decided_geometry(views, used),
        series={"hand": 1} if turned else None,
        table=[
            {
                "view": i + 1,
                "tilt angle [°]": view.tilt,
                "shift x [Å]": view.shift_x,
                "shift y [Å]": view.shift_y,
                "confidence [σ]": agreement[i],
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
    work.scatter(
        reduce_view,
        [
            Unit(
                f"reduce-{i:03d}",
                (source, work.result, i, binning, work.image_pixel_size * binning, weighting),
            )
            for i in range(views)
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


def _measure(
    work: Work,
    turn: int,
    pairs: list[tuple[int, int]],
    views: list[View],
    pixel_size: float,
    parameters: CoarseParameters,
) -> list[PairShift]:
    groups = [pairs[i : i + PAIRS_PER_UNIT] for i in range(0, len(pairs), PAIRS_PER_UNIT)]
    names = [f"round-{turn}-{i:03d}" for i in range(len(groups))]
    reduced = work.result.array(REDUCED).shape[1:]
    reports = work.scatter(
        measure_pairs,
        [
            Unit(name, (work.result, group, views, pixel_size, parameters))
            for name, group in zip(names, groups, strict=True)
        ],
        memory=100_000_000 + 12 * 4 * PAIRS_PER_UNIT * reduced[0] * reduced[1],
    )
    return [PairShift(*values) for name in names for values in reports[name]["pairs"]]
