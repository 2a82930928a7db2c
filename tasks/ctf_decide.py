"""What becomes of the fits of a series: each view's estimate, and what is told of the series."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from kernels import ctf_series
from kernels.ctf import Ctf
from kernels.ctf_fit import CtfFit, GradientFit
from kernels.ctf_likelihood import Gaussian
from kernels.ctf_plane import Plane
from kernels.ctf_series import Expected
from tasks.record import CtfEstimate, Handedness, Pretilt

APART = "its own clear rings are far from what the other views expect"
OUTVOTED = 10.0  # in log likelihood by which a fit alone beats what the other views allow


def priors_of(expected: Mapping[str, Expected], place: int) -> dict[str, Gaussian]:
    """Return what the other views expect of the view at `place`, by the name of the value."""
    found = {name: of.prior(1 if name == "q" else 0, place) for name, of in expected.items()}
    return {name: prior for name, prior in found.items() if prior is not None}


def decide(
    fit: CtfFit, first: CtfFit, priors: Mapping[str, Gaussian]
) -> tuple[CtfEstimate, CtfFit]:
    """Take a view's fit, its fit alone where that is far better, or what the others expect.

    A view without rings of which the others expect nothing keeps its fit, without an uncertainty.
    """
    outvoted = first.evidence > fit.evidence + OUTVOTED
    if outvoted:
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
    # The sharpness of a peak of noise says nothing of where the truth is.
    lost = bool(problem) and prior is None
    estimate = CtfEstimate(
        defocus_u=ctf.defocus_u,
        defocus_v=ctf.defocus_v,
        astigmatism_angle=ctf.astigmatism_angle,
        phase_shift=ctf.phase_shift,
        fit_resolution=fit.fit_resolution,
        score=fit.score,
        uncertainty=None if lost else math.hypot(sigma["defocus"], ctf_series.SYSTEMATIC),
        astigmatism_uncertainty=None if lost else math.hypot(sigma["p"], sigma["q"]) / math.sqrt(2),
        reliable=not problem,
        problem=problem or (APART if outvoted else None),
    )
    return estimate, fit


def _of_others(fit: CtfFit, priors: Mapping[str, Gaussian]) -> Ctf:
    # Astigmatism of which the others know nothing is that of noise.
    expected = {name: prior.mean for name, prior in priors.items()}
    return ctf_of(fit, {"p": 0.0, "q": 0.0, **expected})


def ctf_of(fit: CtfFit, changed: Mapping[str, float]) -> Ctf:
    """Return the CTF of a fit with some of its values changed."""
    values = dict(zip(fit.names, fit.values.tolist(), strict=True)) | dict(changed)
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


def told_plane(plane: Plane | None) -> Pretilt | None:
    """Return the specimen's plane as the record has it."""
    if plane is None:
        return None
    return Pretilt(
        about_axis=plane.pretilt[0],
        across_axis=plane.pretilt[1],
        about_error=plane.errors[0],
        across_error=plane.errors[1],
    )


def told_gradients(
    gradients: Mapping[int, GradientFit], used: Sequence[int]
) -> list[dict[str, float]]:
    """Return the measured gradients and their errors as attributes of the result."""
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


def told_expected(expected: Mapping[str, Expected], used: Sequence[int]) -> list[dict[str, float]]:
    """Return what the other views expect of each view's defocus as attributes of the result."""
    priors = {i: priors_of(expected, place).get("defocus") for place, i in enumerate(used)}
    return [
        {"view": i, "defocus": prior.mean, "sigma": prior.sigma}
        for i, prior in priors.items()
        if prior is not None
    ]


def doubts_of_hand(hand: Handedness) -> list[str]:
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
