"""Stub."""

from __future__ import annotations

from tasks.parameters import Execution, FiducialParameters
from tasks.work import Outcome, begin, step_task


@step_task("fiducials")
def fiducials(
    project: str,
    series: str,
    parameters: FiducialParameters = FiducialParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Stub."""
    work = begin("fiducials", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    return work.finish("stub", extra={"enough_beads": False})
