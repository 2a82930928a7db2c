"""Beads in one view: found, measured, and centred where they are expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels.arrays import to_host
from kernels.bead_centre import centre_beads
from kernels.bead_find import bead_boxes, find_beads, measured_diameter
from kernels.fourier import Shape
from tasks.chunks.device import on_device
from tasks.result import Result


def find_in_view(source: Result, index: int, pixel_size: float, diameter: float) -> dict[str, Any]:
    """Find what looks like a bead of `diameter` in one view; lengths in Å.

    Returns
    -------
    dict
        "xy", "correlation" and "depth" of the candidates, as `kernels.bead_find.Candidates`.
    """
    image = on_device(np.asarray(source.images()[index], dtype=np.float32))
    found = find_beads(image, pixel_size, diameter)
    return {
        "xy": np.round(found.xy, 3).tolist(),
        "correlation": np.round(found.correlation, 4).tolist(),
        "depth": np.round(found.depth, 4).tolist(),
    }


def measure_in_view(
    source: Result,
    index: int,
    pixel_size: float,
    diameter: float,
    places: Sequence[Sequence[float]],
) -> dict[str, Any]:
    """Return the diameter of the beads at `places` (n, 2) [Å] as one view shows it, or None."""
    image = to_host(np.asarray(source.images()[index], dtype=np.float32))
    boxes = bead_boxes(image, pixel_size, 3.0 * diameter, np.asarray(places))
    return {"diameter": measured_diameter(boxes, pixel_size, diameter) if len(boxes) else None}


def centre_in_view(
    source: Result,
    index: int,
    pixel_size: float,
    diameter: float,
    expected: Sequence[Sequence[float]],
    reach: float,
) -> dict[str, Any]:
    """Centre the beads of one view that are expected at (n, 2) [Å], within `reach` [Å].

    Returns
    -------
    dict
        "beads": those that were found, as (number, x, y, standard error, correlation, strength).
    """
    image = on_device(np.asarray(source.images()[index], dtype=np.float32))
    found = centre_beads(image, pixel_size, diameter, np.asarray(expected), reach)
    return {
        "beads": [
            (
                j,
                *np.round(found.xy[j], 4).tolist(),
                float(found.sigma[j]),
                float(found.correlation[j]),
                float(found.strength[j]),
            )
            for j in np.flatnonzero(np.isfinite(found.xy).all(axis=1)).tolist()
        ]
    }


def memory_of_beads(shape: Shape) -> int:
    """Return the most memory that a unit on one view takes [bytes].

    The view, its spectrum and the reduced ones, and boxes around the beads.
    """
    return 250_000_000 + 4 * 5 * shape[0] * shape[1]
