"""Choice of the views that later steps use: dark ones go, and what the user names."""

from __future__ import annotations

import re

from kernels.views import dark_views
from tasks.errors import WrongParameter
from tasks.parameters import ExcludeParameters, Execution
from tasks.work import Outcome, begin, step_task


@step_task("exclude")
def exclude(
    project: str,
    series: str,
    parameters: ExcludeParameters = ExcludeParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Give each view of a series a reason for leaving it out, or none.

    What the import has flagged stays flagged; the user's lists beat the detection.
    """
    work = begin("exclude", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    views = work.record.views
    reasons = [view.excluded for view in views]
    means = work.input("motion").attributes()["means"]
    if parameters.dark_threshold > 0:
        tilts = [view.tilt_angle for view in views]
        for dark in dark_views(means, tilts, parameters.dark_threshold):
            reasons[dark.index] = (
                f"dark: mean {means[dark.index]:.3g} where about {dark.expected:.3g} is expected"
            )
    for i in view_list(parameters.include.get(series, ""), series, len(views)):
        reasons[i] = None
    for i in view_list(parameters.views.get(series, ""), series, len(views)):
        reasons[i] = "left out by the user"
    if sum(reason is None for reason in reasons) < 3:
        raise WrongParameter(
            f"{series}: fewer than 3 of {len(views)} views would be left: name fewer views, or "
            "lower --dark-threshold"
        )
    out = [i for i, reason in enumerate(reasons, 1) if reason is not None]
    listed = ", ".join(f"{i} ({views[i - 1].tilt_angle:.0f}°)" for i in out)
    return work.finish(
        f"{len(out)} of {len(views)} views left out: {listed}" if out else "all views kept",
        views=[{"excluded": reason} for reason in reasons],
        table=[
            {"view": i, "tilt angle [°]": view.tilt_angle, "mean": mean, "excluded": reason or ""}
            for i, (view, mean, reason) in enumerate(zip(views, means, reasons, strict=True), 1)
        ],
    )


def view_list(text: str, series: str, views: int) -> list[int]:
    """Return the indices, from 0, that a list such as ``1,3-5`` names, counting from 1.

    Raises
    ------
    WrongParameter
        If the text is no such list, or names a view that the series does not have.
    """
    indices: list[int] = []
    for part in filter(None, re.split(r"[,\s]+", text)):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise WrongParameter(f"{series}: {part!r} names no views: write for example 1,3-5")
        low, high = int(match[1]), int(match[2] or match[1])
        if not 1 <= low <= high <= views:
            raise WrongParameter(f"{series}: views {part} do not exist, there are 1 to {views}")
        indices.extend(range(low - 1, high))
    return indices
