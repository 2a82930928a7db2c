"""Thickness and position of the slab from the contrast in a quick tomogram.

Where the specimen is, the planes of a tomogram have contrast; beyond its faces there are noise and
the streaks of single views. At 200 Å of resolution noise is little and streaks are weak,
so that the variance of each plane in tiles over the field shows the slab; its profiles in all tiles
are fitted together by a slab with parallel faces. Gold outshines all else and lies on the faces
only: it is taken out of the views first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import ceil, sqrt
from operator import itemgetter

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
CLIP = 4.0  # standard deviations of filtered views: single things must not outweigh all else
# Molecules are whole: with centres a radius inside a face, their density is half of what it is
# farther in some 55 Å from it [Å]. It depends on the specimen, and is so uncertain itself.
INSET = 55.0
# Part of the thickness beyond each face within which profiles are compared with a slab.
SURROUNDINGS = 0.3
ROUNDS = 3
ASTRAY = 0.25  # of the thickness: by what more a refined fit differs, it followed single things
SLOPES = np.tan(np.radians(np.arange(-9.0, 10.0, 1.5)))  # that fits begin with, along x and y
STANDING_OUT = 0.25  # of the largest covariance over that of what is around
LEAST_VARIANCE = 0.15  # of the largest: what is less counts as much as that
LEAST_PLANES = 4
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

    @staticmethod
    def joined(bands: Sequence[Profiles]) -> Profiles:
        """Return the profiles of all `bands`, which have the same planes."""
        values, x, y = (
            np.concatenate([getattr(band, name) for band in bands]) for name in ("values", "x", "y")
        )
        return Profiles(values, x, y, bands[0].z)


def pair_profiles(
    volume: Array,
    squares: Array,
    pixel_size: float,
    tiles: int,
    y: float = 0.0,
    margin: float = 0.08,
) -> Profiles:
    """Return the covariance of different views in each plane of each tile of a band.

    A plane's variance is the sum of what pairs of views have in common there; each view with
    itself, which is the same at all heights and holds all noise, is taken off.

    Parameters
    ----------
    volume : (nz, ny, nx) float32
        Back-projection of filtered views, thicker than the specimen.
    squares : (nz, ny, nx) float32
        Back-projection of their squares, with squared weights.
    pixel_size : float
        Of a voxel [Å].
    tiles : int
        Along x.
    y : float
        Of the band's middle [Å].
    margin : float
        Part of the width left out at both ends, where steep views see nothing.
    """
    nz, _, nx = volume.shape
    xp = namespace(volume, squares)
    pairs = to_host(xp.mean(volume**2 - squares, axis=1)).astype(np.float64)
    edges = np.linspace(margin * nx, (1 - margin) * nx, tiles + 1).astype(int)
    values = [pairs[:, a:b].mean(axis=1) for a, b in pairwise(edges.tolist())]
    x = ((edges[:-1] + edges[1:] - 1) / 2 - nx // 2) * pixel_size
    z = (np.arange(nz) - nz // 2) * pixel_size
    return Profiles(np.array(values), x, np.full(tiles, y), z)


def from_profiles(
    profiles: Profiles,
    method: str = "tomogram",
    inset: float = INSET,
    inset_error: float | None = None,
) -> Estimate:
    """Fit a slab with soft parallel faces to all tiles at once.

    Each tile has its own height of the profile and its own level outside; edges, slopes and
    softness are common, and so is how the content is spread inside, which may be near the faces
    or one of them. Errors come from leaving out groups of tiles in turn. The faces of the ice are
    taken to lie `inset` ± `inset_error` [Å], by default as much, beyond those of its content.

    Returns
    -------
    Estimate
        Without values if a slab explains too little of the profiles' variance.
    """
    starts = _starts(profiles)
    if not starts:
        return Estimate(method)
    first, model, whole = max((_first(profiles, start) for start in starts), key=itemgetter(2))
    coarse = model
    fit, model, explained = _refine(profiles, first, model)
    if max(abs(fit[1] - first[1]), 2 * abs(fit[0] - first[0])) > ASTRAY * first[1]:
        fit, model, explained = first, coarse, whole
    step = float(profiles.z[1] - profiles.z[0])
    thin = fit[1] < LEAST_PLANES * step
    if min(whole, explained) < LEAST_EXPLAINED or thin or not _seen(profiles, fit):
        return Estimate(method)
    # Groups mixed over the field: each has tiles from all of it.
    group = np.arange(len(profiles.x)) * GROUPS // len(profiles.x)
    group = np.random.default_rng(0).permutation(group)
    others = np.array(
        [_refine(_only(profiles, group != g), fit, model[group != g], 1)[0] for g in range(GROUPS)]
    )
    errors = np.sqrt((GROUPS - 1) / GROUPS * ((others - others.mean(axis=0)) ** 2).sum(axis=0))
    along = 1 / sqrt(1 + fit[2] ** 2 + fit[3] ** 2)
    # Planes are known to a quarter of their distance, slopes to that over the field.
    least = step / 4 / np.maximum([np.ptp(profiles.x), np.ptp(profiles.y)], step)
    slopes = np.degrees(np.maximum(errors[2:4], least))
    return Estimate(
        method,
        thickness=float(fit[1]) * along + 2 * inset,
        thickness_error=sqrt(
            max(errors[1], step / 4) ** 2 + 4 * (inset if inset_error is None else inset_error) ** 2
        ),
        centre=float(fit[0]),
        centre_error=float(max(errors[0], step / 4)),
        pitch=float(-np.degrees(np.arctan(fit[2]))),
        pitch_error=float(slopes[0]),
        rise=float(np.degrees(np.arctan(fit[3]))),
        rise_error=float(slopes[1]),
    )


def _seen(profiles: Profiles, fit: Floats) -> bool:
    """Tell whether the middle of a slab lies within the profiles of all tiles."""
    middle = fit[0] + fit[2] * profiles.x + fit[3] * profiles.y
    return bool(middle.min() >= profiles.z[0] and middle.max() <= profiles.z[-1])


def _only(profiles: Profiles, chosen: Floats) -> Profiles:
    return Profiles(profiles.values[chosen], profiles.x[chosen], profiles.y[chosen], profiles.z)


def _starts(profiles: Profiles) -> list[Floats]:
    """Return parameters to begin with: of the best box, and of all that stands out.

    Centre, thickness, two slopes, softness, and two of the shape inside. Tiles with few things in
    them each have a profile of their own: only all of them, moved by the right slopes, show a box.
    """
    values, step = _scaled(profiles), float(profiles.z[1] - profiles.z[0])
    best, found, slopes, mean = 0.0, None, (0.0, 0.0), values.mean(axis=0)
    for a, b in product(SLOPES, SLOPES):
        moved = _moved(values, np.rint((a * profiles.x + b * profiles.y) / step).astype(int))
        gain, box = _best_box(moved)
        if box is not None and gain > best:
            best, found, slopes, mean = gain, box, (a, b), moved
    if found is None:
        return []
    smooth = ndimage.uniform_filter1d(mean, 5, mode="nearest")
    outer = max(2, len(mean) // 8)
    base = float(np.median(np.concatenate([smooth[:outer], smooth[-outer:]])))
    out = np.flatnonzero(smooth > base + STANDING_OUT * (smooth.max() - base))
    starts = []
    for low, high in (found, (int(out[0]), int(out[-1]) + 1)):
        ends = profiles.z[0] + step * (np.array([low, high]) - 0.5)
        thickness = float(ends[1] - ends[0])
        soft = max(0.05 * thickness, step)
        starts.append(np.array([float(ends.mean()), thickness, *slopes, soft, 0, 0]))
    return starts


def _moved(values: Floats, planes: NDArray[np.int64]) -> Floats:
    """Return the mean profile (nz,) of tiles moved down by so many planes each."""
    nz = values.shape[1]
    index = np.clip(np.arange(nz) + planes[:, None], 0, nz - 1)
    return np.asarray(np.take_along_axis(values, index, axis=1).mean(axis=0))


def _best_box(mean: Floats) -> tuple[float, tuple[int, int] | None]:
    """Return how much of a profile's variance the best box explains, and its planes [low, high)."""
    n = len(mean)
    sums = np.concatenate([[0.0], np.cumsum(mean)])
    low, high = np.triu_indices(n, 2)
    inner = (low > 0) & (high < n)
    low, high = low[inner], high[inner]
    if not len(low):
        return 0.0, None
    inside, count = sums[high] - sums[low], high - low
    outside = sums[n] - inside
    gain = inside**2 / count + outside**2 / (n - count) - sums[n] ** 2 / n
    gain[inside / count <= outside / (n - count)] = 0
    best = int(gain.argmax())
    box = (int(low[best]), int(high[best])) if gain[best] > 0 else None
    return float(gain[best]), box


