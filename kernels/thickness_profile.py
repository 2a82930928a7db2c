"""Thickness and position of the slab from two quick tomograms of every other view.

What is in the ice appears in both, noise in one only. So the covariance of the two, plane by
plane, shows where the specimen is and where only noise and the streaks of single views are. Its
profiles in tiles over the field are fitted together by a slab with parallel faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.optimize import least_squares
from scipy.special import ndtr

from kernels.arrays import Array, namespace, to_host
from kernels.thickness import Estimate, Floats

CLIP = 4.0  # standard deviations: gold must not outweigh all else
# Part of the thickness beyond each face within which profiles are compared with a slab.
SURROUNDINGS = 0.3
LEAST_EXPLAINED = 0.2  # of the variance of all tiles' profiles; of pure noise a slab explains 0.02
GROUPS = 8  # of tiles, left out in turn to find the errors


@dataclass(frozen=True)
class Profiles:
    """Covariance of two tomograms, plane by plane in tiles.

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
    first: Array,
    second: Array,
    pixel_size: float,
    centre: tuple[float, float] = (0.0, 0.0),
    tiles: tuple[int, int] = (8, 8),
    margin: float = 0.08,
) -> Profiles:
    """Return the covariance of two tomograms in each plane of each tile.

    Parameters
    ----------
    first, second : (nz, ny, nx) float32
        Of every other view each, the same box.
    pixel_size : float
        Of a voxel [Å].
    centre : (X, Z)
        Specimen coordinates of the box's centre voxel [Å].
    tiles : (along y, along x)
    margin : float
        Part of the field left out along each edge, where steep views see nothing.

    Returns
    -------
    Profiles

    Raises
    ------
    ValueError
        If the tomograms differ in size, or are too small for the tiles.
    """
    if first.shape != second.shape:
        raise ValueError(f"tomograms are {first.shape} and {second.shape}, not of one size")
    nz, ny, nx = first.shape
    edges = [
        np.linspace(margin * n, (1 - margin) * n, count + 1).astype(int)
        for n, count in zip((ny, nx), tiles, strict=True)
    ]
    if min(np.diff(edge).min() for edge in edges) < 8:
        raise ValueError(f"tomograms of {ny}×{nx} are too small for {tiles[0]}×{tiles[1]} tiles")
    xp = namespace(first, second)
    limits = [CLIP * float(xp.std(volume)) for volume in (first, second)]
    values, x, y = [], [], []
    for top, bottom in zip(edges[0][:-1], edges[0][1:], strict=True):
        for left, right in zip(edges[1][:-1], edges[1][1:], strict=True):
            a, b = (
                xp.clip(volume[:, top:bottom, left:right], -limit, limit)
                for volume, limit in zip((first, second), limits, strict=True)
            )
            a = a - xp.mean(a, axis=(1, 2), keepdims=True)
            b = b - xp.mean(b, axis=(1, 2), keepdims=True)
            values.append(to_host(xp.mean(a * b, axis=(1, 2))))
            y.append(((top + bottom - 1) / 2 - ny // 2) * pixel_size)
            x.append(((left + right - 1) / 2 - nx // 2) * pixel_size + centre[0])
    z = (np.arange(nz) - nz // 2) * pixel_size + centre[1]
    return Profiles(np.array(values, dtype=np.float64), np.array(x), np.array(y), z)


def from_profiles(profiles: Profiles, method: str = "tomogram") -> Estimate:
    """Fit a slab with soft parallel faces to all tiles at once.

    Each tile has its own height of the profile and its own level outside; edges, slopes and
    softness are common. Errors come from leaving out groups of tiles in turn.

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
    bottom_top_error = max(errors[1], step / 4)
    along = 1 / sqrt(1 + fit[2] ** 2 + fit[3] ** 2)
    return Estimate(
        method,
        thickness=float(fit[1]) * along,
        thickness_error=float(bottom_top_error),
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
    fit, explained = _fit(profiles, start, np.ones(profiles.values.shape))
    # Far outside, streaks of what lies in the slab change the level: only what is near counts.
    for _ in range(2):
        middle = fit[0] + fit[2] * profiles.x + fit[3] * profiles.y
        near = np.abs(profiles.z - middle[:, None]) < (0.5 + SURROUNDINGS) * fit[1]
        if near.sum(axis=1).min() < 8:
            break
        fit, explained = _fit(profiles, fit, near.astype(np.float64))
    return fit, explained


def _fit(profiles: Profiles, start: Floats, weights: Floats) -> tuple[Floats, float]:
    count = weights.sum(axis=1, keepdims=True)
    wanted = profiles.values - (profiles.values * weights).sum(axis=1, keepdims=True) / count
    wanted = wanted * weights
    wanted /= np.maximum(np.sqrt((wanted**2).sum(axis=1, keepdims=True) / count), 1e-30)
    step = profiles.z[1] - profiles.z[0]

    def model(p: Floats) -> Floats:
        middle = p[0] + p[2] * profiles.x + p[3] * profiles.y
        soft = max(abs(p[4]), step / 4)
        box = ndtr((profiles.z - (middle - p[1] / 2)[:, None]) / soft) - ndtr(
            (profiles.z - (middle + p[1] / 2)[:, None]) / soft
        )
        box = (box - (box * weights).sum(axis=1, keepdims=True) / count) * weights
        norm = np.maximum((box**2).sum(axis=1), 1e-12)
        height = np.maximum((box * wanted).sum(axis=1) / norm, 0)
        return box * height[:, None]

    fit = least_squares(
        lambda p: (model(p) - wanted).ravel(),
        start,
        x_scale=[start[1] / 10, start[1] / 10, 0.02, 0.02, start[1] / 20],
        loss="soft_l1",
        f_scale=0.5,
    )
    left = model(fit.x) - wanted
    return fit.x, float(1 - (left**2).sum() / max((wanted**2).sum(), 1e-30))
