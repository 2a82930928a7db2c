"""Reconstruction of the tomogram by weighted back-projection, SIRT or SART."""

from __future__ import annotations

from functools import partial
from typing import Any

from tasks.choice import settled_step
from tasks.chunks.reconstruct import (
    Reconstruction,
    back_project_slab,
    filter_view,
    kept_name,
)
from tasks.ctf_provenance import CTF_CORRECTED, already_corrected
from tasks.parameters import Execution, ReconstructParameters
from tasks.scatter import Unit, parts_of
from tasks.tomogram import (
    Job,
    complete,
    create_bricks,
    integer_step,
    passes,
    prepare,
    slab_name,
    slabs_of,
    writing_memory,
)
from tasks.work import Outcome, begin, step_task

# Parameters that only iterations use, and that these never use, or only for what they start from.
OF_ITERATIONS: tuple[str, ...] = (
    "iterations",
    "subsets",
    "relaxation",
    "positive",
    "mask",
    "start",
    "keep_every",
)
OF_BACK_PROJECTION: tuple[str, ...] = ("interpolation",)
FILTERS = ("weighting", "sirt_like_iterations", "radial_cutoff", "radial_falloff")


@step_task("reconstruct")
def reconstruct(
    project: str,
    series: str,
    parameters: ReconstructParameters = ReconstructParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Reconstruct a tomogram: one unit per view to align and filter, then one per slab of rows.

    Writes OME-Zarr 0.5 levels "0", "1", … (z, y, x), as if trimmed with rotation about x; matter
    is dark unless inverted. Half tomograms are the arrays "odd" and "even". Rows of the tomogram
    depend on no other rows, so slabs along y share nothing, neither rows of views nor bricks.
    Rows of views stay in the workers' memory, and travel to the worker that needs them: no aligned
    stack is written.
    """
    parameters = settled_step(parameters, project, series, branch)
    work = begin("reconstruct", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    job = prepare(work, parameters)
    how = Reconstruction(job.views, job.box, job.turned, parameters, job.layers)
    _make_kept(job, how)
    memory = partial(slab_memory, job, how)
    slabs = slabs_of(job, memory, 1)
    held_row = 4 * len(job.views) * job.box.frame[1] * _parts(how) * how.layers
    step = integer_step(job, how)
    reports: dict[str, Any] = {slab_name(slab): work.result.unit(slab_name(slab)) for slab in slabs}
    most = memory(max(stop - start for start, stop in slabs))
    for together in passes(job, slabs, held_row, most):
        held = work.hold(
            filter_view,
            [
                Unit(f"view-{one.index:03d}", (job.source, one, place, how, together))
                for place, one in enumerate(job.each)
            ],
            memory=job.source.memory((1 + how.filters_halves) * how.layers),
        )
        views = [held.pop(f"view-{one.index:03d}") for one in job.each]
        units = [
            Unit(slab_name(slab), (work.result, how, *slab, rows, step))
            for slab, rows in zip(together, parts_of(views, len(together), execution), strict=True)
        ]
        del views  # or their rows count twice, whole and as parts
        reports |= work.scatter(back_project_slab, units, memory=most)
        del units
    name = {"wbp": "", "sirt": ", SIRT", "sart": ", SART"}[parameters.method]
    if unused := without_effect(parameters):
        name += f" ({', '.join(unused)} without effect)"
    corrected = already_corrected(job.source.images)
    if corrected:
        name += f", corrected for the CTF by {corrected.get('by', parameters.images)}"
    extra = {CTF_CORRECTED: dict(corrected)} if corrected else {}
    return complete(job, reports, name, step, extra, {"method": parameters.method})


def without_effect(parameters: ReconstructParameters) -> list[str]:
    """Return the options that were given, but have no effect on the method that was chosen."""
    unused = OF_ITERATIONS
    if parameters.method != "wbp":
        unused = OF_BACK_PROJECTION if parameters.start == "wbp" else OF_BACK_PROJECTION + FILTERS
        unused += ("subsets",) if parameters.method == "sirt" else ()
    fields = type(parameters).model_fields
    given = [name for name in unused if getattr(parameters, name) != fields[name].default]
    return [f"--{name.replace('_', '-')}" for name in given]


def _parts(how: Reconstruction) -> int:
    """Return how many copies of a view's rows are held: of halves of frames, or filtered twice."""
    return 2 if how.parameters.by_frames or how.filters_halves else 1


def slab_memory(job: Job, how: Reconstruction, rows: int) -> int:
    """Return the most memory that a slab of `rows` rows takes, without the rows of views [bytes].

    Those that it is made of are held by the workers; here are the copies in one array. What
    bringing the views into the aligned frame took stays with the worker, too: the rows that are
    held lie between its holes, which are too small for a volume.
    """
    nz, ny, nx = job.box.shape
    finished = 1 if how.parameters.halves == "none" else 3
    copies = 2 * _parts(how) if how.iterates else _parts(how) * job.layers
    if how.fine:
        copies += 2  # one part of one layer, sampled twice as finely
    if how.parameters.halves == "views":
        copies += 1  # of every other view
    first, last = how.rows(ny // 2, ny // 2)
    needed = rows + last - first  # with x-axis tilt further rows are read, and solved for
    volumes = finished * rows + (5 * needed if how.iterates else 0)
    taken = needed * copies * len(job.views) * job.box.frame[1]
    made = 4 * (taken + volumes * nz * nx) + writing_memory(job, rows)
    return job.source.memory(job.layers) + made


def _make_kept(job: Job, how: Reconstruction) -> None:
    """Make the arrays of volumes that are kept on the way."""
    every = how.parameters.keep_every
    if every is None or not how.iterates:
        return
    for iteration in range(every, how.parameters.iterations + 1, every):
        create_bricks(job.work, kept_name(iteration), job.box.shape, "float32")
