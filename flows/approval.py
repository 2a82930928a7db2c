"""A person approves a step's result before a run goes on: in the Prefect UI or the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from prefect import flow
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_API_URL
from pydantic import Field, create_model

from tasks import approvals, artifacts
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
    question = Question(outcome, used)
    asker = _asker.get()
    answer = _in_the_ui(series, branch, question) if asker is None else asker(question)
    if answer.decision == "reject":
        approvals.reject(series, branch, outcome.step, outcome.key, answer.reason)
        refuse_rejected(series, branch, outcome)
    if answer.decision == "change values" and answer.values != used:
        return answer.values
    approvals.accept(series, branch, outcome.step, outcome.key, asked, used)
    return used


def refuse_rejected(series: Series, branch: str, outcome: Outcome) -> None:
    """End a run whose step has come to a result that somebody has rejected.

    The branch goes back to the result of the step that was accepted, or has none.

    Raises
    ------
    Rejected
        With the reason that was given.
    """
    step = outcome.step
    reason = approvals.rejection(series, branch, step, outcome.key)
    if reason is None:
        return
    accepted = approvals.accepted(series, branch, step)
    if accepted is not None and not series.result(step, accepted).complete():
        accepted = None  # pruned
    series.point(branch, step, accepted)
    rejected = approvals.Rejected(f"{series.name}: {step} {approvals.told(step, reason)}")
    series.note_failure(branch, step, str(rejected))
    raise rejected


def _in_the_ui(series: Series, branch: str, question: Question) -> Answer:
    """Pause until somebody has answered, in a run of its own.

    A run of a deployment with a limit gives its slot back when it is paused, and is ended by
    Prefect minutes later, when it cannot renew what it has given back; a run within it has no
    slot.
    """
    outcome = question.outcome
    result = series.result(outcome.step, outcome.key)

    @flow(
        name="approval",
        flow_run_name=f"approve {outcome.step} {series.name} {branch}",
        persist_result=False,
    )
    def approval() -> Answer:
        artifacts.publish(result, branch, result.attributes()["table"])
        given = pause_flow_run(
            wait_for_input=form_of(question), timeout=PATIENCE, poll_interval=LOOK_EVERY
        )
        return Answer(given.decision, given.values, given.reason)

    return approval()


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
    return form.with_initial_data(
        description=f"**{outcome.series}, {outcome.step}**: {outcome.message}\n\n"
        "Its table and pictures are this run's artifacts."
    )
