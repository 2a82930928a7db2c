"""What results of alignments hold besides geometry: local deformation, beads to be erased."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.deformation import Deformation, field_of_view
from kernels.erase_gold import erase_discs
from kernels.fourier import Shape
from kernels.geometry import View, project
from kernels.resample import Field
from tasks.record import TiltSeries
from tasks.result import Result

DEFORMATION = "deformation"  # attribute of the result of an alignment
FRINGE = 15.0  # Å around a bead that are taken out with it


def dose_times(record: TiltSeries) -> NDArray[np.float64]:
    """Return for each view how far the series had come: 0 at its start, 1 at its end.

    By the dose at the middle of each view; by the order of acquisition where no dose is known.
    Views that are left out count for neither end.
    """
    dose = np.array([view.prior_dose + view.dose / 2 for view in record.views])
    if not np.ptp(dose) > 0:
        dose = np.array([float(view.order) for view in record.views])
    used = dose[list(record.included)] if record.included else dose
    return (dose - used.min()) / (float(np.ptp(used)) or 1.0)


def stored(deformation: Deformation | None, times: NDArray[np.float64]) -> dict[str, Any] | None:
    """Return a deformation as attributes have it, None where there is none."""
    if deformation is None:
        return None
    return {
        "coefficients_A": deformation.coefficients.tolist(),
        "half_width_A": deformation.half_width,
        "times": times.tolist(),
    }


def field_for(
    held: tuple[Deformation, list[float]] | None,
    view: View,
    index: int,
    shape: Shape,
    pixel_size: float,
    *,
    rows: bool = False,
    midplane: float = 0.0,
    solved: View | None = None,
) -> Field | None:
    """Return the displacement with which view `index` is resampled, None without deformation.

    Parameters
    ----------
    held
        Of `deformation_of`.
    view, index
        Of the view, and its number from 0.
    shape : (ny, nx)
        Of the resampled view.
    pixel_size : float
        Of it [Å].
    rows : bool
        As of `kernels.resample.resample_view`.
    midplane : float
        Z of the plane whose displacement is undone [Å].
    solved : View, optional
        The view as the alignment has it, where `view` is of a specimen turned since.
    """
    if held is None:
        return None
    deformation, times = held
    step = max(4, min(32, min(shape) // 8))
    return field_of_view(
        *(deformation, view, times[index], shape, pixel_size, step, midplane),
        rows=rows,
        solved=solved,
    )


@dataclass(frozen=True)
class Gold:
    """Beads in one view: centres x, y [pixels] and radius [pixels] of what is taken out."""

    centres: list[list[float]]
    radius: float
    seed: int

    def without(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the view without its beads."""
        return erase_discs(image, self.centres, self.radius, self.seed)


def gold_of(alignment: Result, index: int, pixel_size: float) -> Gold:
    """Return where the solution of `align` has its beads in a view.

    Parameters
    ----------
    alignment : Result
        Of the step `align`.
    index : int
        Of the view.
    pixel_size : float
        Of the images [Å].
    """
    about = alignment.attributes()
    view = View(**about["decides"]["views"][index]["geometry"])
    points = np.asarray(alignment.array("points")[:])
    rows, columns = about["shape"]
    places = project(points[np.isfinite(points).all(axis=1)], view) / pixel_size
    diameter = about.get("diameter_A") or 100.0
    radius = (0.5 * diameter + FRINGE) / pixel_size
    return Gold((places + np.array([columns // 2, rows // 2])).tolist(), radius, index)


def deformation_of(alignment: Result) -> tuple[Deformation, list[float]] | None:
    """Return the local deformation that an alignment found, and the time of each view."""
    held = alignment.attributes().get(DEFORMATION)
    if not held:
        return None
    coefficients = np.asarray(held["coefficients_A"], dtype=np.float64)
    return Deformation(coefficients, float(held["half_width_A"])), list(held["times"])
