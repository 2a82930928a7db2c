"""CTF of a series from the rings of all its views together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import ctf_series
from kernels.ctf import Ctf
from kernels.ctf_fit import CtfFit, GradientFit
from kernels.ctf_likelihood import Gaussian
from kernels.ctf_plane import Plane, fit_plane, fit_slope
from kernels.ctf_series import Expected, expected_of_others
from kernels.ctf_thickness import fit_thickness
from kernels.geometry import View, defocus_gradient
from tasks.chunks import ctf as chunks
from tasks.chunks.ctf import PATHS, fit_from_report, gradient_from_report
from tasks.ctf_estimate import Estimate
from tasks.parameters import CtfParameters
from tasks.record import CtfEstimate, Handedness, Pretilt
from tasks.scatter import Unit
from tasks.work import Work

Floats = NDArray[np.float64]

SIGNIFICANT = 3.0  # standard deviations from which a pre-tilt changes the fits
OUTVOTED = 10.0  # in log likelihood by which a fit alone beats what the other views allow
SMALL_TILT = 12.0  # degrees up to which views show the same gradient with either hand
CHANGES = {
    "defocus": ctf_series.DEFOCUS,
    "p": ctf_series.ASTIGMATISM,
    "q": ctf_series.ASTIGMATISM,
    "phase": ctf_series.PHASE,
}


@dataclass(frozen=True)
class _Alone:
    """Views fitted alone: for the hand of the series, and the gradients of those that agree."""

    fits: Sequence[CtfFit]
    hand: Handedness
    plane: Plane | None
    gradients: Mapping[int, GradientFit]


def coherent(work: Work, parameters: CtfParameters, used: Sequence[int]) -> Estimate:
    """Estimate the CTF of every view, first alone, then with what the others tell.

    Writes ``spectra`` (view, ky, kx). The gradient of each view's defocus tells the hand and the
    specimen's pre-tilt; with these, and the defocus, astigmatism and phase shift that the other
    views expect, every view is fitted again.
    """
    record, views = work.record, [work.record.geometry(i) for i in used]
    shape = work.input("motion").images().shape[1:]
    sampling = chunks.sampling_of((shape[0], shape[1]), work.image_pixel_size, parameters)
    box = sampling.box
    work.result.create_array(
        "spectra",
        (len(record.views), box, box // 2 + 1),
        (1, box, box // 2 + 1),
        axes=("view", "ky", "kx"),
    )
    job = chunks.Job(work.input("motion"), work.result, record.acquisition, sampling, parameters)
    memory = chunks.memory_of_view((shape[0], shape[1]), sampling)
    reports = work.scatter(
        chunks.search_view,
        [
            Unit(f"search-{i:03d}", (job, i, view, _hands(view, parameters)))
            for i, view in zip(used, views, strict=True)
        ],
        memory=memory,
    )
    alone = _settle_hand([reports[f"search-{i:03d}"] for i in used], views, parameters)
    expected = _expected(work, parameters, alone.fits, used) if parameters.coherent else {}
    sign = alone.hand.hand or 1
    units = []
    for place, (i, view) in enumerate(zip(used, views, strict=True)):
        gradient = defocus_gradient(view, sign, _pretilt(alone.plane))
        arguments = (job, i, view, gradient, _priors(expected, place), alone.fits[place].point)
        units.append(Unit(f"refine-{i:03d}", arguments))
    again = work.scatter(chunks.refine_view, units, memory=memory)
    rows = [again[f"refine-{i:03d}"] for i in used]
    fits = [fit_from_report(row) for row in rows]
    decided = {
        i: _decide(fit, first, _priors(expected, place))
        for place, (i, fit, first) in enumerate(zip(used, fits, alone.fits, strict=True))
    }
    thickness = None
    if parameters.search_thickness:
        curves = np.asarray([row["thickness"] for row in rows])
        thickness = fit_thickness(PATHS, curves, views, _pretilt(alone.plane)[0])
    return Estimate(
        views={i: estimate for i, (estimate, _) in decided.items()},
        profiles={i: fit.profile for i, (_, fit) in decided.items()},
        hand=alone.hand,
        pretilt=_told_plane(alone.plane),
        thickness=thickness.thickness if thickness else None,
        doubts=_doubts(alone.hand),
        extra={
            "spectrum_pixel": sampling.pixel_size,
            "gradients": _told_gradients(alone.gradients, used),
            "expected": _told_expected(expected, used),
            **({"thickness_error": thickness.error} if thickness else {}),
        },
    )


def _hands(view: View, parameters: CtfParameters) -> tuple[int, ...]:
    if view.tilt != 0:
        return 1, -1
    return (1 if parameters.hand == "measure" else parameters.hand,)


def _report_of(report: Mapping[str, Any], hand: int) -> dict[str, Any]:
    """Return the report of the fit with a hand, or the only one of a view at 0°."""
    fits: dict[str, dict[str, Any]] = report["fits"]
    return fits.get(str(hand)) or next(iter(fits.values()))


def _settle_hand(
    reports: Sequence[dict[str, Any]], views: Sequence[View], parameters: CtfParameters
) -> _Alone:
    """Decide the hand and the plane; take each view's fit with that hand."""
    gains = [[_report_of(report, hand)["evidence"] for report in reports] for hand in (1, -1)]
    measured = ctf_series.handedness(gains[0], gains[1], [view.tilt for view in views])
    if not measured.hand:
        measured = _hand_of_small_tilts(reports, views) or measured
    forced = parameters.hand if parameters.hand != "measure" else None
    hand = forced or measured.hand
    sign = hand or 1
    gradients = {
        place: gradient_from_report(report["gradient"])
        for place, (report, view) in enumerate(zip(reports, views, strict=True))
        if report["gradient"] is not None
        and (report["hand"] == sign or abs(view.tilt) <= SMALL_TILT)
    }
    plane = fit_plane(list(gradients.values()), [views[place] for place in gradients], sign)
    told = Handedness(
        hand=hand or None,
        measured=measured.hand or None,
        confidence=measured.confidence,
        gradient=plane and plane.slope,
        gradient_error=plane and plane.slope_error,
        forced=forced is not None,
    )
    fits = [fit_from_report(_report_of(report, sign)) for report in reports]
    return _Alone(fits, told, plane if hand else None, gradients)


