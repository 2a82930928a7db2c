"""Reconstruction of the tomogram by weighted back-projection."""

from __future__ import annotations

import math
from functools import partial

from kernels.align_coarse import aligned_shape
from tasks import cluster
from tasks.alignment import deformation_of, field_for
from tasks.choice import settled_step
from tasks.chunks.dose import Weighting
from tasks.chunks.reconstruct import (
    ROWS,
    back_project_slab,
    filter_view,
    halve,
    memory_of_rows,
    memory_of_view,
)
from tasks.errors import WrongParameter
from tasks.formats.ome_zarr import multiscale, pyramid
from tasks.parameters import Execution, ReconstructParameters
from tasks.scatter import Unit
from tasks.work import Outcome, Work, begin, step_task

FINEST_VOXEL = 5.0  # Å: what binning "auto" goes up to
BRICK = 64  # voxels: side of a stored brick; twice that in large tomograms


@step_task("reconstruct")
def reconstruct(
    project: str,
    series: str,
    parameters: ReconstructParameters = ReconstructParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Reconstruct a tomogram: one worker per view to filter, then one per slab of rows.

    Writes OME-Zarr 0.5 levels "0", "1", … (z, y, x), as if trimmed with rotation about x; matter
    is dark unless inverted. Rows of the tomogram depend on no other rows, so slabs along y share
    nothing, neither rows of views nor bricks.
    """
    parameters = settled_step(parameters, project, series, branch)
    work = begin("reconstruct", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    record, source = work.record, work.input("dose")
    pixel_size = work.image_pixel_size
    binning = chosen_binning(parameters, pixel_size)
    voxel = pixel_size * binning
    images = source.images().shape[1:]
    used = record.included
    views = [record.geometry(i) for i in used]
    ny, nx = (n // binning for n in aligned_shape((images[0], images[1]), views[0].axis))
    nz = max(2, round(parameters.thickness / voxel))
    if min(ny, nx) < 16:
        raise WrongParameter(
            f"{series}: binning {binning} leaves {ny}×{nx} pixels of {images[0]}×{images[1]}: "
            "use a smaller reconstruct.binning"
        )
    brick = BRICK if ny * nx * nz < 1024**3 else 2 * BRICK
    levels = pyramid((nz, ny, nx))
    for level, shape in enumerate(levels):
        chunks = tuple(min(brick, n) for n in shape)
        work.result.create_array(
            str(level), shape, chunks, dtype=parameters.storage, axes=("z", "y", "x")
        )
    work.result.create_array(ROWS, (len(views), ny, nx), (1, min(brick, ny), nx))
    weighting = Weighting.of(source)
    # With x-axis tilt rows of the volume are made of rows beyond its own.
    turned = any(view.x_tilt for view in views)
    held = deformation_of(work.input(parameters.alignment_step))
    work.scatter(
        filter_view,
        [
            Unit(
                f"view-{i:03d}",
                (
                    *(source, work.result, i, place, view, pixel_size, binning, weighting),
                    parameters,
                    turned,
                    field_for(held, view, i, (ny, nx), voxel, rows=turned),
                ),
            )
            for place, (i, view) in enumerate(zip(used, views, strict=True))
        ],
        memory=memory_of_view((images[0], images[1]), (ny, nx)),
    )
    rows = _rows_of_a_slab(work, partial(memory_of_rows, views=len(views), nz=nz, nx=nx), ny, brick)
    reports = work.scatter(
        back_project_slab,
        [
            Unit(
                f"rows-{start:05d}-{stop:05d}",
                (work.result, start, stop, views, voxel, parameters.z_shift),
            )
            for start, stop in _blocks(ny, rows)
        ],
        memory=memory_of_rows(rows, len(views), nz, nx),
    )
    for level, shape in enumerate(levels[1:], 1):
        work.scatter(
            halve,
            [
                Unit(f"level-{level}-{start:05d}", (work.result, level, start, stop))
                for start, stop in _blocks(shape[1], brick)
            ],
            memory=100_000_000 + 8 * brick * nx * nz * 4,
        )
    mean = sum(report["sum"] for report in reports.values()) / (nz * ny * nx)
    squares = sum(report["squares"] for report in reports.values()) / (nz * ny * nx)
    statistics = {
        "minimum": min(report["minimum"] for report in reports.values()),
        "maximum": max(report["maximum"] for report in reports.values()),
        "mean": mean,
        "standard deviation": math.sqrt(max(0.0, squares - mean**2)),
    }
    made = {"alignment": parameters.alignment, "views": len(views), "binning": binning}
    return work.finish(
        f"{nx}×{ny}×{nz} voxels of {voxel:.2f} Å from {len(views)} views"
        + (", local deformation undone" if held else ""),
        table=[{"x": nx, "y": ny, "z": nz, "voxel [Å]": voxel, **made, **statistics}],
        extra={
            "ome": multiscale(series, voxel, len(levels), made),
            "pixel_size": voxel,
            "binning": binning,
            "centre": [0.0, 0.0, parameters.z_shift],
            "alignment": parameters.alignment,
            "shape": [nz, ny, nx],
            "statistics": statistics,
        },
    )


def chosen_binning(parameters: ReconstructParameters, pixel_size: float) -> int:
    """Return the binning of images of `pixel_size` [Å]: as given, or voxels of at least 5 Å."""
    if parameters.binning != "auto":
        return parameters.binning
    return max(1, math.ceil(FINEST_VOXEL / pixel_size - 1e-6))


def _blocks(length: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def _rows_of_a_slab(work: Work, memory: partial[int], ny: int, brick: int) -> int:
    """Return how many rows, in whole bricks, a worker takes: they fit, and all have work."""
    limit = cluster.worker_memory(work.execution)
    bricks = 1
    while (
        memory(rows=(bricks + 1) * brick) <= limit // 2
        and (bricks + 1) * brick * 2 * cluster.worker_count(work.execution) <= ny
    ):
        bricks += 1
    return min(bricks * brick, ny)
