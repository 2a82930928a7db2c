"""Estimation of the CTF: from the rings of all views, by strips, or as another program has it."""

from __future__ import annotations

from tasks.ctf_estimate import Estimate, message, table, write_profiles
from tasks.ctf_import import ImportedCtf, imported_ctf
from tasks.ctf_provenance import refuse_corrected
from tasks.ctf_rings import coherent
from tasks.ctf_strips import by_strips
from tasks.errors import UnusableData
from tasks.parameters import CtfParameters, Execution
from tasks.record import Handedness
from tasks.steps import file_of
from tasks.work import Outcome, Work, begin, step_task


@step_task("ctf")
def ctf(
    project: str,
    series: str,
    parameters: CtfParameters = CtfParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Estimate defocus and astigmatism of every view that is not excluded.

    Reads the motion-corrected images, never dose-weighted ones. Writes, but for an imported CTF,

    - ``spectra`` (view, ky, kx): mean power of the tiles scaled to the view's own defocus, in
      pixels of the attribute ``spectrum_pixel`` [Å];
    - ``profiles`` (view, curve, k): frequency [1/Å], average, equi-phase average, fit, local
      correlation and noise (`kernels.ctf_profile.CtfProfile`).
    """
    work = begin("ctf", project, series, parameters, branch, execution)
    refuse_corrected(work.input("motion"), "ctf")
    if work.done:
        return work.adopt()
    if not work.record.included:
        raise UnusableData(f"{series}: every view is excluded: include some")
    estimate = _estimate(work, parameters)
    write_profiles(work, estimate.profiles)
    record = work.record
    return work.finish(
        message(estimate),
        views=[{"ctf": _dumped(estimate, i)} for i in range(len(record.views))],
        series={
            "hand": estimate.used_hand(),
            "handedness": estimate.hand and estimate.hand.model_dump(),
            "pretilt": estimate.pretilt and estimate.pretilt.model_dump(),
            "thickness": estimate.thickness,
        },
        table=table(record, estimate),
        extra={"pixel_size": work.image_pixel_size, **estimate.extra},
    )


def _estimate(work: Work, parameters: CtfParameters) -> Estimate:
    path = file_of(parameters, "ctf_from", work.series.name)
    if path is not None:
        return _imported(imported_ctf(path, work.record), parameters)
    if parameters.method == "strips":
        return by_strips(work, parameters, work.record.included)
    return coherent(work, parameters, work.record.included)


def _imported(found: ImportedCtf, parameters: CtfParameters) -> Estimate:
    """Return what another program has estimated; the user's word on the hand beats its."""
    forced = parameters.hand if parameters.hand != "measure" else None
    hand = forced or found.hand
    doubts = found.doubts
    if forced and found.hand and forced != found.hand:
        said = f"the file says hand {found.hand:+d}, {forced:+d} was forced"
        doubts = (*doubts, said.replace("-", "−"))
    return Estimate(
        views={i: view for i, view in enumerate(found.estimates) if view is not None},
        hand=hand
        and Handedness(hand=hand, measured=None, confidence=0.5, forced=forced is not None),
        doubts=doubts,
    )


def _dumped(estimate: Estimate, index: int) -> dict[str, object] | None:
    found = estimate.views.get(index)
    return found.model_dump() if found else None
