"""Coarse alignment of the views of one series, on images reduced to a coarser pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels.align_axis import estimate_axis, lines_of, trial_angles
from kernels.align_coarse import aligned_shape
from kernels.align_cumulative import follow_outward
from kernels.align_links import (
    CentredView,
    Guess,
    centred_view,
    link_magnifications,
    link_views,
)
from kernels.fourier import bin_images
from kernels.geometry import View
from tasks.chunks.alignment import REDUCED
from tasks.chunks.device import on_device
from tasks.parameters import CoarseParameters
from tasks.result import Result

AXIS_SIDE = 256  # pixels that are enough to find the tilt axis


def link_pairs(
    target: Result,
    pairs: Sequence[tuple[int, int]],
    guesses: Sequence[Guess | None],
    views: Sequence[View],
    pixel_size: float,
    parameters: CoarseParameters,
) -> dict[str, Any]:
    """Correlate pairs (reference, moving) of reduced views, wherever they lie.

    Parameters
    ----------
    target : Result
        With `REDUCED`.
    pairs : sequence of (reference, moving)
    guesses : sequence of (dy, dx, radius) or None
        Of each pair: where to look, and how far around [pixels]; None: everywhere.
    views : sequence of View
        Of the whole series.
    pixel_size : float
        Of the reduced views [Å].
    parameters : CoarseParameters

    Returns
    -------
    dict
        "links": of each pair its peaks (dy, dx, confidence) [pixels].
    """
    centred = _centred(target, {i for pair in pairs for i in pair}, views, pixel_size)
    links = link_views(centred, pairs, band_of(parameters), guesses)
    return {"links": [[(p.dy, p.dx, p.confidence) for p in peaks] for peaks in links]}


def compare_magnifications(
    target: Result,
    pairs: Sequence[tuple[int, int]],
    guesses: Sequence[Guess],
    views: Sequence[View],
    pixel_size: float,
    parameters: CoarseParameters,
) -> dict[str, Any]:
    """Find how much larger the moving view of each pair is, its place known.

    Returns
    -------
    dict
        "magnifications": of each pair, moving over reference.
    """
    centred = _centred(target, {i for pair in pairs for i in pair}, views, pixel_size)
    return {
        "magnifications": link_magnifications(centred, pairs, guesses, band_of(parameters)),
    }


def follow_views(
    target: Result,
    order: Sequence[int],
    shifts: Sequence[tuple[float, float]],
    radius: float,
    views: Sequence[View],
    pixel_size: float,
    parameters: CoarseParameters,
) -> dict[str, Any]:
    """Align the views of one side outward, each to the sum of those before it.

    Parameters
    ----------
    order : sequence of int
        Views from the lowest tilt outward.
    shifts : sequence of (dy, dx)
        Of all views, so far [pixels].
    radius : float
        How far around them is looked [pixels].

    Returns
    -------
    dict
        "shifts": of each view in `order`, (dy, dx, confidence).
    """
    centred = _centred(target, set(order), views, pixel_size)
    found = follow_outward(centred, order, shifts, radius, band_of(parameters))
    return {"shifts": [(p.dy, p.dx, p.confidence) for p in found]}


def find_axis(
    target: Result,
    indices: Sequence[int],
    views: Sequence[View],
    pixel_size: float,
    search: float,
) -> dict[str, Any]:
    """Estimate the tilt axis from the views `indices` as they are aligned so far.

    Returns
    -------
    dict
        "axis" and "error" [degrees].
    """
    reduced = target.array(REDUCED)
    binning = max(1, min(reduced.shape[1:]) // AXIS_SIDE)
    angles = trial_angles(search)
    lines = [
        lines_of(
            bin_images(on_device(np.asarray(reduced[i])), binning),
            views[i],
            pixel_size * binning,
            angles,
        )
        for i in indices
    ]
    found = estimate_axis(lines, views[indices[0]].axis, angles)
    return {"axis": found.axis, "error": found.error}


def band_of(parameters: CoarseParameters) -> tuple[float, float, float]:
    """Return the band-pass as `kernels.align_coarse.band_pass` takes it."""
    return parameters.high_pass, parameters.low_pass, parameters.low_pass_falloff


def memory_of_links(shape: tuple[int, int], pairs: int) -> int:
    """Return the most memory that `pairs` pairs of a unit take [bytes]."""
    return 100_000_000 + 4 * shape[0] * shape[1] * (24 + 2 * pairs)


def _centred(
    target: Result, indices: set[int], views: Sequence[View], pixel_size: float
) -> dict[int, CentredView]:
    reduced = target.array(REDUCED)
    frame = aligned_shape((reduced.shape[1], reduced.shape[2]), views[0].axis)
    return {
        i: centred_view(on_device(np.asarray(reduced[i])), views[i], pixel_size, frame)
        for i in sorted(indices)
    }
