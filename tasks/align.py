"""Stub."""

from __future__ import annotations

from tasks.parameters import AlignParameters, Execution
from tasks.work import Outcome, begin, step_task


@step_task("align")
def align(
    project: str,
    series: str,
    parameters: AlignParameters = AlignParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Stub."""
    work = begin("align", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    return work.finish("stub", extra={"enough_beads": False})
