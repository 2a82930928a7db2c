"""What a run would do, and how far a project is: told from keys alone, nothing is computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast

from tasks import approvals
from tasks.choice import is_open, settled, settled_ctf, usable_ctf
from tasks.errors import NotThere, UnusableData, one_line
from tasks.locks import holder_of
from tasks.parameters import CoarseParameters, MarkerfreeParameters, Parameters, Pipeline
from tasks.result import Result
from tasks.result_keys import result_key
from tasks.session_axes import settled_axis
from tasks.steps import STEPS, inputs_of, needed
from tasks.store import Project, Series, parse_project

NO_KEY = "unknown"
State = Literal["done", "to do", "stale", "failed", "unfinished"]


@dataclass(frozen=True)
class Planned:
    """One step of one series, as a run with given parameters would meet it.

    Attributes
    ----------
    result : Result
        The one that the parameters ask for; where that cannot be told, the one that the branch
        has, or none that exists.
    state : State
        done: complete. stale: the branch has a result of other parameters or inputs. failed: the
        last try failed, or the next one would.
    why : str
        The reason, for people.
    """

    result: Result
    state: State
    why: str


def plan(
    series: Series,
    pipeline: Pipeline,
    branch: str = "main",
    until: str | None = None,
    also: Iterable[str] = (),
) -> dict[str, Planned]:
    """Return what a run would find for each step that it takes, in order."""
    record = series.imported()
    keys: dict[str, str] = {}
    planned: dict[str, Planned] = {}
    while len(planned) < len(names := needed(pipeline, until, also)):
        name = names[len(planned)]
        step = STEPS[name]
        parameters = approvals.chosen(series, branch, name, getattr(pipeline, name))
        if isinstance(parameters, CoarseParameters):
            parameters = settled_axis(parameters, series.project.url, series.name, branch)
        if isinstance(parameters, MarkerfreeParameters) and parameters.use_ctf == "auto":
            if "ctf" not in names and (known_ctf := usable_ctf(series, branch, keys)):
                keys["ctf"] = known_ctf
            parameters = settled_ctf(parameters, "ctf" in names or "ctf" in keys)
        if is_open(parameters):
            why = "the beads decide which alignment is used"
            planned[name] = _without_key(series, name, branch, why, "to do")
            continue
        needs = inputs_of(step, parameters)
        if unknown := [before for before in needs if before not in keys]:
            planned[name] = _without_key(series, name, branch, f"{unknown[0]} comes first", "to do")
            continue
        try:
            inputs = {before: keys[before] for before in needs}
            keys[name] = result_key(step, parameters, record, inputs)
        except UnusableData as error:  # a file that the parameters name is gone
            planned[name] = _without_key(series, name, branch, one_line(error), "failed")
            continue
        result = series.result(name, keys[name])
        planned[name] = _state(result, parameters, branch)
        if name == "fiducials":
            pointer = series.pointer(branch, name)
            # What the last look at the beads decided is the best guess of what the next one will.
            for known in (result, series.result(name, pointer or NO_KEY)):
                if known.complete():
                    also = (*also, name)
                    pipeline = settled(pipeline, known)
                    break
    return planned


def _without_key(series: Series, step: str, branch: str, why: str, state: State) -> Planned:
    pointer = series.pointer(branch, step)
    if pointer is not None and state == "to do":
        state = "stale"
    return Planned(series.result(step, pointer or NO_KEY), state, why)


def current_plan(series: Series, branch: str = "main") -> dict[str, Planned]:
    """Return the plan with the parameters of a branch: of its results, else of its last run."""
    requested = requested_pipeline(series.project, branch)
    values = requested.model_dump()
    for name in STEPS:
        made = _made_with(series, branch, name)
        if made is not None:
            values[name] = made
            if is_open(getattr(requested, name)) and series.pointer(branch, "fiducials"):
                values[name]["alignment"] = "auto"
    aside = [name for name in STEPS if STEPS[name].side and series.pointer(branch, name)]
    return plan(series, Pipeline.model_validate(values), branch, also=aside)


def current_parameters(series: Series, branch: str, step: str) -> Parameters:
    """Return the parameters of a step's result on a branch, else those of the last run there."""
    values = requested_pipeline(series.project, branch).model_dump()
    made = _made_with(series, branch, step)
    pipeline = Pipeline.model_validate(values if made is None else {**values, step: made})
    return cast(Parameters, getattr(pipeline, step))