def _hand_of_small_tilts(
    reports: Sequence[dict[str, Any]], views: Sequence[View]
) -> ctf_series.Handedness | None:
    """Decide the hand where no view is so steep that its fits with either hand would differ."""
    chosen = [
        (gradient_from_report(report["gradient"]), view)
        for report, view in zip(reports, views, strict=True)
        if report["gradient"] is not None and abs(view.tilt) <= SMALL_TILT
    ]
    if len(chosen) < ctf_series.LEAST_VIEWS:
        return None
    gradients, seen = zip(*chosen, strict=True)
    return ctf_series.handedness_of_slope(*fit_slope(gradients, seen, hand=1))


def _expected(
    work: Work, parameters: CtfParameters, fits: Sequence[CtfFit], used: Sequence[int]
) -> dict[str, Expected]:
    """Return what the other views expect of each view, by the name of the value."""
    record = work.record
    order = [record.views[i].order for i in used]
    tilts = [record.views[i].tilt_angle for i in used]
    trusted = [fit.evidence >= ctf_series.FREE_EVIDENCE for fit in fits]
    names = fits[0].names
    tolerance = Gaussian(0.0, parameters.astigmatism_tolerance)
    alone = [ctf_series.unrestrained(fit, {"p": tolerance, "q": tolerance}) for fit in fits]

    def of(*chosen: str) -> Expected:
        values = [[float(value[names.index(name)]) for value in alone] for name in chosen]
        errors = [[fit.error(name) for fit in fits] for name in chosen]
        return expected_of_others(values, errors, trusted, order, tilts, CHANGES[chosen[0]])

    both = of("p", "q")
    expected = {"defocus": of("defocus"), "p": both, "q": both}
    return expected | ({"phase": of("phase")} if "phase" in names else {})


def _priors(expected: Mapping[str, Expected], place: int) -> dict[str, Gaussian]:
    found = {name: of.prior(1 if name == "q" else 0, place) for name, of in expected.items()}
    return {name: prior for name, prior in found.items() if prior is not None}


def _pretilt(plane: Plane | None) -> tuple[float, float]:
    """Return the pre-tilt as far as it is beyond doubt."""
    if plane is None:
        return 0.0, 0.0
    sure = [
        angle if abs(angle) > SIGNIFICANT * error else 0.0
        for angle, error in zip(plane.pretilt, plane.errors, strict=True)
    ]
    return sure[0], sure[1]


