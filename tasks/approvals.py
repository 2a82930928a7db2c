"""What a person said of a step's result: accepted, or with other values, for one series.

Notes lie in the project, so that nobody is asked twice about one result, and so that a later run
goes on with the values that were chosen for a series.
"""

from __future__ import annotations

from typing import Any

from tasks.errors import UserError, WrongParameter
from tasks.parameters import Parameters, Pipeline
from tasks.steps import STEPS
from tasks.store import Series, checked_name

ALIGNMENT = "alignment"  # the one that the tomogram rests on


class Rejected(UserError):
    """A person has rejected the result of a step."""


def checked(approve: list[str] | None) -> tuple[str, ...]:
    """Return the steps to be approved.

    Raises
    ------
    WrongParameter
        If there is no such step.
    """
    for name in approve or ():
        if name not in (ALIGNMENT, *STEPS):
            raise WrongParameter(
                f"approve: no step {name!r}: there are {', '.join((ALIGNMENT, *STEPS))}"
            )
    return tuple(approve or ())


def concerns(approve: tuple[str, ...], step: str, pipeline: Pipeline) -> bool:
    """Tell whether the result of `step` waits for approval."""
    aligned_by = getattr(pipeline.reconstruct, "alignment_step", None)
    return step in approve or (ALIGNMENT in approve and step == aligned_by)


def accept(
    series: Series, branch: str, step: str, key: str, asked: Parameters, chosen: Parameters
) -> None:
    """Write down that result `key` is accepted, and by which parameters in place of `asked`."""
    note = {
        "key": key,
        "asked": asked.model_dump(mode="json"),
        "chosen": chosen.model_dump(mode="json"),
    }
    series.project.write_json(_path(series, branch, step), note)


def accepted(series: Series, branch: str, step: str) -> str | None:
    """Return the key of the result of `step` that was accepted on `branch`."""
    note = series.project.read_json(_path(series, branch, step))
    return None if note is None else str(note["key"])


def chosen(series: Series, branch: str, step: str, asked: Parameters) -> Parameters:
    """Return the parameters chosen for this series where these were asked for, else these."""
    note: Any = series.project.read_json(_path(series, branch, step))
    if note is None or note["asked"] != asked.model_dump(mode="json"):
        return asked
    return type(asked).model_validate(note["chosen"])


def follow(series: Series, branch: str, first: str) -> None:
    """Let a branch go on with what was said of the results of branch `first`."""
    for step in STEPS:
        note: Any = series.project.read_json(_path(series, first, step))
        if note is not None:
            series.project.write_json(_path(series, branch, step), note)


def _path(series: Series, branch: str, step: str) -> str:
    return f"{series.name}/approvals/{checked_name('branch', branch)}/{step}.json"
