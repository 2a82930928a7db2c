"""CTF of a series by strips along the tilt axis, views of similar tilt together (as ctfplotter)."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, Literal

from kernels import ctf_series
from kernels.ctf_strip_fit import StripFit, fit_strips
from tasks.chunks import ctf_strips as chunks
from tasks.chunks.ctf import Sampling, sampling_of
from tasks.ctf_decide import doubts_of_hand
from tasks.ctf_estimate import Estimate
from tasks.errors import UnusableData
from tasks.formats.defocus_list import read_defocus_list
from tasks.parameters import CtfParameters
from tasks.record import CtfEstimate, Handedness
from tasks.scatter import Unit
from tasks.steps import file_of
from tasks.work import Work

Hand = Literal[1, -1]


def by_strips(work: Work, parameters: CtfParameters, used: Sequence[int]) -> Estimate:
    """Estimate the CTF of every view by strips: with the expected defocus, then the one found.

    Writes ``spectra`` (view, ky, kx). The sign of the gradient, unless the user gives it, is that
    with which the strips fit better.
    """
    record = work.record
    shape = work.input("motion").images().shape[1:]
    sampling = sampling_of((shape[0], shape[1]), work.image_pixel_size, parameters)
    box = sampling.box
    work.result.create_array(
        "spectra",
        (len(record.views), box, box // 2 + 1),
        (1, box, box // 2 + 1),
        axes=("view", "ky", "kx"),
    )
    expected = [_expected(work, parameters)] * len(used)
    forced = parameters.hand if parameters.hand != "measure" else None
    hands: tuple[Hand, ...] = (1, -1)
    fits = {
        hand: _fit(work, parameters, used, sampling, hand, expected, f"hand{hand:+d}")
        for hand in hands
    }
    gains = [[fit.evidence for fit in fits[hand]] for hand in hands]
    tilts = [record.views[i].tilt_angle for i in used]
    measured = ctf_series.handedness(gains[0], gains[1], tilts)
    sign: Hand = forced or measured.hand or 1
    found = [fit.ctf.defocus for fit in fits[sign]]
    final = _fit(work, parameters, used, sampling, sign, found, "found")
    told = Handedness(
        hand=forced or measured.hand or None,
        measured=measured.hand or None,
        confidence=measured.confidence,
        forced=forced is not None,
    )
    return Estimate(
        views={i: _estimate(fit) for i, fit in zip(used, final, strict=True)},
        profiles={i: fit.profile for i, fit in zip(used, final, strict=True)},
        hand=told,
        doubts=doubts_of_hand(told),
        extra={"spectrum_pixel": sampling.pixel_size},
    )


def _expected(work: Work, parameters: CtfParameters) -> float | None:
    path = file_of(parameters, "expected_defocus_list", work.series.name)
    if path is None:
        return parameters.expected_defocus
    known = read_defocus_list(path)
    if work.series.name not in known:
        raise UnusableData(f"{path}: no line for {work.series.name}: add one, defocus in nm")
    return known[work.series.name]


def _fit(
    work: Work,
    parameters: CtfParameters,
    used: Sequence[int],
    sampling: Sampling,
    hand: int,
    expected: Sequence[float | None],
    name: str,
) -> list[StripFit]:
    """Measure the strips of all views with a hand and expected defoci, and fit them."""
    record, acquisition = work.record, work.record.acquisition
    shape = work.input("motion").images().shape[1:]
    units = [
        Unit(
            f"{name}-{i:03d}",
            (
                work.input("motion"), work.result, i, record.geometry(i), acquisition,
                sampling.pixel_size, sampling.box, hand, defocus, parameters, sampling.reduction,
            ),
        )
        for i, defocus in zip(used, expected, strict=True)
    ]  # fmt: skip
    memory = chunks.memory_of_view((shape[0], shape[1]), sampling.box)
    reports: dict[str, Any] = work.scatter(chunks.measure_view, units, memory=memory)
    centre = [defocus for defocus in expected if defocus is not None]
    middle = sorted(centre)[len(centre) // 2] if centre else None
    try:
        return fit_strips(
            [chunks.wedges_from_report(reports[unit.name]) for unit in units],
            [record.views[i].tilt_angle for i in used],
            sampling.pixel_size,
            chunks.search_of(parameters, middle),
            voltage=acquisition.voltage,
            cs=acquisition.cs,
            amplitude_contrast=acquisition.amplitude_contrast,
            phase_shift=parameters.phase_shift,
        )
    except ValueError as error:  # too few rings between the resolutions
        raise UnusableData(
            f"{record.name}: {error} (--box), or a higher --min-resolution"
        ) from error


def _estimate(fit: StripFit) -> CtfEstimate:
    problem = ctf_series.why_failed(fit.evidence, fit.fit_resolution, 0.0, len(fit.views) > 1)
    spread = fit.astigmatism_uncertainty
    return CtfEstimate(
        defocus_u=fit.ctf.defocus_u,
        defocus_v=fit.ctf.defocus_v,
        astigmatism_angle=fit.ctf.astigmatism_angle,
        phase_shift=fit.ctf.phase_shift,
        fit_resolution=fit.fit_resolution,
        score=fit.score,
        uncertainty=fit.uncertainty,
        astigmatism_uncertainty=spread if isfinite(spread) else None,
        reliable=not problem,
        problem=problem or None,
    )
