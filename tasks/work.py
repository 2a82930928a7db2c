"""What all steps have in common: find the inputs, skip what is done, scatter, finish."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from typing import Any, ParamSpec

import dask.utils
from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.tasks import exponential_backoff
from pydantic import BaseModel, ConfigDict

from tasks import artifacts, cluster, locks, progress
from tasks.errors import UnusableData, UserError, WrongParameter
from tasks.parameters import Execution, Parameters
from tasks.record import TiltSeries
from tasks.result import Result
from tasks.result_keys import result_key
from tasks.scatter import Unit, scatter
from tasks.steps import STEPS, Step, inputs_of
from tasks.store import Series, parse_project

SOFTWARE = ("tiltflow", "numpy", "scipy", "numba", "zarr")
# Faults that no second try mends; every other OSError may pass.
LASTING = (
    UserError,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
)
LASTING_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

Row = Mapping[str, Any]
P = ParamSpec("P")


class Outcome(BaseModel):
    """What a task returns: where its result is, and one line about it."""

    model_config = ConfigDict(frozen=True)

    series: str
    step: str
    key: str
    url: str
    skipped: bool
    seconds: float
    message: str


def may_pass(error: BaseException) -> bool:
    """Tell whether trying again could help: a network or disk fault, not bad data."""
    if isinstance(error, LASTING):
        return False
    return isinstance(error, OSError) and error.errno not in LASTING_NUMBERS


def _retry(_task: Any, _run: Any, state: State[Any]) -> bool:
    try:
        state.result()
    except BaseException as error:
        return may_pass(error)
    return False


def step_task(name: str) -> Callable[[Callable[P, Outcome]], Task[P, Outcome]]:
    """Return the decorator of the task of step `name`.

    Its results are cached by tiltflow's store, not by Prefect, whose database may vanish. The
    lock of the result that it makes is given back when it ends, however that may be.
    """

    def decorate(function: Callable[P, Outcome]) -> Task[P, Outcome]:
        @functools.wraps(function)
        def alone(*arguments: P.args, **named: P.kwargs) -> Outcome:
            with locks.until_the_end():
                return function(*arguments, **named)

        return Task(
            alone,
            name=name,
            retries=3,
            retry_delay_seconds=exponential_backoff(backoff_factor=2),
            retry_jitter_factor=0.5,
            retry_condition_fn=_retry,
            cache_policy=NO_CACHE,
            persist_result=False,
            task_run_name=f"{name} {{series}} {{branch}}",
        )

    return decorate


@dataclass(frozen=True)
class Work:
    """One step of one series on one branch, about to be carried out.

    Attributes
    ----------
    series : Series
    step : Step
    parameters : Parameters
    branch : str
    execution : Execution
    keys : mapping of str to str
        Step → key of every result that this one rests on, directly or not.
    movies : str
        Which movies the series had when the work began.
    lock : Lock or None
        Of the result; None outside a task.
    started : datetime
    """

    series: Series
    step: Step
    parameters: Parameters
    branch: str
    execution: Execution
    keys: Mapping[str, str]
    movies: str
    lock: locks.Lock | None = None
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def record(self) -> TiltSeries:
        """The record as the results that this one rests on have it."""
        return self.series.record_of(self.keys)

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Step → key of the results that are read directly."""
        return {name: self.keys[name] for name in inputs_of(self.step, self.parameters)}

    @cached_property
    def result(self) -> Result:
        """The result to be made."""
        return self.series.result(self.step.name, self._key())

    def _key(self) -> str:
        return result_key(self.step, self.parameters, self.series.imported(), self.inputs)

    def input(self, step: str) -> Result:
        """Return the result of `step` that is read."""
        return self.series.result(step, self.keys[step])

    @cached_property
    def done(self) -> bool:
        """Whether the result is complete already."""
        return self.result.complete()

    @cached_property
    def image_pixel_size(self) -> float:
        """Pixel of the motion-corrected images [Å]."""
        motion = self.input("motion").attributes()["parameters"]
        return self.record.acquisition.pixel_size * float(motion["binning"])

    def adopt(self) -> Outcome:
        """Let the branch use the result that is there already."""
        if self.result.units():  # killed after the last word, before the sweeping
            self.series.project.delete(f"{self.result.path}/unit")
        locks.clear(self.series, self.result.name)
        self._point()
        return self._outcome(skipped=True, message="already done")

    def scatter(
        self,
        function: Callable[..., Any],
        units: Sequence[Unit],
        memory: int,
    ) -> dict[str, Any]:
        """Run the units that an earlier, interrupted run has not finished.

        Parameters
        ----------
        function : callable
            Importable by the workers; writes its arrays, returns a small JSON-able report.
        units : sequence of Unit
        memory : int
            Most memory that one unit takes [bytes].

        Returns
        -------
        dict
            Unit name → report, of all units.

        Raises
        ------
        WrongParameter
            If a worker has less memory than one unit takes.
        """
        reports = {unit.name: self.result.unit(unit.name) for unit in units}
        missing = [unit for unit in units if reports[unit.name] is None]
        if missing:
            self._check_workers(memory)
        done = len(units) - len(missing)
        self._tell(done, len(units))
        bar = artifacts.ProgressBar(self.series.name, self.step.name)
        for unit, report in scatter(function, missing, self.execution):
            self._check_lock()
            reports[unit.name] = self.result.mark_unit(unit.name, report)
            done += 1
            self._tell(done, len(units))
            bar.show(done, len(units))
        return reports

    def hold(
        self, function: Callable[..., Any], units: Sequence[Unit], memory: int
    ) -> dict[str, Any]:
        """Run units whose results stay with the workers, as arguments of later units.

        Parameters
        ----------
        function : callable
            Importable by the workers; returns arrays.
        units : sequence of Unit
        memory : int
            Most memory that one unit takes [bytes].

        Returns
        -------
        dict
            Unit name → what stands for its result; see `tasks.scatter.parts_of`.

        Raises
        ------
        WrongParameter
            If a worker has less memory than one unit takes.
        """
        self._check_workers(memory)
        held: dict[str, Any] = {}
        bar = artifacts.ProgressBar(self.series.name, self.step.name)
        for unit, made in scatter(function, units, self.execution, hold=True):
            self._check_lock()
            held[unit.name] = made
            self._tell(len(held), len(units))
            bar.show(len(held), len(units))
        return held

    def _check_lock(self) -> None:
        if self.lock is not None:
            self.lock.check()

    def _check_same(self) -> None:
        # A result is named by what it was begun with, which its views need not be made from.
        if self.series.movies_digest() != self.movies or self._key() != self.result.key:
            raise UnusableData(
                f"{self.series.name}: was imported anew, or a file that {self.step.name} is given "
                "changed, while it ran: run it again"
            )

    def _check_workers(self, memory: int) -> None:
        cluster.check_sees(self.execution, self.series.project.url)
        limit = cluster.worker_memory(self.execution)
        if memory > limit:
            raise WrongParameter(
                f"{self.series.name}: one unit of {self.step.name} takes "
                f"{dask.utils.format_bytes(memory)}, a worker has "
                f"{dask.utils.format_bytes(limit)}: use fewer --workers or a larger --memory"
            )

    def finish(
        self,
        message: str,
        *,
        views: Sequence[Row] = (),
        series: Row | None = None,
        table: Sequence[Row] = (),
        extra: Row | None = None,
    ) -> Outcome:
        """Make the result complete and let the branch use it.

        Parameters
        ----------
        message : str
            One line for people.
        views : sequence of mapping
            What the step decided about each view: fields of ``record.View``.
        series : mapping, optional
            What it decided about the series: fields of ``record.TiltSeries``.
        table : sequence of mapping
            Rows for people: the UI, the report.
        extra : mapping, optional
            Further attributes of the result (OME metadata).

        Raises
        ------
        UnusableData
            If the series was imported anew meanwhile.
        """
        self._check_lock()
        self._check_same()
        self.result.finish(
            {
                "step": self.step.name,
                "version": self.step.version,
                "parameters": self.parameters.for_series(self.series.name).model_dump(mode="json"),
                "inputs": self.inputs,
                "movies": self.movies,
                "software": _software(),
                "started": self.started.isoformat(),
                "ended": datetime.now(UTC).isoformat(),
                "decides": {"views": [dict(row) for row in views], "series": dict(series or {})},
                "message": message,
                "table": [dict(row) for row in table],
                **(extra or {}),
            }
        )
        self._point()
        artifacts.publish(self.result, self.branch, table)
        return self._outcome(skipped=False, message=message)

    def _point(self) -> None:
        if self.series.pointer(self.branch, self.step.name) != self.result.key:
            self.series.point(self.branch, self.step.name, self.result.key)
        self.series.forget_failure(self.branch, self.step.name)

    def _outcome(self, *, skipped: bool, message: str) -> Outcome:
        outcome = Outcome(
            series=self.series.name,
            step=self.step.name,
            key=self.result.key,
            url=self.result.url,
            skipped=skipped,
            seconds=(datetime.now(UTC) - self.started).total_seconds(),
            message=message,
        )
        self._tell(1, 1, outcome)
        return outcome

    def _tell(self, done: int, total: int, outcome: Outcome | None = None) -> None:
        progress.tell(progress.Progress(self.series.name, self.step.name, done, total, outcome))


