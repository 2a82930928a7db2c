"""Compare what a project found with the known truth of a simulated data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels import geometry
from tasks.record import TiltSeries
from tasks.store import Series, parse_project
from tasks.truth import SeriesTruth, SimulationParameters, Truth

Vectors = NDArray[np.float64]

ENOUGH_VIEWS = 20  # in which a bead must appear to count
SEARCHED = 1.5  # radii around a bead's expected place


@dataclass(frozen=True)
class Line:
    """One line of the comparison.

    Attributes
    ----------
    series, what : str
    found : float
    limit : float
        The line is passed when `found` is at most (or, for `least`, at least) this.
    unit : str
    least : bool
    """

    series: str
    what: str
    found: float
    limit: float
    unit: str
    least: bool = False

    @property
    def passed(self) -> bool:
        """Whether the limit is kept; a value that is not a number keeps none."""
        return self.found >= self.limit if self.least else self.found <= self.limit


def compare(project: str, truth: Truth, branch: str = "main") -> list[Line]:
    """Return the comparison of every series of the data set with its truth."""
    of = parse_project(project)
    return [
        line
        for series in truth.series
        for line in _compare_series(of.series(series.name), series, truth.parameters, branch)
    ]


def _compare_series(
    series: Series, truth: SeriesTruth, simulated: SimulationParameters, branch: str
) -> list[Line]:
    record = series.record(branch)
    name, pixel = truth.name, simulated.pixel_size
    lit = [i for i, view in enumerate(truth.views) if not view.dark]
    wrong = sum(
        (view.excluded is not None) != known.dark
        for view, known in zip(record.views, truth.views, strict=True)
    )
    shifts = series.current(branch, "motion").array("shifts")[:]
    motion = [_motion_error(np.asarray(shifts)[i], truth, i, pixel) for i in lit]
    defocus = [_defocus_error(record, truth, i) for i in lit]
    beads = _Beads.of(record, truth, simulated, lit)
    axis = [_axis_error(record, truth, i) for i in lit]
    return [
        Line(name, "views wrongly left out or kept", wrong, 0, ""),
        Line(name, "motion error, median over views", float(np.median(motion)), 2.0, "Å"),
        Line(name, "defocus error, median over views", float(np.median(defocus)), 630, "Å"),
        Line(
            name, "defocus error, 90 % of views within", float(np.quantile(defocus, 0.9)), 1500, "Å"
        ),
        Line(name, "X-ray hits left", _hits_left(series, truth, branch, pixel), 0.05, ""),
        Line(name, "tilt-axis error", float(np.max(axis)), 0.5, "°"),
        Line(name, "bead positions against one rigid model, rms", beads.consistency, 10, "Å"),
        Line(name, "beads against the planted ones, rms", beads.distance(mirrored=False), 25, "Å"),
        Line(
            name,
            "and against their mirror image",
            beads.distance(mirrored=True),
            60,
            "Å",
            least=True,
        ),
        Line(
            name,
            "beads found in the tomogram",
            _beads_in_tomogram(series, beads, branch),
            0.9,
            "",
            least=True,
        ),
    ]


def _motion_error(shifts: Vectors, truth: SeriesTruth, index: int, pixel: float) -> float:
    true = np.asarray(truth.views[index].frame_shifts)[:, ::-1]
    found = shifts * pixel
    return float(np.sqrt(np.mean(((found - found.mean(0)) - (true - true.mean(0))) ** 2)))


def _defocus_error(record: TiltSeries, truth: SeriesTruth, index: int) -> float:
    found, true = record.views[index].ctf, truth.views[index]
    if found is None:
        return float("nan")
    return abs(found.defocus - (true.defocus_u + true.defocus_v) / 2)


def _axis_error(record: TiltSeries, truth: SeriesTruth, index: int) -> float:
    difference = record.geometry(index).axis - truth.views[index].geometry.axis
    return abs((difference + 180) % 360 - 180)


def _hits_left(series: Series, truth: SeriesTruth, branch: str, pixel: float) -> float:
    """Return the share of planted hits that still stand out of the erased images."""
    images = series.current(branch, "erase").images()
    left = total = 0
    for i, view in enumerate(truth.views):
        if view.dark or not view.xray_hits:
            continue
        image = np.asarray(images[i])
        limit = image.mean() + 8 * image.std()
        first = np.asarray(view.frame_shifts[0])
        for hit in view.xray_hits:
            x, y = (
                (
                    np.array([hit.x, hit.y])
                    - (np.asarray(view.frame_shifts[hit.frame]) - first) / pixel
                )
                .round()
                .astype(int)
            )
            around = image[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            left += bool(around.size and around.max() > limit)
            total += 1
    return left / total if total else 0.0


@dataclass(frozen=True)
class _Beads:
    """Beads as the found geometry has them, from their true places in the raw images.

    `whole` are those that no view cuts off.
    """

    true: Vectors
    found: Vectors
    radii: Vectors
    whole: NDArray[np.bool_]
    consistency: float

    @classmethod
    def of(
        cls,
        record: TiltSeries,
        truth: SeriesTruth,
        simulated: SimulationParameters,
        lit: Sequence[int],
    ) -> _Beads:
        beads = np.asarray(truth.beads)
        views = [record.geometry(i) for i in lit]
        # Images stand as their first frame does where the motion was found.
        raw = np.stack(
            [
                geometry.project(beads, truth.views[i].geometry.view())
                + (np.asarray(truth.views[i].frame_shifts[0]) if _moved(record, i) else 0)
                for i in lit
            ]
        )
        radii, half = np.asarray(truth.bead_radii), simulated.size * simulated.pixel_size / 2
        seen = (np.abs(raw) < half).all(axis=-1)
        whole = (np.abs(raw) < half - 2 * radii[:, None]).all(axis=(0, 2))
        kept = seen.sum(axis=0) >= min(ENOUGH_VIEWS, len(lit) // 2)
        found = geometry.fit_points(raw[:, kept], seen[:, kept], views)
        residual = np.stack(
            [
                geometry.aligned_from_raw(places[kept], view) - geometry.tilted(found, view)[:, :2]
                for places, view in zip(raw, views, strict=True)
            ]
        )[seen[:, kept]]
        consistency = float(np.sqrt((residual**2).sum(axis=-1).mean()))
        return cls(beads[kept], found, radii[kept], whole[kept], consistency)

    def distance(self, *, mirrored: bool) -> float:
        """Return the rms distance to the planted beads, or to their mirror image [Å].

        The specimen's origin is free, and so is a small rotation: both are fitted.
        """
        true = self.true * [1, 1, -1] if mirrored else self.true
        a, b = self.found - self.found.mean(axis=0), true - true.mean(axis=0)
        u, _, vt = np.linalg.svd(a.T @ b)
        proper = np.diag([1, 1, np.linalg.det(u @ vt)])
        return float(np.sqrt(((a @ u @ proper @ vt - b) ** 2).sum(axis=1).mean()))


def _moved(record: TiltSeries, index: int) -> bool:
    motion = record.views[index].motion
    return motion is not None and motion.reliable


def _beads_in_tomogram(series: Series, beads: _Beads, branch: str) -> float:
    """Return the share of whole beads that are centred within half a voxel of their place."""
    result = series.current(branch, "reconstruct")
    about, volume = result.attributes(), result.array("0")
    shape = np.asarray(volume.shape)
    voxel, centre = about["pixel_size"], np.asarray(about["centre"])
    sign = -1 if about["parameters"]["invert"] else 1
    record, place = series.record(branch), about["place"]
    x_tilt = record.geometry(record.included[0]).x_tilt
    turn = geometry.turned_frame(x_tilt, place["angle_offset"], place["x_tilt"])
    places = (beads.found @ turn.T - centre)[:, ::-1] / voxel + shape // 2
    hits = total = 0
    for place, radius in zip(places[beads.whole], beads.radii[beads.whole] / voxel, strict=True):
        reach = int(np.ceil(radius * SEARCHED))
        low = np.rint(place).astype(int) - reach
        high = low + 2 * reach + 1
        if (low < 0).any() or (high > shape).any():
            continue
        box = sign * np.asarray(volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
        dark = np.clip(-box - 0.4 * np.abs(box.min()), 0, None)
        middle = box[(slice(reach - 1, reach + 2),) * 3]
        if middle.mean() < 0:  # else it is bright, in a dark ring as well centred
            found = [(dark * axis).sum() / dark.sum() for axis in np.indices(box.shape)] + low
            hits += bool(np.linalg.norm(found - place) <= 0.5)
        total += 1
    return hits / total if total else float("nan")
