"""Alignment of the views of one series, on images reduced to a coarser pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels.align_coarse import aligned_shape, measure_pair, prepare_view
from kernels.arrays import to_host
from kernels.fourier import bin_images
from kernels.geometry import View
from tasks.chunks.device import on_device
from tasks.chunks.dose import Weighting
from tasks.parameters import CoarseParameters
from tasks.result import Result

# The binned views (view, y, x): goes with the units when the result is complete.
REDUCED = "unit/reduced"


def reduce_some_views(
    source: Result,
    target: Result,
    indices: Sequence[int],
    binning: int,
    pixel_size: float,
    weighting: Weighting | None,
) -> dict[str, Any]:
    """Bin views to `pixel_size` [Å] into `REDUCED` (view, y, x), weighted by their dose."""
    images, reduced = source.images(), target.array(REDUCED)
    for index in indices:
        image = bin_images(on_device(np.asarray(images[index])), binning)
        if weighting is not None:
            image = weighting.weighted(image, index, pixel_size)
        reduced[index] = to_host(image)
    return {}


def measure_pairs(
    target: Result,
    pairs: Sequence[tuple[int, int]],
    views: Sequence[View],
    pixel_size: float,
    parameters: CoarseParameters,
) -> dict[str, Any]:
    """Correlate pairs (reference, moving) of reduced views as they are aligned so far.

    Parameters
    ----------
    target : Result
        With `REDUCED`.
    pairs : sequence of (reference, moving)
    views : sequence of View
        Of the whole series.
    pixel_size : float
        Of the reduced views [Å].
    parameters : CoarseParameters

    Returns
    -------
    dict
        "pairs": (dy, dx, confidence) of each, displacements in pixels of the reduced views.
    """
    reduced = target.array(REDUCED)
    shape = (reduced.shape[1], reduced.shape[2])
    out_shape = aligned_shape(shape, views[0].axis)
    prepared = {
        i: prepare_view(on_device(np.asarray(reduced[i])), views[i], pixel_size, out_shape)
        for i in sorted({i for pair in pairs for i in pair})
    }
    band = (parameters.high_pass, parameters.low_pass, parameters.low_pass_falloff)
    shifts = [measure_pair(prepared[a], prepared[b], band=band) for a, b in pairs]
    return {"pairs": [(shift.dy, shift.dx, shift.confidence) for shift in shifts]}
