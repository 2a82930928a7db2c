"""Many tilt series, each independently of the others."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import flow

from flows.approval import require_somebody
from flows.arguments import Also, Approve, Branch, Project, SeriesNames, Subset, Until, run_name
from flows.several import at_once, attempt, busy_elsewhere, each, told
from flows.tomogram import checked, tomogram
from tasks import approvals, cluster, progress
from tasks.discover import Source, find_sources
from tasks.gain import GainCheck
from tasks.import_gain import check_orientation, with_orientation
from tasks.ingest import read_series, store_series
from tasks.parameters import Execution, ImportParameters, Pipeline
from tasks.plan import chosen_series
from tasks.record import TiltSeries
from tasks.session_axes import contradictions
from tasks.subset_use import within_run


@flow(name="session", flow_run_name=run_name("session"), persist_result=False)
def session(
    project: Project,
    pipeline: Pipeline = Pipeline(),
    series: SeriesNames = None,
    branch: Branch = "main",
    until: Until = None,
    execution: Execution = Execution(),
    approve: Approve = None,
    subset: Subset = None,
    also: Also = None,
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
    approve
        Steps after which each series waits for approval: alignment, or names of steps
    subset
        Named subset of the project to take; of one of views, the others are left out
    also
        Further steps, which no other reads: preprocess, transform, thickness, ctf3d, …

    Raises
    ------
    SomeSeriesFailed
        After all others are finished.
    """
    also = checked(also)
    require_somebody(approvals.checked(approve, pipeline, until, also))
    series, pipeline = within_run(project, series, subset, pipeline)
    with cluster.opened(execution) as running:
        each(
            chosen_series(project, series),
            lambda name: tomogram(project, name, pipeline, branch, until, running, approve, also),
            at_once(running),
            busy_elsewhere(project, branch),
        )
    tell_doubts(project, branch)


@flow(name="import", flow_run_name="import {project}", persist_result=False)
def import_series(project: Project, parameters: ImportParameters) -> list[TiltSeries]:
    """Import tilt series: movies listed by mdocs or named by a pattern, or stacks.

    Parameters
    ----------
    project
        Folder or URL of the project, made when it does not exist
    parameters
        Where the tilt series are, and what the user says of them

    Returns
    -------
    list of TiltSeries
        The records, with their import reports.

    Raises
    ------
    SomeSeriesFailed
        After all others are imported.
    """
    found = find_sources(parameters)
    for path, reason in found.left_out:
        progress.tell(progress.Progress(path.name, "import", 0, 0, progress.LeftOut(reason)))
    return import_sources(project, found.sources, parameters)


def import_sources(
    project: str, sources: Sequence[Source], parameters: ImportParameters
) -> list[TiltSeries]:
    """Import tilt series that were found; see `import_series`."""
    by_name = {source.name: source for source in sources}
    read, failures = attempt(list(by_name), lambda name: read_series(by_name[name], parameters))
    checks = _orientations(list(read.values()), parameters)

    def store(name: str) -> TiltSeries:
        record = with_orientation(read[name], checks.get(read[name].shape), parameters)
        return store_series(project, record)

    stored, refused = attempt(list(read), store)
    told(len(by_name), {**failures, **refused}, list(stored.values()))
    return list(stored.values())


def _orientations(
    records: Sequence[TiltSeries], parameters: ImportParameters
) -> dict[tuple[int, int], GainCheck | str]:
    """Return what the movies show of the gain, by the size of their frames."""
    wanted = parameters.gain_check or parameters.gain_orientation == "auto"
    if parameters.gain is None or not wanted:
        return {}
    shapes = {record.shape for record in records}
    threads = Execution(cluster="threads")  # minutes of reading would not repay a cluster's start
    return {
        shape: check_orientation([r for r in records if r.shape == shape], threads)
        for shape in shapes
    }


def tell_doubts(project: str, branch: str) -> None:
    """Tell which series contradict the session's others."""
    for name, reason in contradictions(project, branch).items():
        progress.tell(progress.Progress(name, "session", 0, 0, progress.Doubt(reason)))
