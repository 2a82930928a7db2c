"""CTF correction of the views in strips along the tilt axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.ctf_correct import Correction
from kernels.ctf_planes import automatic_step
from kernels.ctf_slope import Slope, Strips, lay_strips, slope_in_raw, step_of_width
from kernels.ctf_strip_correct import margin_of
from kernels.fourier import Shape
from tasks.choice import settled_step
from tasks.chunks.ctf2d import correct_view, memory_of_view
from tasks.ctf2d_score import joined, units_of, warning
from tasks.ctf_provenance import CTF_CORRECTED, refuse_corrected
from tasks.ctf_views import ViewCtf, ctf_of_views, hand_in_geometry
from tasks.errors import WrongParameter
from tasks.parameters import Ctf2dParameters, Execution
from tasks.position import Position, found
from tasks.preprocess import is_weighted
from tasks.record import TiltSeries
from tasks.result import Result
from tasks.scatter import Unit
from tasks.steps import ALIGNMENTS
from tasks.work import Outcome, Work, begin, step_task

MOST_STRIPS = 2000  # of a view: more are a tolerance that was meant in other units


@dataclass(frozen=True)
class Laid:
    """How one view is corrected: its CTF, how that changes over it, and the strips."""

    known: ViewCtf
    slope: Slope
    strips: Strips
    margin: int


@step_task("ctf2d")
def ctf2d(
    project: str,
    series: str,
    parameters: Ctf2dParameters = Ctf2dParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Correct every raw view for the CTF of the flat specimen, one worker per view.

    Writes ``images`` (view, y, x) in the frame of the raw views, their means kept, which stand in
    for those of the dose step wherever they are read. Dose that is still to be weighted stays so
    (attribute ``weighting``): both are factors of the spectrum. Attribute ``ctf_corrected`` keeps
    them from being corrected again. Tilt and axis are those of an alignment, or the nominal ones:
    an axis that is wrong by 1° errs by 8 nm at a corner 0.3 µm away, at 60°.
    """
    parameters = settled_step(parameters, project, series, branch)
    work = begin("ctf2d", project, series, parameters, branch, execution)
    record, source = work.record, work.input(parameters.images)
    refuse_corrected(source, "ctf2d")
    if work.done:
        return work.adopt()
    views, *size = source.images().shape
    shape, pixel_size = (int(size[0]), int(size[1])), work.image_pixel_size
    hand = hand_in_geometry(record) if parameters.hand == "measured" else parameters.hand
    plane = _plane(work, parameters)
    laid = _lay(work, parameters, shape, pixel_size, hand or 1, plane)
    correction = Correction(
        parameters.correction,
        parameters.snr,
        parameters.snr_falloff,
        parameters.first_peak_intact,
    )
    work.result.create_array("images", (views, *shape), (1, *shape), axes=("view", "y", "x"))
    reports = work.scatter(
        correct_view,
        [
            Unit(
                f"view-{i:03d}",
                (
                    *(source, work.result, i, one.known.ctf, pixel_size),
                    *(one.slope, one.strips, correction, one.margin),
                ),
            )
            for i, one in enumerate(laid)
        ]
        + (_checks(source, record, laid, shape, pixel_size) if parameters.check_hand else []),
        memory=max(memory_of_view(shape, one.margin) for one in laid),
    )
    weighting = source.attributes().get("weighting")
    borrowed = [i + 1 for i in record.included if laid[i].known.views != (i,)]
    scores = joined(reports)
    return work.finish(
        _message(parameters, laid, borrowed, hand, plane) + warning(scores, hand or 1),
        table=[
            _row(work, i, one, pixel_size) | reports[f"view-{i:03d}"] for i, one in enumerate(laid)
        ],
        extra={
            "pixel_size": pixel_size,
            "binning": 1.0,
            "dose_weighted": is_weighted(work, source),
            **({"weighting": weighting} if weighting else {}),
            "tilt_angles": [view.tilt_angle for view in record.views],
            "hand_scores": scores,
            CTF_CORRECTED: {"by": "ctf2d", "mode": parameters.correction, "hand": hand or 1},
        },
    )


def _checks(
    source: Result, record: TiltSeries, laid: list[Laid], shape: Shape, pixel_size: float
) -> list[Unit]:
    known, slopes = [one.known for one in laid], [one.slope for one in laid]
    return units_of(source, record, known, slopes, shape, pixel_size)


