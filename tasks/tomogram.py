"""What all tomograms have in common: their arrays, slabs and levels, and what is said of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from kernels.deformation import Deformation, depth_alike
from kernels.geometry import View
from kernels.resample import Field
from tasks import cluster
from tasks.alignment import deformation_of, field_for
from tasks.bead_store import gold_in_view
from tasks.box import Box, blocks
from tasks.chunks.aligned import OneView, Source
from tasks.chunks.deconvolve import DECONVOLVED
from tasks.chunks.dose import Weighting
from tasks.chunks.fsc import shell_sums
from tasks.chunks.reconstruct import (
    HALVES,
    Reconstruction,
    edges_of,
    filter_view,
    halve,
    noise_of_rows,
    step_of,
)
from tasks.ctf_provenance import CTF_CORRECTED
from tasks.deconvolve import deconvolve
from tasks.errors import UnusableData, WrongParameter
from tasks.formats.ome_zarr import multiscale, pyramid
from tasks.parameters.tomogram import TomogramParameters
from tasks.placing import Placed, placed
from tasks.scatter import Unit, parts_of
from tasks.work import Outcome, Work

BRICK = 64  # voxels: side of a stored brick; twice that of the finest level of large tomograms
LARGE = 512**3  # voxels
SAMPLE = 8  # rows in the middle from which integers get their scale
# Planes of a layer may be displaced wrongly by so much of a voxel, rms at the series' end; rows
# of views are kept once for each layer.
ALIKE, MOST_LAYERS = 0.2, 8
HELD = 0.4  # of all workers' memory that rows of views, between two steps, may take
# Of a worker's memory that a slab and the rows held beside it may take: above it workers spill what
# they hold to disk, and at 95 % Dask ends them (`tasks.cluster_start`).
FILLED = 0.78


@dataclass(frozen=True)
class Job:
    """A tomogram about to be made.

    Attributes
    ----------
    parameters : TomogramParameters
        With numbers for the place of its box.
    place : Placed
        Where that is, and why there.
    used : tuple of int
        Indices of the views.
    views : tuple of View
        How they look at the specimen, turned as asked.
    deformed : bool
        Whether a local deformation is undone.
    """

    work: Work
    parameters: TomogramParameters
    place: Placed
    box: Box
    source: Source
    used: tuple[int, ...]
    views: tuple[View, ...]
    each: tuple[OneView, ...]
    turned: bool
    deformed: bool
    levels: tuple[tuple[int, ...], ...]

    @property
    def undone(self) -> str:
        """What is said of the local deformation."""
        if not self.deformed:
            return ""
        by_layers = any(one.layers for one in self.each)
        return ", local deformation undone" + ("" if by_layers else " as of the middle plane")

    @property
    def layers(self) -> int:
        """Number of layers of planes that are made of rows of their own."""
        return max(1, *(len(one.layers) for one in self.each))


def prepare(work: Work, parameters: TomogramParameters) -> Job:
    """Find the box and the views of a tomogram, and make its arrays.

    Raises
    ------
    WrongParameter
        If the box does not fit, or halves of frames are asked for with corrected images.
    UnusableData
        If halves are asked for that the movies do not have.
    """
    record, images = work.record, work.input(parameters.images_step)
    shape = images.images().shape[1:]
    used = record.included
    place = placed(work, parameters, (int(shape[0]), int(shape[1])))
    views, box, parameters = place.views, place.box, place.parameters
    if getattr(parameters, "compat", "none") == "novactf":
        box = box.between_voxels()
    turned = any(view.x_tilt for view in views)  # rows of the box are made of others, too
    halves = erased = None
    if parameters.by_frames:
        halves, erased = work.input("motion"), work.input("erase")
        if parameters.images_step != "dose":
            raise WrongParameter(
                f"{record.name}: halves of frames are not corrected for the CTF: use --halves "
                "views, or ctf3d"
            )
        if "odd" not in halves.group():
            raise UnusableData(
                f"{record.name}: its images have no odd and even frames: import movies, or use "
                "--halves views"
            )
    weighting = Weighting.of(images) if halves is None else Weighting.of_frames(images)
    source = Source(
        *(images, halves, erased, work.image_pixel_size, box.binning, box.frame),
        *(weighting, parameters.logarithm, parameters.invert, turned),
    )
    held = deformation_of(work.input(parameters.alignment_step))
    heights = _heights(parameters, box, views, held[0]) if held else []

    def field_at(index: int, view: View, height: float) -> Field | None:
        return field_for(
            *(held, view, index, box.frame, box.voxel),
            rows=turned,
            midplane=height,
            solved=record.geometry(index),
        )

    each = tuple(
        OneView(
            i,
            box.seen_in_frame(view),
            field_at(i, view, box.centre[2]),
            gold_in_view(work, parameters, i),
            tuple(f for height in heights if (f := field_at(i, view, height)) is not None),
        )
        for i, view in zip(used, views, strict=True)
    )
    levels = tuple(pyramid(box.shape))
    for level in range(len(levels)):
        create_bricks(work, str(level), box.shape, parameters.storage, level)
    if parameters.halves != "none":
        for name in HALVES:
            create_bricks(work, name, box.shape, parameters.storage)
    if parameters.deconvolve:
        floats = "float32" if parameters.storage.startswith("int") else parameters.storage
        create_bricks(work, DECONVOLVED, box.shape, floats)
    return Job(
        work, parameters, place, box, source, used, views, each, turned, held is not None, levels
    )


def _heights(
    parameters: TomogramParameters, box: Box, views: Sequence[View], deformation: Deformation
) -> list[float]:
    """Return Z [Å] of the middle of each layer that is made with a field of its own."""
    if getattr(parameters, "method", "wbp") != "wbp":
        return []
    nz = box.shape[0]
    alike = depth_alike(deformation, views, ALIKE * box.voxel)
    layers = max(1, min(MOST_LAYERS, math.ceil(nz * box.voxel / alike)))
    return [
        box.centre[2] + ((low + high - 1) / 2 - nz // 2) * box.voxel
        for low, high in pairwise(edges_of(nz, layers))
    ]


def create_bricks(
    work: Work, name: str, box: tuple[int, int, int], dtype: str, level: int = 0
) -> None:
    """Make an array (z, y, x) of a level of a tomogram, in bricks.

    Those of level 0 are alike along z, so that little is padding; two of level 1 lie exactly in
    four of level 0, and slabs of 128 rows in whole bricks of both.
    """
    side = 2 * BRICK if math.prod(box) >= LARGE else BRICK
    deep = 2 * math.ceil(box[0] / math.ceil(box[0] / side) / 2)
    if level and side > BRICK:
        side, deep = BRICK, deep // 2
    shape = pyramid(box)[level]
    chunks = tuple(min(n, m) for n, m in zip((deep, side, side), shape, strict=True))
    work.result.create_array(name, shape, chunks, dtype=dtype, axes=("z", "y", "x"))


def integer_step(job: Job, how: Reconstruction) -> float | None:
    """Return what 1 of a stored integer means, from a few rows in the middle; None for floats.

    Kept with the units, so that a run that goes on stores the same.
    """
    if not job.parameters.storage.startswith("int"):
        return None
    work, ny = job.work, job.box.shape[1]
    noise = work.result.unit("scale")
    if noise is None:
        middle = (max(0, ny // 2 - SAMPLE // 2), min(ny, ny // 2 + SAMPLE // 2))
        held = work.hold(
            filter_view,
            [
                Unit(f"view-{one.index:03d}", (job.source, one, place, how, [middle]))
                for place, one in enumerate(job.each)
            ],
            memory=job.source.memory(how.layers),
        )
        views = [held[f"view-{one.index:03d}"] for one in job.each]
        (rows,) = parts_of(views, 1, work.execution)
        unit = Unit("scale", (how, *middle, rows))
        noise = work.scatter(noise_of_rows, [unit], job.source.memory())["scale"]
    return step_of(job.parameters, float(noise))


def slab_name(slab: tuple[int, int]) -> str:
    """Return the name of the unit that makes rows [start, stop)."""
    return f"rows-{slab[0]:05d}-{slab[1]:05d}"


def writing_memory(job: Job, rows: int) -> int:
    """Return what writing a slab takes beside it: copies of a few planes of bricks [bytes]."""
    nz, _, nx = job.box.shape
    copies = 4 if job.parameters.storage.startswith("int") else 1
    return 4 * copies * min(nz, 4 * BRICK) * rows * nx


def slabs_of(job: Job, memory: Callable[[int], int], least: int) -> list[tuple[int, int]]:
    """Return the slabs: whole bricks, multiples of `least` rows; they fit, and all have work.

    The split changes no voxel: rows are made alike whatever the slab.
    """
    ny = job.box.shape[1]
    execution = job.work.execution
    limit, workers = cluster.worker_memory(execution), cluster.worker_count(execution)
    unit = max(2 * BRICK, least)  # whole bricks of level 1, too
    rows = unit
    while memory(rows + unit) <= limit // 2 and (rows + unit) * 4 * workers <= ny:
        rows += unit
    return blocks(ny, min(rows, ny))


def room(job: Job, beside: int) -> float:
    """Return how many bytes all workers together may hold, each having room for `beside` more."""
    execution = job.work.execution
    memory, workers = cluster.worker_memory(execution), cluster.worker_count(execution)
    return workers * min(HELD * memory, FILLED * memory - beside)


def passes(
    job: Job, slabs: Sequence[tuple[int, int]], bytes_per_row: int, beside: int
) -> Iterator[list[tuple[int, int]]]:
    """Yield the slabs still to be made, as many at once as the workers hold the rows for.

    Each worker has room for `beside` bytes beside them.
    """
    space = room(job, beside)
    together: list[tuple[int, int]] = []
    for slab in slabs:
        if job.work.result.unit(slab_name(slab)) is not None:
            continue
        rows = sum(stop - start for start, stop in (*together, slab))
        if together and rows * bytes_per_row > space:
            yield together
            together = []
        together.append(slab)
    if together:
        yield together


def complete(
    job: Job, reports: Mapping[str, Any], made: str, step: float | None, extra: Mapping[str, Any],
    row: Mapping[str, Any],
) -> Outcome:  # fmt: skip
    """Make the coarser levels, compare the halves, and finish the result.

    Parameters
    ----------
    reports : mapping
        Of all slabs.
    made : str
        What was done, for the message.
    step : float or None
        What 1 of a stored integer means.
    extra, row : mapping
        Further attributes of the result; further columns of its table.
    """
    work, box, parameters = job.work, job.box, job.parameters
    nz, ny, nx = box.shape
    for level, shape in enumerate(job.levels[2:], 2):  # level 1 was made with level 0
        work.scatter(
            halve,
            [
                Unit(f"level-{level}-{start:05d}", (work.result, level, start, stop))
                for start, stop in blocks(shape[1], BRICK)
            ],
            memory=100_000_000 + 14 * BRICK * shape[0] * shape[2] * 4,
        )
    if parameters.deconvolve:
        deconvolve(work, parameters, box, job.used, 2 * BRICK, step, extra.get(CTF_CORRECTED))
    curve = _compared(job) if parameters.halves != "none" else {}
    mean = sum(report["sum"] for report in reports.values()) / (nz * ny * nx)
    squares = sum(report["squares"] for report in reports.values()) / (nz * ny * nx)
    statistics = {
        "minimum": min(report["minimum"] for report in reports.values()),
        "maximum": max(report["maximum"] for report in reports.values()),
        "mean": mean,
        "standard deviation": math.sqrt(max(0.0, squares - mean**2)),
    }
    about = {
        "alignment": parameters.alignment,
        "views": len(job.views),
        "binning": box.binning,
        **row,
    }
    crossing = curve.get("resolution")
    return work.finish(
        f"{nx}×{ny}×{nz} voxels of {box.voxel:.2f} Å from {len(job.views)} views{made}"
        + job.undone
        + job.place.said
        + (f", halves agree to {crossing:.1f} Å" if crossing else ""),
        table=[
            {"x": nx, "y": ny, "z": nz, "voxel [Å]": box.voxel}
            | {**about, **job.place.row, **statistics}
        ],
        extra={
            "ome": multiscale(work.series.name, box.voxel, len(job.levels), about),
            "pixel_size": box.voxel,
            "binning": box.binning,
            "centre": list(box.centre),
            "place": job.place.about,
            "alignment": parameters.alignment,
            "shape": [nz, ny, nx],
            "statistics": statistics,
            **({"integer_step": step} if step is not None else {}),
            **({"fsc": curve} if curve else {}),
            **extra,
        },
    )


def _compared(job: Job) -> dict[str, Any]:
    """Return the Fourier shell correlation of the halves: k [1/Å], value, where it is 0.143."""
    nz, ny, nx = job.box.shape
    side = min(128, ny, nx)
    sums = job.work.scatter(
        shell_sums,
        [
            Unit(f"fsc-{start:05d}", (job.work.result, start, side))
            for start in range(0, ny - side + 1, side)
        ],
        memory=100_000_000 + 12 * 8 * min(nz, side) * side * side,
    )
    total = [sum(values) for values in zip(*(s["sums"] for s in sums.values()), strict=True)]
    shells = len(total) // 3
    cross, odd, even = (total[i * shells : (i + 1) * shells] for i in range(3))
    k = [i / (2 * (shells - 1) * job.box.voxel) for i in range(shells)]
    values = [
        c / math.sqrt(a * b) if a * b > 0 else 0.0 for c, a, b in zip(cross, odd, even, strict=True)
    ]
    below = next((i for i in range(2, shells) if values[i] < 0.143), None)
    return {"k": k, "fsc": values, "resolution": 1 / k[below] if below else None}
