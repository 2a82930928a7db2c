"""Which alignment is used where the user leaves it open: by beads where there are enough.

Where there are too few, they still help the alignment without markers.
"""

from __future__ import annotations

from typing import TypeVar

from kernels.hybrid import LEAST_BEADS
from tasks.parameters import Aligned, Parameters, Pipeline
from tasks.result import Result
from tasks.store import parse_project

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
    """Return the parameters of one step with an open alignment chosen, as the branch has it."""
    if not is_open(parameters):
        return parameters
    of = parse_project(project).series(series)
    key = of.pointer(branch, "fiducials")
    fiducials = None if key is None else of.result("fiducials", key)
    found = fiducials is not None and fiducials.complete()
    alignment = chosen(fiducials) if fiducials is not None and found else "markerfree"
    return parameters.model_copy(update={"alignment": alignment})


def is_open(parameters: Parameters) -> bool:
    """Tell whether the parameters of a step leave the alignment open."""
    return (
        isinstance(parameters, Aligned)
        and parameters.alignment == "auto"
        and getattr(parameters, "by_alignment", True)
    )


def chosen(fiducials: Result) -> str:
    """Return the alignment that a complete result of `fiducials` allows."""
    return "fiducial" if fiducials.attributes().get(ENOUGH) else "markerfree"
