"""One tilt series from movies to tomogram."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial

from prefect import Task, flow

from flows.approval import approved, refuse_rejected, require_somebody
from flows.arguments import Also, Approve, Branch, Project, SeriesName, Until
from tasks import approvals, cluster, locks, progress
from tasks.align import align
from tasks.choice import settled
from tasks.coarse import coarse
from tasks.ctf import ctf
from tasks.ctf2d import ctf2d
from tasks.ctf3d import ctf3d
from tasks.dose import dose
from tasks.erase import erase
from tasks.errors import UserError, WrongParameter, one_line
from tasks.exclude import exclude
from tasks.fiducials import fiducials
from tasks.markerfree import markerfree
from tasks.motion import motion
from tasks.parameters import Execution, Parameters, Pipeline
from tasks.preprocess import preprocess
from tasks.reconstruct import reconstruct
from tasks.steps import STEPS, needed
from tasks.store import Series, checked_name, parse_project
from tasks.thickness import thickness
from tasks.transform import transform
from tasks.work import Outcome

# In the order in which they are taken; what each one reads is declared in tasks.steps.
STEP_TASKS: dict[str, Task[..., Outcome]] = {
    "motion": motion,
    "exclude": exclude,
    "ctf": ctf,
    "erase": erase,
    "dose": dose,
    "preprocess": preprocess,
    "coarse": coarse,
    "fiducials": fiducials,
    "align": align,
    "markerfree": markerfree,
    "thickness": thickness,
    "ctf2d": ctf2d,
    "transform": transform,
    "reconstruct": reconstruct,
    "ctf3d": ctf3d,
}


@flow(name="tomogram", flow_run_name="tomogram {series} {branch}", persist_result=False)
def tomogram(
    project: Project,
    series: SeriesName,
    pipeline: Pipeline = Pipeline(),
    branch: Branch = "main",
    until: Until = None,
    execution: Execution = Execution(),
    approve: Approve = None,
    also: Also = None,
) -> list[Outcome]:
    """Take one imported tilt series from movies to tomogram; what is done is skipped.

    Parameters
    ----------
    project
        Folder or URL of the project, e.g. /data/session.zarr
    series
        Name of the tilt series, e.g. TS_01
    pipeline
        Parameters of every step
    branch
        Name under which the results are kept together
    until
        Last step wanted; empty: the tomogram
    execution
        Where and how wide the work is executed; never changes a result
    approve
        Steps after which the run waits for approval: alignment, or names of steps
    also
        Further steps, which no other reads: preprocess, transform, thickness, ctf3d, …

    Returns
    -------
    list of Outcome
        One for each step: its result's URL and a line about it.
    """
    also = checked(also)
    waits = approvals.checked(approve, pipeline, until, also)
    require_somebody(waits)
    of = parse_project(project).series(series)
    of.project.note_request(branch, pipeline.model_dump(mode="json"))
    outcomes: list[Outcome] = []
    changed: dict[str, Parameters] = {}
    with cluster.opened(execution) as running, alone_on_branch(of, branch):
        while len(outcomes) < len(steps := needed(pipeline, until, also)):
            step = steps[len(outcomes)]
            asked = getattr(pipeline, step)
            used = changed.get(step) or approvals.chosen(of, branch, step, asked)
            outcome = carry_out(step, project, series, used, branch, running)
            if approvals.concerns(waits, step, pipeline):
                changed[step] = approved(of, branch, outcome, asked, used)
                if changed[step] != used:
                    continue  # once more, with the values that were given
            else:
                refuse_rejected(of, branch, outcome)
            outcomes.append(outcome)
            if step == "fiducials":  # they decide what follows, never what came before
                also.append(step)
                pipeline = settled(pipeline, of.result(step, outcomes[-1].key))
    return outcomes


def checked(also: Sequence[str] | None) -> list[str]:
    """Return the names of further steps.

    Raises
    ------
    WrongParameter
        If there is no such step.
    """
    for name in also or ():
        if name not in STEPS:
            raise WrongParameter(f"also: no step {name!r}: there are {', '.join(STEPS)}")
    return list(also or ())


def alone_on_branch(series: Series, branch: str) -> AbstractContextManager[object]:
    """Let no other run move what a branch of a series points to; wait for one that does."""
    return locks.locked(series, branch_lock(branch), partial(progress.waits, series.name))


def branch_lock(branch: str) -> str:
    """Return the name of the lock that a run of a series on `branch` holds."""
    return f"branch {checked_name('branch', branch)}"


def carry_out(
    step: str,
    project: str,
    series: str,
    parameters: Parameters,
    branch: str,
    execution: Execution,
) -> Outcome:
    """Run the task of one step; write down why it fails, for `tiltflow status`."""
    try:
        return STEP_TASKS[step](project, series, parameters, branch, execution)
    except Exception as error:
        with suppress(OSError, UserError):  # a full disk takes no note, either
            parse_project(project).series(series).note_failure(branch, step, one_line(error))
        raise
