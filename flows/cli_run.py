"""`tiltflow run`: every step that is not done, on one branch or on all of a preset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows import console
from flows.cli_common import (
    BranchOption,
    ClusterOption,
    GpusOption,
    MemoryOption,
    ProjectArgument,
    SeriesOption,
    SubsetOption,
    ThreadsOption,
    WorkersOption,
    execution_of,
    names_of,
    run_flow,
)
from flows.options import changes_from, pipeline_from
from flows.presets import PRESETS
from tasks.errors import WrongParameter
from tasks.parameters import Pipeline
from tasks.steps import STEPS

if TYPE_CHECKING:
    from flows.branches import OnBranch
    from tasks.plan import Planned


def run(
    project: ProjectArgument,
    config: Annotated[Path | None, typer.Option(help="YAML file: see `tiltflow config`")] = None,
    preset: Annotated[str | None, typer.Option(help=" or ".join(PRESETS))] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="step.parameter=value, e.g. motion.binning=2")
    ] = None,
    series: SeriesOption = None,
    until: Annotated[str | None, typer.Option(help="last step wanted: " + ", ".join(STEPS))] = None,
    branch: BranchOption = "main",
    approve: Annotated[
        str | None, typer.Option(help="ask after these steps, e.g. alignment,thickness")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="print what would run, and why")] = False,
    cluster: ClusterOption = "auto",
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    gpus: GpusOption = None,
    memory: MemoryOption = None,
    subset: SubsetOption = None,
    also: Annotated[
        str | None, typer.Option(help="further steps, e.g. preprocess,transform,thickness,ctf3d")
    ] = None,
) -> None:
    """Take the series to tomograms: every step that is not done.

    A preset may be of several branches, named after the first: see `tiltflow config`.
    """
    named = [("--until", until)] if until else []
    for option, name in (*named, *(("--also", name) for name in names_of(also) or ())):
        if name not in STEPS:
            raise WrongParameter(f"{option} {name}: there are {', '.join(STEPS)}")
    whole = of_branches(preset) and not (until or also)
    from flows.branches import OnBranch, branches_of
    from tasks.subset_use import within_run

    if whole:
        runs = branches_of(str(preset), changes_from(config, set_), branch)
    else:
        before = None if preset or config else request_before(project, branch)
        pipeline = pipeline_from(preset, config, set_, before)
        runs = [OnBranch(branch, pipeline, until, tuple(names_of(also) or ()))]
    names = names_of(series)
    for i, one in enumerate(runs):
        names, pipeline = within_run(project, names_of(series), subset, one.pipeline)
        runs[i] = replace(one, pipeline=pipeline)
    waits = names_of(approve)
    if dry_run or (not waits and all(_nothing_to_do(project, one, names) for one in runs)):
        for one in runs:
            _print_plan(project, one, names, dry_run)
        return
    execution = execution_of(cluster, workers, threads, gpus, memory)
    if whole:
        from flows.workflow import workflow

        changes = changes_from(config, set_)
        run_flow(workflow, project, preset, changes, names, branch, execution, waits, subset)
        return
    from flows.session import session as run_session

    (one,) = runs
    further = list(one.also) or None
    run_flow(
        run_session, project, one.pipeline, names, branch, until, execution, waits, None, further
    )


def of_branches(preset: str | None) -> bool:
    """Tell whether a preset is of several branches."""
    return preset is not None and len(PRESETS.get(preset, ())) > 1


def request_before(project: str, branch: str) -> Pipeline:
    """Return the parameters of the last run on a branch, telling which are not the defaults."""
    from tasks.plan import requested_pipeline
    from tasks.store import parse_project

    parse_project(project).require()
    before = requested_pipeline(parse_project(project), branch)
    told = [
        f"{step}.{name}={value}"
        for step, fields in before.model_dump(exclude_defaults=True).items()
        for name, value in fields.items()
    ]
    if told:
        console.say(f"as in the last run on branch {branch}: {', '.join(told)}")
    return before


def _plans(project: str, run: OnBranch, series: list[str] | None) -> dict[str, dict[str, Planned]]:
    from tasks.plan import chosen_series, plan
    from tasks.store import parse_project

    return {
        name: plan(
            parse_project(project).series(name), run.pipeline, run.branch, run.until, run.also
        )
        for name in chosen_series(project, series)
    }


def _nothing_to_do(project: str, run: OnBranch, series: list[str] | None) -> bool:
    return all(
        step.state == "done" and step.result.series.pointer(run.branch, name) == step.result.key
        for steps in _plans(project, run, series).values()
        for name, step in steps.items()
    )


def _print_plan(project: str, run: OnBranch, series: list[str] | None, dry_run: bool) -> None:
    plans = _plans(project, run, series)
    if not dry_run:
        console.say(f"nothing to do: {len(plans)} series are done on branch {run.branch}")
        return
    rows = [
        {"series": name, "step": step, "would": _would(found.state), "because": found.why}
        for name, steps in plans.items()
        for step, found in steps.items()
    ]
    console.table(f"branch {run.branch}", rows)


def _would(state: str) -> str:
    return {"done": "be skipped", "unfinished": "be finished"}.get(state, "run")
