"""Tilt series as a microscope writes them: each is imported and processed when it is whole."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from flows.arguments import Branch, shown
from flows.session import import_sources
from flows.several import SomeSeriesFailed, attempt, told
from flows.tomogram import tomogram
from tasks import cluster, progress
from tasks.artifacts import artifact_key
from tasks.errors import NotThere, WrongParameter, one_line
from tasks.look import Lookout, Watched
from tasks.parameters import Execution, Pipeline
from tasks.plan import plan
from tasks.steps import STEPS
from tasks.store import checked_name, parse_project
from tasks.watch import WatchParameters

IMPORT = "import"  # the last step of those who want records alone
LONGEST_PAUSE = 5.0  # seconds between two looks
MOST_LOOKING = 0.2  # share of the time that may be spent on looks at a slow file server
TABLE_EVERY = 60.0  # seconds between two tables for the UI
SHOWN = {"waiting": "waiting", "ready": "whole", "imported": "done"} | dict.fromkeys(
    ("failed", "refused"), "failed"
)

Directory = Annotated[str, shown("full path of the folder that the microscope writes, or a copy")]
Into = Annotated[str | None, shown("project; empty: tiltflow.zarr in the folder")]
Last = Annotated[str | None, shown("last step wanted, may be import; empty: the tomogram")]
Once = Annotated[bool, shown("take what is whole now and end; for a schedule")]
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
    lookout = Lookout(parse_project(url), folder, parameters, (pipeline, branch, until))
    if retry:
        lookout.forget_failures()
    with ExitStack() as stack:
        watched = Watch(folder.name, url, lookout, (pipeline, branch, until), execution, stack)
        # A scheduled pass mostly finds nothing to do: it starts a cluster only when it needs one.
        if not once and until != IMPORT:
            watched.cluster()
        watched.follow(once)
    told(len(watched.taken) + len(watched.failures), watched.failures, watched.taken)
    return watched.taken


def project_of(directory: str, project: str | None) -> str:
    """Return the project of a watch: by default tiltflow.zarr in the folder."""
    return project or str(Path(directory).expanduser().absolute() / "tiltflow.zarr")


@dataclass(frozen=True)
class Line:
    """What is said of a series, as the console shows the outcome of a step."""

    message: str
    skipped: bool = True


class Watch:
    """Looks, says what it waits for, and takes one series after the other.

    `taken` names those that are done as they came, `failures` those that failed and why.
    """

    def __init__(
        self,
        where: str,
        url: str,
        lookout: Lookout,
        request: tuple[Pipeline, str, str | None],
        execution: Execution,
        stack: ExitStack,
    ) -> None:
        self.taken: list[str] = []
        self.failures: dict[str, str] = {}
        self._where, self._url, self._lookout, self._request = where, url, lookout, request
        self._execution, self._stack = execution, stack
        self._running: Execution | None = None
        self._busy: str | None = None
        self._finished: dict[str, Watched] = {}
        self._said: dict[str, tuple[str, str]] = {}
        self._rows: list[dict[str, str]] = []
        self._shown_at = -TABLE_EVERY
        self._log = get_run_logger()
        asked = lookout.asked
        self._pause = min(LONGEST_PAUSE, asked.settle / 3)
        self._end = None if asked.stop_after is None else monotonic() + 60 * asked.stop_after

    def cluster(self) -> Execution:
        """Return the running cluster, the same for the whole watch."""
        if self._running is None:
            self._running = self._stack.enter_context(cluster.opened(self._execution))
        return self._running

    def follow(self, once: bool) -> None:
        """Take every series that is whole, until the time is over, or `once`."""
        while True:
            began = monotonic()
            found = self._look()
            over = self._end is not None and began >= self._end
            due = next((one for one in found.values() if self._is_due(one)), None)
            if due is not None and not over:
                self._take(due)
                continue
            self._summarize(found)
            if once or over:
                return
            sleep(max(self._pause, (monotonic() - began) / MOST_LOOKING))

    def _is_due(self, watched: Watched) -> bool:
        name, state = watched.source.name, watched.verdict.state
        if state != "imported":
            return state == "ready"
        finished = self._finished.get(name)
        if finished is not None and finished.seen.files == watched.seen.files:
            return False
        if not self._is_stored(name) or not self._is_done(name):
            return True
        self._finished[name] = watched
        return False

    def _is_stored(self, name: str) -> bool:
        project = parse_project(self._url)
        return project.exists() and name in project.series_names()

    def _is_done(self, name: str) -> bool:
        pipeline, branch, until = self._request
        if until == IMPORT:
            return True
        series = parse_project(self._url).series(name)
        steps = plan(series, pipeline, branch, until)
        return all(
            step.state == "done" and series.pointer(branch, name) == step.result.key
            for name, step in steps.items()
        )

    # -- a series that is whole -------------------------------------------------------------------

    def _take(self, watched: Watched) -> None:
        name, (pipeline, branch, until) = watched.source.name, self._request
        running = self._execution if until == IMPORT else self.cluster()
        failed: dict[str, str] = {}
        with self._looking_meanwhile(name):
            if watched.verdict.state == "ready" or not self._is_stored(name):
                failed = self._import(watched)
                if not failed and not self._lookout.note_imported(watched):
                    return  # something came in between: it is imported again when it is settled
            if not failed and until != IMPORT:
                self._say(name, "processing", "up to " + (until or "the tomogram"))
                _, failed = attempt(
                    [name], lambda _: tomogram(self._url, name, pipeline, branch, until, running)
                )
        if failed:
            self._fails(watched, failed[name])
            return
        self._finished[name] = watched
        self.failures.pop(name, None)
        self.taken.append(name)

    def _import(self, watched: Watched) -> dict[str, str]:
        """Import a series; return why it fails, by its name, if it does."""
        name = watched.source.name
        try:
            (record,) = import_sources(self._url, [watched.source], self._lookout.imports)
        except SomeSeriesFailed as failure:  # which has been told
            return {name: str(failure).partition(f"{name}: ")[2]}
        except Exception as error:  # whatever it is, the watch goes on
            progress.tell(progress.Progress(name, "failed", 0, 0, one_line(error)))
            return {name: one_line(error)}
        self._say(name, IMPORT, f"{len(record.views)} views")
        for line in record.import_report:
            if line.conflict is not None:
                self._say(name, IMPORT, f"{line.field} {line.value}, but: {line.conflict}")
        return {}

    def _fails(self, watched: Watched, reason: str) -> None:
        if self._lookout.note_failed(watched, reason):
            self.failures[watched.source.name] = reason
            self._said[watched.source.name] = ("failed", reason)

    # -- looks ------------------------------------------------------------------------------------

    @contextmanager
    def _looking_meanwhile(self, name: str) -> Iterator[None]:
        """Look on while a series is taken: what it takes may be longer than the next series."""
        over = threading.Event()

        def look_on() -> None:
            while not over.wait(self._pause):
                self._look(busy=name)

        looking = threading.Thread(target=look_on, daemon=True)
        looking.start()
        try:
            yield
        finally:
            over.set()
            looking.join()

    def _look(self, busy: str | None = None) -> dict[str, Watched]:
        found = self._lookout.look()
        if self._lookout.trouble is not None:
            self._say(self._where, "waiting", self._lookout.trouble, once=True)
        for path, reason in self._lookout.left_out.items():
            if self._said.get(path.name) != ("left out", reason):
                self._said[path.name] = ("left out", reason)
                progress.tell(progress.Progress(path.name, IMPORT, 0, 0, progress.LeftOut(reason)))
        for name, watched in found.items():
            state, reason = watched.verdict.state, watched.verdict.reason
            if state == "waiting" and name != busy:
                self._say(name, state, reason, once=True)
            elif state in ("failed", "refused") and self._said.get(name) != ("failed", reason):
                progress.tell(progress.Progress(name, "failed", 0, 0, reason))
                self._log.error("%s failed: %s", name, reason)
                self._said[name] = ("failed", reason)
                if state == "failed":
                    self._fails(watched, reason)
        return found

    def _say(self, name: str, state: str, text: str, once: bool = False) -> None:
        if once and self._said.get(name) == (state, text):
            return
        self._said[name] = (state, text)
        progress.tell(progress.Progress(name, state, 1, 1, Line(text)))
        self._log.info("%s %s: %s", name, state, text)

    def _summarize(self, found: Mapping[str, Watched]) -> None:
        rows = [
            {"series": name, "state": SHOWN[one.verdict.state], "why": one.verdict.reason}
            for name, one in found.items()
        ]
        states = Counter(row["state"] for row in rows)
        counts = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
        if rows:
            self._say(self._where, "watched", f"{len(rows)} series: {counts}", once=True)
        if rows != self._rows and monotonic() - self._shown_at > TABLE_EVERY:
            self._rows, self._shown_at = rows, monotonic()
            try:
                key = artifact_key("watch", self._where)
                create_table_artifact(key=key, table=rows, description=f"{self._url}: {counts}")
            except Exception as error:  # the watch goes on, whatever the server thinks of it
                self._log.warning("no table: %s", error)
