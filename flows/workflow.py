"""A preset as a whole: many tilt series on all of its branches, which share what they agree on."""

from __future__ import annotations

from dataclasses import replace

from prefect import flow

from flows.approval import require_somebody
from flows.arguments import (
    Approve,
    Branch,
    Changes,
    Preset,
    Project,
    SeriesNames,
    Subset,
    run_name,
)
from flows.branches import branches_of, take_branches
from flows.session import tell_doubts
from flows.several import at_once, busy_elsewhere, each
from tasks import approvals, cluster
from tasks.parameters import Execution
from tasks.plan import chosen_series
from tasks.subset_use import within_run


@flow(name="workflow", flow_run_name=run_name("workflow"), persist_result=False)
def workflow(
    project: Project,
    preset: Preset,
    changes: Changes = None,
    series: SeriesNames = None,
    branch: Branch = "main",
    execution: Execution = Execution(),
    approve: Approve = None,
    subset: Subset = None,
) -> None:
    """Take many imported tilt series through all branches of a preset; what is done is skipped.

    Parameters
    ----------
    project
        Folder or URL of the project, e.g. /data/session.zarr
    preset
        Where the parameters come from, and which branches are made
    changes
        What to change in it on every branch: step, parameter, value
    series
        Names of the tilt series; empty: all
    branch
        Name of the preset's first branch; those of the others begin with it
    execution
        Where and how wide the work is executed; never changes a result
    approve
        Steps after which each series waits for approval on the first branch; others go on with
        what was accepted
    subset
        Named subset of the project to take; of one of views, the others are left out

    Raises
    ------
    SomeSeriesFailed
        After all others are finished.
    """
    runs = branches_of(preset, changes or {}, branch)
    first = runs[0]
    require_somebody(approvals.checked(approve, first.pipeline, first.until, first.also))
    names = series
    for i, one in enumerate(runs):
        names, pipeline = within_run(project, series, subset, one.pipeline)
        runs[i] = replace(one, pipeline=pipeline)
    with cluster.opened(execution) as running:
        each(
            chosen_series(project, names),
            lambda name: take_branches(project, name, runs, running, approve),
            at_once(running),
            busy_elsewhere(project, branch),
        )
    tell_doubts(project, branch)
