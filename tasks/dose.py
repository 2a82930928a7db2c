"""Dose weighting: each view is damped by what the beam has destroyed before its end."""

from __future__ import annotations

from tasks.chunks.images import memory_of_image, weight_view
from tasks.parameters import DoseParameters, Execution
from tasks.scatter import Unit
from tasks.work import Outcome, begin, step_task


@step_task("dose")
def dose(
    project: str,
    series: str,
    parameters: DoseParameters = DoseParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Weight every view by its exposure, one worker per view; writes ``images`` (view, y, x).

    The result says that it is weighted; nothing weights it again. Without weighting it has no
    images of its own and stands for those that it reads.
    """
    work = begin("dose", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    record, source = work.record, work.input("erase")
    if not parameters.apply:
        return work.finish(
            "views left unweighted", extra={"images_in": source.path, "dose_weighted": False}
        )
    views, *shape = source.images().shape
    work.result.create_array("images", (views, *shape), (1, *shape), axes=("view", "y", "x"))
    pixel_size = work.image_pixel_size
    exposures = [view.prior_dose + view.dose for view in record.views]
    work.scatter(
        weight_view,
        [
            Unit(
                f"view-{i:03d}",
                (
                    source,
                    work.result,
                    i,
                    exposure,
                    pixel_size,
                    record.acquisition.voltage,
                    parameters,
                ),
            )
            for i, exposure in enumerate(exposures)
        ],
        memory=memory_of_image((shape[0], shape[1])),
    )
    return work.finish(
        f"{views} views weighted, up to {max(exposures):.0f} e/Å²",
        table=[
            {
                "view": i,
                "tilt angle [°]": view.tilt_angle,
                "prior dose [e/Å²]": view.prior_dose,
                "dose at the end [e/Å²]": exposure,
            }
            for i, (view, exposure) in enumerate(zip(record.views, exposures, strict=True), 1)
        ],
        extra={"dose_weighted": True},
    )
