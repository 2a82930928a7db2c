"""What results of alignments hold besides geometry: local deformation, beads to be erased."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.deformation import Deformation, field_of_view
from kernels.fourier import Shape
from kernels.geometry import View
from kernels.resample import Field
from tasks.record import TiltSeries
from tasks.store import Result

DEFORMATION = "deformation"  # attribute of the result of an alignment


def dose_times(record: TiltSeries) -> NDArray[np.float64]:
    """Return for each view how far the series had come: 0 at its start, 1 at its end.

    By the dose at the middle of each view; by the order of acquisition where no dose is known.
    """
    dose = np.array([view.prior_dose + view.dose / 2 for view in record.views])
    if not np.ptp(dose) > 0:
        dose = np.array([float(view.order) for view in record.views])
    spread = float(np.ptp(dose)) or 1.0
    return (dose - dose.min()) / spread


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
    """
    if held is None:
        return None
    deformation, times = held
    step = max(4, min(32, min(shape) // 8))
    return field_of_view(deformation, view, times[index], shape, pixel_size, step, rows=rows)


def deformation_of(alignment: Result) -> tuple[Deformation, list[float]] | None:
    """Return the local deformation that an alignment found, and the time of each view."""
    held = alignment.attributes().get(DEFORMATION)
    if not held:
        return None
    coefficients = np.asarray(held["coefficients_A"], dtype=np.float64)
    return Deformation(coefficients, float(held["half_width_A"])), list(held["times"])
