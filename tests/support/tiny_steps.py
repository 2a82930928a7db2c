"""The steps that a run of the tiny data set takes: its field has too few beads."""

from __future__ import annotations

from tasks.parameters import Pipeline, ReconstructParameters
from tasks.steps import STEPS, needed

_MARKERFREE = needed(Pipeline(reconstruct=ReconstructParameters(alignment="markerfree")))
TAKEN = tuple(step for step in STEPS if step in {*_MARKERFREE, "fiducials"})
