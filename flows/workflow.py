"""A preset as a whole: many tilt series on all of its branches, which share what they agree on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow

from flows.approval import require_somebody
from flows.arguments import Approve, Branch, Project, SeriesNames, Subset, run_name, shown
from flows.options import pipelines_of
from flows.presets import PRESETS, branch_of
from flows.session import tell_doubts
from flows.several import at_once, busy_elsewhere, each
from flows.tomogram import tomogram
from tasks import approvals, cluster, progress
from tasks.parameters import Execution
from tasks.plan import chosen_series
from tasks.store import parse_project
from tasks.subset_use import within_run
from tasks.work import Outcome

Preset = Annotated[
    Literal["tutorial-fiducial", "tutorial-markerfree", "fast", "default"],
    shown("where the parameters come from, and which branches are made"),
]
Changes = Annotated[
    dict[str, dict[str, Any]] | None,
    shown('what to change in it on every branch, e.g. {"motion": {"binning": 1}}'),
]


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
    require_somebody(approvals.checked(approve))
    pipelines = pipelines_of(preset, changes or {})
    names = series
    for part, pipeline in pipelines.items():
        names, pipelines[part] = within_run(project, series, subset, pipeline)

    def take(name: str) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for part, pipeline in pipelines.items():
            of, on = PRESETS[preset][part], branch_of(branch, part)
            if part:
                approvals.follow(parse_project(project).series(name), on, branch)
            asks = None if part else approve
            if len(pipelines) > 1:
                news = progress.OnBranch(f"branch {on}")
                progress.tell(progress.Progress(name, "branch", 0, 0, news))
            outcomes += tomogram(project, name, pipeline, on, of.until, running, asks, [*of.also])
        return outcomes

    with cluster.opened(execution) as running:
        each(
            chosen_series(project, names),
            take,
            at_once(running),
            busy_elsewhere(project, branch),
        )
    tell_doubts(project, branch)
