"""The slab that a specimen's dense matter fills: how it lies, how thick it is.

Dense voxels of the matching volume are counted, each once, however dense: a few large objects
must not outweigh the many small ones. Their depths, sheared by the slab's slopes, have the
narrowest profile: the one with the largest Σ p². For matter between two planes that criterion
has a cusp, so the slopes are known far better than from a plane through the middle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
# Blocks are left out in so many by so many tiles; the largest scatter counts, since what is larger
# than a tile, a virus or a membrane, makes its neighbours err alike.
TILINGS = (2, 3, 4)
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
    shear = _Shear.of(depths)
    whole = shear.best((0.0, 0.0), everywhere=True)
    errors = np.max([shear.errors(tiles, whole) for tiles in TILINGS], axis=0)
    profile = np.maximum(shear.profile(whole), 0)
    share = np.cumsum(profile) / profile.sum()
    step = depths.z[1] - depths.z[0]
    low, high = (float(np.interp(p, share, depths.z + step / 2)) for p in (0.02, 0.98))
    pretilt = -float(np.degrees(np.arctan(whole[0]))), float(np.degrees(np.arctan(whole[1])))
    return Slab(pretilt, (float(errors[0]), float(errors[1])), low, high)


@dataclass(frozen=True)
class _Shear:
    """Spectra of the blocks' profiles, to be moved by phases.

    Interpolation would blur the profiles, but not where slopes hit the planes.
    """

    spectra: NDArray[np.complex128]  # (nx, ny, k), blurred
    k: Floats  # radians / Å
    x: Floats
    y: Floats
    length: int
    planes: int

    @staticmethod
    def of(depths: Depths) -> _Shear:
        nz, step = len(depths.z), depths.z[1] - depths.z[0]
        n = fast_size(2 * nz)
        k = 2 * np.pi * np.fft.rfftfreq(n)
        low = np.exp(-0.5 * (k * SMOOTH / step) ** 2)
        kept = low > 1e-3
        spectra = scipy.fft.rfft(depths.counts, n, axis=2)[..., kept] * low[kept]
        return _Shear(spectra, k[kept] / step, depths.x, depths.y, n, nz)

    def without(self, blocks: NDArray[np.bool_]) -> _Shear:
        return replace(self, spectra=self.spectra * ~blocks[..., None])

    def errors(self, tiles: int, whole: tuple[float, float]) -> Floats:
        """Return the standard errors of the slopes `whole` [degrees], leaving tiles out in turn."""
        x, y = (np.arange(n) * tiles // n for n in self.spectra.shape[:2])
        left_out = [
            self.without(np.outer(x == a, y == b)).best(whole)
            for a in range(tiles)
            for b in range(tiles)
        ]
        angles = np.degrees(np.arctan(np.array(left_out)))
        return np.sqrt((len(angles) - 1) * angles.var(axis=0))

    def spectrum(self, slopes: tuple[float, float]) -> NDArray[np.complex128]:
        """Return the spectrum (k,) of the profile below the sheared plane."""
        along = np.exp(1j * slopes[1] * np.outer(self.y, self.k))
        across = np.exp(1j * slopes[0] * np.outer(self.x, self.k))
        return ((self.spectra * along).sum(axis=1) * across).sum(axis=0)

    def profile(self, slopes: tuple[float, float]) -> Floats:
        """Return the blurred numbers of voxels by depth below the sheared plane, (nz,)."""
        whole = np.zeros(self.length // 2 + 1, dtype=np.complex128)
        whole[: len(self.k)] = self.spectrum(slopes)
        return scipy.fft.irfft(whole, self.length)[: self.planes]

    def score(self, slopes: tuple[float, float]) -> float:
        """Return Σ p² of the profile but for constants."""
        power = np.abs(self.spectrum(slopes)) ** 2
        return float(power[1:].sum() / max(power[0], 1e-30))

    def best(self, start: tuple[float, float], *, everywhere: bool = False) -> tuple[float, float]:
        """Return the slopes dZ/dX, dZ/dY with the narrowest profile, by climbing from `start`."""
        limit = float(np.tan(np.radians(LARGEST)))
        best, size = start, float(np.tan(np.radians(0.5)))
        if everywhere:  # one look at the whole range, so that climbing starts at the right hill
            coarse = np.tan(np.radians(np.arange(-LARGEST, LARGEST + 0.5, 1.0))).tolist()
            for axis in (0, 1, 0):
                trials = [(c, best[1]) if axis == 0 else (best[0], c) for c in coarse]
                best = max(trials, key=self.score)
        height = self.score(best)
        while size > np.tan(np.radians(0.01)):
            around = [
                (best[0] + i * size, best[1] + j * size)
                for i, j in ((-1, 0), (1, 0), (0, -1), (0, 1))
                if abs(best[0] + i * size) <= limit and abs(best[1] + j * size) <= limit
            ]
            scores = [self.score(slopes) for slopes in around]
            highest = int(np.argmax(scores))
            if scores[highest] > height:
                best, height = around[highest], scores[highest]
            else:
                size /= 2
        return best
