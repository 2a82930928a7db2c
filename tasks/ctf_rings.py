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
from kernels.ctf_fit import CtfFit, GradientFit
from kernels.ctf_likelihood import Gaussian
from kernels.ctf_plane import Plane, fit_plane, fit_slope
from kernels.ctf_series import Expected, expected_of_others
from kernels.ctf_thickness import Thickness, fit_thickness, path_per_thickness
from kernels.geometry import View, defocus_gradient
from tasks.chunks import ctf as chunks
from tasks.chunks.ctf import PATHS, fit_from_report, gradient_from_report
from tasks.ctf_decide import (
    ctf_of,
    decide,
    doubts_of_hand,
    priors_of,
    told_expected,
    told_gradients,
    told_plane,
)
from tasks.ctf_estimate import Estimate
from tasks.parameters import CtfParameters
from tasks.record import Handedness
from tasks.scatter import Unit
from tasks.work import Work

Floats = NDArray[np.float64]

SIGNIFICANT = 3.0  # standard deviations from which a pre-tilt changes the fits
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
        arguments = (job, i, view, gradient, priors_of(expected, place), alone.fits[place].point)
        units.append(Unit(f"refine-{i:03d}", arguments))
    again = work.scatter(chunks.refine_view, units, memory=memory)
    rows = [again[f"refine-{i:03d}"] for i in used]
    fits = [fit_from_report(row) for row in rows]
    thickness = None
    if parameters.search_thickness:
        thickness, fits = _with_thickness(rows, fits, views, _pretilt(alone.plane)[0])
    decided = {
        i: decide(fit, first, priors_of(expected, place))
        for place, (i, fit, first) in enumerate(zip(used, fits, alone.fits, strict=True))
    }
    return Estimate(
        views={i: estimate for i, (estimate, _) in decided.items()},
        profiles={i: fit.profile for i, (_, fit) in decided.items()},
        hand=alone.hand,
        pretilt=told_plane(alone.plane),
        thickness=thickness.thickness if thickness else None,
        doubts=doubts_of_hand(alone.hand),
        extra={
            "spectrum_pixel": sampling.pixel_size,
            "gradients": told_gradients(alone.gradients, used),
            "expected": told_expected(expected, used),
            **({"thickness_error": _finite(thickness.error)} if thickness else {}),
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
        gradient=plane and sign * plane.slope,
        gradient_error=plane and plane.slope_error,
        forced=forced is not None,
    )
    fits = [fit_from_report(_report_of(report, sign)) for report in reports]
    # With a wrong hand, the views that agree with it are a choice that means nothing.
    trusted = hand and hand == (measured.hand or hand)
    return _Alone(fits, told, plane if trusted else None, gradients)


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


def _pretilt(plane: Plane | None) -> tuple[float, float]:
    """Return the pre-tilt as far as it is beyond doubt."""
    if plane is None:
        return 0.0, 0.0
    sure = [
        angle if abs(angle) > SIGNIFICANT * error else 0.0
        for angle, error in zip(plane.pretilt, plane.errors, strict=True)
    ]
    return sure[0], sure[1]


def _with_thickness(
    rows: Sequence[Mapping[str, Any]], fits: list[CtfFit], views: Sequence[View], pretilt: float
) -> tuple[Thickness | None, list[CtfFit]]:
    """Return the thickness that the views support together, and their fits with it."""
    curves = np.asarray([row["by_path"]["evidence"] for row in rows])
    found = fit_thickness(PATHS, curves, views, pretilt)
    if found is None:
        return None, fits
    paths = found.thickness * path_per_thickness(views, pretilt)
    again = []
    for fit, row, curve, path in zip(fits, rows, curves, paths, strict=True):
        values = [
            np.interp(path, PATHS, column) for column in np.asarray(row["by_path"]["values"]).T
        ]
        ctf = ctf_of(fit, dict(zip(fit.names, values, strict=True)))
        gain = float(np.interp(path, PATHS, curve) - curve[0])
        again.append(
            dataclasses.replace(
                fit, ctf=ctf, values=np.asarray(values), evidence=fit.evidence + gain
            )
        )
    return found, again


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
