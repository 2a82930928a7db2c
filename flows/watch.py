"""Tilt series as a microscope writes them: each is imported and processed when it is whole."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from prefect import flow

from flows.arguments import Also, Branch, Changes, Preset, shown
from flows.branches import OnBranch, branches_of
from flows.several import told
from flows.tomogram import checked
from flows.watcher import IMPORT, Watch
from tasks.errors import NotThere, WrongParameter
from tasks.look import Lookout
from tasks.parameters import Execution, Pipeline
from tasks.steps import STEPS
from tasks.store import checked_name, parse_project
from tasks.watch import WatchParameters

Directory = Annotated[str, shown("full path of the folder that the microscope writes, or a copy")]
Into = Annotated[str | None, shown("project; empty: tiltflow.zarr in the folder")]
Last = Annotated[str | None, shown("last step wanted, may be import; empty: the tomogram")]
Once = Annotated[bool, shown("take what is whole now and end; for a schedule")]
Stay = Annotated[bool, shown("take what comes until nothing is waited for, and end; for an event")]
WholePreset = Annotated[
    Preset | None, shown("take all branches of a preset, in place of the pipeline")
]
Retry = Annotated[bool, shown("try again what has failed, though its files are the same")]


@flow(name="watch", flow_run_name="watch {directory}", persist_result=False)
def watch(
    directory: Directory,
    project: Into = None,
    parameters: WatchParameters = WatchParameters(),
    pipeline: Pipeline = Pipeline(),
    branch: Branch = "main",
    until: Last = None,
    once: Once = False,
    retry: Retry = False,
    execution: Execution = Execution(),
    stay: Stay = False,
    also: Also = None,
    preset: WholePreset = None,
    changes: Changes = None,
) -> list[str]:
    """Import and process tilt series as they are written; what is done is skipped.

    Parameters
    ----------
    directory
        Folder that the microscope writes, or its copy
    project
        Folder or URL of the project; by default tiltflow.zarr in the folder
    parameters
        Which series are taken, when, and what the user says of them
    pipeline
        Parameters of every step
    branch
        Name under which the results are kept together
    until
        Last step wanted, may be import; by default the tomogram
    once
        Take what is whole now and end; a later pass goes on with what this one has seen
    retry
        Try again what has failed, though its files are the same
    execution
        Where and how wide the work is executed; never changes a result
    stay
        Take what comes until nothing is waited for, and end
    also
        Further steps, which no other reads: preprocess, transform, thickness, ctf3d, …
    preset
        Take all branches of a preset, in place of the pipeline
    changes
        What to change in the preset on every branch: step, parameter, value

    Raises
    ------
    SomeSeriesFailed
        At the end, naming those that failed in this watch.
    """
    folder, url = Path(directory).expanduser().absolute(), project_of(directory, project)
    if not folder.is_dir():
        raise NotThere(f"{folder}: no such folder: check the path")
    if until not in (None, IMPORT, *STEPS):
        raise WrongParameter(f"--until {until}: there are {', '.join((IMPORT, *STEPS))}")
    checked_name("branch", branch)
    runs = [OnBranch(branch, pipeline, until, tuple(checked(also)))]
    if preset is not None:
        if also or until not in (None, IMPORT):
            raise WrongParameter(
                f"preset {preset}: its branches have last and further steps of their own: leave "
                "until and also empty"
            )
        runs = branches_of(preset, changes or {}, branch)
    request = [part for one in runs for part in (one.pipeline, one.branch, until or one.until)]
    request += [step for one in runs for step in one.also]
    lookout = Lookout(parse_project(url), folder, parameters, tuple(request))
    if retry:
        lookout.forget_failures()
    with ExitStack() as stack:
        watched = Watch(
            folder.name, url, lookout, [] if until == IMPORT else runs, execution, stack
        )
        # A scheduled pass mostly finds nothing to do: it starts a cluster only when it needs one.
        if not (once or stay) and until != IMPORT:
            watched.cluster()
        watched.follow(once, stay)
    told(len(watched.taken) + len(watched.failures), watched.failures, watched.taken)
    return watched.taken


def project_of(directory: str, project: str | None) -> str:
    """Return the project of a watch: by default tiltflow.zarr in the folder."""
    return project or str(Path(directory).expanduser().absolute() / "tiltflow.zarr")
