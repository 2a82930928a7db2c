"""Estimation of the CTF: every view alone first, then with what the whole series tells."""

from __future__ import annotations

import numpy as np

from kernels.ctf_fit import CtfFit
from kernels.ctf_series import Handedness, ViewCtf, expected_ctf, handedness, settle
from kernels.spectra import tile_box
from tasks.chunks.ctf import Report, fit_from_report, memory_of_view, refine_view, search_view
from tasks.parameters import CtfParameters, Execution
from tasks.scatter import Unit
from tasks.work import Outcome, begin, step_task

PROFILES = ("frequency", "average", "equiphase", "fit", "correlation")


@step_task("ctf")
def ctf(
    project: str,
    series: str,
    parameters: CtfParameters = CtfParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Estimate defocus and astigmatism of every view that is not excluded.

    Reads the motion-corrected images, never dose-weighted ones. Writes ``spectra`` (view, ky, kx),
    the mean power of the tiles scaled to the view's own defocus, and ``profiles`` (view, curve,
    k): frequency [1/Å], average, equi-phase average, fit, local correlation.
    """
    work = begin("ctf", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    record, source, pixel_size = work.record, work.input("motion"), work.image_pixel_size
    shape = source.images().shape[1:]
    box = parameters.box or tile_box((shape[0], shape[1]), pixel_size)
    box = min(box, *(n // 2 * 2 for n in shape))
    used = record.included
    memory = memory_of_view((shape[0], shape[1]), box)
    work.result.create_array(
        "spectra",
        (len(record.views), box, box // 2 + 1),
        (1, box, box // 2 + 1),
        axes=("view", "ky", "kx"),
    )
    first = work.scatter(
        search_view,
        [
            Unit(
                f"search-{i:03d}",
                (source, i, record.geometry(i), record.acquisition, pixel_size, box, parameters),
            )
            for i in used
        ],
        memory=memory,
    )
    alone = [first[f"search-{i:03d}"] for i in used]
    tilts = [record.views[i].tilt_angle for i in used]
    hand = _hand(alone, tilts)
    priors = expected_ctf([_fit(reports, hand.hand) for reports in alone], tilts)
    second = work.scatter(
        refine_view,
        [
            Unit(
                f"refine-{i:03d}",
                (
                    source, work.result, i, record.geometry(i), record.acquisition, pixel_size,
                    box, hand.hand or 1, prior, parameters,
                ),
            )
            for i, prior in zip(used, priors, strict=True)
        ],
        memory=memory,
    )  # fmt: skip
    fits = [fit_from_report(second[f"refine-{i:03d}"]) for i in used]
    settled = dict(zip(used, settle(fits, priors), strict=True))
    fit_of = dict(zip(used, fits, strict=True))
    profiles = np.full((len(record.views), len(PROFILES), len(fits[0].profile.frequency)), np.nan)
    for i, fit in fit_of.items():
        profiles[i] = [getattr(fit.profile, name) for name in PROFILES]
    stored = work.result.create_array(
        "profiles", profiles.shape, profiles.shape, "float64", by_units=False
    )
    stored[:] = profiles
    decided = [
        _estimate(settled[i], fit_of[i]) if i in settled else None for i in range(len(record.views))
    ]
    doubtful = sum(not view.reliable for view in settled.values())
    middle = float(np.median([view.ctf.defocus for view in settled.values()]))
    told = {1: "hand +1", -1: "hand −1", 0: "hand unknown"}[hand.hand]
    return work.finish(
        f"median defocus {middle / 1e4:.2f} µm, {told}"
        + (f", {doubtful} of {len(used)} views from the others" if doubtful else ""),
        views=[{"ctf": estimate} for estimate in decided],
        series={"hand": hand.hand or None},
        table=[
            {
                "view": i + 1,
                "tilt angle [°]": record.views[i].tilt_angle,
                "defocus U [Å]": settled[i].ctf.defocus_u,
                "defocus V [Å]": settled[i].ctf.defocus_v,
                "angle [°]": settled[i].ctf.astigmatism_angle,
                "fit to [Å]": fit_of[i].fit_resolution,
                "score": fit_of[i].score,
                "uncertainty [Å]": settled[i].uncertainty,
                "problem": settled[i].problem,
            }
            for i in used
        ],
        extra={
            "hand": {"hand": hand.hand, "confidence": hand.confidence},
            "pixel_size": pixel_size,
        },
    )


def _hand(alone: list[dict[str, Report]], tilts: list[float]) -> Handedness:
    positive = [reports["1"]["evidence"] for reports in alone]
    negative = [reports.get("-1", reports["1"])["evidence"] for reports in alone]
    return handedness(positive, negative, tilts)


def _fit(reports: dict[str, Report], hand: int) -> CtfFit:
    return fit_from_report(reports.get(str(hand or 1), reports["1"]))


def _estimate(view: ViewCtf, fit: CtfFit) -> dict[str, float | bool]:
    return {
        "defocus_u": view.ctf.defocus_u,
        "defocus_v": view.ctf.defocus_v,
        "astigmatism_angle": view.ctf.astigmatism_angle,
        "phase_shift": view.ctf.phase_shift,
        "fit_resolution": fit.fit_resolution,
        "score": fit.score,
        "uncertainty": view.uncertainty,
        "reliable": view.reliable,
    }
