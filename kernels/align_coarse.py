"""Coarse alignment: cosine-stretched cross-correlation between neighbouring views.

Three pure steps, so that a caller may spread the middle one over workers: `prepare_view`,
`measure_pair`, `solve_shifts`. Applied shifts bring views closer, so the steps are repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import cos, radians

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Array, asarray_like, namespace
from kernels.correlate import cross_correlation, find_peak
from kernels.fourier import Shape, bin_images, fast_size, frequencies, pad, rfft2
from kernels.geometry import View, image_matrix, in_plane_rotation
from kernels.resample import resample, sampling

# Band-pass of IMOD's tiltxcorr, in cycles per pixel: high-pass sigma, radius, low-pass sigma.
BAND = (0.03, 0.25, 0.05)
# cos θ is limited as in tiltxcorr: beyond 82° a view would be stretched sevenfold and more.
LARGEST_TILT = 82.0
# Views of the neighbourhood that a view is linked to, counted outward.
REACH = 3
# Share of a side over which a view fades to zero towards its edges.
MARGIN = 0.08


@dataclass(frozen=True)
class PreparedView:
    """A view in the aligned frame, ready to be correlated.

    Attributes
    ----------
    image : (ny, nx) float32
        Mean 0 and standard deviation 1 where the raw image covers the frame, 0 outside.
    tilt : float
        Degrees.
    """

    image: Array
    tilt: float


@dataclass(frozen=True)
class PairShift:
    """Displacement of one view's content against another's.

    Attributes
    ----------
    dy, dx : float
        Displacement of the moving view, stretched to the reference's tilt [pixels].
    confidence : float
        Height of the correlation peak above the map's mean, in its standard deviations.
    """

    dy: float
    dx: float
    confidence: float


def aligned_shape(shape: Shape, axis: float) -> Shape:
    """Return (ny, nx), swapped where the tilt axis lies nearer to x than to y."""
    ny, nx = shape
    c, s = np.abs(in_plane_rotation(axis)[0])
    return (nx, ny) if s > c else (ny, nx)


def move_view(view: View, dy: float, dx: float) -> View:
    """Add to a view's shift what its content is displaced by in the aligned frame [Å]."""
    x, y = image_matrix(view) @ (dx, dy)
    return replace(view, shift_x=view.shift_x + float(x), shift_y=view.shift_y + float(y))


def prepare_view(
    image: Array, view: View, pixel_size: float, out_shape: Shape, binning: float = 1.0
) -> PreparedView:
    """Bin, level, taper and rotate one raw view into the aligned frame.

    Parameters
    ----------
    image : (ny, nx) float32
    view : View
    pixel_size : float
        Of `image` [Å].
    out_shape : (ny, nx)
        Of the aligned image.
    binning : float
        Raw pixels per aligned pixel.
    """
    xp = namespace(image)
    small = bin_images(image, binning)
    level = small - xp.mean(small)
    spread = float(xp.std(level)) or 1.0
    matrix, offset = sampling(view, pixel_size, image.shape, out_shape, binning)
    sampled = resample(level / spread, matrix, offset, out_shape, fill=0.0)
    shape = (int(small.shape[0]), int(small.shape[1]))
    return PreparedView(sampled * coverage(matrix, offset, shape, out_shape, image), view.tilt)


def coverage(
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    shape: Shape,
    out_shape: Shape,
    like: Array,
    margin: float = MARGIN,
) -> Array:
    """Return where a raw image covers the aligned frame: 1 inside, fading to 0 at its edges.

    Parameters
    ----------
    matrix, offset
        From `kernels.resample.sampling`.
    shape, out_shape : (ny, nx)
        Of the raw image that is sampled, and of the frame.
    like : Array
        Decides namespace and device.
    margin : float
        Width of the fade, as a share of the raw image's shorter side.

    Returns
    -------
    out_shape float32
    """
    rows, columns = np.arange(out_shape[0])[:, None], np.arange(out_shape[1])[None, :]
    y = matrix[0, 0] * rows + matrix[0, 1] * columns + offset[0]
    x = matrix[1, 0] * rows + matrix[1, 1] * columns + offset[1]
    width = max(1.0, margin * min(shape))
    window = np.ones(out_shape)
    for place, length in ((y, shape[0]), (x, shape[1])):
        depth = np.minimum(place, length - 1 - place) / width
        window *= 0.5 - 0.5 * np.cos(np.pi * np.clip(depth, 0, 1))
    return asarray_like(window.astype(np.float32), like)


def neighbour_pairs(
    tilts: Sequence[float], used: Sequence[bool], reach: int = REACH
) -> list[tuple[int, int]]:
    """Return index pairs (reference, moving) to be measured, the lower tilt first.

    Parameters
    ----------
    tilts : (n,)
        Degrees, in any order.
    used : (n,)
        False for dark and excluded views, which take no part.
    reach : int
        A view is linked to so many following views in order of tilt.
    """
    order = [i for i in np.argsort(tilts, kind="stable").tolist() if used[i]]
    if not order:
        raise ValueError(f"none of {len(tilts)} views is used, at least 1 is needed")
    pairs = [(a, b) for k, a in enumerate(order) for b in order[k + 1 : k + 1 + reach]]
    return [(a, b) if abs(tilts[a]) <= abs(tilts[b]) else (b, a) for a, b in pairs]


def stretch(tilt: float) -> float:
    """Return cos θ, the width in a view of a unit length across the tilt axis."""
    return cos(radians(min(abs(tilt), LARGEST_TILT)))


