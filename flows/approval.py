"""A person approves a step's result before a run goes on: in the Prefect UI or the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_API_URL
from pydantic import Field, create_model

from tasks import approvals
from tasks.artifacts import artifact_key
from tasks.errors import WrongParameter
from tasks.parameters import Parameters
from tasks.store import Series
from tasks.work import Outcome

PATIENCE = 7 * 24 * 3600  # seconds that a run waits for an answer
LOOK_EVERY = 3  # seconds between two looks for it

Decision = Literal["accept", "change values", "reject"]


@dataclass(frozen=True)
class Question:
    """What is to be approved: the outcome of a step, and the parameters that made it."""

    outcome: Outcome
    parameters: Parameters


@dataclass(frozen=True)
class Answer:
    """What a person says: `values` counts only where they are to be changed."""

    decision: Decision
    values: Parameters
    reason: str = ""


Asker = Callable[[Question], Answer]
_asker: ContextVar[Asker | None] = ContextVar("asker", default=None)


@contextmanager
def asked_by(asker: Asker | None) -> Iterator[None]:
    """Ask by `asker` in place of the Prefect UI: the terminal does."""
    before = _asker.set(asker)
    try:
        yield
    finally:
        _asker.reset(before)


def require_somebody(approve: tuple[str, ...]) -> None:
    """Refuse a run that nobody could approve, before anything is computed.

    Raises
    ------
    WrongParameter
        If there is neither a terminal nor a Prefect server that outlives the run.
    """
    if approve and _asker.get() is None and not PREFECT_API_URL.value():
        raise WrongParameter(
            f"approve {', '.join(approve)}: nobody can be asked: run it in a terminal, or as a "
            "deployment of a Prefect server (`tiltflow serve`)"
        )


def approved(
    series: Series, branch: str, outcome: Outcome, asked: Parameters, used: Parameters
) -> Parameters:
    """Return the parameters with which the run goes on; `used` when the result is accepted.

    Parameters
    ----------
    series, branch
        Whose result it is.
    outcome : Outcome
    asked : Parameters
        What the run was started with.
    used : Parameters
        What made the result: the same, or values that were changed.

    Raises
    ------
    Rejected
        With the reason that was given.
    """
    if approvals.accepted(series, branch, outcome.step) == outcome.key:
        return used
    answer = (_asker.get() or _in_the_ui)(Question(outcome, used))
    if answer.decision == "reject":
        why = f": {answer.reason}" if answer.reason else ""
        rejected = approvals.Rejected(f"{series.name}: {outcome.step} was rejected{why}")
        series.note_failure(branch, outcome.step, str(rejected))
        raise rejected
    if answer.decision == "change values" and answer.values != used:
        return answer.values
    approvals.accept(series, branch, outcome.step, outcome.key, asked, used)
    return used


def _in_the_ui(question: Question) -> Answer:
    given = pause_flow_run(
        wait_for_input=form_of(question), timeout=PATIENCE, poll_interval=LOOK_EVERY
    )
    return Answer(given.decision, given.values, given.reason)


def form_of(question: Question) -> Any:
    """Return the form that Prefect shows: the decision, and the values as they are."""
    outcome, parameters = question.outcome, question.parameters
    fields: dict[str, Any] = {
        "decision": (Decision, Field("accept", description="accept, change values below, reject")),
        "reason": (str, Field("", description="why it is rejected, for whoever asks later")),
        "values": (
            type(parameters),
            Field(parameters, description=f"of {outcome.step}, where they are to be changed"),
        ),
    }
    form = create_model("Approval", __base__=RunInput, **fields)
    pictures = artifact_key(outcome.series, outcome.step, "pictures")
    return form.with_initial_data(
        description=f"**{outcome.series}, {outcome.step}**: {outcome.message}\n\n"
        f"Its table and pictures are artifacts of this run (`{pictures}`)."
    )