@functools.cache
def _software() -> dict[str, str]:
    """Return the versions that a result notes: reading them takes a fifth of a small task."""
    return {name: version(name) for name in SOFTWARE}


def begin(
    step: str,
    project: str,
    series: str,
    parameters: Parameters,
    branch: str,
    execution: Execution,
) -> Work:
    """Find what a step of a series rests on; wait while another run makes its result.

    Raises
    ------
    NotThere
        If the project, the series or an input result does not exist.
    """
    of = parse_project(project).series(series)
    movies = of.movies_digest()
    keys: dict[str, str] = {}

    def rest_on(name: str, key: str, keys: dict[str, str]) -> None:
        attributes = of.result(name, key).attributes()
        if not of.same_movies(attributes):
            raise UnusableData(
                f"{series}: {name} on branch {branch} was made from movies imported before: "
                f"`tiltflow run {project} --branch {branch}` first"
            )
        for before, before_key in attributes.get("inputs", {}).items():
            rest_on(before, before_key, keys)
        keys[name] = key

    direct = {name: of.current(branch, name).key for name in inputs_of(STEPS[step], parameters)}
    for name, key in direct.items():
        # The specimen may have been measured in another alignment, which decides nothing here.
        rest_on(name, key, {} if name == "thickness" else keys)
    keys |= direct  # what is read counts, and not an older one that another input was made from
    work = Work(of, STEPS[step], parameters, branch, execution, keys, movies)
    if work.result.complete():
        return work
    lock = locks.hold(of, work.result.name, functools.partial(progress.waits, series))
    return replace(work, lock=lock, started=datetime.now(UTC))