def _made_with(series: Series, branch: str, step: str) -> dict[str, Any] | None:
    key = series.pointer(branch, step)
    attributes = {} if key is None else series.result(step, key).attributes()
    return _known(step, attributes["parameters"]) if "parameters" in attributes else None


def requested_pipeline(project: Project, branch: str) -> Pipeline:
    """Return the parameters of the last run on a branch: what the next one goes on with."""
    requested = (project.requested(branch) or {}).items()
    return Pipeline.model_validate(
        {step: _known(step, p) for step, p in requested if step in STEPS}
    )


def _known(step: str, parameters: dict[str, Any]) -> dict[str, Any]:
    # Another version may have had parameters that are no more.
    fields = type(getattr(Pipeline(), step)).model_fields
    return {name: value for name, value in parameters.items() if name in fields}


def _state(result: Result, parameters: Parameters, branch: str) -> Planned:
    series, step = result.series, result.step
    pointer = series.pointer(branch, step)
    if result.complete():
        rejection = approvals.rejection(series, branch, step, result.key)
        if rejection is not None:
            return Planned(result, "failed", approvals.told(step, rejection))
        moved = "" if pointer == result.key else f"; branch {branch} uses another result"
        return Planned(result, "done", result.attributes().get("message", "") + moved)
    failure = series.failure(branch, step)
    if failure is not None:
        return Planned(result, "failed", failure)
    if units := result.units():
        holder = holder_of(series, result.name)
        at_work = f"; {holder} is at work" if holder else ""
        return Planned(result, "unfinished", f"{len(units)} units are written{at_work}")
    if pointer is None:
        return Planned(result, "to do", "not run yet")
    asked = parameters.for_series(series.name).model_dump(mode="json")
    return Planned(result, "stale", _difference(series.result(step, pointer), asked))


def _difference(old: Result, asked: dict[str, Any]) -> str:
    """Return why `old` is not the result that is asked for."""
    before = old.attributes()
    if not before.get("complete"):
        return "its result is missing from the store"
    if before.get("version") != STEPS[old.step].version:
        return f"version {STEPS[old.step].version} of the step replaces {before.get('version')}"
    changed = [
        f"{old.step}.{name}: {before['parameters'].get(name)} → {value}"
        for name, value in asked.items()
        if before["parameters"].get(name) != value
    ]
    files = [before["parameters"].get(name) for name in STEPS[old.step].files]
    inputs = ", ".join([*filter(None, files), "its inputs"])
    return ", ".join(changed) or f"{inputs} or the imported record changed"


def check_branch(project: str, branch: str) -> None:
    """Raise NotThere when no series of a project has `branch`; main always counts as there."""
    of = parse_project(project)
    known = {"main"}.union(*(of.series(name).branches() for name in of.series_names()))
    if branch not in known:
        raise NotThere(f"{project}: no branch {branch!r}: there are {', '.join(sorted(known))}")


def chosen_series(project: str, series: list[str] | None) -> list[str]:
    """Return the names of the series that a run takes: those given, or all.

    Raises
    ------
    NotThere
        If the project does not exist, has no series, or not one of those named.
    """
    of = parse_project(project)
    known = of.series_names()
    if not known:
        raise NotThere(f"{project}: holds no series: import some with `tiltflow import`")
    for name in series or ():
        of.series(name)
    return list(series) if series else known
