"""3-D CTF correction: views corrected at many planes of defocus, back-projected into one tomogram.

Work is split as the images demand. One unit transforms a view (once); then there is one unit for
each plane, which corrects all views that the plane crosses, whole ones, so that no edge of a part
shows; then one for each slab of rows, which back-projects all planes in order. What a plane's unit
makes stays in its worker's memory, cut into the rows that each slab needs and to the columns in
which the plane crosses the box: nothing is written but the tomogram. No volume is ever added to by
two units: a lost worker costs what it held, which is made again, and sums are the same whatever
the number of workers. Where the rows of all planes do not fit the workers together, slabs are
made in several passes; where the spectra of all views do not, in groups of views.

Where a deformation is undone in layers of the box, each layer has views, planes and back-projection
of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from kernels import wbp
from kernels.ctf import Ctf, wavelength
from kernels.ctf_correct import Correction
from kernels.ctf_planes import Planes, automatic_step, lay_planes, novactf_planes
from kernels.ctf_slope import ctf_in_aligned
from kernels.geometry import View
from tasks.box import angstrom
from tasks.choice import settled_step
from tasks.chunks.ctf3d import Correcting, back_project_corrected
from tasks.chunks.ctf3d_hands import can_score_hands, score_hands
from tasks.chunks.reconstruct import Reconstruction
from tasks.ctf3d_planes import Held, planned
from tasks.ctf_provenance import CTF_CORRECTED, refuse_corrected
from tasks.ctf_views import ctf_of_views, hand_in_geometry
from tasks.errors import WrongParameter
from tasks.parameters import Ctf3dParameters, Execution, ReconstructParameters
from tasks.record import TiltSeries
from tasks.scatter import Unit
from tasks.tomogram import Job, complete, integer_step, passes, prepare, slab_name
from tasks.work import Outcome, Work, begin, step_task

SURE = 4.0  # standard errors by which the opposite hand must be better to be told


@step_task("ctf3d")
def ctf3d(
    project: str,
    series: str,
    parameters: Ctf3dParameters = Ctf3dParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Reconstruct a CTF-corrected tomogram, written as that of `reconstruct`.

    Its attribute ``ctf_corrected`` says how.
    """
    parameters = settled_step(parameters, project, series, branch)
    work = begin("ctf3d", project, series, parameters, branch, execution)
    _check_novactf(work.series.name, parameters)
    refuse_corrected(work.input("dose"), "ctf3d")
    if work.done:
        return work.adopt()
    job = prepare(work, parameters)
    hand = _hand(work, parameters)
    how = _correcting(job, parameters, hand)
    layers = [(one, one.layout()) for one in how.in_layers(job.layers)]
    plan = planned(job, layers)
    held = Held(job, how.ctfs, layers, plan)

    def hands() -> Unit:
        where = (job.place.middle, job.place.depths)
        return Unit("hands", (held.bands, how, hand, *where), score_hands)

    step = integer_step(job, _uncorrected(job))
    checks = parameters.check_hand and can_score_hands(job.box.voxel)
    reports: dict[str, Any] = {
        slab_name(slab): work.result.unit(slab_name(slab)) for slab in plan.slabs
    }
    for together in passes(job, plan.slabs, plan.row, plan.beside):
        packed = held.planes(together, checks)
        units = [hands()] if checks else []  # beside the slabs: it is one unit
        units += [
            Unit(slab_name(slab), (work.result, layers, *slab, rows, step))
            for slab, rows in zip(together, packed, strict=True)
        ]
        del packed
        reports |= work.scatter(back_project_corrected, units, plan.slab)
        del units
    reports.pop("hands", None)
    scores: dict[str, float] = {}
    if checks and not (scores := work.result.unit("hands") or {}):  # killed when slabs were done
        held.make_bands()
        scores = work.scatter(score_hands, [hands()], plan.slab)["hands"]
    levels = {int(level) for _, layout in layers for level in layout.levels}
    row = {
        "planes": len(levels),
        "step [Å]": how.planes.step,
        "correction": how.correction.mode,
        "hand": hand,
        **{f"score, {name}": score for name, score in scores.items()},
    }
    said = _said(work.record, how, hand, scores)
    return complete(job, reports, said, step, _extra(how, hand, scores), row)


