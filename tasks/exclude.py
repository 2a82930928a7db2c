"""Choice of the views that later steps use: spoilt ones go, and what the user names."""

from __future__ import annotations

import re
from math import ceil

import numpy as np

from kernels.align_coarse import PairShift, neighbour_pairs
from kernels.fourier import binned_shape
from kernels.geometry import View
from tasks.chunks.alignment import REDUCED, measure_pairs
from tasks.chunks.images import memory_of_image
from tasks.chunks.views import measure_view
from tasks.errors import WrongParameter
from tasks.formats.view_list import indices_of
from tasks.parameters import CoarseParameters, ExcludeParameters, Execution
from tasks.scatter import Unit
from tasks.steps import file_of
from tasks.view_findings import Judge, Measured
from tasks.work import Outcome, Work, begin, step_task

REDUCED_PIXEL = 10.0  # Å of the views that are compared with each other
REDUCED_SIDES = (64, 512)  # pixels of such a view, at least along each side and at most
PAIRS_PER_UNIT = 8


@step_task("exclude")
def exclude(
    project: str,
    series: str,
    parameters: ExcludeParameters = ExcludeParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Give each view of a series a reason for leaving it out, or none.

    Each image is read once. What the import has flagged stays flagged; the user's lists beat the
    detection, and a view left out by the user has no say about the others.
    """
    work = begin("exclude", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    views = work.record.views
    include, out = (_chosen(work, parameters, keep) for keep in (True, False))
    outside = set(view_list(parameters.subset_views.get(series, ""), series, len(views))) - include
    means = work.input("motion").attributes()["means"]
    judge = Judge(
        tilts=[view.tilt_angle for view in views],
        means=means,
        used=[
            i not in out | outside and (view.excluded is None or i in include)
            for i, view in enumerate(views)
        ],
        motions=[view.motion.total if view.motion else None for view in views],
        measured=_measure(work, parameters),
        parameters=parameters,
    )
    reasons = [view.excluded for view in views]
    doubts = [""] * len(views)
    for found in judge.findings:
        i = found.index
        if found.certain and i not in include:
            reasons[i] = reasons[i] or found.reason
        else:
            doubts[i] = "; ".join(filter(None, (doubts[i], found.reason)))
    for i in include:
        reasons[i] = None
    for i in out:
        reasons[i] = "left out by the user"
    for i in outside - out:
        reasons[i] = "left out by a subset"
    if sum(reason is None for reason in reasons) < 3:
        raise WrongParameter(
            f"{series}: fewer than 3 of {len(views)} views would be left: name fewer views, or "
            "switch off what finds them by a threshold of 0: "
            + "; ".join(dict.fromkeys(filter(None, reasons)))
        )
    doubts = [doubt if reasons[i] is None else "" for i, doubt in enumerate(doubts)]
    angles = [f"{i} ({view.tilt_angle:.0f}°)" for i, view in enumerate(views, 1)]
    gone = [angles[i] for i, reason in enumerate(reasons) if reason is not None]
    told = f"{len(gone)} of {len(views)} views left out: {', '.join(gone)}" if gone else ""
    doubtful = [f"{angles[i]} {doubt}" for i, doubt in enumerate(doubts) if doubt]
    return work.finish(
        (told or "all views kept") + (f"; doubtful: {', '.join(doubtful)}" if doubtful else ""),
        views=[{"excluded": reason} for reason in reasons],
        table=[
            {
                "view": i + 1,
                "tilt angle [°]": view.tilt_angle,
                "mean": means[i],
                **{name: values[i] for name, values in judge.columns.items()},
                "excluded": reasons[i] or "",
                "doubt": doubts[i],
            }
            for i, view in enumerate(views)
        ],
    )


def _measure(work: Work, parameters: ExcludeParameters) -> Measured | None:
    """Let the workers measure all views, and then compare neighbours."""
    wanted = ("blocked_threshold", "shift_threshold", "blur_threshold")
    if not any(getattr(parameters, name) for name in wanted):
        return None
    source, record = work.input("motion"), work.record
    number, *full = source.images().shape
    shape, pixel_size = (full[0], full[1]), work.image_pixel_size
    binning = max(1, round(REDUCED_PIXEL / pixel_size), ceil(max(shape) / REDUCED_SIDES[1]))
    binning = max(1, min(binning, min(shape) // REDUCED_SIDES[0]))
    reduced, _ = binned_shape(shape, binning)
    work.result.create_array(REDUCED, (number, *reduced), (1, *reduced))
    names = [f"view-{i:03d}" for i in range(number)]
    told = work.scatter(
        measure_view,
        [Unit(name, (source, work.result, i, pixel_size, binning)) for i, name in enumerate(names)],
        memory=memory_of_image(shape),
    )
    blocks, ratios, errors, noise = (
        np.array([told[name][what] for name in names])
        for what in ("blocks", "ratios", "errors", "noise")
    )
    tilts = [view.tilt_angle for view in record.views]
    # Every view: whether it takes part is decided later, and a view of nothing costs little.
    axis, pairs = record.acquisition.tilt_axis, neighbour_pairs(tilts, [True] * number)
    geometry = [View(tilt, axis) for tilt in tilts]
    groups = [pairs[i : i + PAIRS_PER_UNIT] for i in range(0, len(pairs), PAIRS_PER_UNIT)]
    compared = [f"pairs-{i:03d}" for i in range(len(groups))]
    of_pairs = work.scatter(
        measure_pairs,
        [
            Unit(name, (work.result, group, geometry, pixel_size * binning, CoarseParameters()))
            for name, group in zip(compared, groups, strict=True)
        ],
        memory=100_000_000 + 12 * 4 * PAIRS_PER_UNIT * reduced[0] * reduced[1],
    )
    shifts = [PairShift(*values) for name in compared for values in of_pairs[name]["pairs"]]
    return Measured(blocks, ratios, errors, noise, pairs, shifts, axis, reduced)


def _chosen(work: Work, parameters: ExcludeParameters, keep: bool) -> set[int]:
    """Return the views, from 0, that the user wants to keep, or to leave out.

    An option beats a file; of two alike, to leave out beats to keep.
    """
    name, views = work.series.name, len(work.record.views)
    kinds = (("views", "list"), ("include", "include_list"))
    own, other = kinds[::-1] if keep else kinds
    options = view_list(getattr(parameters, own[0]).get(name, ""), name, views)
    beaten = set(view_list(getattr(parameters, other[0]).get(name, ""), name, views))
    path = file_of(parameters, own[1], name)
    listed = indices_of(path, name, views) if path else []
    chosen = set(options) | (set(listed) - beaten)
    return chosen - _chosen(work, parameters, keep=False) if keep else chosen


def view_list(text: str, series: str, views: int) -> list[int]:
    """Return the indices, from 0, that a list such as ``1,3-5`` names, counting from 1.

    Raises
    ------
    WrongParameter
        If the text is no such list, or names a view that the series does not have.
    """
    indices: list[int] = []
    for part in filter(None, re.split(r"[,\s]+", text)):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise WrongParameter(f"{series}: {part!r} names no views: write for example 1,3-5")
        low, high = int(match[1]), int(match[2] or match[1])
        if not 1 <= low <= high <= views:
            raise WrongParameter(f"{series}: views {part} do not exist, there are 1 to {views}")
        indices.extend(range(low - 1, high))
    return indices
