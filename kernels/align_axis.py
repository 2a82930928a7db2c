"""The tilt axis by common lines: what runs along the axis looks the same in every view.

Tilting moves matter across the axis only. So the sum of a view across the axis is a line that is
the same in all views; for a wrong axis it is not. Half a turn of the axis, which reverses the hand,
gives the same lines and cannot be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, tan

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from kernels.align_coarse import coverage, stretch
from kernels.arrays import Array, namespace, to_host
from kernels.geometry import View
from kernels.resample import resample, sampling

Floats = NDArray[np.float64]
Lines = NDArray[np.complex128]

LINE_BAND = (0.01, 0.25)  # cycles per pixel of a line that are compared
WIDTH = 0.42  # half-width of the strip across the axis in the untilted view, of its side
STEP = 0.5  # degrees between angles that are tried
SHEARED = 10.0  # degrees to either side that one turned view serves, by shearing it
GROUPS = 10  # of views, left out in turn for the standard error
LEAST_VIEWS = 5
SMOOTHED = 7  # frequencies over which it is told what lines have alike
LEAST_DIFFERENCE = 1.0  # degrees


@dataclass(frozen=True)
class AxisEstimate:
    """Where the tilt axis seems to lie.

    Attributes
    ----------
    axis : float
        Counter-clockwise from image +y, within ±90° of the given one [degrees].
    error : float
        Standard error, from leaving out groups of views in turn [degrees].
    angles, scores : (n,) float64
        What was tried [degrees], and the mean correlation of each view's line with all others'.
    """

    axis: float
    error: float
    angles: Floats
    scores: Floats


def differs(found: float, given: float, error: float) -> bool:
    """Tell whether an axis found with a standard error contradicts a given one [degrees].

    The error counts what scatters between views. What all have in common, such as little matter or
    matter that high tilts bring into the strip, adds up to a degree in small fields: less than
    `LEAST_DIFFERENCE` is no contradiction.
    """
    apart = (found - given + 90) % 180 - 90
    return bool(abs(apart) > max(LEAST_DIFFERENCE, 4 * error))


def trial_angles(search: float) -> Floats:
    """Return the angles that are tried, on both sides of the given one [degrees]."""
    count = round(search / STEP)
    return np.asarray(STEP * np.arange(-count, count + 1), dtype=np.float64)


def lines_of(image: Array, view: View, pixel_size: float, angles: Floats) -> Lines:
    """Return the spectra of a view's sums across a tilt axis turned by each of `angles`.

    Parameters
    ----------
    image : (ny, nx) float32
    view : View
        As aligned so far; the axis that the angles are counted from.
    pixel_size : float
        Of `image` [Å].
    angles : (n,)
        Degrees.

    Returns
    -------
    (n, frequencies) complex128
        Within `LINE_BAND`.
    """
    lines: list[Lines] = []
    frames = np.round(angles / (2 * SHEARED)) * 2 * SHEARED
    for frame in np.unique(frames):
        turned = View(view.tilt, view.axis + float(frame), view.shift_x, view.shift_y)
        inside = np.flatnonzero(frames == frame)
        lines.append(_sheared_lines(image, turned, pixel_size, angles[inside] - frame))
    return np.concatenate(lines)


def _sheared_lines(image: Array, view: View, pixel_size: float, angles: Floats) -> Lines:
    xp = namespace(image)
    shape = (int(image.shape[0]), int(image.shape[1]))
    side = 2 * (min(shape) // 2)
    frame = (side, side)
    matrix, offset = sampling(view, pixel_size, shape, frame)
    level = image - xp.mean(image)
    level = level / (float(xp.std(level)) or 1.0)
    turned = resample(level, matrix, offset, frame, fill=0.0)
    turned = turned * coverage(matrix, offset, shape, frame, image)
    # The same strip of the specimen in all views: narrower with the tilt.
    x = np.arange(side) - side // 2
    strip = _faded(x, WIDTH * side * stretch(view.tilt))
    low, high = (ceil(f * side) for f in LINE_BAND)
    columns = np.asarray(to_host(turned)) * (strip / np.sqrt((strip**2).sum()))
    spectra = scipy.fft.rfft(columns, axis=0)[: high + 1].astype(np.complex64)
    spectra[:low] = 0
    k = np.arange(high + 1)[:, None] / side
    # Along the line across an axis turned by the angle, y grows by x tan(angle).
    kept = np.flatnonzero(strip > 0)
    rows = []
    for angle in np.radians(angles):
        phases = np.exp(2j * np.pi * tan(angle) * (k * x[kept])).astype(np.complex64)
        rows.append((spectra[:, kept] * phases).sum(axis=1))
    # Cut alike for all angles: the image's own edges would have a say about the axis.
    lines = scipy.fft.irfft(np.array(rows), side, axis=1) * _faded(x, WIDTH * side)
    return np.asarray(scipy.fft.rfft(lines, axis=1)[:, low : high + 1], dtype=np.complex128)


def _faded(x: NDArray[np.int64], half: float) -> Floats:
    """Return a window at places `x`, 1 in the middle and 0 beyond `half`."""
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip((np.abs(x) / half - 0.7) / 0.3, 0, 1)))


def estimate_axis(lines: Sequence[Lines], axis: float, angles: Floats) -> AxisEstimate:
    """Return the angle at which the lines of all views agree best.

    Parameters
    ----------
    lines : sequence of (n, frequencies) complex128
        Of each view, from `lines_of`.
    axis : float
        That the angles are counted from [degrees].
    angles : (n,)
        Degrees.

    Raises
    ------
    ValueError
        With fewer than `LEAST_VIEWS` views.
    """
    if len(lines) < LEAST_VIEWS:
        raise ValueError(f"{len(lines)} views, a tilt axis needs at least {LEAST_VIEWS}")
    stack = np.stack(list(lines))
    stack = stack * _weights(stack)
    strength = np.sqrt((np.abs(stack) ** 2).sum(axis=2, keepdims=True))
    stack = stack / np.maximum(strength, 1e-12)
    scores = _scores(stack)
    best = _maximum(angles, scores)
    error = _jackknife(stack, angles, best)
    return AxisEstimate(axis + best, error, axis + angles, scores)


def _jackknife(stack: NDArray[np.complex128], angles: Floats, best: float) -> float:
    """Return the standard error from leaving out groups of views in turn."""
    group = np.arange(len(stack)) % min(GROUPS, len(stack))
    left = np.array([_maximum(angles, _scores(stack[group != g]), best) for g in np.unique(group)])
    return float(np.sqrt((len(left) - 1) * np.mean((left - left.mean()) ** 2)))


def _weights(stack: NDArray[np.complex128]) -> Floats:
    """Return what makes all frequencies of equal power, times the share that the views have alike.

    The first, or the coarsest features would decide alone; the second, or noise would.
    """
    n = len(stack)
    power = (np.abs(stack) ** 2).mean(axis=0)
    common = (n**2 * np.abs(stack.mean(axis=0)) ** 2 / n - power) / (n - 1)
    smooth = uniform_filter1d(common, SMOOTHED, axis=1) / uniform_filter1d(
        power + 1e-12, SMOOTHED, axis=1
    )
    alike = np.clip(smooth.max(axis=0), 0.01, 1.0)
    return np.asarray(alike / np.sqrt(power.mean(axis=0) + 1e-12))


def _scores(stack: NDArray[np.complex128]) -> Floats:
    """Return the mean correlation of each view's line with the sum of all others'."""
    rest = stack.sum(axis=0) - stack
    alike = (np.conj(stack) * rest).sum(axis=2).real
    return np.asarray((alike / np.sqrt((np.abs(rest) ** 2).sum(axis=2))).mean(axis=0))


def _maximum(angles: Floats, scores: Floats, near: float | None = None) -> float:
    """Return the angle of the highest score, by a parabola through the five scores around it."""
    seen = scores if near is None else np.where(np.abs(angles - near) <= 5, scores, -np.inf)
    at = int(np.argmax(seen))
    low, high = max(0, at - 2), min(len(angles), at + 3)
    if high - low < 5:
        return float(angles[at])
    bend, slope, _ = np.polyfit(angles[low:high] - angles[at], scores[low:high], 2)
    if bend >= 0:
        return float(angles[at])
    return float(angles[at] + np.clip(-slope / (2 * bend), -1, 1))
