"""Every parameter of every step: one source for options, YAML files, forms and docs.

Lengths in Å, angles in degrees, dose in e/Å²; other units are in the name. What is here enters
the key of a result. How a step is executed (`Execution`) never does.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _pair(value: Any) -> Any:
    """Return the two numbers of ``5,4`` or ``5x4``, as the command line has them."""
    if not isinstance(value, str):
        return value
    numbers = re.split("[,x×]", value)
    if len(numbers) != 2:
        raise ValueError(f"{value!r} are not two numbers, such as 5,4")
    return numbers


Pair = Annotated[
    tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], BeforeValidator(_pair)
]
GainRotation = Literal[0, 1, 2, 3]
GainFlip = Literal["none", "up-down", "left-right"]
ReductionFilter = Literal[
    "fourier", "box", "blackman", "triangle", "mitchell", "lanczos2", "lanczos3"
]


class Parameters(BaseModel):
    """Base of all parameter models: frozen, and refusing unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def for_series(self, name: str) -> Self:
        """Return what of the parameters concerns series `name`."""
        return self


class ImportParameters(Parameters):
    """Where the tilt series are, and what the user says of them.

    One of `mdoc`, `pattern` and `stack` tells where; what the user says beats the mdoc, which
    beats the files' headers.
    """

    mdoc: str | None = Field(
        None, description="mdoc files, of series or of single movies, with wildcards: 'DIR/*.mdoc'"
    )
    pattern: str | None = Field(
        None, description="movies by name, {TO} being the order: 'DIR/{TS}_{TO}_{TA}_*.mrc'"
    )
    stack: str | None = Field(
        None, description="tilt series without movies, with wildcards: 'DIR/*.st'"
    )
    movies: str | None = Field(
        None, description="folder of the movies; empty: beside the mdoc, or in its folder 'frames'"
    )
    angles: str | None = Field(
        None,
        description="tilt angles of stacks: 'mdoc', 'header', a file ('DIR/{TS}.rawtlt') or "
        "first,last,step; empty: what is beside the stack, else its header",
    )
    order: Literal["listed", "dose-symmetric", "bidirectional"] = Field(
        "listed", description="acquisition of views for which nothing else tells the order"
    )
    aligned: bool | None = Field(
        None, description="the images of a stack are aligned, the tilt axis is y; empty: if .ali"
    )
    pixel_size: float | None = Field(
        None, gt=0, description="pixel of the raw movies, of EER that of the detector [Å]"
    )
    voltage: float | None = Field(None, gt=0, description="acceleration voltage [kV]")
    cs: float | None = Field(None, ge=0, description="spherical aberration [mm]; 2.7 unless given")
    amplitude_contrast: float | None = Field(
        None, ge=0, lt=1, description="amplitude contrast; 0.07 unless given"
    )
    dose: float | None = Field(None, ge=0, description="dose of one view [e/Å²]")
    dose_weighted: bool = Field(
        False, description="the images are dose-weighted already: nothing weights them again"
    )
    initial_dose: float = Field(0.0, ge=0, description="dose before the first view [e/Å²]")
    tilt_axis: float | None = Field(
        None, ge=-360, le=360, description="tilt axis, counter-clockwise from image +y [°]"
    )
    magnification: float | None = Field(None, gt=0, description="nominal magnification")
    gain: str | None = Field(
        None, description="gain reference (MRC, .dm4, .gain): image = (raw − dark) · gain"
    )
    gain_rotate: GainRotation = Field(
        0, description="rotation of the gain, × 90° counter-clockwise, before the flip"
    )
    gain_flip: GainFlip = Field("none", description="flip of the gain")
    gain_inverted: bool = Field(False, description="the gain divides: image = (raw − dark) / gain")
    gain_orientation: Literal["given", "auto"] = Field(
        "given", description="auto: as the movies show it, if they do so clearly"
    )
    gain_check: bool = Field(True, description="warn when the movies show another orientation")
    dark: str | None = Field(None, description="dark reference, oriented as the gain")
    defects: str | None = Field(
        None, description="defects: lines of x y width height, SerialEM's list, or a map"
    )
    eer_dose: float = Field(
        0.5, gt=0, description="dose of a frame into which raw frames of EER are summed [e/Å²]"
    )
    eer_grouping: int | None = Field(
        None, ge=1, description="raw frames of EER in a frame; empty: as the dose of a frame asks"
    )
    eer_sampling: Literal[1, 2, 4] = Field(
        1, description="frame pixels along each side of a detector pixel, of EER"
    )
    dark_threshold: float = Field(
        0.1, ge=0, lt=1, description="a view is dark below this fraction of the expected mean"
    )
    allow_missing: bool = Field(
        False, description="import a series whose mdoc lists movies that are missing, without them"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("mdoc", "pattern", "stack") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'nothing'} given: name the tilt series by one of mdoc, "
                "pattern and stack"
            )
        if self.gain_orientation == "auto" and self.gain is None:
            raise ValueError("gain_orientation auto without a gain: give --gain")
        return self


