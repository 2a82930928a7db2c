"""Parameters of the measurement of the specimen's thickness and position."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.parameters.alignment import Aligned
from tasks.parameters.base import Pair


class ThicknessParameters(Aligned):
    """Thickness, height, pitch and rise of the specimen."""

    method: Literal["auto", "beads", "tomogram", "attenuation", "ctf"] = Field(
        "auto",
        description="what is measured with; auto: all that there is, and whether it agrees; "
        "attenuation and ctf tell no height, which is then the quick tomogram's",
    )
    pixel_size: float = Field(
        20.0, ge=8, le=30, description="pixel that the views are reduced to at least [Å]"
    )
    height: float = Field(
        5000.0,
        gt=0,
        description="height of the quick tomogram; the specimen takes half at most [Å]",
    )
    tiles: Pair = Field(
        (6, 6), description="parts of the field, along y and x, whose heights are compared"
    )
    inset: Annotated[float, Field(ge=0, le=1000)] | Literal["auto"] = Field(
        "auto",
        description="how far from the ice's faces the density of its content is half [Å]; auto: "
        "the radius of the particles, as the views show it",
    )
    mean_free_path: float = Field(
        3000.0, gt=0, description="path over which ice takes 63 % of the beam away [Å]"
    )
    use_ctf: bool = Field(
        False,
        description="also take thickness and pre-tilt as the ctf step has measured them; "
        "method=ctf does",
    )

    @property
    def reads_ctf(self) -> bool:
        """Whether the result of the ctf step is read."""
        return self.use_ctf or self.method == "ctf"
