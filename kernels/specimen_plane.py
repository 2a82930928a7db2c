"""The slab that a specimen's dense matter fills: how it lies, how thick it is.

Dense voxels of the matching volume are counted, each once, however dense: a few large objects
must not outweigh the many small ones. Their depths, sheared by the slab's slopes, have the
narrowest profile: the one with the largest Σ p². For matter between two planes that criterion
has a cusp, so the slopes are known far better than from a plane through the middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from kernels.arrays import Array, namespace, to_host
from kernels.fourier import fast_size
from kernels.matching_reference import DENSE, spread_of
from kernels.tilt_offset import LARGEST, Estimate

Floats = NDArray[np.float64]

BLOCK = 250.0  # Å across, within which depths are counted
# Voxels above so many standard deviations of the volume: streaks beside dense matter are below.
THRESHOLD = 2 * DENSE
# Blocks are left out in so many by so many tiles.
TILES = 4
# Fewer blocks with matter do not show a plane.
LEAST_BLOCKS = 40
LEAST_VOXELS = 2000
SMOOTH = 25.0  # standard deviation of what profiles are blurred with [Å]
# Standard error that is no knowledge of the slope any more [degrees].
USELESS = 3.0


@dataclass(frozen=True)
class Depths:
    """Numbers of dense voxels by block and depth.

    Attributes
    ----------
    counts : (nx, ny, nz) float64
    x, y, z : (nx,), (ny,), (nz,) float64
        Middles of the blocks and of the planes [Å].
    """

    counts: Floats
    x: Floats
    y: Floats
    z: Floats


@dataclass(frozen=True)
class Slab:
    """Where dense matter lies.

    Attributes
    ----------
    pretilt : (float, float)
        As of `kernels.geometry.defocus_gradient` [degrees]: Z = −X tan α, Z = Y tan γ.
    errors : (float, float)
        Their standard errors, from leaving parts of the field out [degrees].
    low, high : float
        Z at X = Y = 0 that leave 2 % of the matter below and above, perpendicular to no axis but
        along Z [Å].
    """

    pretilt: tuple[float, float]
    errors: tuple[float, float]
    low: float
    high: float

    @property
    def estimate(self) -> Estimate | None:
        """The tilt offset as this slab has it, None where the matter does not show it."""
        if self.errors[0] > USELESS or abs(self.pretilt[0]) > LARGEST - 0.5:
            return None
        return Estimate("matter", self.pretilt[0], self.errors[0])


def count_depths(volume: Array, voxel: float, field: tuple[int, int]) -> Depths:
    """Count the dense voxels of a matching volume.

    Parameters
    ----------
    volume : (nz, nx, ny) float32
    voxel : float
        Its size [Å].
    field : (int, int)
        Voxels along x and y around the centre that every view covers.
    """
    xp = namespace(volume)
    nz, nx, ny = volume.shape
    threshold = THRESHOLD * spread_of(volume)
    size = max(1, round(BLOCK / voxel))
    across, along = (max(1, min(f, n) // size) for f, n in zip(field, (nx, ny), strict=True))
    x0, y0 = nx // 2 - across * size // 2, ny // 2 - along * size // 2
    counts = np.empty((across, along, nz))
    for z in range(nz):
        part = volume[z, x0 : x0 + across * size, y0 : y0 + along * size] > threshold
        blocks = xp.reshape(xp.astype(part, xp.float32), (across, size, along, size))
        counts[..., z] = to_host(xp.sum(xp.sum(blocks, axis=3), axis=1))
    middle = (size - 1) / 2
    return Depths(
        counts,
        (x0 - nx // 2 + np.arange(across) * size + middle) * voxel,
        (y0 - ny // 2 + np.arange(along) * size + middle) * voxel,
        (np.arange(nz) - nz // 2) * voxel,
    )


def fit_slab(depths: Depths) -> Slab | None:
    """Find the slab that holds the counted voxels; None where there are too few."""
    counts = depths.counts
    if (counts.sum(axis=2) > 0).sum() < LEAST_BLOCKS or counts.sum() < LEAST_VOXELS:
        return None
    whole = _slopes(depths, np.ones(counts.shape[:2]), (0.0, 0.0), 2.0)
    tiles = [np.arange(n) * TILES // n for n in counts.shape[:2]]
    left_out = []
    for a in range(TILES):
        for b in range(TILES):
            kept = 1.0 - np.outer(tiles[0] == a, tiles[1] == b)
            left_out.append(_slopes(depths, kept, whole, 0.5))
    angles = np.degrees(np.arctan(np.array(left_out)))
    groups = len(angles)
    errors = np.sqrt((groups - 1) * angles.var(axis=0))
    profile = _profile(depths, counts.reshape(-1, counts.shape[2]), whole)
    share = np.cumsum(profile) / profile.sum()
    step = depths.z[1] - depths.z[0]
    low, high = (float(np.interp(p, share, depths.z + step / 2)) for p in (0.02, 0.98))
    pretilt = -float(np.degrees(np.arctan(whole[0]))), float(np.degrees(np.arctan(whole[1])))
    return Slab(pretilt, (float(errors[0]), float(errors[1])), low, high)


def _slopes(
    depths: Depths, kept: Floats, start: tuple[float, float], step: float
) -> tuple[float, float]:
    """Return the slopes dZ/dX, dZ/dY with the narrowest profile, by climbing from `start`."""
    counts = (depths.counts * kept[..., None]).reshape(-1, depths.counts.shape[2])
    known: dict[tuple[float, float], float] = {}
    limit = np.tan(np.radians(LARGEST))

    def score(slopes: tuple[float, float]) -> float:
        if slopes not in known:
            profile = _profile(depths, counts, slopes)
            known[slopes] = float(np.square(profile).sum() / max(profile.sum(), 1e-30) ** 2)
        return known[slopes]

    best = start
    if step > 1:  # one look at the whole range, so that climbing starts at the right hill
        coarse = np.tan(np.radians(np.arange(-LARGEST, LARGEST + 0.5, 1.0)))
        for axis in (0, 1, 0):
            trials = [(float(c), best[1]) if axis == 0 else (best[0], float(c)) for c in coarse]
            best = max(trials, key=score)
    size = float(np.tan(np.radians(min(step, 0.5))))
    while size > np.tan(np.radians(0.01)):
        around = [
            (best[0] + i * size, best[1] + j * size)
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            if abs(best[0] + i * size) <= limit and abs(best[1] + j * size) <= limit
        ]
        new = max(around, key=score)
        if score(new) <= score(best):
            size /= 2
        else:
            best = new
    return best


def _profile(depths: Depths, counts: Floats, slopes: tuple[float, float]) -> Floats:
    """Return the blurred numbers of voxels by depth below the sheared plane, (nz,)."""
    rise = (slopes[0] * depths.x[:, None] + slopes[1] * depths.y[None, :]).ravel()
    nz, step = len(depths.z), depths.z[1] - depths.z[0]
    # Moved by phases: interpolation would blur, but not where slopes hit the planes.
    n = fast_size(2 * nz)
    k = 2 * np.pi * np.fft.rfftfreq(n)
    low = np.exp(-0.5 * (k * SMOOTH / step) ** 2)
    kept = low > 1e-4
    spectrum = np.zeros(len(k), dtype=np.complex128)
    moved = scipy.fft.rfft(counts, n, axis=1)[:, kept]
    phases = np.exp(1j * np.outer(rise / step, k[kept]))
    spectrum[kept] = (moved * phases).sum(axis=0) * low[kept]
    return scipy.fft.irfft(spectrum, n)[:nz]
