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

import numpy as np
from numpy.typing import NDArray

from kernels.simulate import gain_reference, simulate_view, transmission
from kernels.specimen import Specimen, make_specimen
from tasks.formats.files import write_text
from tasks.formats.mdoc import Mdoc, section_from_values, write_mdoc
from tasks.formats.mrc import write_stack
from tasks.parameters import Execution
from tasks.record import Geometry
from tasks.scatter import Unit, scatter
from tasks.truth import (
    PlannedView,
    SeriesTruth,
    SimulationParameters,
    Truth,
    ViewTruth,
    XrayHit,
    read_truth,
)

LABEL = "simulated by tiltflow"
BAR = 0.003  # what a grid bar lets through of the electrons that ice would


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
    gain = _gain(parameters)[None]
    write_stack(directory / "gain.mrc", gain, parameters.pixel_size, labels=(LABEL,))
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


def tilt_scheme(max_tilt: float, step: float) -> list[float]:
    """Return dose-symmetric tilt angles as acquired: 0, +3, −3, −6, +6 and so on."""
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
    gain = _gain(parameters)
    movie = simulate_view(
        _specimen(parameters, series),
        view.geometry.view(),
        view.ctf(parameters),
        gain,
        parameters.pixel_size,
        parameters.dose,
        view.prior_dose,
        view.transmitted,
        np.array(view.frame_shifts),
        np.array(hits, dtype=np.int64).reshape(-1, 4),
        _rng(parameters, 3, series, index),
    )
    write_stack(directory / "frames" / view.movie, movie, parameters.pixel_size, labels=(LABEL,))
    image = movie.sum(axis=0, dtype=np.float32) * gain
    return float(image.min()), float(image.max()), float(image.mean(dtype=np.float64))


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
