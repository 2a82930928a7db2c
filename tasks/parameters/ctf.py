"""Parameters of the estimation of the CTF."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.parameters.alignment import step_of
from tasks.parameters.base import Parameters


class CtfParameters(Parameters):
    """Estimation of the contrast transfer function."""

    method: Literal["2d", "strips"] = Field(
        "2d", description="2d: rings of each view, all views together; strips: as ctfplotter does"
    )
    ctf_from: str | None = Field(
        None,
        description="take the CTF from a file, of CTFFIND, IMOD or RELION: 'DIR/{TS}.defocus'",
    )
    min_resolution: float = Field(30.0, gt=0, description="low-resolution end of the fit [Å]")
    max_resolution: float = Field(5.0, gt=0, description="high-resolution end of the fit [Å]")
    min_defocus: float = Field(5000.0, ge=1000, description="smallest underfocus searched [Å]")
    max_defocus: float = Field(60000.0, gt=0, description="largest underfocus searched [Å]")
    defocus_step: float = Field(200.0, gt=0, description="step of the search [Å]")
    astigmatism_tolerance: float = Field(
        1000.0, gt=0, description="expected astigmatism, a soft restraint [Å]"
    )
    phase_shift: float = Field(0.0, ge=0, le=180, description="of a phase plate, where known [°]")
    search_phase_shift: bool = Field(False, description="search the phase shift of a phase plate")
    min_phase_shift: float = Field(0.0, ge=0, le=180, description="smallest searched [°]")
    max_phase_shift: float = Field(180.0, ge=0, le=180, description="largest searched [°]")
    phase_shift_step: float = Field(10.0, gt=0, description="step of its search [°]")
    box: int | None = Field(
        None, ge=64, le=4096, description="side of the tiles, even [pixels]; empty: about 1000 Å"
    )
    coherent: bool = Field(True, description="2d: let the views of a series tell of each other")
    hand: Literal["measure", 1, -1] = Field(
        "measure", description="sign of the defocus gradient: measured, or the user's word"
    )
    search_thickness: bool = Field(
        False, description="2d: estimate the specimen's thickness from the nodes of the rings"
    )
    expected_defocus: float | None = Field(
        None, gt=0, description="strips: defocus to start from [Å]; empty: from a search"
    )
    expected_defocus_list: str | None = Field(
        None, description="strips: file of lines 'TS_01 4000', defocus in nm"
    )
    defocus_tolerance: float = Field(
        2000.0, gt=0, description="strips: defocus that may vary within the central strip [Å]"
    )
    side_tolerance: float = Field(
        20000.0, ge=0, description="strips: and between it and the outermost tiles used [Å]"
    )
    angle_range: float = Field(
        16.0, ge=0, description="strips: views of this range of tilt are fitted together [°]"
    )
    angle_step: float = Field(
        2.0, ge=0, description="strips: step between such ranges; 0: every view by itself [°]"
    )
    search_astigmatism: bool = Field(False, description="strips: search the astigmatism, too")
    min_views: int = Field(
        3, ge=1, description="strips: least number of views that are fitted for astigmatism"
    )
    extra_zeros: int | None = Field(
        None,
        ge=0,
        le=20,
        description="strips: zeros beyond the second to which is fitted; empty: the whole range",
    )

    @model_validator(mode="after")
    def _ranges_in_order(self) -> Self:
        if self.min_defocus >= self.max_defocus:
            raise ValueError(f"defocus from {self.min_defocus:g} to {self.max_defocus:g} Å")
        if self.min_resolution <= self.max_resolution:
            raise ValueError(
                f"resolution from {self.min_resolution:g} to {self.max_resolution:g} Å: "
                "the low-resolution end is the larger number"
            )
        if self.box is not None and self.box % 2:
            raise ValueError(f"box {self.box} is odd")
        if self.search_phase_shift and self.min_phase_shift >= self.max_phase_shift:
            raise ValueError(
                f"phase shift from {self.min_phase_shift:g} to {self.max_phase_shift:g}°"
            )
        return self


class Ctf2dParameters(Parameters):
    """CTF correction of the views in strips along the tilt axis."""

    images: Literal["dose", "erase"] = Field(
        "dose", description="which images: as the dose step has them, or those before it"
    )
    correction: Literal["flip", "multiply", "wiener"] = Field(
        "flip", description="flip phases, multiply by the CTF, or divide by it after Wiener"
    )
    snr: float = Field(10.0, gt=0, description="wiener: signal-to-noise ratio at low frequency")
    snr_falloff: float = Field(
        0.05, gt=0, description="wiener: frequency at which it has fallen to 1/e of that [1/Å]"
    )
    first_peak_intact: bool = Field(
        False, description="multiply, wiener: weaken nothing below the first maximum of the CTF"
    )
    defocus_tolerance: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="defocus from one strip to the next [Å]; auto: by the pixel, d²/8λ for the "
        "finest detail d",
    )
    strip_width: int | None = Field(
        None, ge=1, description="strips are at most so wide [pixels]; empty: as tolerance and tilt"
    )
    interpolation: int | None = Field(
        None,
        ge=0,
        description="width over which strips are blended [pixels]; empty: from middle to middle",
    )
    alignment: Literal["auto", "fiducial", "markerfree", "coarse", "nominal"] = Field(
        "auto",
        description="whose tilts and tilt axis the strips follow; auto: as of a tomogram, of the "
        "step alone that of the branch where there is one; nominal: the imported ones, no "
        "alignment is needed",
    )
    hand: Literal["measured", 1, -1] = Field(
        "measured", description="sign of the defocus gradient: of the ctf step, or the user's word"
    )
    check_hand: bool = Field(
        True, description="compare with the opposite hand and with no slope on a few steep views"
    )
    pretilt: bool = Field(
        False, description="strips follow the specimen's plane as the ctf step has measured it"
    )
    by_position: bool = Field(
        False,
        description="strips follow the specimen's plane as the thickness step has measured it, "
        "where that is sure",
    )

    @property
    def by_alignment(self) -> bool:
        """Whether the geometry of an alignment is used."""
        return self.alignment != "nominal"

    @property
    def alignment_step(self) -> str:
        """The step whose geometry is used; of auto, the one that decides."""
        return step_of(self.alignment)