def _decide(
    fit: CtfFit, first: CtfFit, priors: Mapping[str, Gaussian]
) -> tuple[CtfEstimate, CtfFit]:
    """Take a view's fit, its fit alone where that is far better, or what the others expect."""
    if first.evidence > fit.evidence + OUTVOTED:
        fit, priors = first, {}
    prior, away = priors.get("defocus"), 0.0
    if prior is not None:
        # Between the view's own word and the prior, which has pulled the fit towards itself.
        own = fit.error("defocus") / prior.sigma
        away = abs(float(fit.values[0]) - prior.mean) / prior.sigma * math.sqrt(1 + own**2)
    problem = ctf_series.why_failed(fit.evidence, fit.fit_resolution, away, prior is not None)
    ctf, sigma = fit.ctf, ctf_series.deviations(fit, priors)
    if problem and prior is not None:
        ctf = _of_others(fit, priors)
        sigma |= {name: known.sigma for name, known in priors.items()}
    estimate = CtfEstimate(
        defocus_u=ctf.defocus_u,
        defocus_v=ctf.defocus_v,
        astigmatism_angle=ctf.astigmatism_angle,
        phase_shift=ctf.phase_shift,
        fit_resolution=fit.fit_resolution,
        score=fit.score,
        uncertainty=math.hypot(sigma["defocus"], ctf_series.SYSTEMATIC),
        astigmatism_uncertainty=math.hypot(sigma["p"], sigma["q"]) / math.sqrt(2),
        reliable=not problem,
        problem=problem or None,
    )
    return estimate, fit


def _of_others(fit: CtfFit, priors: Mapping[str, Gaussian]) -> Ctf:
    values = dict(zip(fit.names, fit.values.tolist(), strict=True))
    values |= {name: prior.mean for name, prior in priors.items()}
    shift = fit.ctf.phase_shift + math.degrees(values.get("phase", 0.0) - _phase(fit))
    half = 0.5 * math.hypot(values["p"], values["q"])
    return dataclasses.replace(
        fit.ctf,
        defocus_u=values["defocus"] + half,
        defocus_v=values["defocus"] - half,
        astigmatism_angle=math.degrees(0.5 * math.atan2(values["q"], values["p"])),
        phase_shift=shift,
    )


def _phase(fit: CtfFit) -> float:
    return float(fit.values[fit.names.index("phase")]) if "phase" in fit.names else 0.0


def _told_plane(plane: Plane | None) -> Pretilt | None:
    if plane is None:
        return None
    return Pretilt(
        about_axis=plane.pretilt[0],
        across_axis=plane.pretilt[1],
        about_error=plane.errors[0],
        across_error=plane.errors[1],
    )


def _told_gradients(
    gradients: Mapping[int, GradientFit], used: Sequence[int]
) -> list[dict[str, float]]:
    rows = []
    for place, found in gradients.items():
        error = np.sqrt(np.maximum(np.diag(np.linalg.pinv(found.information)), 0))
        best = np.linalg.pinv(found.information) @ found.pull
        rows.append(
            {
                "view": used[place],
                "gradient_x": float(best[0]),
                "gradient_x_error": float(error[0]),
                "gradient_y": float(best[1]),
                "gradient_y_error": float(error[1]),
            }
        )
    return rows


def _told_expected(expected: Mapping[str, Expected], used: Sequence[int]) -> list[dict[str, float]]:
    priors = {i: _priors(expected, place).get("defocus") for place, i in enumerate(used)}
    return [
        {"view": i, "defocus": prior.mean, "sigma": prior.sigma}
        for i, prior in priors.items()
        if prior is not None
    ]


def _doubts(hand: Handedness) -> list[str]:
    """Return what a person should know of the hand."""
    measured, doubts = hand.measured, []
    if hand.forced and measured is not None and measured != hand.hand:
        doubts.append(
            f"the rings say hand {measured:+d} ({100 * hand.confidence:.4g} %), "
            f"{hand.hand:+d} was forced".replace("-", "−")
        )
    if hand.hand == -1 and not hand.forced:
        doubts.append(
            "hand −1 for this tilt axis: should the axis be wrong by 180°, "
            "`coarse --turn-axis-on-hand` turns it"
        )
    return doubts