LEAST_PIXELS = 16  # along each side of an image


class SumParameters(Parameters):
    """Summing of the frames of the movies."""

    binning: float = Field(
        1.0,
        ge=1,
        le=16,
        description="Fourier-cropping of the corrected images; 2 for super-resolution movies",
    )
    first_frame: int = Field(1, ge=1, description="first frame used, from 1")
    last_frame: int | None = Field(None, ge=1, description="last frame used; empty: the last one")
    crop: Pair | None = Field(
        None, description="rows and columns kept around the centre of the frames [pixels]"
    )
    find_bad_pixels: bool = Field(
        True, description="find bad pixels in the sum of a movie, and replace them"
    )

    @model_validator(mode="after")
    def _frames_in_order(self) -> Self:
        if self.last_frame is not None and self.last_frame < self.first_frame:
            raise ValueError(f"last frame {self.last_frame} before first frame {self.first_frame}")
        if self.crop is not None and min(self.crop) < LEAST_PIXELS * self.binning:
            raise ValueError(
                f"crop {self.crop[0]}×{self.crop[1]} leaves less than {LEAST_PIXELS} pixels at "
                f"binning {self.binning:g}"
            )
        return self


class MotionParameters(SumParameters):
    """Motion correction of the movies."""

    align: bool = Field(True, description="align the frames; false sums them as they are")
    local: bool = Field(True, description="correct local motion where a movie supports it")
    patches: Pair | None = Field(
        None, description="patches along y and x for the local motion; empty: one every 230 Å"
    )
    group: int = Field(1, ge=1, description="frames summed before they are aligned as a whole")
    group_local: int = Field(1, ge=1, description="frames summed before patches are aligned")
    reference_frame: int = Field(
        1, ge=1, description="frame whose place the image has, counted from the first one used"
    )
    b_factor: float | None = Field(
        None, ge=0, description="further low-pass of whole frames [Å²]; empty: as the data have it"
    )
    b_factor_local: float | None = Field(None, ge=0, description="that of patches [Å²]")
    max_drift: float = Field(
        80.0, gt=0, description="largest steady drift during a movie, per axis [Å]"
    )
    dose_weighted: bool = Field(
        False, description="also write the sum of frames weighted by dose; no later step reads it"
    )


class ExcludeParameters(Parameters):
    """Choice of the views that later steps use.

    Views that are half as bad as those left out are kept, and named as doubtful.
    """

    dark_threshold: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="a view is dark below this fraction of the expected mean; 0 detects none",
    )
    blocked_threshold: float = Field(
        0.3,
        ge=0,
        le=1,
        description="a view is blocked where more than this share of its field is; 0 detects none",
    )
    shift_threshold: float = Field(
        0.5,
        ge=0,
        description="a view is shifted by more than this share of the field; 0 detects none",
    )
    blur_threshold: float = Field(
        0.7,
        ge=0,
        le=1,
        description="a view is blurred where more than this share of its detail is missing; 0 "
        "detects none",
    )
    motion_threshold: float = Field(
        10.0,
        ge=0,
        description="a view is doubtful that moves so many times as much as others; 0: none is",
    )
    views: dict[str, str] = Field(
        default_factory=dict,
        description="views to leave out by series, from 1, sorted by tilt: {'TS_01': '1,3-5'}",
    )
    list: str | None = Field(
        None, description="file of such views, of lines 'TS_01 1' or 'TS_03 1-3,40'"
    )
    include: dict[str, str] = Field(
        default_factory=dict,
        description="views to keep whatever the detection says, written likewise",
    )
    include_list: str | None = Field(None, description="file of views to keep, written likewise")

    def for_series(self, name: str) -> Self:
        """Return the lists of this series only: those of others must not change its results."""
        own = {
            field: {key: text for key, text in getattr(self, field).items() if key == name}
            for field in ("views", "include")
        }
        return self.model_copy(update=own)


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


class EraseParameters(Parameters):
    """Erasing of X-ray hits and hot pixels."""

    peak: float = Field(
        8.0, gt=0, description="hits that rise so many local standard deviations are found"
    )
    difference: float = Field(
        5.0, gt=0, description="over the brighter half of their surroundings at least so many"
    )
    max_radius: float = Field(4.2, gt=0, description="largest radius of a hit [pixels]")
    big_difference: float = Field(
        19.0, gt=0, description="twice as wide where they rise so many standard deviations"
    )
    compare_views: bool = Field(
        True, description="the views tell of each other: defects of the detector, the specimen"
    )


