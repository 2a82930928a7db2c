"""Parameters of finding gold beads and of the alignment by them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tasks.parameters.base import Parameters

Variable = Literal["fixed", "one", "grouped", "all"]
# Region of a raw view: x, y of its lower left corner, width, height.
Region = tuple[float, float, float, float]


def _regions(value: Any) -> Any:
    """Return the regions of ``0,0,200,400 900,0,100,100``, as the command line has them."""
    if not isinstance(value, str):
        return value
    listed = [text.split(",") for text in re.split(r"[\s;]+", value.strip()) if text]
    if any(len(words) != 4 for words in listed):
        raise ValueError(f"{value!r} is no list of x,y,width,height")
    return listed


class FiducialParameters(Parameters):
    """Finding and tracking of gold beads, without seeds."""

    diameter: float = Field(
        100.0, ge=30, le=500, description="of the beads, about: it is refined from the views [Å]"
    )
    adjust_diameter: bool = Field(True, description="refine the diameter from the views")
    beads: int | None = Field(
        None, ge=1, description="keep the best and best spread so many; empty: every one"
    )
    least_beads: int = Field(
        4, ge=3, le=100, description="fewer are too few: the series is aligned without markers"
    )
    surfaces: Literal[1, 2] | None = Field(
        None, description="surfaces of the ice on which beads lie; empty: as they are found"
    )
    exclude_regions: Annotated[
        tuple[Region, ...], BeforeValidator(_regions), Field(max_length=100)
    ] = Field(
        (),
        description="where no beads are looked for, in the view of lowest tilt: lists of "
        "x,y,width,height [pixels of the motion-corrected view]",
    )
    search: float = Field(300.0, gt=0, description="how far a view's coarse shift may be wrong [Å]")
    rounds: int = Field(
        2, ge=1, le=5, description="rounds of solving and looking again, which fill the gaps"
    )


class AlignParameters(Parameters):
    """Alignment by beads: bundle adjustment of all views and beads."""

    select: bool = Field(
        True,
        description="choose which variables are solved by cross-validation; else those below",
    )
    rotation: Variable = Field("one", description="tilt axis: fixed, one, grouped views, all")
    magnification: Variable = Field("fixed", description="fixed, one, grouped views, all")
    tilt: Variable = Field("fixed", description="tilt angles: fixed, grouped views, all")
    x_tilt: Variable = Field("fixed", description="rotation about x before tilting")
    stretch: Variable = Field("fixed", description="size across the tilt axis")
    skew: Variable = Field("fixed", description="angle between the axes of an image")
    local: Literal["auto", "off", "on"] = Field(
        "auto", description="smooth deformation over x, y and dose; auto: where it predicts better"
    )
    robust: bool = Field(True, description="give less weight to beads that do not fit")
    threshold: float = Field(
        3.0, gt=0, description="bead positions off by more are listed [standard errors]"
    )
    beads_from: str | None = Field(
        None, description="bead table in place of what was found: 'DIR/{TS}.fid.csv'"
    )
