"""Parameters of alignment, and of what rests on it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.parameters.base import Parameters
from tasks.parameters.views import ReductionFilter


class CoarseParameters(Parameters):
    """Coarse alignment by cosine-stretched cross-correlation."""

    pixel_size: float = Field(10.0, gt=0, description="pixel that the views are reduced to [Å]")
    high_pass: float = Field(
        0.03, ge=0, description="width of the high-pass [cycles per reduced pixel]"
    )
    low_pass: float = Field(
        0.25, gt=0, le=0.5, description="start of the low-pass [cycles per reduced pixel]"
    )
    low_pass_falloff: float = Field(
        0.05, gt=0, description="width of its Gaussian end [cycles per reduced pixel]"
    )
    neighbours: int = Field(
        3, ge=1, le=10, description="how many views further each view is compared with"
    )
    iterations: int = Field(
        3, ge=1, le=20, description="most rounds of correlation; later ones mend what disagrees"
    )
    reference: Literal["neighbours", "cumulative"] = Field(
        "neighbours",
        description="compare views with their neighbours, or at the end once more with the sum of "
        "those aligned before",
    )
    search_magnification: bool = Field(
        False, description="look for magnifications that differ between the views"
    )
    axis: Literal["given", "check", "refine", "search", "session"] = Field(
        "check",
        description="tilt axis: as given; check: as given, and say if the views contradict; "
        "refine: within 10° of the given one; search: anywhere, the half turn as given; session: "
        "within 10° of that of the session's series that are aligned, anywhere if there are none",
    )
    axis_start: float | None = Field(
        None, ge=-360, le=360, description="tilt axis in place of the imported one [°]"
    )
    alignment_from: str | None = Field(
        None,
        description="take the alignment from a file, of IMOD or AreTomo, instead: 'DIR/{TS}.xf' "
        "or 'DIR/{TS}.aln'",
    )
    turn_axis_on_hand: bool = Field(
        False, description="turn the tilt axis by 180° where the CTF shows hand −1"
    )

    @model_validator(mode="after")
    def _one_says_the_half_turn(self) -> Self:
        if self.turn_axis_on_hand and (self.axis == "session" or self.axis_start is not None):
            raise ValueError(
                "turn_axis_on_hand concerns the imported axis: leave it out, or axis=session "
                "and axis_start"
            )
        return self


Alignment = Literal["auto", "fiducial", "markerfree", "coarse"]


def step_of(alignment: str) -> str:
    """Return the step whose geometry an alignment is; of auto, the one that decides."""
    return {"auto": "fiducials", "fiducial": "align"}.get(alignment, alignment)


class Aligned(Parameters):
    """What rests on an alignment, and on which."""

    alignment: Alignment = Field(
        "auto",
        description="which alignment is used; auto: by beads where there are enough, else "
        "marker-free; coarse is also what --alignment-from imports",
    )

    erase_gold: bool = Field(
        False, description="take the beads of the align step out of the views as they are read"
    )

    @property
    def alignment_step(self) -> str:
        """The step whose geometry is used; of auto, the one that decides."""
        return step_of(self.alignment)


class TransformParameters(Aligned):
    """Aligned stacks, for other programs and for looking; no later step reads them."""

    xf: str | None = Field(
        None, description="take the alignment from a file, of IMOD: 'DIR/{TS}.xf'"
    )
    images: Literal["dose", "erase", "ctf2d"] = Field(
        "dose",
        description="which images: as the dose step has them, those before it, or CTF-corrected",
    )
    binning: float = Field(
        1.0, ge=1, le=64, description="pixels of the images per pixel of the stack, any factor"
    )
    filter: ReductionFilter = Field(
        "fourier", description="against aliasing: Fourier cropping, or one of IMOD's kernels"
    )
    swap: Literal["auto", "yes", "no"] = Field(
        "auto", description="swap width and height; auto: where the tilt axis is nearer to x"
    )
    taper: int = Field(
        8, ge=0, description="width over which the edges of a view fade to its mean [pixels]"
    )
    excluded: Literal["keep", "drop"] = Field(
        "drop", description="views left out: drop them, or keep them, flagged in the table"
    )

    @property
    def by_alignment(self) -> bool:
        """Whether the branch's alignment is used, and not a file."""
        return self.xf is None
