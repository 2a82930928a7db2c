"""Thickness and position of the slab from the contrast in a quick tomogram.

Where the specimen is, the planes of a tomogram have contrast; beyond its faces there are noise and
the streaks of single views. At 200 Å of resolution noise is little and streaks are weak,
so that the variance of each plane in tiles over the field shows the slab; its profiles in all tiles
are fitted together by a slab with parallel faces. Gold outshines all else and lies on the faces
only: it is taken out of the views first.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import least_squares
from scipy.special import ndtr

from kernels.arrays import Array, namespace, to_host
from kernels.thickness import Estimate, Floats
from kernels.wbp import Filter, ramp

RESOLUTION = 200.0  # Å: of the quick tomogram, falling off to nothing at half of it
GOLD_DEPTH = 4.0  # standard deviations below the median, of a view smoothed to 40 Å
GOLD_SIGMA, GOLD_MARGIN, AROUND = 40.0, 50.0, 200.0  # Å
CLIP = 4.0  # standard deviations: single things must not outweigh all else
# Molecules are whole: with centres a radius inside a face, their density is half of what it is
# farther in some 40 Å from it [Å]. It depends on the specimen, and is so uncertain itself.
INSET = 40.0
# Part of the thickness beyond each face within which profiles are compared with a slab.
SURROUNDINGS = 0.3
ROUNDS = 3
LEAST_VARIANCE = 0.15  # of the largest: what is less counts as much as that
LEAST_EXPLAINED = 0.2  # of the variance of all tiles' profiles; of pure noise a slab explains 0.02
GROUPS = 8  # of tiles, left out in turn to find the errors


def quick_filter(n: int, pixel_size: float) -> Filter:
    """Return the filter (n // 2 + 1,) of rows of `n` pixels [Å] for the quick tomogram."""
    return ramp(n, pixel_size / RESOLUTION, pixel_size / RESOLUTION / 2)


def without_gold(contrast: NDArray[np.float32], pixel_size: float) -> NDArray[np.float32]:
    """Return a view with what is as dark as gold replaced by the mean of what is around.

    Parameters
    ----------
    contrast : (ny, nx) float32
        Matter dark.
    pixel_size : float
        [Å], 10 to 25.
    """
    smooth = ndimage.gaussian_filter(contrast, GOLD_SIGMA / pixel_size)
    median = np.median(smooth)
    deep = smooth < median - GOLD_DEPTH * 1.4826 * np.median(np.abs(smooth - median))
    gold = ndimage.binary_dilation(
        ndimage.binary_opening(deep), iterations=ceil(GOLD_MARGIN / pixel_size)
    )
    width = AROUND / pixel_size
    share = ndimage.gaussian_filter((~gold).astype(np.float32), width)
    mean = ndimage.gaussian_filter(np.where(gold, np.float32(0), contrast), width)
    return np.where(gold, mean / np.maximum(share, np.float32(1e-3)), contrast)


@dataclass(frozen=True)
class Profiles:
    """Variance of a tomogram, plane by plane in tiles.

    Attributes
    ----------
    values : (n_tiles, nz) float64
    x, y : (n_tiles,) float64
        Centres of the tiles in the specimen frame [Å].
    z : (nz,) float64
        Heights of the planes [Å].
    """

    values: Floats
    x: Floats
    y: Floats
    z: Floats


def tile_profiles(
    volume: Array,
    pixel_size: float,
    centre: tuple[float, float] = (0.0, 0.0),
    tiles: tuple[int, int] = (6, 6),
    margin: float = 0.08,
    other: Array | None = None,
) -> Profiles:
    """Return the variance in each plane of each tile.

    Parameters
    ----------
    volume : (nz, ny, nx) float32
        Reconstructed with `quick_filter` from views `without_gold`, thicker than the specimen.
    pixel_size : float
        Of a voxel [Å].
    centre : (X, Z)
        Specimen coordinates of the box's centre voxel [Å].
    tiles : (along y, along x)
    margin : float
        Part of the field left out along each edge, where steep views see nothing.
    other : (nz, ny, nx) float32, optional
        The same from other frames, with noise of its own: the covariance of both is taken, in
        which noise does not count.

    Returns
    -------
    Profiles

    Raises
    ------
    ValueError
        If the tomograms differ in size, or are too small for the tiles.
    """
    pair = (volume, volume if other is None else other)
    if pair[0].shape != pair[1].shape:
        raise ValueError(f"tomograms are {pair[0].shape} and {pair[1].shape}, not of one size")
    nz, ny, nx = volume.shape
    edges = [
        np.linspace(margin * n, (1 - margin) * n, count + 1).astype(int)
        for n, count in zip((ny, nx), tiles, strict=True)
    ]
    if min(np.diff(edge).min() for edge in edges) < 8:
        raise ValueError(f"tomograms of {ny}×{nx} are too small for {tiles[0]}×{tiles[1]} tiles")
    xp = namespace(*pair)
    limits = [CLIP * float(xp.std(half)) for half in pair]
    values, x, y = [], [], []
    for top, bottom in zip(edges[0][:-1], edges[0][1:], strict=True):
        for left, right in zip(edges[1][:-1], edges[1][1:], strict=True):
            a, b = (
                xp.clip(half[:, top:bottom, left:right], -limit, limit)
                for half, limit in zip(pair, limits, strict=True)
            )
            a = a - xp.mean(a, axis=(1, 2), keepdims=True)
            b = b - xp.mean(b, axis=(1, 2), keepdims=True)
            values.append(to_host(xp.mean(a * b, axis=(1, 2))))
            y.append(((top + bottom - 1) / 2 - ny // 2) * pixel_size)
            x.append(((left + right - 1) / 2 - nx // 2) * pixel_size + centre[0])
    z = (np.arange(nz) - nz // 2) * pixel_size + centre[1]
    return Profiles(np.array(values, dtype=np.float64), np.array(x), np.array(y), z)


def from_profiles(profiles: Profiles, method: str = "tomogram", inset: float = INSET) -> Estimate:
    """Fit a slab with soft parallel faces to all tiles at once.

    Each tile has its own height of the profile and its own level outside; edges, slopes and
    softness are common. Errors come from leaving out groups of tiles in turn. The faces of the
    ice are taken to lie `inset` [Å] beyond those of its content.

    Returns
    -------
    Estimate
        Without values if a slab explains too little of the profiles' variance.
    """
    start = _coarse(profiles)
    if start is None:
        return Estimate(method)
    fit, explained = _refine(profiles, start)
    if explained < LEAST_EXPLAINED:
        return Estimate(method)
    group = np.arange(len(profiles.x)) * GROUPS // len(profiles.x)
    # Groups mixed over the field: each has tiles from all of it.
    group = np.random.default_rng(0).permutation(group)
    others = np.array([_refine(_only(profiles, group != g), fit)[0] for g in range(GROUPS)])
    errors = np.sqrt((GROUPS - 1) / GROUPS * ((others - others.mean(axis=0)) ** 2).sum(axis=0))
    step = float(profiles.z[1] - profiles.z[0])
    along = 1 / sqrt(1 + fit[2] ** 2 + fit[3] ** 2)
    return Estimate(
        method,
        thickness=float(fit[1]) * along + 2 * inset,
        thickness_error=sqrt(max(errors[1], step / 4) ** 2 + inset**2),
        centre=float(fit[0]),
        centre_error=float(max(errors[0], step / 4)),
        pitch=float(-np.degrees(np.arctan(fit[2]))),
        pitch_error=float(np.degrees(errors[2])),
        rise=float(np.degrees(np.arctan(fit[3]))),
        rise_error=float(np.degrees(errors[3])),
    )


def _only(profiles: Profiles, chosen: Floats) -> Profiles:
    return Profiles(profiles.values[chosen], profiles.x[chosen], profiles.y[chosen], profiles.z)


def _coarse(profiles: Profiles) -> Floats | None:
    """Return centre, thickness, slopes 0 and softness of the box that fits the mean profile."""
    mean, z = profiles.values.mean(axis=0), profiles.z
    n = len(z)
    sums, squares = np.concatenate([[0], np.cumsum(mean)]), float((mean**2).sum())
    best, found = 0.0, None
    for low in range(1, n - 2, max(1, n // 100)):
        for high in range(low + 2, n, max(1, n // 100)):
            inside, count = sums[high] - sums[low], high - low
            outside = sums[n] - inside
            if inside / count <= outside / (n - count):
                continue
            gain = inside**2 / count + outside**2 / (n - count) - sums[n] ** 2 / n
            if gain > best:
                best, found = gain, (low, high)
    if found is None or not squares > 0:
        return None
    low, high = z[found[0]] - (z[1] - z[0]) / 2, z[found[1] - 1] + (z[1] - z[0]) / 2
    return np.array([(low + high) / 2, high - low, 0.0, 0.0, max(0.05 * (high - low), z[1] - z[0])])


def _refine(profiles: Profiles, start: Floats) -> tuple[Floats, float]:
    """Return the fitted parameters, and the part of the profiles' variance that they explain."""
    values = profiles.values / np.maximum(np.abs(profiles.values).max(axis=1, keepdims=True), 1e-30)
    fit, model, explained = _fit(profiles, values, start, np.ones(values.shape))
    for _ in range(ROUNDS):
        # Far outside, streaks of what lies in the slab change the level: only what is near
        # counts. A variance is as uncertain as it is large.
        middle = fit[0] + fit[2] * profiles.x + fit[3] * profiles.y
        near = np.abs(profiles.z - middle[:, None]) < (0.5 + SURROUNDINGS) * fit[1]
        if near.sum(axis=1).min() < 8:
            break
        floor = LEAST_VARIANCE * model.max(axis=1, keepdims=True)
        weights = near / np.maximum(np.maximum(model, floor), 1e-9) ** 2
        fit, model, explained = _fit(profiles, values, fit, weights)
    return fit, explained


def _fit(
    profiles: Profiles, values: Floats, start: Floats, weights: Floats
) -> tuple[Floats, Floats, float]:
    """Return parameters, the modelled profiles, and the weighted part that they explain."""
    roots = np.sqrt(weights)
    total = weights.sum(axis=1, keepdims=True)
    mean = (values * weights).sum(axis=1, keepdims=True) / total
    step = profiles.z[1] - profiles.z[0]

    def model(p: Floats) -> Floats:
        middle = p[0] + p[2] * profiles.x + p[3] * profiles.y
        soft = max(abs(p[4]), step / 4)
        box = ndtr((profiles.z - (middle - p[1] / 2)[:, None]) / soft) - ndtr(
            (profiles.z - (middle + p[1] / 2)[:, None]) / soft
        )
        box = box - (box * weights).sum(axis=1, keepdims=True) / total
        norm = np.maximum((weights * box**2).sum(axis=1, keepdims=True), 1e-12)
        height = np.maximum((weights * box * values).sum(axis=1, keepdims=True) / norm, 0)
        return mean + height * box

    spread = sqrt(max(float((weights * (values - mean) ** 2).mean()), 1e-30))
    fit = least_squares(
        lambda p: (roots * (model(p) - values)).ravel() / spread,
        start,
        x_scale=[start[1] / 10, start[1] / 10, 0.02, 0.02, start[1] / 20],
        loss="soft_l1",
        f_scale=0.5,
    )
    found = model(fit.x)
    left = (weights * (found - values) ** 2).sum() / max(
        (weights * (values - mean) ** 2).sum(), 1e-30
    )
    return fit.x, found, float(1 - left)
