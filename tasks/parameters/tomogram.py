"""Parameters of tomograms: the box, the filters, how it is written; reconstruction, 3-D CTF."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.parameters.alignment import Aligned

Length = Annotated[float, Field(gt=0)] | Annotated[str, Field(pattern=r"^\d+(\.\d+)?px$")]
Shift = float | Annotated[str, Field(pattern=r"^-?\d+(\.\d+)?px$")]


class TomogramParameters(Aligned):
    """The box of a tomogram, and how its views are filtered."""

    binning: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        "auto", description="binning of the views; auto: voxels of at least 5 Å"
    )
    thickness: Length | Literal["auto"] = Field(
        "auto",
        description="height of the tomogram [Å, or voxels as in 350px]; auto: of the specimen as "
        "the thickness step has it, and the margin; 2400 Å where that step is not sure",
    )
    margin: float = Field(
        150.0, ge=0, description="ice left above and below the specimen, of automatic thickness [Å]"
    )
    width: Length | None = Field(
        None, description="size across the tilt axis [Å, or 350px]; empty: that of the views"
    )
    length: Length | None = Field(
        None, description="size along the tilt axis [Å, or 350px]; empty: that of the views"
    )
    x_shift: Shift = Field(
        0.0, description="place of the box's centre across the tilt axis [Å, or 75px]"
    )
    y_shift: Shift = Field(
        0.0, description="place of the box's centre along it, to whole voxels [Å, or 75px]"
    )
    z_shift: Shift | Literal["auto"] = Field(
        "auto",
        description="height of the tomogram's centre over the specimen's origin [Å, or 75px]; "
        "auto: that of the specimen's middle, 0 where the thickness step is not sure",
    )
    angle_offset: float | Literal["auto"] = Field(
        "auto",
        description="added to all tilt angles [°]; auto: what makes the specimen level, or 0",
    )
    x_tilt: float | Literal["auto"] = Field(
        "auto",
        description="added to the rotation about x before tilting [°]; auto: what makes the "
        "specimen level, or 0",
    )
    logarithm: bool = Field(
        False, description="back-project the logarithm of the views, as for thick specimens"
    )
    radial_cutoff: float = Field(
        0.35, gt=0, le=0.5, description="start of the low-pass of the ramp filter [cycles/voxel]"
    )
    radial_falloff: float = Field(
        0.035, ge=0, description="true standard deviation of its Gaussian end [cycles/voxel]"
    )
    interpolation: Literal["spline", "linear"] = Field(
        "linear",
        description="of the views' rows in back-projection: linear, which damps detail beyond 0.35 "
        "cycles/voxel, or from spline samples between pixels, a quarter slower",
    )
    halves: Literal["none", "frames", "views"] = Field(
        "none", description="also write two half tomograms, of odd and even frames or views"
    )
    deconvolve: bool = Field(
        False,
        description="also write a copy to be looked at, the CTF divided out as far as noise allows",
    )
    deconvolve_strength: float = Field(
        1.0,
        ge=0,
        le=2,
        description="of deconvolution: the assumed signal-to-noise is 10^(3 · this)",
    )
    deconvolve_falloff: float = Field(
        1.0, ge=0, le=5, description="how fast the assumed signal-to-noise falls with frequency"
    )
    invert: bool = Field(False, description="write matter bright")
    storage: Literal["float32", "float16", "int16", "int8"] = Field(
        "float32",
        description="number type of the stored tomogram; integers are scaled by its noise",
    )

    @property
    def by_position(self) -> bool:
        """Whether anything of the box is left to the measured position of the specimen."""
        asked = (self.thickness, self.z_shift, self.angle_offset, self.x_tilt)
        return "auto" in asked

    @property
    def images_step(self) -> str:
        """The step whose images are used."""
        return str(getattr(self, "images", "dose"))

    @property
    def by_frames(self) -> bool:
        """Whether half sums of movies are read."""
        return self.halves == "frames"


class ReconstructParameters(TomogramParameters):
    """Reconstruction by weighted back-projection, SIRT or SART."""

    images: Literal["dose", "ctf2d"] = Field(
        "dose", description="which images: as the dose step has them, or corrected for the CTF"
    )
    method: Literal["wbp", "sirt", "sart"] = Field(
        "wbp", description="weighted back-projection, or iterations on all views or on subsets"
    )
    weighting: Literal["ramp", "hamming", "exact"] = Field(
        "ramp",
        description="of back-projection: ramp with Gaussian end, IMOD's Hamming-like one from "
        "radial_cutoff on, or the exact filter for the thickness",
    )
    sirt_like_iterations: int = Field(
        0, ge=0, le=200, description="filter like so many iterations of SIRT; 0: plain ramp"
    )
    iterations: int = Field(15, ge=1, le=500, description="of SIRT and SART")
    subsets: int = Field(8, ge=2, description="of the views, one after another in SART")
    relaxation: float = Field(
        1.0, gt=0, lt=2, description="part of the difference that SIRT and SART take back"
    )
    positive: bool = Field(False, description="SIRT and SART: no voxel brighter than the ice")
    mask: Length | None = Field(
        None,
        description="SIRT and SART: height of the specimen; voxels beyond stay 0 [Å, or 200px]",
    )
    start: Literal["zero", "wbp"] = Field(
        "zero", description="what SIRT and SART begin with: nothing, or weighted back-projection"
    )
    keep_every: int | None = Field(
        None, ge=1, description="SIRT and SART: also keep the volume after every so many iterations"
    )


class Ctf3dParameters(TomogramParameters):
    """Back-projection of views corrected at many planes of defocus."""

    defocus_step: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        150.0, description="distance of the planes [Å]; auto: d² / 4λ for resolution d"
    )
    resolution: float | None = Field(
        None, gt=0, description="d of an automatic step [Å]; empty: Nyquist of the voxels"
    )
    correction: Literal["flip", "multiply", "wiener"] = Field(
        "flip", description="how each plane is corrected: phases flipped, times CTF, or Wiener"
    )
    blend: bool = Field(
        True, description="voxels take the two planes around them, blended, not the nearest one"
    )
    first_peak_intact: bool = Field(
        False, description="leave frequencies below the CTF's first peak as they are"
    )
    snr: float = Field(10.0, gt=0, description="signal-to-noise ratio at k = 0, for Wiener")
    snr_falloff: float = Field(
        0.05, gt=0, description="frequency at which it has fallen to 1/e, for Wiener [1/Å]"
    )
    hand: Literal["auto", 1, -1] = Field(
        "auto", description="sign of the defocus gradient; auto: as the ctf step has it"
    )
    check_hand: bool = Field(
        True, description="compare with the opposite hand and with no correction on a small part"
    )
    compat: Literal["none", "novactf"] = Field(
        "none",
        description="novactf: planes, weights and z-shift as novaCTF has them, nearest plane; flip "
        "or multiply; a z-shift that is given lessens all defoci, one left to auto does not",
    )
