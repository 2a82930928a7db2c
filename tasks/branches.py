"""Branches hold alternatives side by side: where one begins that a step is asked for on."""

from __future__ import annotations

from tasks import progress
from tasks.parameters import Parameters
from tasks.steps import ALIGNMENTS, STEPS, inputs_of
from tasks.store import Series

MAIN = "main"


def begin_branch(series: Series, branch: str, step: str, parameters: Parameters) -> bool:
    """Let a branch that a series does not have yet begin from main, up to what a step rests on.

    Nothing is copied: both branches use the same results, and a step that is run on one of them
    moves that one only.

    Parameters
    ----------
    series : Series
    branch : str
    step : str
        The first one that is run on the branch.
    parameters : Parameters
        Of that step.

    Returns
    -------
    bool
        Whether the branch began; it does not where it is there, or main has nothing for it.
    """
    if branch == MAIN or branch in series.branches():
        return False
    names = list(STEPS)
    before = [name for name in names[: names.index(step)] if not STEPS[name].side]
    if step in ALIGNMENTS:
        before = [name for name in before if name not in ALIGNMENTS or name == "coarse"]
    begun = False
    for name in dict.fromkeys([*before, *inputs_of(STEPS[step], parameters)]):
        key = series.pointer(MAIN, name)
        if key is not None and series.result(name, key).complete():
            series.point(branch, name, key)
            begun = True
    if begun:
        told = progress.OnBranch(f"branch {branch} begins with what {MAIN} has")
        progress.tell(progress.Progress(series.name, step, 0, 0, told))
    return begun
