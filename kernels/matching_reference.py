"""What matching sees: a view's features, the volume they make, and its dense part projected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.align_coarse import BAND, PreparedView, aligned_shape, band_pass, prepare_view
from kernels.arrays import Array, device, namespace
from kernels.correlate import Peak, cross_correlation, find_peak
from kernels.fourier import Shape, frequencies, irfft2, rfft2, shift_phases
from kernels.geometry import View
from kernels.matching_rays import dense_projection, smear

# Dense is what exceeds the volume's mean by so many of its standard deviations. From 2 to 4 the
# result on simulated series, with and without beads, is the same within 0.1 Å; 0 loses 1 Å.
DENSE = 2.5
# Voxels across x, relative to the views': high tilts see beyond the untilted field.
WIDTH = 1.25


@dataclass(frozen=True)
class Bench:
    """What all steps of one call share.

    Attributes
    ----------
    shape : (ny, nx)
        Of the aligned frame.
    pixel_size : float
        Of the images, and of the voxels [Å].
    used : tuple of int
        Indices of the views that take part.
    weight, ramp : (ny, nx // 2 + 1) float32
        Band-pass of what is correlated; the same times |kx|, of what is smeared.
    volume_shape : (nz, nx, ny)
    """

    shape: Shape
    pixel_size: float
    used: tuple[int, ...]
    weight: Array
    ramp: Array
    volume_shape: tuple[int, int, int]


def lay_bench(
    images: Array,
    views: Sequence[View],
    pixel_size: float,
    used: Sequence[bool],
    thickness: float,
) -> Bench:
    """Check a series and lay out what its matching needs.

    Raises
    ------
    ValueError
        If the numbers of images, views and flags differ, or fewer than 3 views are used.
    """
    n = int(images.shape[0])
    if not n == len(views) == len(used):
        raise ValueError(f"{n} images, {len(views)} views and {len(used)} flags: expected as many")
    chosen = tuple(i for i in range(n) if used[i])
    if len(chosen) < 3:
        raise ValueError(f"{len(chosen)} views are used, matching needs at least 3")
    ny, nx = aligned_shape(images.shape[1:], views[chosen[0]].axis)
    weight = band_pass((ny, nx), images, *BAND)
    ramp = 2 * weight * frequencies((ny, nx), images)[1]
    depth = max(1, round(thickness / pixel_size))
    return Bench((ny, nx), pixel_size, chosen, weight, ramp, (depth, round(WIDTH * nx), ny))


def prepare_on(image: Array, view: View, bench: Bench) -> PreparedView:
    """Level, taper and rotate one binned view into the aligned frame."""
    return prepare_view(image, view, bench.pixel_size, bench.shape)


def moved_back(spectrum: Array, move: NDArray[np.float64], bench: Bench) -> Array:
    """Move a view's content by −(dy, dx) pixels."""
    return spectrum * shift_phases(bench.shape, -float(move[0]), -float(move[1]), spectrum)


def feature_of(spectrum: Array, bench: Bench) -> Array:
    """Return what is smeared: the filtered view, matter positive, transposed to (x, y)."""
    return turned_over(-irfft2(spectrum * bench.ramp, bench.shape))


def smear_all(features: dict[int, Array], views: Sequence[View], bench: Bench) -> Array:
    """Return the volume (nz, nx, ny) of the features of all used views, by index of view."""
    like = next(iter(features.values()))
    xp = namespace(like)
    volume = xp.zeros(bench.volume_shape, dtype=like.dtype, device=device(like))
    for i, feature in features.items():
        smear(feature, views[i].tilt, volume)
    return volume


def spread_of(volume: Array) -> float:
    """Return the standard deviation of a volume, from every fourth plane."""
    return float(namespace(volume).std(volume[::4, ...]))


def depths_of(volume: Array, bench: Bench) -> tuple[float, float]:
    """Return the depths [Å] that leave 2 % of the dense matter below and above."""
    xp = namespace(volume)
    # Twice the threshold, and the cube: streaks above and below dense matter must not count.
    threshold = 2 * DENSE * spread_of(volume)
    matter = []
    for z in range(volume.shape[0]):
        above = volume[z, ...] - threshold
        above = xp.where(above > 0, above, xp.zeros_like(above))
        matter.append(float(xp.sum(above * above * above)))
    share = np.cumsum(matter) / max(sum(matter), 1e-30)
    edges = np.arange(len(matter)) + 0.5 - len(matter) // 2
    low, high = (float(np.interp(level, share, edges)) for level in (0.02, 0.98))
    return low * bench.pixel_size, high * bench.pixel_size


def project_reference(
    volume: Array, own: Array | None, tilt: float, count: int, spread: float, bench: Bench
) -> Array:
    """Return the projection of the dense part of `count` views, matter dark, as (y, x)."""
    threshold = DENSE * spread / count
    dense = dense_projection(volume, own, tilt, 1 / count, threshold, bench.shape[1])
    return turned_over(-dense)


def turned_over(image: Array) -> Array:
    """Return the transpose with its own rows contiguous, which the loops along y rely on."""
    xp = namespace(image)
    ny, nx = image.shape
    return xp.reshape(xp.reshape(xp.permute_dims(image, (1, 0)), (-1,)), (nx, ny))


def match_view(
    reference: Array, prepared: PreparedView, spectrum: Array, bench: Bench, max_shift: float
) -> tuple[Peak, float]:
    """Return where the view lies against its reference [pixels], and how alike they are."""
    xp = namespace(reference)
    covered = xp.astype(prepared.image != 0, reference.dtype)
    expected = rfft2(reference * covered) * bench.weight
    found = spectrum * bench.weight
    correlation = cross_correlation(expected, found, bench.shape)
    peak = find_peak(correlation, max_shift / bench.pixel_size)
    power = [float(xp.sum(irfft2(s, bench.shape) ** 2)) for s in (expected, found)]
    return peak, peak.height / max((power[0] * power[1]) ** 0.5, 1e-30)
