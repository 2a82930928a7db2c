"""Many tilt series, each independently of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from prefect import flow

from flows.arguments import Branch, Project, SeriesNames, Until
from flows.tomogram import tomogram
from tasks import cluster, progress
from tasks.errors import UserError, one_line
from tasks.ingest import find_mdocs, import_series, series_name
from tasks.parameters import Execution, ImportParameters, Pipeline
from tasks.plan import chosen_series
from tasks.record import TiltSeries

Done = TypeVar("Done")


class SomeSeriesFailed(UserError):
    """Raised at the end of a run in which series failed; all others are finished.

    Attributes
    ----------
    done : list
        What the others have returned.
    """

    def __init__(self, message: str, done: list[Any]) -> None:
        super().__init__(message)
        self.done = done


@flow(name="session", flow_run_name="session {branch}", persist_result=False)
def session(
    project: Project,
    pipeline: Pipeline = Pipeline(),
    series: SeriesNames = None,
    branch: Branch = "main",
    until: Until = None,
    execution: Execution = Execution(),
) -> None:
    """Take many imported tilt series from movies to tomograms; what is done is skipped.

    Parameters
    ----------
    project
        Folder or URL of the project, e.g. /data/session.zarr
    pipeline
        Parameters of every step
    series
        Names of the tilt series; empty: all
    branch
        Name under which the results are kept together
    until
        Last step wanted; empty: the tomogram
    execution
        Where and how wide the work is executed; never changes a result

    Raises
    ------
    SomeSeriesFailed
        After all others are finished.
    """
    with cluster.opened(execution) as running:
        each(
            chosen_series(project, series),
            lambda name: tomogram(project, name, pipeline, branch, until, running),
        )


@flow(name="import", persist_result=False)
def import_movies(project: Project, parameters: ImportParameters) -> list[TiltSeries]:
    """Import the tilt-series movies that mdoc files describe.

    Parameters
    ----------
    project
        Folder or URL of the project, made when it does not exist
    parameters
        The mdoc files, and what the user says of the movies

    Returns
    -------
    list of TiltSeries
        The records, with their import reports.

    Raises
    ------
    SomeSeriesFailed
        After all others are imported.
    """
    mdocs = {series_name(path): str(path) for path in find_mdocs(parameters.mdoc)}
    return each(list(mdocs), lambda name: import_series(project, mdocs[name], parameters))


def each(series: list[str], do: Callable[[str], Done]) -> list[Done]:
    """Do something for every series; tell at the end which ones failed.

    Raises
    ------
    SomeSeriesFailed
        Naming every failed series with its reason.
    """
    failures, done = {}, []
    for name in series:
        try:
            done.append(do(name))
        except Exception as error:  # whatever it is, the other series go on
            failures[name] = one_line(error).removeprefix(f"{name}: ")
            progress.tell(progress.Progress(name, "failed", 0, 0, failures[name]))
    if failures:
        told = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise SomeSeriesFailed(f"{len(failures)} of {len(series)} series failed: {told}", done)
    return done
