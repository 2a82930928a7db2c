"""Parameters of the alignment without markers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.parameters.base import Pair, Parameters


class MarkerfreeParameters(Parameters):
    """Refinement of the alignment by matching projections of the specimen itself."""

    pixel_size: float = Field(
        10.0, gt=0, description="pixel that the views are reduced to, at least about this [Å]"
    )
    thickness: float = Field(
        3000.0, gt=0, description="depth of the volume that holds the specimen while matching [Å]"
    )
    rounds: int = Field(6, ge=1, le=50, description="most sweeps through the series")
    tolerance: float = Field(
        0.5, gt=0, description="sweeps end when the shifts change by less, root mean square [Å]"
    )
    axis: Literal["fixed", "one", "varying"] = Field(
        "one", description="refine the tilt axis: not, one angle, or slowly varying over the tilt"
    )
    axis_range: float = Field(
        10.0, ge=0, le=90, description="search of the axis on both sides of the nominal one [°]"
    )
    tilt_offset: Literal["measure", "apply", "off"] = Field(
        "measure",
        description="tilt of the specimen at stage 0: tell it, add it to the angles, or neither",
    )
    local: bool = Field(True, description="measure patches and fit a local deformation to them")
    patches: Pair = Field((4, 4), description="patches across and along the tilt axis")
    regions: tuple[tuple[float, float], ...] = Field(
        (),
        description="patches here instead of on a grid: x, y in the view of lowest tilt "
        "[pixels of the movies, from the first pixel]",
    )
    use_ctf: bool = Field(
        True, description="check hand and tilt offset against the defocus gradient of the ctf step"
    )
    leave_out: bool = Field(True, description="leave out views that do not match the others")
