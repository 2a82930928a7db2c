"""Motion of whole movie frames, and their aligned sums.

Shifts come from all pairs of frames at once (`kernels.motion_likelihood`); those with a field of
local motion from `kernels.motion_local`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Array, namespace
from kernels.fourier import binned_shape, crop_spectra, irfft2, rfft2, shift_phases, trim
from kernels.motion_local import estimate_motion


@dataclass(frozen=True)
class FrameShifts:
    """The motion of a movie.

    Attributes
    ----------
    shifts : (n, 2) float64
        Displacement (y, x) of the specimen in each frame relative to the first [pixels of the
        frames].
    uncertainty : (n,) float64
        Standard error per axis of each frame's place relative to the movie's mean [pixels].
    significance : float
        Summed cross-power of the aligned frames in standard deviations of noise. Noise alone,
        being aligned too, reached 5 to 8.5 in 130 simulated movies.
    reliable : bool
        False: nothing was found and all shifts are zero.
    """

    shifts: NDArray[np.float64]
    uncertainty: NDArray[np.float64]
    significance: float
    reliable: bool


@dataclass(frozen=True)
class Sums:
    """Aligned sums (ny, nx) float32 of all, the odd (1st, 3rd, …) and the even frames."""

    full: Array
    odd: Array
    even: Array


def estimate_shifts(
    frames: Iterable[Array],
    pixel_size: float,
    *,
    max_drift: float = 80.0,
    min_significance: float = 9.0,
) -> FrameShifts:
    """Measure the motion of the whole image through a movie.

    Parameters
    ----------
    frames : iterable of (ny, nx) float32
        Gain-corrected frames in order of time; read once, one at a time.
    pixel_size : float
        Of the frames [Å].
    max_drift : float
        Steady drift from first to last frame that the first search covers, per axis [Å].
    min_significance : float
        Below it the movie counts as dark: zero shifts, not reliable.

    Returns
    -------
    FrameShifts

    Raises
    ------
    ValueError
        If there are no frames, or they differ in shape.
    """
    motion = estimate_motion(
        frames, pixel_size, max_drift=max_drift, min_significance=min_significance, local=False
    )
    return FrameShifts(
        motion.shifts, motion.uncertainty, motion.significance, motion.model != "none"
    )


def sum_frames(
    frames: Iterable[Array],
    shifts: NDArray[np.float64],
    binning: float = 1.0,
    filters: Iterable[Array] | None = None,
) -> Sums:
    """Move every frame back by its displacement and add, with a single interpolation.

    A phase ramp moves each frame to the place of a displacement of zero, Fourier cropping bins
    it; odd + even = full. What leaves the image on one side comes in on the other.

    Parameters
    ----------
    frames : iterable of (ny, nx) float32
        Read once, one at a time.
    shifts : (n, 2)
        Displacement (y, x) of the specimen in each frame [pixels of the frames].
    binning : float
        Old pixels per new pixel; the mean is kept, so the values of a new pixel are the average
        of those of the old ones.
    filters : iterable of (new ny, new nx // 2 + 1), optional
        Factor on the binned half spectrum of each frame, e.g. its exposure weights.

    Returns
    -------
    Sums
        Images of ⌊size / binning⌋ pixels, the centre pixel kept.

    Raises
    ------
    ValueError
        If the numbers of frames, shifts and filters differ.
    """
    halves: list[Array | None] = [None, None]
    shifts = np.asarray(shifts, dtype=np.float64)
    factors = None if filters is None else list(filters)
    if factors is not None and len(factors) != len(shifts):
        raise ValueError(f"{len(factors)} filters for {len(shifts)} shifts, one each is needed")
    count, new_shape = 0, (0, 0)
    for count, frame in enumerate(frames, 1):
        if count > len(shifts):
            raise ValueError(f"there are more frames than the {len(shifts)} shifts")
        new_shape, used = binned_shape(tuple(frame.shape[-2:]), binning)
        spectrum = crop_spectra(rfft2(trim(frame, used)), used, new_shape)
        dy, dx = shifts[count - 1] * np.asarray(new_shape) / np.asarray(used)
        spectrum = spectrum * shift_phases(new_shape, -dy, -dx, spectrum)
        if factors is not None:
            spectrum = spectrum * factors[count - 1]
        half = halves[(count - 1) % 2]
        halves[(count - 1) % 2] = spectrum if half is None else half + spectrum
    if count != len(shifts) or count == 0:
        raise ValueError(f"{count} frames for {len(shifts)} shifts, one shift each is needed")
    odd = irfft2(halves[0], new_shape)
    even = namespace(odd).zeros_like(odd) if halves[1] is None else irfft2(halves[1], new_shape)
    return Sums(full=odd + even, odd=odd, even=even)
