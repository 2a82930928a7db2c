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
from tasks.scatter import Unit, part_of
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
    memory = partial(slab_memory, job, parameters)
    slabs = slabs_of(job, memory, 1)
    frames = 2 if parameters.by_frames else 1
    held_row = 4 * len(job.views) * job.box.frame[1] * frames * how.layers
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
            memory=job.source.memory(how.layers),
        )
        views = [held.pop(f"view-{one.index:03d}") for one in job.each]
        reports |= work.scatter(
            back_project_slab,
            [
                Unit(
                    slab_name(slab),
                    (
                        *(work.result, how, *slab),
                        *([part_of(view, i, execution) for view in views], step),
                    ),
                )
                for i, slab in enumerate(together)
            ],
            memory=most,
        )
        del views
    name = {"wbp": "", "sirt": ", SIRT", "sart": ", SART"}[parameters.method]
    corrected = already_corrected(job.source.images)
    if corrected:
        name += f", corrected for the CTF by {corrected.get('by', parameters.images)}"
    extra = {CTF_CORRECTED: dict(corrected)} if corrected else {}
    return complete(job, reports, name, step, extra, {"method": parameters.method})


def slab_memory(job: Job, parameters: ReconstructParameters, rows: int) -> int:
    """Return the most memory that a slab of `rows` rows takes, without the rows of views [bytes].

    Those that it is made of are held by the workers; here are the copies in one array. What
    bringing the views into the aligned frame took stays with the worker, too: the rows that are
    held lie between its holes, which are too small for a volume.
    """
    nz, _, nx = job.box.shape
    iterates = parameters.method != "wbp"
    volumes = (6 if iterates else 1) * (1 if parameters.halves == "none" else 3)
    parts = 2 if parameters.by_frames else 1
    copies = 2 * parts if iterates else parts * job.layers
    if not iterates and parameters.interpolation == "spline":
        copies += 2  # one part of one layer, sampled twice as finely
    taken = copies * len(job.views) * job.box.frame[1]
    made = 4 * rows * (taken + volumes * nz * nx) + writing_memory(job, rows)
    return job.source.memory(job.layers) + made


def _make_kept(job: Job, how: Reconstruction) -> None:
    """Make the arrays of volumes that are kept on the way."""
    every = how.parameters.keep_every
    if every is None or not how.iterates or how.parameters.halves != "none":
        return
    for iteration in range(every, how.parameters.iterations + 1, every):
        create_bricks(job.work, kept_name(iteration), job.box.shape, "float32")
