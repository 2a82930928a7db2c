"""Thickness and position of the specimen: several measurements, and whether they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from math import ceil, inf, nan
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from kernels.align_coarse import aligned_shape
from kernels.fourier import binned_shape
from kernels.geometry import View
from kernels.particle_size import Size, particle_size
from kernels.thickness import Estimate, from_attenuation, verdict
from kernels.thickness_beads import from_beads
from kernels.thickness_profile import INSET, Profiles, from_profiles
from tasks.alignment import deformation_of, field_for, gold_of
from tasks.bead_store import gold_in_view
from tasks.choice import settled_step
from tasks.chunks.thickness import (
    ROWS,
    measure_profiles,
    memory_of_profiles,
    memory_of_views,
    quick_views,
)
from tasks.parameters import Execution, ThicknessParameters
from tasks.scatter import Unit
from tasks.thickness_verdict import finite, judged, row, told
from tasks.work import Outcome, Work, begin, step_task

VIEWS_PER_UNIT = 6
LEAST_VIEWS = 5
# Measurements that tell no height, and what is then said to.
WITHOUT_HEIGHT = ("attenuation", "ctf")
HEIGHT = "tomogram, for the height"
LEAST_TILE = 12  # voxels: side of a tile; smaller fields have fewer tiles
LEAST_SIDE = 36  # voxels; smaller fields are reduced less


@step_task("thickness")
def thickness(
    project: str,
    series: str,
    parameters: ThicknessParameters = ThicknessParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Measure thickness, height, pitch and rise of the specimen in the branch's alignment.

    Writes the middle slices ``xz`` and ``yz`` of a quick tomogram. A specimen that cannot be
    measured is no error: the verdict says so, and why.
    """
    parameters = settled_step(parameters, project, series, branch)
    work = begin("thickness", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    record = work.record
    views = [record.geometry(i) for i in record.included]
    if len(views) < LEAST_VIEWS:
        few = f"{len(views)} views are not left out, {LEAST_VIEWS} are needed: include more"
        return _finished(work, Estimate("none"), [], ("failed", [few]), {})
    voxel = _reduce(work, views, parameters)
    rows = np.asarray(work.result.array(ROWS)[:])
    with threadpool_limits(1):
        size = particle_size(rows, [view.tilt for view in views], voxel)
    estimates = _estimates(work, views, voxel, size, parameters)
    together = verdict(estimates)
    word, reasons = judged(together, estimates, parameters.height, silent(parameters))
    return _finished(
        work,
        together.slab,
        [row(e) for e in estimates] + [row(replace(together.slab, method="chosen"))],
        (word, reasons),
        {"pixel_size": voxel, "particle_radius_A": size.radius if size else None},
    )


def _finished(
    work: Work,
    slab: Estimate,
    table: list[dict[str, Any]],
    judged: tuple[str, list[str]],
    extra: dict[str, Any],
) -> Outcome:
    word, reasons = judged
    return work.finish(
        told(slab, word, reasons),
        table=table,
        extra={
            "slab": {name: finite(value) for name, value in asdict(slab).items()},
            "verdict": {"word": word, "reasons": reasons},
            "alignment": getattr(work.parameters, "alignment", ""),
            **extra,
        },
    )


def _reduce(work: Work, views: Sequence[View], parameters: ThicknessParameters) -> float:
    """Write `ROWS`, the filtered rows of the coarse aligned views; return their pixel [Å]."""
    record, source = work.record, work.input("dose")
    pixel = work.image_pixel_size
    images = (source.images().shape[1], source.images().shape[2])
    binning = ceil(parameters.pixel_size / pixel - 1e-6)
    binning = max(1, min(binning, min(images) // LEAST_SIDE))
    ny, nx = aligned_shape(binned_shape(images, binning)[0], views[0].axis)
    voxel = pixel * binning
    turned = any(view.x_tilt for view in views)
    alignment = work.input(parameters.alignment_step)
    held = deformation_of(alignment)
    beads = "points" in alignment.group() and parameters.alignment_step == "align"
    work.result.create_array(ROWS, (len(views), ny, nx), (1, ny, nx))
    jobs = [
        (
            i,
            place,
            view,
            field_for(held, view, i, (ny, nx), voxel, rows=turned),
            gold_of(alignment, i, pixel) if beads else gold_in_view(work, parameters, i),
        )
        for place, (i, view) in enumerate(zip(record.included, views, strict=True))
    ]
    work.scatter(
        quick_views,
        [
            Unit(
                f"views-{start:03d}",
                (source, work.result, jobs[start : start + VIEWS_PER_UNIT], pixel, binning),
            )
            for start in range(0, len(jobs), VIEWS_PER_UNIT)
        ],
        memory=memory_of_views(images, VIEWS_PER_UNIT, (ny, nx)),
    )
    return voxel


def _estimates(
    work: Work,
    views: Sequence[View],
    voxel: float,
    size: Size | None,
    parameters: ThicknessParameters,
) -> list[Estimate]:
    """Return what each measurement says, the most precise ones first."""
    found = []
    if parameters.alignment_step == "align" and asked("beads", parameters):
        alignment = work.input("align")
        diameter = float(alignment.attributes().get("diameter_A") or 100.0)
        found.append(from_beads(np.asarray(alignment.array("points")[:]), diameter))
    profiles = _profiles(work, views, voxel, parameters)
    if asked("tomogram", parameters) or parameters.method in WITHOUT_HEIGHT:
        with threadpool_limits(1):
            by_tomogram = _by_tomogram(profiles, size, parameters)
        found.append(by_tomogram if asked("tomogram", parameters) else _height_of(by_tomogram))
    if asked("attenuation", parameters):
        record = work.record
        means = np.array(work.input("motion").attributes()["means"])
        doses = np.array([view.dose for view in record.views])
        if doses.min() > 0:
            means = means / doses
        tilts = [view.tilt for view in views]
        free_path = parameters.mean_free_path
        found.append(from_attenuation(means[list(record.included)], tilts, free_path))
    if parameters.reads_ctf and asked("ctf", parameters):
        found.append(_by_ctf(work, views))
    return found


def silent(parameters: ThicknessParameters) -> str:
    """Return why the measurement that is asked for cannot be made, nothing where it can."""
    if parameters.method == "beads" and parameters.alignment_step != "align":
        return (
            f"the alignment is {parameters.alignment_step}, and beads are known where they were "
            "aligned by: use --alignment fiducial, or another --method"
        )
    return ""


def _height_of(estimate: Estimate) -> Estimate:
    """Return what a quick tomogram says of height and slope only."""
    return replace(estimate, method=HEIGHT, thickness=nan, thickness_error=inf)


def asked(method: str, parameters: ThicknessParameters) -> bool:
    """Tell whether the parameters ask for a measurement."""
    return parameters.method in ("auto", method)


def _profiles(
    work: Work, views: Sequence[View], voxel: float, parameters: ThicknessParameters
) -> Profiles:
    """Make the quick tomogram: its slices, and the profiles of its tiles."""
    _, ny, nx = work.result.array(ROWS).shape
    along, across = (
        max(1, min(n, side // LEAST_TILE))
        for n, side in zip(parameters.tiles, (ny, nx), strict=True)
    )
    planes = max(8, round(parameters.height / voxel))
    report = work.scatter(
        measure_profiles,
        [Unit("profiles", (work.result, views, voxel, planes, (along, across)))],
        memory=memory_of_profiles(len(views), planes, ceil(ny / along), nx),
    )["profiles"]
    return Profiles(**{name: np.array(report[name]) for name in ("values", "x", "y", "z")})


def _by_tomogram(
    profiles: Profiles, size: Size | None, parameters: ThicknessParameters
) -> Estimate:
    if parameters.inset != "auto":
        return from_profiles(profiles, inset=parameters.inset, inset_error=0.0)
    if size is None:
        return from_profiles(profiles, inset=INSET)
    return from_profiles(profiles, inset=size.radius, inset_error=size.error)


def _by_ctf(work: Work, views: Sequence[View]) -> Estimate:
    """Return thickness by nodes of the rings and pre-tilt by the defocus gradient."""
    record, estimate = work.record, Estimate("ctf")
    error = work.input("ctf").attributes().get("thickness_error")
    if record.thickness is not None:
        # Without an error of their own nodes are as good as their spacing is seen.
        own = float(error) if error else 0.1 * record.thickness
        estimate = replace(estimate, thickness=record.thickness, thickness_error=own)
    if record.pretilt is not None:
        plane = record.pretilt
        # An alignment may have applied an offset already.
        nominal = [record.views[i].tilt_angle for i in record.included]
        moved = np.median([v.tilt for v in views] - np.array(nominal))
        estimate = replace(
            estimate,
            pitch=plane.about_axis - float(moved),
            pitch_error=float(np.hypot(plane.about_error, 0.3)),
            rise=plane.across_axis,
            rise_error=float(np.hypot(plane.across_error, 0.3)),
        )
    return estimate
