"""What a run does on each branch of a preset, and how a series is taken through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flows.options import pipelines_of
from flows.presets import PRESETS, branch_of
from flows.tomogram import tomogram
from tasks import approvals, progress
from tasks.parameters import Execution, Pipeline
from tasks.store import parse_project
from tasks.work import Outcome


@dataclass(frozen=True)
class OnBranch:
    """What a run does on one branch.

    Attributes
    ----------
    branch : str
    pipeline : Pipeline
    until : str or None
        The last step wanted; None: the tomogram.
    also : tuple of str
        Further steps.
    """

    branch: str
    pipeline: Pipeline
    until: str | None
    also: tuple[str, ...] = ()


def branches_of(preset: str, changes: dict[str, dict[str, Any]], branch: str) -> list[OnBranch]:
    """Return what a run does on the branches of a preset, the first of which is called `branch`.

    Raises
    ------
    WrongParameter
        If there is no such preset, or a change names an unknown parameter or an unusable value.
    """
    runs = []
    for part, pipeline in pipelines_of(preset, changes).items():
        of = PRESETS[preset][part]
        runs.append(OnBranch(branch_of(branch, part), pipeline, of.until, of.also))
    return runs


def take_branches(
    project: str,
    name: str,
    runs: Sequence[OnBranch],
    execution: Execution,
    approve: list[str] | None = None,
) -> list[Outcome]:
    """Take a series through its branches; all but the first follow what was approved there."""
    outcomes: list[Outcome] = []
    first = runs[0]
    for one in runs:
        if one is not first:
            approvals.follow(parse_project(project).series(name), one.branch, first.branch)
        if len(runs) > 1:
            news = progress.OnBranch(f"branch {one.branch}")
            progress.tell(progress.Progress(name, "branch", 0, 0, news))
        asks = approve if one is first else None
        outcomes += tomogram(
            project, name, one.pipeline, one.branch, one.until, execution, asks, [*one.also]
        )
    return outcomes
