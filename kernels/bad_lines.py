"""Columns of a detector that are dead, hot or wrongly amplified, whole or in part."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

Floats = NDArray[np.float64]

PARTS = (2, 8)  # strips that a part of a column has, on the way from single parts to the whole
WINDOW = 17  # columns that tell what is usual; defects may be up to eight wide
SIGNIFICANCE = 6.0  # standard deviations
LEAST = 0.05  # of the mean: less is left to the gain
BEAD = 25  # pixels: no more of a part of a column is to be hidden by one thing of the specimen
ALIKE = 2 / 3  # of the strips
NORMAL_MAD = 1.4826


def bad_columns(across: Floats, edges: NDArray[np.int64], factor: float) -> NDArray[np.bool_]:
    """Return which columns differ from their neighbours, in whole or in parts of some tiles.

    A defect begins and ends within two columns. What fades over more is specimen: the fringe of
    a carbon edge, the side of a bar.

    Parameters
    ----------
    across : (strips, nx) float64
        Mean of each column in each strip of rows.
    edges : (strips + 1,) int
        Of the strips [pixels].
    factor : float
        Variance of a pixel over its mean.

    Returns
    -------
    (ny, nx) bool
    """
    heights = np.diff(edges).astype(np.float64)
    usual = np.maximum([_running_median(row) for row in across], np.finfo(float).tiny)
    off = across / usual - 1
    noise = np.sqrt(factor / (usual * heights[:, None]))
    strips = np.zeros(across.shape, dtype=np.bool_)
    for length in (*PARTS, len(heights)):
        for first in range(0, len(heights), length):
            part = slice(first, first + length)
            found, depth = _outliers(across[part], heights[part], factor)
            for column in np.flatnonzero(found):
                known = strips[part, column]
                # How deep the defect is where it was found already, diluted in a longer part.
                depth_here = off[part, column][known].mean() if known.any() else depth[column]
                like = off[part, column] * np.sign(depth_here) > abs(depth_here) / 2
                unclear = noise[part, column] > abs(depth_here) / 4
                strips[part, column] |= like | unclear
    return np.repeat(strips, np.diff(edges), axis=0)


def _outliers(across: Floats, heights: Floats, factor: float) -> tuple[NDArray[np.bool_], Floats]:
    """Return which columns are far from the median around, and by what part of it.

    They have steep sides and are alike in most strips.
    """
    profile = np.average(across, axis=0, weights=heights)
    usual = _running_median(profile)
    off = profile - usual
    spread = max(
        NORMAL_MAD * float(np.median(np.abs(off))),
        float(np.sqrt(max(factor * np.median(profile), 0.0) / heights.sum())),
    )
    least = max(LEAST, BEAD / heights.sum())
    far = np.abs(off) > np.maximum(SIGNIFICANCE * spread, least * np.abs(usual))
    alike = (across - usual) * np.sign(off) > np.abs(off) / 4
    far &= alike.mean(axis=0) > ALIKE - 1e-9
    bad = np.zeros_like(far)
    borders = np.flatnonzero(np.diff(np.concatenate([[False], far, [False]]).astype(int)))
    for start, end in borders.reshape(-1, 2):
        peak = off[start + np.abs(off[start:end]).argmax()]
        beside = [off[i] for i in (start - 2, end + 1) if 0 <= i < far.size]
        bad[start:end] = all(abs(peak - value) > abs(peak) / 2 for value in beside)
    return bad, off / np.maximum(usual, np.finfo(float).tiny)


def _running_median(profile: Floats) -> Floats:
    """Return the median around each place; slopes go on beyond the ends."""
    reach = min(WINDOW // 2, profile.size - 1)
    ends = [
        2 * np.median(side[:5]) - side[1 : reach + 1][::-1] for side in (profile, profile[::-1])
    ]
    longer = np.concatenate([ends[0], profile, ends[1][::-1]])
    return median_filter(longer, WINDOW)[reach : reach + profile.size]