def _lay(
    work: Work,
    parameters: Ctf2dParameters,
    shape: Shape,
    pixel_size: float,
    hand: int,
    plane: tuple[float, float],
) -> list[Laid]:
    """Lay the strips of every view along the specimen's plane.

    Raises
    ------
    WrongParameter
        If there are far too many.
    """
    record, name = work.record, work.series.name
    laid = []
    for i, known in enumerate(ctf_of_views(record)):
        slope = slope_in_raw(record.geometry(i), hand, plane)
        # Multiplied white noise at 60°, 5.4 Å: 1.3 % rms from fine strips; with twice that, 5 %.
        tolerance = (
            0.5 * automatic_step(2 * pixel_size, record.acquisition.voltage)
            if parameters.defocus_tolerance == "auto"
            else parameters.defocus_tolerance
        )
        limit = "defocus_tolerance"
        if parameters.strip_width is not None:
            by_width = step_of_width(parameters.strip_width, pixel_size, slope)
            if by_width < tolerance:
                tolerance, limit = by_width, "strip_width"
        blend = 1.0
        if parameters.interpolation is not None:
            blend = min(1.0, step_of_width(parameters.interpolation, pixel_size, slope) / tolerance)
            blend = 0.0 if parameters.interpolation == 0 else blend
        strips = lay_strips(shape, pixel_size, slope, tolerance, blend)
        if len(strips.offsets) > MOST_STRIPS:
            raise WrongParameter(
                f"{name}: {len(strips.offsets)} strips of {tolerance:g} Å of defocus in view "
                f"{i + 1}: use a larger ctf2d.{limit}"
            )
        laid.append(Laid(known, slope, strips, margin_of(known.ctf, pixel_size, strips)))
    return laid


def _plane(work: Work, parameters: Ctf2dParameters) -> tuple[float, float]:
    """Return the slopes of the specimen's plane in the frame of the views [degrees].

    Raises
    ------
    WrongParameter
        If the pre-tilt of the CTF is wanted and not known.
    """
    if parameters.by_position:
        return _measured_plane(work)
    if not parameters.pretilt:
        return 0.0, 0.0
    pretilt = work.record.pretilt
    if pretilt is None:
        name = work.series.name
        raise WrongParameter(f"{name}: the ctf step knows no pre-tilt: use --no-pretilt")
    # The ctf step has it in the frame of the nominal tilts.
    plane = Position(0.0, 0.0, pretilt.about_axis, pretilt.across_axis, "good")
    record = work.record
    views = [(record.views[i].tilt_angle, record.geometry(i)) for i in record.included]
    more = float(np.median([nominal - view.tilt for nominal, view in views]))
    return plane.plane_in(0.0, more, float(np.median([view.x_tilt for _, view in views])))


def _measured_plane(work: Work) -> tuple[float, float]:
    """Return the slopes of the specimen's middle, level where that is not sure.

    The step `thickness` has them in the frame of an alignment, which may not be that of the strips.
    """
    position = found(work.input("thickness"))
    if position.verdict != "good":
        return 0.0, 0.0
    result = work.input("thickness")
    step = next(name for name in ALIGNMENTS if name in result.attributes()["inputs"])
    keys = {step: result.attributes()["inputs"][step]}
    measured, record = work.series.record_of(keys), work.record
    views = [(measured.geometry(i), record.geometry(i)) for i in record.included]
    more = float(np.median([a.tilt - b.tilt for a, b in views]))
    x_tilts = np.median([(a.x_tilt, b.x_tilt) for a, b in views], axis=0)
    return position.plane_in(float(x_tilts[0]), more, float(x_tilts[1]))


def _message(
    parameters: Ctf2dParameters,
    laid: list[Laid],
    borrowed: list[int],
    hand: int | None,
    plane: tuple[float, float],
) -> str:
    most = max(len(one.strips.offsets) for one in laid)
    told = f"{len(laid)} views corrected ({parameters.correction}) in up to {most} strips"
    sign = {1: "hand +1", -1: "hand −1"}
    if parameters.by_position:
        told += f", along a plane turned by {plane[0]:.1f}° and {plane[1]:.1f}°".replace("-", "−")
    told += f", geometry: {parameters.alignment}"
    told += f", {sign[hand]}" if hand else ", hand unknown, +1 taken: --hand says which"
    if borrowed:
        told += f"; CTF from their neighbours: views {', '.join(map(str, borrowed))}"
    return told


def _row(work: Work, index: int, one: Laid, pixel_size: float) -> dict[str, Any]:
    """Return the table's row of a view."""
    ctf, view, own = one.known.ctf, work.record.views[index], one.known.views == (index,)
    single = len(one.strips.offsets) == 1
    neighbours = " and ".join(str(i + 1) for i in one.known.views)
    return {
        "view": index + 1,
        "tilt angle [°]": view.tilt_angle,
        "excluded": view.excluded or "",
        "defocus [Å]": ctf.defocus,
        "CTF from": "itself" if own else f"view {neighbours}",
        "lowest [Å]": ctf.defocus + float(one.strips.offsets[0]),
        "highest [Å]": ctf.defocus + float(one.strips.offsets[-1]),
        "strips": len(one.strips.offsets),
        "strip width [pixels]": None
        if single
        else one.strips.step / (pixel_size * one.slope.steepness),
    }