def _scaled(profiles: Profiles) -> Floats:
    return profiles.values / np.maximum(np.abs(profiles.values).max(axis=1, keepdims=True), 1e-30)


def _first(profiles: Profiles, start: Floats) -> tuple[Floats, Floats, float]:
    """Return the fit to the whole profiles, each value counting alike."""
    return _fit(profiles, _scaled(profiles), start, np.ones(profiles.values.shape))


def _refine(
    profiles: Profiles, fit: Floats, model: Floats, rounds: int = ROUNDS
) -> tuple[Floats, Floats, float]:
    """Return what `_fit` does, of what is near the slab, from a fit and its modelled profiles."""
    values, explained = _scaled(profiles), 0.0
    for _ in range(rounds):
        # Far outside, streaks of what lies in the slab change the level: only what is near
        # counts. A variance is as uncertain as it is large.
        middle = fit[0] + fit[2] * profiles.x + fit[3] * profiles.y
        near = np.abs(profiles.z - middle[:, None]) < (0.5 + SURROUNDINGS) * fit[1]
        if near.sum(axis=1).min() < 8:
            break
        # Nor is one of a tile where there is nothing, and covariances are negative, better known.
        largest = model.max(axis=1, keepdims=True)
        floor = LEAST_VARIANCE * np.maximum(largest, np.median(largest))
        weights = near / np.maximum(np.maximum(model, floor), 1e-9) ** 2
        fit, found, explained = _fit(profiles, values, fit, weights)
        model = 0.5 * (model + found)  # or few things in a tile make rounds swing to and fro
    return fit, model, explained


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
        inside = (profiles.z - middle[:, None]) / max(abs(p[1]) / 2, step)
        inside = np.clip(inside, -1.2, 1.2)
        box = box * np.exp(np.clip(p[5] * inside + p[6] * inside**2, -5, 5))
        box = box - (box * weights).sum(axis=1, keepdims=True) / total
        norm = np.maximum((weights * box**2).sum(axis=1, keepdims=True), 1e-12)
        height = np.maximum((weights * box * values).sum(axis=1, keepdims=True) / norm, 0)
        return mean + height * box

    size = max(abs(float(start[1])), step)
    spread = sqrt(max(float((weights * (values - mean) ** 2).mean()), 1e-30))
    fit = least_squares(
        lambda p: (roots * (model(p) - values)).ravel() / spread,
        start,
        x_scale=[size / 10, size / 10, 0.02, 0.02, size / 20, 0.3, 0.3],
        loss="soft_l1",
        f_scale=0.5,
    )
    found = model(fit.x)
    left = (weights * (found - values) ** 2).sum() / max(
        (weights * (values - mean) ** 2).sum(), 1e-30
    )
    return fit.x, found, float(1 - left)
