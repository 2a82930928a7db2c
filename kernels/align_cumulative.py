"""Coarse alignment to a growing reference: each view against the sum of those before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import cos, radians

import numpy as np

from kernels.align_coarse import BAND, PairShift, band_pass, stretch
from kernels.align_links import COARSE, CentredView, padded_shape, peaks_of, stretch_matrix
from kernels.arrays import Array, asarray_like
from kernels.correlate import cross_correlation
from kernels.fourier import irfft2, pad, rfft2, shift_phases

DEPTH = 5  # views that the reference sums: those before were seen too differently


def follow_outward(
    views: Mapping[int, CentredView],
    order: Sequence[int],
    shifts: Sequence[tuple[float, float]],
    radius: float,
    band: tuple[float, float, float] = BAND,
) -> list[PairShift]:
    """Align views in turn to the sum of the nearest ones aligned before, stretched alike.

    Parameters
    ----------
    views : mapping of int to CentredView
        Of one shape.
    order : sequence of int
        From the lowest tilt outward; the first stays where it is.
    shifts : sequence of (dy, dx)
        Of all views, by index: how far their content is displaced so far [pixels].
    radius : float
        How far around them is looked [pixels].
    band : (float, float, float)
        As `kernels.align_coarse.band_pass` takes it.

    Returns
    -------
    list of PairShift
        Of each view in `order`, its displacement and the height of its peak [σ].
    """
    first = views[order[0]].image
    shape = (int(first.shape[0]), int(first.shape[1]))
    size = padded_shape(shape)
    weight = band_pass(size, first, *band)
    even = np.ones((size[0] // COARSE, size[1] // COARSE))  # within the radius, overlap is alike
    aligned: list[tuple[Array, float]] = []
    found: list[PairShift] = []
    for i in order:
        view = views[i]
        spectrum = rfft2(pad(view.image, size, fill=0.0)) * weight
        peak = PairShift(*shifts[i], 0.0)
        if aligned:
            nearest = aligned[-DEPTH:]
            total = sum(_seen_at(image, tilt, view.tilt) for image, tilt in nearest)
            correlation = cross_correlation(rfft2(total), spectrum, size)
            peaks = peaks_of(correlation, even, (*shifts[i], radius), 1.0, count=1)
            peak = peaks[0] if peaks else peak
        back = shift_phases(size, -peak.dy, -peak.dx, first)
        aligned.append((irfft2(spectrum * back, size), view.tilt))
        found.append(peak)
    return found


def _seen_at(image: Array, tilt: float, other: float) -> Array:
    """Return an aligned view stretched to another tilt, the less weighted the farther it is."""
    ratio = stretch(tilt) / stretch(other)
    matrix = asarray_like(stretch_matrix(int(image.shape[1]), ratio), image)
    return (image @ matrix) * max(0.0, cos(radians(4 * min(abs(tilt - other), 20.0))))
