"""Dose weighting: each view is damped by what the beam has destroyed by then."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from kernels.dose import critical_exposure
from tasks.chunks.dose import Weighting, weight_view
from tasks.chunks.images import memory_of_image
from tasks.errors import WrongParameter
from tasks.parameters import DoseParameters, Execution
from tasks.record import TiltSeries
from tasks.scatter import Unit
from tasks.work import Outcome, Work, begin, step_task


@step_task("dose")
def dose(
    project: str,
    series: str,
    parameters: DoseParameters = DoseParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Say how every view is weighted by its exposure, or write the weighted ``images``.

    By default the images stay as they are, and alignment and reconstruction weight them as they
    read them (attribute ``weighting``). Written out they are ``dose_weighted`` and nothing weights
    them again, but for half sums of frames; nor what was weighted before the import.
    """
    work = begin("dose", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    record, source = work.record, work.input("erase")
    stands_for = {"images_in": source.path}
    if record.acquisition.dose_weighted:
        extra = {**stands_for, "dose_weighted": True}
        return work.finish("weighted before the import: left as they are", extra=extra)
    if not parameters.apply:
        extra = {**stands_for, "dose_weighted": False}
        return work.finish("views left unweighted", extra=extra)
    weighting = _weighting(record, parameters)
    # Whatever the images have, half sums of frames do not have it.
    extra = {"dose_weighted": parameters.write, "weighting": asdict(weighting)}
    if parameters.write:
        _write(work, weighting)
    else:
        extra |= stands_for
    return work.finish(
        f"{len(record.views)} views {'' if parameters.write else 'to be '}weighted, "
        f"up to {max(weighting.exposures):.0f} e/Å²",
        table=_table(record, weighting),
        extra=extra,
    )


def _weighting(record: TiltSeries, parameters: DoseParameters) -> Weighting:
    """Return the weights of all views, refusing a voltage whose critical dose nobody knows."""
    voltage, ratio = record.acquisition.voltage, parameters.critical_dose_ratio
    part = 1.0 if parameters.moment == "end" else 0.5
    exposures = tuple(view.prior_dose + part * view.dose for view in record.views)
    weighting = Weighting(
        exposures,
        voltage,
        ratio,
        tuple(exposures[i] for i in record.included) if parameters.keep_noise else (),
    )
    try:
        critical_exposure(np.zeros(1), voltage, ratio=ratio)
    except ValueError as error:
        raise WrongParameter(f"{record.name}: {error}: --critical-dose-ratio") from error
    return weighting


def _write(work: Work, weighting: Weighting) -> None:
    source = work.input("erase")
    views, *shape = source.images().shape
    work.result.create_array("images", (views, *shape), (1, *shape), axes=("view", "y", "x"))
    pixel_size = work.image_pixel_size
    work.scatter(
        weight_view,
        [
            Unit(f"view-{i:03d}", (source, work.result, i, pixel_size, weighting))
            for i in range(views)
        ],
        memory=memory_of_image((shape[0], shape[1])),
    )


def _table(record: TiltSeries, weighting: Weighting) -> list[dict[str, Any]]:
    """Return one row per view: its dose, and what is left of detail at 10 and 5 Å."""
    critical = critical_exposure(np.asarray([0.1, 0.2]), weighting.voltage, ratio=weighting.ratio)
    rows = []
    for i, (view, dose) in enumerate(zip(record.views, weighting.exposures, strict=True), 1):
        left = np.exp(-0.5 * dose / critical)
        rows.append(
            {
                "view": i,
                "tilt angle [°]": view.tilt_angle,
                "prior dose [e/Å²]": view.prior_dose,
                "dose of the weights [e/Å²]": dose,
                "left at 10 Å": float(left[0]),
                "left at 5 Å": float(left[1]),
            }
        )
    return rows