class DoseParameters(Parameters):
    """Weighting of the views by the dose that they have seen."""

    apply: bool = Field(
        True, description="damp what the beam has destroyed (Grant & Grigorieff 2015)"
    )
    critical_dose_ratio: float | None = Field(
        None, gt=0, description="critical dose relative to 300 kV; needed but for 300 and 200 kV"
    )
    moment: Literal["end", "middle"] = Field(
        "end", description="dose seen at the end of a view, or in its middle"
    )
    keep_noise: bool = Field(
        False, description="divide by what the weights of all views leave of white noise"
    )
    write: bool = Field(
        False, description="write the weighted images; else whatever reads them weights them"
    )


class PreprocessParameters(Parameters):
    """Stacks of the erased views, for other programs and for looking; no later step reads them."""

    binning: float = Field(
        4.0, ge=1, le=64, description="pixels of the images per pixel of the stack, any factor"
    )
    filter: ReductionFilter = Field(
        "fourier", description="against aliasing: Fourier cropping, or one of IMOD's kernels"
    )
    normalise: Literal["none", "mean", "mean-sd"] = Field(
        "none", description="bring the views to a common mean, or mean and standard deviation"
    )
    target_mean: float = Field(0.0, description="that mean")
    target_sd: float = Field(1.0, gt=0, description="that standard deviation")
    crop: Pair | None = Field(
        None, description="rows and columns kept around the centre [pixels of the images]"
    )
    taper: int = Field(
        0, ge=0, description="width over which the edges fade to the mean [pixels of the stack]"
    )
    excluded: Literal["keep", "drop"] = Field(
        "keep", description="views left out: keep them, flagged in the table, or drop them"
    )


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
    iterations: int = Field(3, ge=1, le=20, description="rounds of correlation")
    turn_axis_on_hand: bool = Field(
        False, description="turn the tilt axis by 180° where the CTF shows hand −1"
    )


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
    refine_axis: bool = Field(True, description="refine the tilt axis, one value for the series")
    axis_range: float = Field(
        3.0, ge=0, le=90, description="search of the axis on both sides of the nominal one [°]"
    )


class TransformParameters(Parameters):
    """Aligned stacks, for other programs and for looking; no later step reads them."""

    alignment: Literal["markerfree", "coarse"] = Field(
        "markerfree", description="which alignment is used"
    )
    xf: str | None = Field(
        None, description="take the alignment from a file, of IMOD: 'DIR/{TS}.xf'"
    )
    images: Literal["dose", "erase"] = Field(
        "dose", description="which images: as the dose step has them, or those before it"
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


class ReconstructParameters(Parameters):
    """Reconstruction by weighted back-projection."""

    alignment: Literal["markerfree", "coarse"] = Field(
        "markerfree", description="which alignment is used"
    )
    binning: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        "auto", description="binning of the views; auto: voxels of at least 5 Å"
    )
    thickness: float = Field(2400.0, gt=0, description="height of the tomogram [Å]")
    z_shift: float = Field(
        0.0, description="height of the tomogram's centre over the specimen's origin [Å]"
    )
    radial_cutoff: float = Field(
        0.35, gt=0, le=0.5, description="start of the low-pass of the ramp filter [cycles/voxel]"
    )
    radial_falloff: float = Field(
        0.035, ge=0, description="true standard deviation of its Gaussian end [cycles/voxel]"
    )
    sirt_like_iterations: int = Field(
        0, ge=0, le=200, description="filter like so many iterations of SIRT; 0: plain ramp"
    )
    invert: bool = Field(False, description="write matter bright")
    storage: Literal["float32", "float16"] = Field(
        "float32", description="number type of the stored tomogram"
    )


class Pipeline(Parameters):
    """The parameters of every step, from movies to tomogram."""

    motion: MotionParameters = MotionParameters()
    exclude: ExcludeParameters = ExcludeParameters()
    ctf: CtfParameters = CtfParameters()
    erase: EraseParameters = EraseParameters()
    dose: DoseParameters = DoseParameters()
    preprocess: PreprocessParameters = PreprocessParameters()
    coarse: CoarseParameters = CoarseParameters()
    markerfree: MarkerfreeParameters = MarkerfreeParameters()
    transform: TransformParameters = TransformParameters()
    reconstruct: ReconstructParameters = ReconstructParameters()


class Execution(Parameters):
    """Where and how wide a run is executed; never changes a result."""

    cluster: str = Field(
        "auto",
        description="auto, local, cuda, threads, slurm, kubernetes or a scheduler's address tcp://…",
    )
    workers: int | None = Field(
        None, ge=1, description="number of workers; empty: one per GPU or core"
    )
    gpus: str | None = Field(
        None, description="GPUs to use, e.g. '0,1'; 'none' for the CPU; empty: all"
    )
    memory: str | None = Field(
        None, description="memory of one worker, e.g. '8GB'; empty: its share of this machine"
    )