def _said(record: TiltSeries, how: Correcting, hand: int, scores: dict[str, float]) -> str:
    levels = int((how.planes.first + how.planes.count).max() - how.planes.first.min())
    said = f", CTF corrected at {levels} planes {how.planes.step / 10:.1f} nm apart"
    if how.parameters.compat == "novactf":
        said += " as by novaCTF, nearest plane"
    if how.parameters.hand == "auto" and record.hand is None:
        said += f" with hand {hand:+d}, which is unknown"
    if scores and scores["as used"] - scores["opposite"] < -SURE * scores["error"]:
        said += (
            f"; hand {hand:+d} looks wrong: {-hand:+d} makes odd and even views agree better "
            f"(by {scores['opposite'] - scores['as used']:.4f} ± {scores['error']:.4f}): "
            "check --hand"
        ).replace("-1", "−1")
    return said


def _extra(how: Correcting, hand: int, scores: dict[str, float]) -> dict[str, Any]:
    return {
        CTF_CORRECTED: {
            "by": "ctf3d",
            "mode": how.correction.mode,
            "step_A": how.planes.step,
            "hand": hand,
        },
        "planes": {
            "step_A": how.planes.step,
            "first": how.planes.first.tolist(),
            "count": how.planes.count.tolist(),
        },
        "hand_scores": scores,
    }


def _check_novactf(name: str, parameters: Ctf3dParameters) -> None:
    """Refuse what novaCTF does not have where its way is asked for.

    Raises
    ------
    WrongParameter
        Naming the parameter.
    """
    if parameters.compat != "novactf":
        return
    for wrong, given in (
        (parameters.correction == "wiener", "correction wiener: use flip or multiply"),
        (parameters.first_peak_intact, "first_peak_intact: leave it out"),
        (parameters.interpolation != "linear", "interpolation spline: use linear"),
    ):
        if wrong:
            raise WrongParameter(f"{name}: ctf3d: novaCTF has no {given}, or compat none")


def _hand(work: Work, parameters: Ctf3dParameters) -> int:
    if parameters.hand != "auto":
        return parameters.hand
    return hand_in_geometry(work.record) or 1  # IMOD's usual; the message says so


def _correcting(job: Job, parameters: Ctf3dParameters, hand: int) -> Correcting:
    acquisition, box = job.work.record.acquisition, job.box
    ctfs = aligned_ctfs(job.work.record, job.used, job.views)
    step = parameters.defocus_step
    if step == "auto":
        step = automatic_step(parameters.resolution or 2 * box.voxel, acquisition.voltage)
    nova = parameters.compat == "novactf"
    planes: Planes
    if nova:
        # SHIFT as its user gives it; a box laid around the specimen is where the defoci hold.
        shift = 0.0 if parameters.z_shift == "auto" else angstrom(parameters.z_shift, box.voxel)
        planes = novactf_planes(
            job.views, box.over_all_rows, box.voxel, shift, step=step, hand=hand
        )
    else:
        centre = (box.centre[0], 0.0, box.centre[2])
        planes = lay_planes(
            *(job.views, box.over_all_rows, box.voxel, centre),
            step=step,
            hand=hand,
            depths=job.place.depths,
            blend=parameters.blend,
        )
    tilts = [view.tilt for view in job.views]
    steps = wbp.angular_steps(tilts)
    weights = np.full(len(tilts), steps.mean()) if nova else steps
    # A point spreads over λ Δf k; twice that leaves room for what the flips' edges add.
    most = max(abs(ctf.defocus) for ctf in ctfs) * wavelength(acquisition.voltage)
    margin = min(ceil(2 * most * 0.5 / box.voxel**2), max(box.frame) // 2)
    correction = Correction(
        parameters.correction,
        parameters.snr,
        parameters.snr_falloff,
        parameters.first_peak_intact,
    )
    return Correcting(
        *(job.views, tuple(ctfs), box, job.turned, planes, correction),
        # novaCTF transforms square images as they are.
        *(tuple(weights.tolist()), 0 if nova else max(32, margin), parameters),
    )


def aligned_ctfs(record: TiltSeries, used: Sequence[int], views: Sequence[View]) -> list[Ctf]:
    """Return the CTF of each view used, as its aligned image has it.

    Raises
    ------
    UnusableData
        If no view has an estimate.
    """
    ctfs = ctf_of_views(record)
    return [ctf_in_aligned(ctfs[i].ctf, view) for i, view in zip(used, views, strict=True)]


def _uncorrected(job: Job) -> Reconstruction:
    """Return how the views are back-projected as they are: flips keep the power of the noise."""
    given = job.parameters
    fields = set(type(given).model_fields) & set(ReconstructParameters.model_fields)
    parameters = ReconstructParameters(**{name: getattr(given, name) for name in fields})
    return Reconstruction(job.views, job.box, job.turned, parameters, job.layers)
