"""Write a small tilt-series data set with known truth, laid out like EMPIAR-10164.

::

    DIRECTORY/
      frames/TS_01_000_0.0.mrc …   counted electrons (int16), one movie per view
      TS_01.mrc.mdoc               what SerialEM would have written
      gain.mrc                     image = counts × gain
      truth.json                   everything that was planted (`Truth`), written last

What the images leave out of reality is listed in `kernels.simulate`; besides, the microscope
here always tracks within a tenth of the field, never fails to focus, and has no backlash.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from math import cos, radians, sin, tan
from pathlib import Path
from typing import Any, Literal

import mrcfile
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kernels.ctf import Ctf
from kernels.simulate import gain_reference, simulate_view, transmission
from kernels.specimen import Specimen, make_specimen
from tasks.formats.files import replacing, write_text
from tasks.formats.mdoc import Mdoc, section_from_values, write_mdoc
from tasks.parameters import Execution, Parameters
from tasks.record import Geometry, Record
from tasks.scatter import Unit, scatter

BAR = 0.003  # what a grid bar lets through of the electrons that ice would


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
    dark_views: tuple[float, ...] = Field(
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


def simulate_dataset(
    directory: Path | str,
    parameters: SimulationParameters | None = None,
    execution: Execution | None = None,
) -> Truth:
    """Simulate a data set into `directory`, or return its truth when it is there already.

    Parameters
    ----------
    directory
        Created where absent. The same parameters give the same bytes.
    parameters
        What to simulate; the default is two series of 41 views.
    execution
        The workers over which the views are spread; by default, this thread does all.
    """
    directory, parameters = Path(directory), parameters or SimulationParameters()
    if (truth := _finished(directory, parameters)) is not None:
        return truth
    (directory / "frames").mkdir(parents=True, exist_ok=True)
    (directory / "truth.json").unlink(missing_ok=True)
    _write_mrc(directory / "gain.mrc", _gain(parameters), parameters.pixel_size)
    units = [
        Unit(view.movie, (directory, parameters, series, index))
        for series in range(parameters.series)
        for index, view in enumerate(_plan(parameters, series))
    ]
    if execution is None:
        counts = {unit.name: _write_movie(*unit.arguments) for unit in units}
    else:
        counts = {unit.name: report for unit, report in scatter(_write_movie, units, execution)}
    all_series = []
    for series in range(parameters.series):
        specimen = _specimen(parameters, series)
        views = [
            ViewTruth(**dict(view), min_max_mean=counts[view.movie])
            for view in _plan(parameters, series)
        ]
        truth_of_series = SeriesTruth(
            name=_name(series),
            thickness=specimen.thickness,
            midplane=specimen.midplane,
            slope_x=specimen.slope_x,
            slope_y=specimen.slope_y,
            beads=tuple(map(tuple, specimen.beads.tolist())),
            bead_radii=tuple(specimen.bead_radii.tolist()),
            views=tuple(views),
        )
        _write_series_mdoc(directory, parameters, truth_of_series)
        all_series.append(truth_of_series)
    truth = Truth(parameters=parameters, series=tuple(all_series))
    write_text(directory / "truth.json", truth.model_dump_json(indent=1) + "\n")
    return truth


def read_truth(directory: Path | str) -> Truth:
    """Return what was planted in the simulated data set in `directory`."""
    return Truth.model_validate_json((Path(directory) / "truth.json").read_text())


def tilt_scheme(max_tilt: float, step: float) -> list[float]:
    """Return dose-symmetric tilt angles as acquired: 0, +3, −3, −6, +6, +9, −9 …"""
    angles = [0.0]
    for pair in range(1, int(max_tilt / step + 1e-9) + 1):
        sign = 1 if pair % 2 else -1
        angles += [sign * pair * step, -sign * pair * step]
    return angles


def _finished(directory: Path, parameters: SimulationParameters) -> Truth | None:
    if not (directory / "truth.json").exists():
        return None
    truth = read_truth(directory)
    files = ["gain.mrc", *(f"{series.name}.mrc.mdoc" for series in truth.series)]
    files += [f"frames/{view.movie}" for series in truth.series for view in series.views]
    there = all((directory / name).exists() for name in files)
    return truth if truth.parameters == parameters and there else None


def _name(series: int) -> str:
    return f"TS_{series + 1:02d}"


def _rng(parameters: SimulationParameters, *purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(parameters.seed, spawn_key=purpose))


def _gain(parameters: SimulationParameters) -> NDArray[np.float32]:
    return gain_reference((parameters.size, parameters.size), _rng(parameters, 0))


@lru_cache(maxsize=2)
def _specimen(parameters: SimulationParameters, series: int) -> Specimen:
    """Make the specimen, wide enough to fill the field at the largest tilt."""
    rng = _rng(parameters, 1, series)
    field = parameters.size * parameters.pixel_size
    thickness = rng.uniform(parameters.min_thickness, parameters.max_thickness)
    midplane = rng.uniform(-200, 200)
    slope_x, slope_y = (tan(radians(a)) for a in rng.uniform([-1.5, -1.0], [1.5, 1.0]))
    axis, tilt = radians(parameters.tilt_axis), radians(parameters.max_tilt + 1)
    reach = field * (0.5 * (abs(cos(axis)) + abs(sin(axis))) + 0.15)
    height = thickness / 2 + abs(midplane) + 0.03 * 2 * field
    wide = (reach + height * sin(tilt)) / cos(tilt)
    return make_specimen(rng, (wide, reach), thickness, midplane, slope_x, slope_y)


@lru_cache(maxsize=100)
def _plan(parameters: SimulationParameters, series: int) -> tuple[PlannedView, ...]:
    """Decide how each view of a series is taken, sorted by tilt angle."""
    rng = _rng(parameters, 2, series)
    p, field = parameters, parameters.size * parameters.pixel_size
    thickness = _specimen(p, series).thickness
    axis = p.tilt_axis + 0.4 * float(np.clip(rng.standard_normal(), -2, 2))
    defocus = rng.uniform(p.min_defocus, p.max_defocus)
    astigmatism, angle = rng.uniform(200, 600), rng.uniform(-90, 90)
    stage = 0.02 * field * rng.standard_normal((2, 2))  # of the branches below and above 0°
    drift = 0.0
    views = []
    for order, nominal in enumerate(tilt_scheme(p.max_tilt, p.tilt_step)):
        branch = int(nominal >= 0)
        # Tracking pulls the stage back, so the walk stays within a tenth of the field.
        stage[branch] = 0.85 * stage[branch] + 0.025 * field * rng.standard_normal(2)
        stage[branch] = np.clip(stage[branch], -0.1 * field, 0.1 * field)
        drift = 0.8 * drift + 100 * rng.standard_normal()
        mean_defocus = defocus + drift + 50 * rng.standard_normal()
        half = 0.5 * (astigmatism + 20 * rng.standard_normal())
        geometry = Geometry(
            tilt=nominal + 0.05 * rng.standard_normal(),
            axis=axis + 0.02 * rng.standard_normal(),
            shift_x=float(stage[branch, 0]),
            shift_y=float(stage[branch, 1]),
            magnification=1 + rng.uniform(-0.001, 0.001),
        )
        dark = nominal in p.dark_views
        views.append(
            PlannedView(
                tilt_angle=nominal,
                order=order + 1,
                movie=f"{_name(series)}_{order:03d}_{nominal:.1f}.mrc",
                prior_dose=order * p.dose,
                geometry=geometry,
                defocus_u=mean_defocus + half,
                defocus_v=mean_defocus - half,
                astigmatism_angle=angle + 2 * rng.standard_normal(),
                transmitted=transmission(thickness, geometry.tilt) * (BAR if dark else 1),
                dark=dark,
                frame_shifts=_frame_shifts(p, rng),
                xray_hits=_xray_hits(p, rng) if rng.random() < 0.12 and not dark else (),
            )
        )
    return tuple(sorted(views, key=lambda view: view.tilt_angle))


def _frame_shifts(
    parameters: SimulationParameters, rng: np.random.Generator
) -> tuple[tuple[float, float], ...]:
    """Drift of 1 to 8 pixels that calms down, and jitter of 0.15 pixels."""
    time = np.arange(parameters.frames)
    direction, length = rng.uniform(0, 2 * np.pi), rng.uniform(1, 8)
    path = length * (1 - np.exp(-time / 2.5)) / (1 - np.exp(-max(time[-1], 1) / 2.5))
    shifts = np.outer(path, [np.cos(direction), np.sin(direction)])
    shifts += 0.15 * rng.standard_normal(shifts.shape)
    shifts = (shifts - shifts.mean(axis=0)) * parameters.pixel_size
    return tuple((float(x), float(y)) for x, y in shifts)


def _xray_hits(parameters: SimulationParameters, rng: np.random.Generator) -> tuple[XrayHit, ...]:
    """One photon: a pixel of 60 to 600 counts and up to three weaker neighbours."""
    frame = int(rng.integers(parameters.frames))
    y, x = (int(v) for v in rng.integers(1, parameters.size - 1, 2))
    counts = int(60 * 10 ** rng.uniform(0, 1))
    hits = [XrayHit(frame=frame, y=y, x=x, counts=counts)]
    for dy, dx in ((0, 1), (1, 0), (1, 1))[: int(rng.integers(4))]:
        weaker = int(counts * rng.uniform(0.2, 0.6))
        hits.append(XrayHit(frame=frame, y=y + dy, x=x + dx, counts=weaker))
    return tuple(hits)


def _write_movie(
    directory: Path, parameters: SimulationParameters, series: int, index: int
) -> tuple[float, float, float]:
    """Simulate and write one movie; return least, greatest and mean electrons per pixel."""
    view = _plan(parameters, series)[index]
    hits = [(hit.frame, hit.y, hit.x, hit.counts) for hit in view.xray_hits]
    ctf = Ctf(
        view.defocus_u,
        view.defocus_v,
        view.astigmatism_angle,
        parameters.voltage,
        parameters.cs,
        parameters.amplitude_contrast,
    )
    gain = _gain(parameters)
    movie = simulate_view(
        _specimen(parameters, series),
        view.geometry.view(),
        ctf,
        gain,
        parameters.pixel_size,
        parameters.dose,
        view.prior_dose,
        view.transmitted,
        np.array(view.frame_shifts),
        np.array(hits, dtype=np.int64).reshape(-1, 4),
        _rng(parameters, 3, series, index),
    )
    _write_mrc(directory / "frames" / view.movie, movie, parameters.pixel_size)
    image = movie.sum(axis=0, dtype=np.float32) * gain
    return float(image.min()), float(image.max()), float(image.mean(dtype=np.float64))


def _write_mrc(path: Path, data: NDArray[Any], pixel_size: float) -> None:
    with replacing(path) as partial, mrcfile.new(partial, data) as mrc:
        if data.ndim == 3:
            mrc.set_image_stack()
        mrc.voxel_size = pixel_size
        # mrcfile's own label holds the time of day.
        mrc.header.label[0] = b"Simulated by tiltflow"


def _write_series_mdoc(
    directory: Path, parameters: SimulationParameters, series: SeriesTruth
) -> None:
    """Write what SerialEM would have, in the order of acquisition."""
    p, started = parameters, datetime(2026, 1, 5, 9, 30)
    sections = [
        section_from_values(
            view.order - 1,
            {
                "TiltAngle": view.tilt_angle,
                "Magnification": 105000,
                "ExposureDose": p.dose,
                "PixelSpacing": p.pixel_size,
                "RotationAngle": p.tilt_axis + 90,
                "ExposureTime": 0.1 * p.frames,
                "Binning": 1,
                "CountsPerElectron": 1,
                "DividedBy2": 0,
                "MinMaxMean": view.min_max_mean,
                "TargetDefocus": -round((p.min_defocus + p.max_defocus) / 2e4, 1),
                "SubFramePath": f"D:\\DATA\\tiltflow\\frames\\{view.movie}",
                "NumSubFrames": p.frames,
                "DateTime": started + timedelta(seconds=62 * view.order),
            },
        )
        for view in sorted(series.views, key=lambda view: view.order)
    ]
    header = section_from_values(
        0,
        {
            "PixelSpacing": p.pixel_size,
            "Voltage": p.voltage,
            "ImageFile": f"{series.name}.mrc",
            "ImageSize": (p.size, p.size),
            "DataMode": 1,
        },
    ).fields
    titles = (
        f"SerialEM: simulated by tiltflow, seed {p.seed}",
        f"Tilt axis angle = {p.tilt_axis:g}, binning = 1  spot = 8  camera = 2",
    )
    path = directory / f"{series.name}.mrc.mdoc"
    write_mdoc(path, Mdoc(path, header, titles, tuple(sections)))
