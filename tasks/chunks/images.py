"""Steps that turn one view's image into another: erasing of hits, dose weighting."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import dose, xrays
from kernels.arrays import to_host
from tasks.chunks.device import on_device
from tasks.parameters import DoseParameters, EraseParameters
from tasks.store import Result


def erase_view(
    source: Result, target: Result, index: int, parameters: EraseParameters | None
) -> dict[str, Any]:
    """Erase X-ray hits from one view, or copy it; the fill is the same at every run."""
    image = clean = np.asarray(source.images()[index])
    hits = pixels = 0
    if parameters is not None:
        erased = xrays.erase(
            on_device(image),
            np.random.default_rng(index),
            peak=parameters.peak,
            difference=parameters.difference,
            max_radius=parameters.max_radius,
        )
        clean, hits = to_host(erased.image), erased.hits
        pixels = int(to_host(erased.mask).sum())
    target.array("images")[index] = clean
    return {
        "hits": hits,
        "pixels": pixels,
        "minimum before": float(image.min()),
        "maximum before": float(image.max()),
        "minimum after": float(clean.min()),
        "maximum after": float(clean.max()),
    }


def weight_view(
    source: Result,
    target: Result,
    index: int,
    exposure: float,
    pixel_size: float,
    voltage: float,
    parameters: DoseParameters,
) -> dict[str, Any]:
    """Weight one view by the exposure at its end [e/Å²]."""
    weighted = dose.weight_image(
        on_device(np.asarray(source.images()[index])),
        exposure,
        pixel_size,
        voltage,
        ratio=parameters.critical_dose_ratio,
    )
    target.array("images")[index] = to_host(weighted)
    return {}


def memory_of_image(shape: tuple[int, int]) -> int:
    """Return the most memory that one of these functions takes [bytes]."""
    return 100_000_000 + shape[0] * shape[1] * 4 * 12
