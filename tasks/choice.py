"""Which alignment is used where the user leaves it open: by beads where there are enough.

Where there are too few, they still help the alignment without markers.
"""

from __future__ import annotations

from typing import TypeVar

from kernels.hybrid import LEAST_BEADS
from tasks.parameters import Aligned, Ctf2dParameters, Parameters, Pipeline
from tasks.parameters.alignment import step_of
from tasks.result import Result
from tasks.store import Series, parse_project

Chosen = TypeVar("Chosen", bound=Parameters)
ENOUGH = "enough_beads"  # attribute of a result of `fiducials`


def settled(pipeline: Pipeline, fiducials: Result) -> Pipeline:
    """Return the pipeline with every open alignment chosen, as a complete result has it."""
    update: dict[str, Parameters] = {
        name: parameters.model_copy(update={"alignment": chosen(fiducials)})
        for name in Pipeline.model_fields
        if is_open(parameters := getattr(pipeline, name))
    }
    found = fiducials.attributes().get("beads", 0)
    if pipeline.markerfree.beads == "auto" and pipeline.markerfree.local and found >= LEAST_BEADS:
        update["markerfree"] = pipeline.markerfree.model_copy(update={"beads": "join"})
    return pipeline.model_copy(update=update)


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
