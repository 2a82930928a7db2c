"""The record of a tilt series: what was imported, and what the steps decided about it.

Lengths in Å, angles in degrees, dose in e/Å², voltage in kV, Cs in mm (design §4).
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kernels.ctf import Ctf
from kernels.geometry import View as ViewGeometry


class Record(BaseModel):
    """Base of all parts of a record: frozen, and refusing unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FileIdentity(Record):
    """A raw file: where it is, and what it is wherever it is moved."""

    path: str = Field(description="where the file was read")
    name: str = Field(description="its name without folders")
    size: int = Field(description="bytes")
    digest: str = Field(description="hash of its header and of sampled blocks")
    mtime_ns: int = Field(description="only speeds up the check for changes")


class Acquisition(Record):
    """What holds for all views of a tilt series."""

    voltage: float = Field(gt=0, description="acceleration voltage [kV]")
    cs: float = Field(2.7, ge=0, description="spherical aberration [mm]")
    amplitude_contrast: float = Field(0.07, ge=0, lt=1, description="amplitude contrast")
    pixel_size: float = Field(gt=0, description="pixel of the raw movies [Å]")
    tilt_axis: float = Field(description="tilt axis, counter-clockwise from image +y [°]")
    magnification: float | None = Field(None, description="nominal magnification")
    gain: FileIdentity | None = Field(
        None, description="gain reference, image = (raw − dark) · gain"
    )
    gain_inverted: bool = Field(False, description="the gain divides the counts")
    gain_rotation: Literal[0, 1, 2, 3] = Field(0, description="× 90° counter-clockwise, first")
    gain_flip: Literal["none", "up-down", "left-right"] = Field(
        "none", description="then this flip"
    )
    dark: FileIdentity | None = Field(None, description="dark reference")
    defects: FileIdentity | None = Field(
        None, description="rectangles, SerialEM's list, or a map of bad pixels"
    )
    eer_sampling: Literal[1, 2, 4] = Field(
        1, description="frame pixels along each side of a detector pixel, of EER movies"
    )
    dose_weighted: bool = Field(False, description="the images were weighted before the import")
    ctf_corrected: bool = Field(
        False, description="the images were corrected for the CTF before the import"
    )


class Motion(Record):
    """How far the specimen moved during one movie."""

    total: float = Field(description="length of the trajectory [Å]")
    early: float = Field(description="in the first half of the frames [Å]")
    late: float = Field(description="in the second half of the frames [Å]")
    reliable: bool = Field(description="whether the frames correlate above the noise")
    model: Literal["local", "global", "none", "sum"] = Field(
        "global", description="what the movie supports; sum: not looked for"
    )
    significance: float = Field(0.0, description="of the frames' correlation [σ]")
    evidence: float = Field(0.0, description="gain in log-likelihood by the local motion")
    local: float = Field(0.0, description="root-mean-square local motion in the last frame [Å]")


class CtfEstimate(Record):
    """The contrast transfer function of one view."""

    defocus_u: float = Field(description="underfocus along the astigmatism angle [Å]")
    defocus_v: float = Field(description="underfocus across it [Å]")
    astigmatism_angle: float = Field(description="counter-clockwise from image +x [°]")
    phase_shift: float = Field(0.0, description="of a phase plate [°]")
    fit_resolution: float | None = Field(None, description="where data and fit part [Å]")
    score: float | None = Field(None, description="correlation of data and fit")
    uncertainty: float | None = Field(None, description="standard error of the mean defocus [Å]")
    astigmatism_uncertainty: float | None = Field(
        None, description="standard error of U − V, and of what turns it, each way [Å]"
    )
    reliable: bool = Field(
        True, description="False: not from its own rings, where known from others"
    )
    problem: str | None = Field(None, description="why it is not reliable, or is doubtful")

    @property
    def defocus(self) -> float:
        """Mean underfocus [Å]."""
        return (self.defocus_u + self.defocus_v) / 2

    def model(self, acquisition: Acquisition) -> Ctf:
        """Return the kernel's description of this CTF."""
        return Ctf(
            defocus_u=self.defocus_u,
            defocus_v=self.defocus_v,
            astigmatism_angle=self.astigmatism_angle,
            voltage=acquisition.voltage,
            cs=acquisition.cs,
            amplitude_contrast=acquisition.amplitude_contrast,
            phase_shift=self.phase_shift,
        )


