"""What a simulated data set was asked to be, and everything that was planted in it.

The truth of a data set lies beside it, in ``truth.json``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from kernels.ctf import Ctf
from tasks.parameters import Parameters
from tasks.record import Geometry, Record


def _listed(value: Any) -> Any:
    """Return the numbers of ``-60,60``, as the command line has them."""
    return [one for one in value.split(",") if one] if isinstance(value, str) else value


class SimulationParameters(Parameters):
    """What to simulate."""

    seed: int = Field(0, ge=0, description="changes everything that is random")
    series: int = Field(2, ge=1, le=99, description="number of tilt series")
    size: int = Field(512, ge=64, le=8192, description="rows and columns of the frames [pixels]")
    pixel_size: float = Field(5.4, gt=0, description="pixel of the frames [Å]")
    frames: int = Field(8, ge=1, description="frames of a movie")
    dose: float = Field(3.0, gt=0, description="dose of a view [e/Å²]")
    max_tilt: float = Field(60.0, ge=0, lt=80, description="largest nominal tilt [°]")
    tilt_step: float = Field(3.0, gt=0, description="step between nominal tilts [°]")
    tilt_axis: float = Field(85.3, description="nominal axis, counter-clockwise from +y [°]")
    voltage: float = Field(300.0, gt=0, description="acceleration voltage [kV]")
    cs: float = Field(2.7, ge=0, description="spherical aberration [mm]")
    amplitude_contrast: float = Field(0.07, ge=0, lt=1, description="amplitude contrast")
    min_thickness: float = Field(1200.0, ge=200, description="thinnest slab [Å]")
    max_thickness: float = Field(1800.0, ge=200, description="thickest slab [Å]")
    min_defocus: float = Field(20000.0, gt=0, description="smallest target underfocus [Å]")
    max_defocus: float = Field(40000.0, gt=0, description="largest target underfocus [Å]")
    dark_views: Annotated[tuple[float, ...], BeforeValidator(_listed)] = Field(
        (-60.0,), description="nominal tilts at which a grid bar blocks the view [°]"
    )


class XrayHit(Record):
    """One pixel of one frame that an X-ray photon has hit."""

    frame: int = Field(description="from 0")
    y: int = Field(description="row [pixels]")
    x: int = Field(description="column [pixels]")
    counts: int = Field(description="counts added")


class PlannedView(Record):
    """How one view is taken."""

    tilt_angle: float = Field(description="nominal tilt angle [°]")
    order: int = Field(description="place in the acquisition, from 1")
    movie: str = Field(description="file name in frames/")
    prior_dose: float = Field(description="dose before this view [e/Å²]")
    geometry: Geometry = Field(description="true geometry, frames aligned to their mean place")
    defocus_u: float = Field(description="underfocus along the astigmatism angle [Å]")
    defocus_v: float = Field(description="underfocus across it [Å]")
    astigmatism_angle: float = Field(description="counter-clockwise from image +x [°]")
    transmitted: float = Field(description="fraction of the electrons that is recorded")
    dark: bool = Field(description="whether a grid bar blocks the view")
    frame_shifts: tuple[tuple[float, float], ...] = Field(
        description="displacement x, y of the objects in each frame from their mean place [Å]"
    )
    xray_hits: tuple[XrayHit, ...] = Field((), description="pixels hit by X-rays")

    def ctf(self, parameters: SimulationParameters) -> Ctf:
        """Return the kernel's description of the view's CTF, at mid-plane and image centre."""
        return Ctf(
            self.defocus_u,
            self.defocus_v,
            self.astigmatism_angle,
            parameters.voltage,
            parameters.cs,
            parameters.amplitude_contrast,
        )


class ViewTruth(PlannedView):
    """How one view was taken, and what was recorded."""

    min_max_mean: tuple[float, float, float] = Field(
        description="of the sum of frames × gain [electrons per pixel]"
    )


class SeriesTruth(Record):
    """The truth about one tilt series; its views are sorted by tilt angle."""

    name: str
    thickness: float = Field(description="of the slab along Z [Å]")
    midplane: float = Field(description="Z of the slab's middle at X = Y = 0 [Å]")
    slope_x: float = Field(description="rise of the slab's middle along X, without unit")
    slope_y: float = Field(description="rise of the slab's middle along Y, without unit")
    hand: Literal[1, -1] = Field(1, description="sign of the defocus gradient (design §4)")
    beads: tuple[tuple[float, float, float], ...] = Field(
        description="centres X, Y, Z of the gold beads [Å]; some appear only in tilted views"
    )
    bead_radii: tuple[float, ...] = Field(description="radii of the gold beads [Å]")
    views: tuple[ViewTruth, ...]


class Truth(Record):
    """Everything that was planted in a simulated data set."""

    parameters: SimulationParameters
    series: tuple[SeriesTruth, ...]


def read_truth(directory: Path | str) -> Truth:
    """Return what was planted in the simulated data set in `directory`."""
    return Truth.model_validate_json((Path(directory) / "truth.json").read_text())
