"""Parameters of the alignment without markers."""

from __future__ import annotations

import re
from math import isfinite, nan
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tasks.parameters.base import Pair, Parameters

LEAST_PATCHES = 4  # fewer cannot tell a deformation from a shift


class MarkerfreeParameters(Parameters):
    """Refinement of the alignment by matching projections of the specimen itself."""

    pixel_size: float = Field(
        10.0, gt=0, description="pixel that the views are reduced to, at least about this [Å]"
    )
    thickness: float = Field(
        3000.0,
        gt=0,
        description="depth of the volume that the first views make [Å]; from then on it is as deep "
        "as the matter found in it",
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
    regions: str = Field(
        "",
        description="patches here instead of on a grid: 'x,y x,y …' in the view of lowest tilt "
        "[pixels of the movies, from the first pixel]",
    )
    beads: Literal["auto", "join", "ignore"] = Field(
        "auto",
        description="adjust the views to patches and to the beads that the fiducials step found, "
        "however few, where beads left out agree; auto: in runs that looked for beads",
    )
    use_ctf: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="check hand and tilt offset against the defocus gradient of the ctf step; "
        "auto: an offset that is applied, where that step has been run",
    )
    leave_out: bool = Field(
        True,
        description="leave out views that do not match the others; dark ones are left out before, "
        "by exclude's --dark-threshold",
    )

    @property
    def joins_beads(self) -> bool:
        """Whether the beads are read."""
        return self.beads == "join"

    @property
    def reads_ctf(self) -> bool:
        """Whether the result of the ctf step is read; of auto, only once it is settled."""
        return self.use_ctf == "yes"

    @field_validator("use_ctf", mode="before")
    @classmethod
    def _yes_or_no(cls, value: Any) -> Any:
        # YAML's yes is a truth value, and so was this parameter once.
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value

    def regions_listed(self) -> list[tuple[float, float]]:
        """Return the regions as numbers x, y."""
        return [_place(text) for text in re.split(r"[\s;]+", self.regions.strip()) if text]

    @model_validator(mode="after")
    def _beads_join_patches(self) -> Self:
        if self.joins_beads and not self.local:
            raise ValueError("beads are joined with patches: beads=join needs local")
        return self

    @model_validator(mode="after")
    def _regions_are_places(self) -> Self:
        listed = self.regions_listed()
        if listed and len(listed) < LEAST_PATCHES:
            raise ValueError(f"{len(listed)} regions, at least {LEAST_PATCHES} are needed")
        return self

    @model_validator(mode="after")
    def _patches_are_enough(self) -> Self:
        across, along = self.patches
        if self.local and not self.regions.strip() and across * along < LEAST_PATCHES:
            raise ValueError(
                f"patches {across},{along}: at least {LEAST_PATCHES} in all are needed, such as "
                "2,2; or use --no-local"
            )
        return self


def _place(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = nan
    if not (isfinite(x) and isfinite(y)):
        raise ValueError(f"regions: {text!r} is no place, such as 1200,3000")
    return x, y