class Handedness(Record):
    """On which side of the tilt axis a positive tilt adds underfocus, as the spectra show it."""

    hand: Literal[1, -1] | None = Field(description="which is used; nothing: unknown")
    measured: Literal[1, -1] | None = Field(description="which they show; nothing: cannot tell")
    confidence: float = Field(description="probability of the likelier sign, 0.5 to 1")
    gradient: float | None = Field(None, description="defocus gradient, 1: as the tilt for hand +1")
    gradient_error: float | None = Field(None, description="its standard error")
    forced: bool = Field(False, description="the user's word is used, whatever they show")


class Pretilt(Record):
    """How the specimen's plane lies on the stage, from the defocus gradient."""

    about_axis: float = Field(description="tilt of the plane that adds to the stage's [°]")
    across_axis: float = Field(description="rise of the plane along the tilt axis [°]")
    about_error: float = Field(description="standard error [°]")
    across_error: float = Field(description="standard error [°]")


class Geometry(Record):
    """How one view looks at the specimen (kernels.geometry.View)."""

    tilt: float = Field(description="refined tilt angle [°]")
    axis: float = Field(description="refined tilt axis, counter-clockwise from image +y [°]")
    shift_x: float = Field(0.0, description="place of the specimen's origin in the raw image [Å]")
    shift_y: float = Field(0.0, description="place of the specimen's origin in the raw image [Å]")
    magnification: float = Field(1.0, gt=0, description="of the raw image")
    x_tilt: float = Field(0.0, description="rotation about x before tilting [°]")
    stretch: float = Field(1.0, gt=0, description="size of the image across the tilt axis")
    skew: float = Field(0.0, description="of the direction across the tilt axis [°]")

    def view(self) -> ViewGeometry:
        """Return the kernel's description of this view."""
        return ViewGeometry(**self.model_dump())


class View(Record):
    """One tilt angle of a series."""

    tilt_angle: float = Field(description="nominal tilt angle [°]")
    order: int = Field(ge=1, description="place in the acquisition, from 1")
    prior_dose: float = Field(ge=0, description="dose before this view [e/Å²]")
    dose: float = Field(ge=0, description="dose of this view [e/Å²]")
    movie: FileIdentity = Field(description="movie, or stack with one section for each view")
    first_frame: int = Field(1, ge=1, description="where its frames begin in the file, from 1")
    frames: int = Field(ge=1, description="frames of the movie")
    grouping: int = Field(1, ge=1, description="raw EER frames summed in each frame")
    excluded: str | None = Field(None, description="why the view is left out, or nothing")
    motion: Motion | None = None
    ctf: CtfEstimate | None = None
    geometry: Geometry | None = None


class ImportedField(Record):
    """One line of the import report."""

    field: str
    value: str
    source: str = Field(description="who said so: the user, the mdoc, the file's header, a default")
    conflict: str | None = Field(None, description="what another source says")


class TiltSeries(Record):
    """A tilt series: views sorted by tilt angle, never re-stacked."""

    name: str
    acquisition: Acquisition
    shape: tuple[int, int] = Field(description="rows and columns of the raw frames")
    views: tuple[View, ...]
    import_report: tuple[ImportedField, ...] = ()
    hand: Literal[1, -1] | None = Field(
        None, description="sign of the defocus gradient (design §4) that corrections use"
    )
    handedness: Handedness | None = None
    pretilt: Pretilt | None = None
    thickness: float | None = Field(None, description="of the specimen, from nodes of the CTF [Å]")

    @model_validator(mode="after")
    def _sorted_by_angle(self) -> Self:
        angles = [view.tilt_angle for view in self.views]
        if angles != sorted(angles):
            raise ValueError(f"{self.name}: the views are not sorted by tilt angle")
        if len({view.order for view in self.views}) != len(self.views):
            raise ValueError(f"{self.name}: two views have the same acquisition order")
        return self

    @property
    def included(self) -> tuple[int, ...]:
        """Indices of the views that are not excluded."""
        return tuple(i for i, view in enumerate(self.views) if view.excluded is None)

    def geometry(self, index: int) -> ViewGeometry:
        """Return how view `index` looks at the specimen: as aligned, or nominal before that."""
        view = self.views[index]
        if view.geometry is not None:
            return view.geometry.view()
        return ViewGeometry(tilt=view.tilt_angle, axis=self.acquisition.tilt_axis)
