"""What a watch does: look, say what is waited for, and take one series after the other."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic, sleep

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact

from flows.branches import OnBranch, take_branches
from flows.session import import_sources
from flows.several import Failure, SomeSeriesFailed, attempt
from tasks import cluster, progress
from tasks.artifacts import artifact_key
from tasks.errors import UserError, one_line
from tasks.look import Lookout, Watched
from tasks.parameters import Execution
from tasks.plan import plan
from tasks.store import parse_project
from tasks.watch import Stamps

IMPORT = "import"  # the last step of those who want records alone
LONGEST_PAUSE = 5.0  # seconds between two looks
MOST_LOOKING = 0.2  # share of the time that may be spent on looks at a slow file server
TABLE_EVERY = 60.0  # seconds between two tables for the UI
# Seconds after a fault that may pass until a series is tried again, each time twice as long.
FIRST_WAIT, LONGEST_WAIT = 30.0, 900.0
SHOWN = {"waiting": "waiting", "ready": "whole", "imported": "done"} | dict.fromkeys(
    ("failed", "refused"), "failed"
)


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
        runs: list[OnBranch],
        execution: Execution,
        stack: ExitStack,
    ) -> None:
        self.taken: list[str] = []
        self.failures: dict[str, str] = {}
        self._where, self._url, self._lookout, self._runs = where, url, lookout, runs
        self._execution, self._stack = execution, stack
        self._running: Execution | None = None
        self._had_cluster = False
        self._finished: dict[str, Watched] = {}
        self._later: dict[str, tuple[float, float]] = {}  # when a series is due again, after a wait
        self._said: dict[str, tuple[str, str]] = {}
        self._rows: list[dict[str, str]] = []
        self._shown_at = -TABLE_EVERY
        self._log = get_run_logger()
        asked = lookout.asked
        self._pause = min(LONGEST_PAUSE, asked.settle / 3)
        self._end = None if asked.stop_after is None else monotonic() + 60 * asked.stop_after
        self._patience = asked.settle + 60 * asked.idle + 2 * self._pause

    def cluster(self) -> Execution:
        """Return the running cluster, the same for the whole watch unless it is lost."""
        if self._running is None:
            self._running = self._stack.enter_context(cluster.opened(self._execution))
            self._had_cluster = True
        return self._running

    def _let_go(self) -> None:
        """Leave a cluster that may be lost: the next series has a new one."""
        self._running = None
        with suppress(Exception):  # what is lost cannot be closed in good order
            self._stack.close()

    def follow(self, once: bool, stay: bool = False) -> None:
        """Take every series that is whole, until the time is over, or `once`.

        `stay`: until none is waited for, or nothing has changed for as long as one may be.
        """
        seen: dict[str, Stamps] = {}
        changed = monotonic()
        while True:
            began = monotonic()
            found = self._look()
            if (now := {name: one.seen.files for name, one in found.items()}) != seen:
                seen, changed = now, began
            over = self._end is not None and began >= self._end
            due = next((one for one in found.values() if self._is_due(one)), None)
            if due is not None and not over:
                self._take(due)
                changed = monotonic()
                continue
            self._summarize(found)
            if once or over or (stay and self._is_over(found, monotonic() - changed)):
                return
            sleep(max(self._pause, (monotonic() - began) / MOST_LOOKING))

    def _is_over(self, found: Mapping[str, Watched], quiet: float) -> bool:
        """Tell whether a watch that stays may end, nothing having changed for so long [s]."""
        waits = self._later or any(one.verdict.state == "waiting" for one in found.values())
        return quiet > (self._patience if waits else 0.0 if found else self._lookout.asked.settle)

    def _is_due(self, watched: Watched) -> bool:
        name, state = watched.source.name, watched.verdict.state
        if monotonic() < self._later.get(name, (0.0, 0.0))[0]:
            return False
        if state != "imported":
            return state == "ready"
        finished = self._finished.get(name)
        if finished is not None and finished.seen.files == watched.seen.files:
            return False
        try:
            if not self._is_stored(name) or not self._is_done(name):
                return True
        except OSError as error:
            self._put_off(name, Failure.of(name, error))
            return False
        self._finished[name] = watched
        return False

    def _is_stored(self, name: str) -> bool:
        project = parse_project(self._url)
        return project.exists() and name in project.series_names()

    def _is_done(self, name: str) -> bool:
        series = parse_project(self._url).series(name)
        return all(
            planned.state == "done" and series.pointer(one.branch, step) == planned.result.key
            for one in self._runs
            for step, planned in plan(series, one.pipeline, one.branch, one.until, one.also).items()
        )

    # -- a series that is whole -------------------------------------------------------------------

    def _take(self, watched: Watched) -> None:
        name = watched.source.name
        failed: dict[str, str] = {}
        try:
            running = self.cluster() if self._runs else self._execution
        except (UserError, OSError) as error:
            if not self._had_cluster:
                raise
            self._put_off(name, one_line(error))  # there was one: there may be one again
            return
        with self._looking_meanwhile(name):
            if watched.verdict.state == "ready" or not self._is_stored(name):
                failed = self._import(watched)
                try:
                    if not failed and not self._lookout.note_imported(watched):
                        return  # something came in between: imported again when it is settled
                except OSError as error:
                    failed = {name: Failure.of(name, error)}
            if not failed and self._runs:
                first, *others = self._runs
                told = f", and {len(others)} more branches" if others else ""
                self._say(name, "processing", f"up to {first.until or 'the tomogram'}{told}")
                _, failed = attempt(
                    [name], lambda _: take_branches(self._url, name, self._runs, running)
                )
        if failed:
            reason = failed[name]
            passing = isinstance(reason, Failure) and reason.passing
            if passing:
                self._let_go()
            if passing or not self._fails(watched, reason):
                self._put_off(name, reason)
            else:
                self._later.pop(name, None)
            return
        self._finished[name] = watched
        self._later.pop(name, None)
        self.failures.pop(name, None)
        self.taken.append(name)

    def _import(self, watched: Watched) -> dict[str, str]:
        """Import a series; return why it fails, by its name, if it does."""
        name = watched.source.name
        try:
            (record,) = import_sources(self._url, [watched.source], self._lookout.imports)
        except SomeSeriesFailed as failure:  # which has been told
            return dict(failure.failures)
        except Exception as error:  # whatever it is, the watch goes on
            progress.tell(progress.Progress(name, "failed", 0, 0, one_line(error)))
            return {name: Failure.of(name, error)}
        self._say(name, IMPORT, f"{len(record.views)} views")
        for line in record.import_report:
            if line.conflict is not None:
                self._say(name, IMPORT, f"{line.field} {line.value}, but: {line.conflict}")
        return {}

    def _fails(self, watched: Watched, reason: str) -> bool:
        """Note that a series fails as it is; False where a full disk takes no note."""
        name = watched.source.name
        try:
            noted = self._lookout.note_failed(watched, reason)
        except OSError as error:
            self._log.warning("%s: its failure is not noted: %s", name, one_line(error))
            noted = None
        if noted is not False:  # its files have not changed meanwhile
            self.failures[name] = reason
            self._said[name] = ("failed", reason)
        return noted is not None

    def _put_off(self, name: str, reason: str) -> None:
        """Try a series again after a while."""
        wait = self._later.get(name, (0.0, FIRST_WAIT))[1]
        self._later[name] = monotonic() + wait, min(2 * wait, LONGEST_WAIT)
        self.failures[name] = reason
        at = datetime.now() + timedelta(seconds=wait)
        self._say(name, "waiting", f"tried again at {at:%H:%M:%S}: {reason}")

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