def measure_pair(
    reference: PreparedView,
    moving: PreparedView,
    max_shift: float | None = None,
    band: tuple[float, float, float] = BAND,
) -> PairShift:
    """Correlate a view with its neighbour of lower tilt, cosine-stretched to match.

    Parameters
    ----------
    reference, moving : PreparedView
        Of one shape.
    max_shift : float, optional
        Largest displacement looked for [pixels].
    band : (float, float, float)
        Band-pass: high-pass sigma, low-pass radius and sigma [cycles per pixel].

    References
    ----------
    D. N. Mastronarde, J. Struct. Biol. 120:343 (1997), doi:10.1006/jsbi.1997.3919
    """
    ny, nx = reference.image.shape
    if moving.image.shape != (ny, nx):
        raise ValueError(f"views of {moving.image.shape} and {(ny, nx)} pixels, expected one shape")
    ratio = stretch(moving.tilt) / stretch(reference.tilt)
    matrix = np.diag([1.0, ratio])
    centre = np.array([0.0, (1 - ratio) * (nx // 2)])
    stretched = resample(moving.image, matrix, centre, (ny, nx), fill=0.0)
    padded = (fast_size(1.25 * ny), fast_size(1.25 * nx))
    expected, found = (rfft2(pad(im, padded, fill=0.0)) for im in (reference.image, stretched))
    weight = band_pass(padded, reference.image, *band)
    peak = find_peak(cross_correlation(expected, found, padded, weight), max_shift)
    return PairShift(peak.dy, peak.dx, peak.sharpness)


def band_pass(shape: Shape, like: Array, high_pass: float, radius: float, falloff: float) -> Array:
    """Return 1 − exp(−k² / 2 high_pass²), times a Gaussian `falloff` beyond `radius`.

    All in cycles per pixel; (ny, nx // 2 + 1) float32.
    """
    xp = namespace(like)
    ky, kx = frequencies(shape, like)
    squared = ky**2 + kx**2
    over = xp.sqrt(squared) - radius
    over = xp.where(over > 0, over, xp.zeros_like(over))
    return (1 - xp.exp(-squared / (2 * high_pass**2))) * xp.exp(-(over**2) / (2 * falloff**2))


def solve_shifts(
    pairs: Sequence[tuple[int, int]],
    measured: Sequence[PairShift],
    tilts: Sequence[float],
    rounds: int = 30,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the displacement of each view that explains all pairs, forgiving bad ones.

    Parameters
    ----------
    pairs : sequence of (reference, moving)
    measured : sequence of PairShift, as many
    tilts : (n,)
        Of all views [degrees].
    rounds : int
        Of iteratively re-weighted least squares.

    Returns
    -------
    shifts : (n, 2) float64
        Displacement (dy, dx) of each view's content in the aligned frame [pixels]; 0 for the
        linked view of lowest tilt and for views in no pair.
    agreement : (n,) float64
        Confidence of each view: weighted mean of its pairs' confidences, pairs that
        contradict the solution counting little.

    Notes
    -----
    A pair says ``d_x = t_v · cos θ_r / cos θ_v − t_r``, so in units of the untilted specimen,
    ``u = t_x / cos θ``, every pair is a plain difference of two unknowns. Translations of the
    specimen along x and y are free and fixed by the view of lowest tilt; parallax between
    neighbours vanishes on average, which puts what correlates at Z ≈ 0.
    """
    n = len(tilts)
    cosines = np.array([stretch(t) for t in tilts])
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    linked = np.unique(ends)
    shifts, agreement = np.zeros((n, 2)), np.zeros(n)
    if len(linked) < 2:
        return shifts, agreement
    start = linked[np.argmin(np.abs(np.asarray(tilts)[linked]))]
    target = np.array([[m.dy, m.dx / cosines[r]] for m, (r, _) in zip(measured, ends, strict=True)])
    confidence = np.array([m.confidence for m in measured])
    design = np.zeros((len(ends), n))
    design[np.arange(len(ends)), ends[:, 1]] += 1
    design[np.arange(len(ends)), ends[:, 0]] -= 1
    design = design[:, np.setdiff1d(linked, [start])]
    scale = np.stack([np.ones(len(ends)), cosines[ends[:, 0]]], axis=1)
    # Parallax of features off the plane grows with the difference of tilt.
    apart = np.abs(np.diff(np.tan(np.radians(np.clip(tilts, -LARGEST_TILT, LARGEST_TILT)))[ends]))
    prior = confidence / np.maximum(apart[:, 0], 1e-3)
    trust = np.ones(len(ends))
    for _ in range(rounds):
        solution = np.zeros((n, 2))
        for k in range(2):
            weight = np.sqrt(prior * trust) * scale[:, k]
            values = np.linalg.lstsq(design * weight[:, None], target[:, k] * weight, rcond=None)[0]
            solution[np.setdiff1d(linked, [start]), k] = values
        residual = np.hypot(*((solution[ends[:, 1]] - solution[ends[:, 0]] - target) * scale).T)
        spread = max(1.0, 1.5 * float(np.median(residual)))
        trust = 1 / (1 + (residual / spread) ** 2)
    shifts = solution * np.stack([np.ones(n), cosines], axis=1)
    for i in linked:
        touching = (ends == i).any(axis=1)
        agreement[i] = float(np.average(confidence[touching] * trust[touching]))
    return shifts, agreement
