"""Which alignment is used where the user leaves it open: by beads where there are enough.

Where there are too few, they still help the alignment without markers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from kernels.hybrid import LEAST_BEADS
from tasks.parameters import (
    Aligned,
    Ctf2dParameters,
    MarkerfreeParameters,
    Parameters,
    Pipeline,
)
from tasks.parameters.alignment import step_of
from tasks.result import Result
from tasks.steps import STEPS, needed
from tasks.store import Series, parse_project

Chosen = TypeVar("Chosen", bound=Parameters)
ENOUGH = "enough_beads"  # attribute of a result of `fiducials`


def settled(pipeline: Pipeline, fiducials: Result) -> Pipeline:
    """Return the pipeline with every open alignment chosen, as a complete result has it."""
    made = _with_alignment(pipeline, chosen(fiducials))
    found = fiducials.attributes().get("beads", 0)
    if made.markerfree.beads == "auto" and made.markerfree.local and found >= LEAST_BEADS:
        joined = made.markerfree.model_copy(update={"beads": "join"})
        made = made.model_copy(update={"markerfree": joined})
    return made


def settled_step(parameters: Chosen, project: str, series: str, branch: str) -> Chosen:
    """Return the parameters of one step with an open alignment chosen, as the branch has it.

    Strips of `ctf2d` follow the nominal geometry on a branch that has no alignment.
    """
    if not is_open(parameters):
        return parameters
    of = parse_project(project).series(series)
    alignment = "markerfree"
    if _has(of, branch, "fiducials"):
        alignment = chosen(of.result("fiducials", str(of.pointer(branch, "fiducials"))))
    if isinstance(parameters, Ctf2dParameters):
        tried = (alignment, "coarse")
        alignment = next((a for a in tried if _has(of, branch, step_of(a))), "nominal")
    return parameters.model_copy(update={"alignment": alignment})


def _has(series: Series, branch: str, step: str) -> bool:
    key = series.pointer(branch, step)
    return key is not None and series.result(step, key).complete()


def possible(
    pipeline: Pipeline, until: str | None = None, also: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the steps that a run may take, whatever an open alignment will be, in order."""
    pipelines = [pipeline, *(_with_alignment(pipeline, a) for a in ("fiducial", "markerfree"))]
    taken = {step for one in pipelines for step in needed(one, until, also)}
    return tuple(step for step in STEPS if step in taken)


def _with_alignment(pipeline: Pipeline, alignment: str) -> Pipeline:
    """Return the pipeline with this one for every open alignment."""
    update: dict[str, Parameters] = {
        name: parameters.model_copy(update={"alignment": alignment})
        for name in Pipeline.model_fields
        if is_open(parameters := getattr(pipeline, name))
    }
    return pipeline.model_copy(update=update)


def is_open(parameters: Parameters) -> bool:
    """Tell whether the parameters of a step leave the alignment open."""
    return (
        isinstance(parameters, Aligned | Ctf2dParameters)
        and parameters.alignment == "auto"
        and getattr(parameters, "by_alignment", True)
    )


def chosen(fiducials: Result) -> str:
    """Return the alignment that a complete result of `fiducials` allows."""
    return "fiducial" if fiducials.attributes().get(ENOUGH) else "markerfree"


def settled_ctf(parameters: MarkerfreeParameters, there: bool) -> MarkerfreeParameters:
    """Return the parameters with the open question answered whether the CTF's result is read.

    It is, where `there` is one and it can change the alignment: what only tells something must not
    make the alignment rest on the CTF.
    """
    if parameters.use_ctf != "auto":
        return parameters
    read = there and parameters.tilt_offset == "apply"
    return parameters.model_copy(update={"use_ctf": "yes" if read else "no"})


def usable_ctf(series: Series, branch: str, keys: Mapping[str, str | None] | None = None) -> str:
    """Return the key of a branch's CTFs of the views that it has now, nothing without.

    `keys`: step → key of its other results, by default as the branch has them.
    """
    key = series.pointer(branch, "ctf")
    result = None if key is None else series.result("ctf", key)
    if key is None or result is None or not result.complete():
        return ""
    about = result.attributes()
    read = about.get("inputs", {})
    now = {name: series.pointer(branch, name) for name in read} if keys is None else keys
    same = all(now.get(name) == own for name, own in read.items())
    return key if same and series.same_movies(about) else ""
