"""How the views of a tilt series compare: brightness, blocked parts, jumps, missing detail.

Every function takes what was measured of all views, and gives one figure per view. NaN: the views
do not tell. Views not `used` have no say about others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.align_coarse import LARGEST_TILT, PairShift, solve_shifts, stretch
from kernels.fourier import Shape
from kernels.geometry import in_plane_rotation

Floats = NDArray[np.float64]

LEAST_VIEWS = 5  # that can tell what is usual
NEAR_UNTILTED = 20.0  # degrees: views that tell how unequal the specimen itself is
NEIGHBOURS = 2  # on either side
OPEN = 80.0  # percentile of an image's blocks that tells its brightness where nothing blocks it
DARKEST = (0.1, 0.4)  # limits of what counts as blocked, as a share of the open brightness
MATCHED = 5.0  # σ of correlation peaks at one place; those of noise, up to 6, are anywhere
AGREEING = 0.04  # of the field: pairs of a view that agree
STEADY = 0.05  # relative scatter of the noise of counts, over their mean
LEAST_DETAIL = 0.1  # of detail over the noise that is enough to judge by
LEAST_MOTION = 2.0  # Å: less is no motion to compare with
NORMAL_MAD = 1.4826  # deviations of Gaussian noise in its median absolute deviation


def trend(values: Floats, tilts: Sequence[float], used: Sequence[bool]) -> Floats:
    """Return what `values` (n,) should be at each tilt, by a fit that outliers do not move.

    The fit has a constant, 1 / cos(tilt), the way of the beam through a plate, and tan(tilt), what
    a tilted plate adds to it.
    """
    angles = np.radians(np.clip(np.asarray(tilts, dtype=np.float64), -LARGEST_TILT, LARGEST_TILT))
    known = np.asarray(used, dtype=np.bool_) & np.isfinite(values)
    if not known.any():
        return np.full(len(values), np.nan)
    if known.sum() < LEAST_VIEWS:
        return np.full(len(values), np.median(values[known]))
    design = np.stack([np.ones_like(angles), 1 / np.cos(angles) - 1, np.tan(angles)], axis=1)
    weights = np.ones(int(known.sum()))
    for _ in range(50):  # least absolute deviations, re-weighted
        root = np.sqrt(weights)[:, None]
        solution = np.linalg.lstsq(design[known] * root, values[known] * root[:, 0], rcond=None)[0]
        residual = np.abs(values[known] - design[known] @ solution)
        weights = 1 / np.maximum(residual, 1e-3 * max(float(np.median(residual)), 1e-12))
        weights /= weights.max()
    return np.asarray(design @ solution)


def neighbours_of(index: int, used: Sequence[bool], reach: int = NEIGHBOURS) -> list[int]:
    """Return the nearest used views, `reach` on either side, more on one where the other ends."""
    others = [i for i in range(len(used)) if used[i] and i != index]
    below, above = [i for i in others if i < index], [i for i in others if i > index]
    less = below[-max(reach, 2 * reach - len(above)) :]
    return less + above[: 2 * reach - len(less)]


def brightness(blocks: Floats, tilts: Sequence[float], used: Sequence[bool]) -> Floats:
    """Return the mean of each view as a share of what the other tilts let expect.

    Parameters
    ----------
    blocks : (n, rows, columns)
        Means in parts of each view.
    """
    means = blocks.mean(axis=(1, 2))
    seen = np.asarray(used, dtype=np.bool_) & (means > 0)
    expected = np.exp(trend(_log(means), tilts, seen.tolist()))
    return means / expected


def blocked_shares(blocks: Floats, tilts: Sequence[float], used: Sequence[bool]) -> Floats:
    """Return which share of each view's field something opaque covers.

    A block counts that is far darker than the open parts of the view should be at its tilt: darker
    than `DARKEST`, and than the thickest parts of the specimen, seen untilted, can be at this tilt.
    What as many blocks of the untilted views show is the specimen or the aperture, and left out.

    Parameters
    ----------
    blocks : (n, rows, columns)
        Means in parts of each view.
    """
    angles = np.abs(np.asarray(tilts, dtype=np.float64))
    opened = np.percentile(blocks, OPEN, axis=(1, 2))
    seen = np.asarray(used, dtype=np.bool_) & (opened > 0)
    if not seen.any():
        return np.full(len(blocks), np.nan)
    expected = np.exp(trend(_log(opened), tilts, seen.tolist()))
    relative = blocks / expected[:, None, None]
    near = seen & (angles <= max(NEAR_UNTILTED, float(np.sort(angles[seen])[:3][-1])))
    darkest = float(np.median(np.percentile(relative[near], 5, axis=(1, 2))))
    deeper = 1 / np.cos(np.radians(np.minimum(angles, LARGEST_TILT)))
    limits = np.clip(0.5 * np.clip(darkest, 1e-3, 1) ** deeper, *DARKEST)
    shares = (relative < limits[:, None, None]).mean(axis=(1, 2))
    return np.asarray(np.maximum(shares - np.median(shares[near]), 0))


def jumps(
    pairs: Sequence[tuple[int, int]],
    measured: Sequence[PairShift],
    tilts: Sequence[float],
    used: Sequence[bool],
    axis: float,
    shape: Shape,
) -> tuple[Floats, Floats, Floats]:
    """Return how far each view's content lies from where that of its neighbours does.

    Parameters
    ----------
    pairs, measured
        Of `kernels.align_coarse`: neighbours, and how they are displaced in the aligned frame.
    axis : float
        Tilt axis, counter-clockwise from image +y [degrees].
    shape : (ny, nx)
        Of the images before they are turned, of the same pixel.

    Returns
    -------
    jump : (n,)
        As a share of the field, along the worse axis; NaN where not most of the view's pairs agree.
    match : (n,)
        Height of its correlation peaks with neighbours, median [σ].
    across : (n,)
        That of its neighbours with each other [σ]; NaN where there are not two of them.
    """
    n = len(tilts)
    jump, match, across = (np.full(n, np.nan) for _ in range(3))
    if not pairs:
        return jump, match, across
    turn = in_plane_rotation(axis)[::-1, ::-1]  # of (y, x) in place of (x, y)
    shifts, _ = solve_shifts(pairs, measured, tilts)
    scales = np.stack([np.ones(n), [stretch(tilt) for tilt in tilts]], axis=1)
    places = shifts / scales  # of the untilted specimen, of which pairs tell differences
    heights = np.array([pair.confidence for pair in measured])
    ends = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    moves = np.array([(pair.dy, pair.dx) for pair in measured]).reshape(-1, 2)
    moves = moves / scales[ends[:, 0]]
    for i in range(n):
        near = neighbours_of(i, used)
        own = np.flatnonzero((ends == i).any(axis=1))
        others = np.isin(ends, near).all(axis=1)
        across[i] = np.median(heights[others]) if others.any() else np.nan
        if not used[i] or len(own) < 2:
            continue
        match[i] = np.median(heights[own])
        told = [
            places[r] + move if m == i else places[m] - move
            for (r, m), move in zip(ends[own], moves[own], strict=True)
        ]
        usual = np.median(shifts[near], axis=0)
        seen = np.array(told) * scales[i] - usual
        # Beyond half of a padded image a displacement comes back from the other side.
        far = np.abs(seen)
        agree = (np.abs(far - np.median(far, axis=0)) < AGREEING * min(shape)).all(axis=1)
        if agree.sum() >= max(2, 0.6 * len(own)) and np.median(heights[own][agree]) >= MATCHED:
            shares = np.abs(seen[agree] @ turn.T) / np.asarray(shape)
            jump[i] = np.median(shares, axis=0).max()
    return jump, match, across


def missing_detail(
    ratios: Floats,
    errors: Floats,
    noise_per_mean: Floats,
    bright: Floats,
    tilts: Sequence[float],
    used: Sequence[bool],
) -> tuple[Floats, Floats]:
    """Return which share of the detail that views of like tilt show is missing in each view.

    Parameters
    ----------
    ratios, errors : (n, sectors)
        Of `kernels.view_quality.Detail`.
    noise_per_mean : (n,)
        Its noise over the view's mean. Where it is about the same in all views, as of counts, a
        view with less has been smoothed, and its detail is compared with the noise it should have.
    bright : (n,)
        From `brightness`: detail stands out from the noise in proportion to the electrons.

    Returns
    -------
    missing : (n,)
        In the direction in which most is missing: 1 where there is nothing but noise. NaN where
        there is too little to judge by, even in views of like tilt.
    significance : (n,)
        By how many standard deviations of views around the trend the detail is less [σ].
    """
    n, sectors = ratios.shape
    missing, significance = (np.full((n, sectors), np.nan) for _ in range(2))
    known = np.asarray(used, dtype=np.bool_) & (ratios > 0).all(axis=1)
    if known.sum() < LEAST_VIEWS:
        return missing[:, 0], significance[:, 0]
    smoother = _smoother(noise_per_mean, known)[:, None]
    ratios, errors = ratios * smoother, errors * smoother
    for sector in range(sectors):
        values = ratios[:, sector]
        expected = trend(values, tilts, known.tolist())
        scatter = NORMAL_MAD * float(np.median(np.abs(values - expected)[known]))
        for i in np.flatnonzero(known).tolist():
            near = float(np.median(values[neighbours_of(i, known.tolist())]))
            level = 1 + (min(expected[i], near) - 1) * min(1.0, bright[i])
            sigma = max(scatter, errors[i, sector])
            if level - 1 < max(LEAST_DETAIL, 5 * sigma):
                continue
            missing[i, sector] = (level - values[i]) / (level - 1)
            significance[i, sector] = (level - values[i]) / sigma
    return _worst(missing), _worst(significance)


def unusual_motion(totals: Sequence[float | None], used: Sequence[bool]) -> Floats:
    """Return how many times the usual motion of a series each view has moved."""
    values = np.array([np.nan if total is None else total for total in totals], dtype=np.float64)
    known = np.asarray(used, dtype=np.bool_) & np.isfinite(values)
    if known.sum() < LEAST_VIEWS:
        return np.full(len(values), np.nan)
    return values / max(float(np.median(values[known])), LEAST_MOTION)


def _smoother(noise_per_mean: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return what is left of each view's noise, 1 where the views cannot tell."""
    left = np.ones(len(noise_per_mean))
    usual = float(np.median(noise_per_mean[known]))
    scatter = NORMAL_MAD * float(np.median(np.abs(noise_per_mean[known] - usual)))
    if usual > 0 and scatter < STEADY * usual:
        left[known] = noise_per_mean[known] / usual
        left[left > 1 - 10 * max(scatter / usual, 0.01)] = 1.0
    return left


def _worst(values: Floats) -> Floats:
    filled = np.where(np.isfinite(values), values, -np.inf).max(axis=1)
    return np.where(np.isfinite(filled), filled, np.nan)


def _log(values: Floats) -> Floats:
    return np.log(np.where(values > 0, values, 1.0))
