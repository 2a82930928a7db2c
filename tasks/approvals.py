"""What a person said of a step's result: accepted, or with other values, for one series.

Notes lie in the project, so that nobody is asked twice about one result, that a later run goes on
with the values that were chosen for a series, and that none goes on with what was rejected.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tasks.choice import is_open, possible
from tasks.errors import UserError, WrongParameter
from tasks.parameters import Parameters, Pipeline
from tasks.steps import ALIGNMENTS, STEPS
from tasks.store import Series, checked_name

ALIGNMENT = "alignment"  # the one that the tomogram rests on


class Rejected(UserError):
    """A person has rejected the result of a step."""


def checked(
    approve: list[str] | None,
    pipeline: Pipeline,
    until: str | None = None,
    also: Iterable[str] = (),
) -> tuple[str, ...]:
    """Return the steps to be approved.

    Raises
    ------
    WrongParameter
        If there is no such step, or none that this run takes.
    """
    taken = possible(pipeline, until, tuple(also)) if approve else ()
    for name in approve or ():
        if name not in (ALIGNMENT, *STEPS):
            raise WrongParameter(
                f"approve: no step {name!r}: there are {', '.join((ALIGNMENT, *STEPS))}"
            )
        aligns = any(step in ALIGNMENTS for step in taken)
        if name not in taken and not (name == ALIGNMENT and aligns):
            raise WrongParameter(
                f"approve {name}: this run takes no such step, but {', '.join(taken)}: leave it "
                "out, or ask for it by until or also"
            )
    return tuple(approve or ())


def concerns(approve: tuple[str, ...], step: str, pipeline: Pipeline) -> bool:
    """Tell whether the result of `step` waits for approval."""
    by = pipeline.reconstruct  # while that is open, beads are looked for, and nothing is aligned
    aligned = not is_open(by) and step == by.alignment_step
    return step in approve or (ALIGNMENT in approve and aligned)


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
    others = _rejections(series, branch, step)
    if others.pop(key, None) is not None:
        series.project.write_json(_path(series, branch, step, "rejections"), others)


def reject(series: Series, branch: str, step: str, key: str, reason: str) -> None:
    """Write down that result `key` is rejected, and why: no run goes on with it by itself."""
    note = {**_rejections(series, branch, step), key: reason}
    series.project.write_json(_path(series, branch, step, "rejections"), note)


def rejection(series: Series, branch: str, step: str, key: str) -> str | None:
    """Return the reason for which result `key` was rejected on `branch`; None if it was not."""
    return _rejections(series, branch, step).get(key)


def told(step: str, reason: str) -> str:
    """Return what is said of a rejected result of `step`, and what can be done."""
    why = f": {reason}" if reason else ""
    return f"was rejected{why}: change its parameters, or approve it in a run with --approve {step}"


def _rejections(series: Series, branch: str, step: str) -> dict[str, str]:
    return dict(series.project.read_json(_path(series, branch, step, "rejections")) or {})


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
        for kind in ("approvals", "rejections"):
            note: Any = series.project.read_json(_path(series, first, step, kind))
            if note is not None:
                series.project.write_json(_path(series, branch, step, kind), note)


def _path(series: Series, branch: str, step: str, kind: str = "approvals") -> str:
    return f"{series.name}/{kind}/{checked_name('branch', branch)}/{step}.json"
