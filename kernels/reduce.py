"""Reduction of images by any factor without aliasing: mean and centre pixel kept.

By default frequencies above the new Nyquist frequency are cut off, along x and then along y: rows
and columns are independent, so each pass stays in the cache. A transform takes the end of an axis
for the neighbour of its beginning, and the step between them for detail. So an axis that fits is
levelled first; another one is continued by its mirror image, which fades into the mirror image of
its beginning, up to a length of a whole number of new pixels whose transform is fast.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from kernels.antialias import KERNELS, reduce_by_kernel
from kernels.arrays import Array, asarray_like, is_numpy, namespace
from kernels.fourier import Shape

FILTERS = ("fourier", *KERNELS)
MARGIN = 16  # new pixels by which an axis is continued, at least
DEVIATION = 0.002  # old pixels: by how much a new pixel at the end may miss its place
FAR = 1 << 15  # pixels: longest transform tried for factors such as 1.0001
BLOCK = 1 << 17  # pixels transformed at once: their spectra fit into a core's cache


def reduced_shape(shape: Shape, factor: float) -> Shape:
    """Return the size of images (ny, nx) after reduction by `factor` ≥ 1: ⌊n / factor⌋.

    Raises
    ------
    ValueError
        If `factor` is below 1, or leaves nothing.
    """
    if not factor >= 1:
        raise ValueError(f"binning is {factor}, it must be at least 1")
    ny, nx = (int(n / factor + 1e-9) for n in shape)
    if min(ny, nx) < 1:
        raise ValueError(f"binning {factor} leaves nothing of {shape[0]}×{shape[1]} pixels")
    return ny, nx


def reduced_places(length: int, factor: float) -> NDArray[np.float64]:
    """Return where on an axis of `length` pixels the reduced pixels have their centres.

    Pixel m // 2 of the m reduced ones lies on pixel length // 2.
    """
    new = int(length / factor + 1e-9)
    return length // 2 + factor * np.arange(-(new // 2), new - new // 2, dtype=np.float64)


def reduce_image(image: Array, factor: float, kernel: str = "fourier") -> Array:
    """Reduce an image by any factor; its mean and its centre pixel are kept.

    Parameters
    ----------
    image : (ny, nx) float32
    factor : float
        Old pixels per new pixel, at least 1; it need not be whole.
    kernel : str
        One of `FILTERS`: "fourier" cuts at the new Nyquist frequency, the others are IMOD's, which
        let some of what is above it through.

    Returns
    -------
    (⌊ny / factor⌋, ⌊nx / factor⌋) float32
        Pixel (my // 2, mx // 2) has the place of the image's pixel (ny // 2, nx // 2).

    Raises
    ------
    ValueError
        If the image has not two axes, `factor` is below 1, or the kernel is unknown.
    """
    if image.ndim != 2:
        raise ValueError(f"image has {image.ndim} axes, expected 2: (ny, nx)")
    if kernel not in FILTERS:
        raise ValueError(f"filter is {kernel!r}, expected one of {', '.join(FILTERS)}")
    reduced_shape(image.shape, factor)
    if factor == 1:
        return image
    if kernel == "fourier":
        out = _cut_off(_cut_off(image, factor, 1), factor, 0)
    else:
        y, x = (reduced_places(n, factor) for n in image.shape)
        out = reduce_by_kernel(image, (y, x), factor, kernel)
    # What lies beyond the last new pixels, and the weights there, would change it in the 5th digit.
    return out + asarray_like(np.float32(mean_of(image) - mean_of(out)), image)


def mean_of(image: Array) -> float:
    """Return the mean of an image, added up in double precision."""
    xp = namespace(image)
    return float(xp.sum(image, dtype=xp.float64)) / (image.shape[0] * image.shape[1])


def _cut_off(image: Array, factor: float, axis: int) -> Array:
    """Reduce one axis of an image (ny, nx) by cutting off its high frequencies."""
    cut = _cutter(image.shape[axis], factor, axis, image)
    if axis == 0 or not is_numpy(image):
        return cut(image)
    out = np.empty((image.shape[0], int(image.shape[1] / factor + 1e-9)), dtype=np.float32)
    rows = max(8, BLOCK // image.shape[1])
    for start in range(0, len(out), rows):
        out[start : start + rows] = cut(image[start : start + rows])
    return out


def _cutter(length: int, factor: float, axis: int, like: Array) -> Callable[[Array], Array]:
    """Return the function that reduces the axis of images that is `length` long."""
    xp = namespace(like)
    places = reduced_places(length, factor)
    new, (long, short) = len(places), _transform_lengths(length, factor)
    # The frequency at the new Nyquist has no phase of its own: it is left out.
    kept = (short + 1) // 2
    phases = np.exp(2j * np.pi * places[0] / long * np.arange(kept)) * (short / long)

    def along(values: NDArray[Any]) -> Array:
        return asarray_like(values.reshape((1, -1) if axis == 1 else (-1, 1)), like)

    def first_of(values: Array, n: int) -> Array:
        return values[:, :n] if axis == 1 else values[:n, :]

    ramp = along(phases.astype(np.complex64))

    def cut(lines: Array) -> Array:
        spectra = first_of(_rfft(lines, axis), kept) * ramp
        return first_of(_irfft(spectra, short, axis), new)

    if long == length:
        ends = along(_slope_weights(length, factor))
        # What a cut-off makes of a slope, taken away, and the slope put in its place.
        missed = along(places.astype(np.float32)) - cut(along(np.arange(length, dtype=np.float32)))

        def levelled(lines: Array) -> Array:
            slopes = xp.matmul(lines, ends.T) if axis == 1 else xp.matmul(ends.T, lines)
            return cut(lines) + slopes * missed

        return levelled

    onward, back, fade = _continuation(length, long - length)
    onward, back, fade = asarray_like(onward, like), asarray_like(back, like), along(fade)

    def continued(lines: Array) -> Array:
        start, end = xp.take(lines, back, axis=axis), xp.take(lines, onward, axis=axis)
        return cut(xp.concat([lines, start + fade * (end - start)], axis=axis))

    return continued


def _slope_weights(length: int, factor: float) -> NDArray[np.float32]:
    """Return weights that add an axis up to its rise per pixel between its two ends.

    An end is a smooth mean over some new pixels, to which fine detail does not add.
    """
    wide = min(length // 3, ceil(MARGIN * factor))
    end = 1 + np.cos(np.pi * np.arange(wide) / max(wide, 1))
    weights = np.zeros(length)
    weights[:wide] -= end
    weights[length - wide :] += end[::-1]
    rise = float(weights @ np.arange(length))
    return np.asarray(weights / rise if rise else weights, dtype=np.float32)


def _continuation(length: int, beyond: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return pixels that lead on from the end of an axis, and up to its beginning.

    And the weight of the former, which fades.
    """
    steps = np.arange(beyond)
    onward, back = (
        np.minimum(i % (2 * length), 2 * length - 1 - i % (2 * length))
        for i in (length + steps, steps - beyond)
    )
    fade = 0.5 + 0.5 * np.cos(np.pi * (steps + 0.5) / beyond)
    return onward, back, fade.astype(np.float32)


def _transform_lengths(length: int, factor: float) -> tuple[int, int]:
    """Return lengths of the transforms, long and short, whose ratio is `factor` as near as needed.

    At the end of the axis the deviation moves no pixel by more than `DEVIATION`, or else it is the
    smallest that there is.
    """
    new = int(length / factor + 1e-9)
    if abs(new * factor - length) <= 1e-6 and _is_fast(length):
        return length, new
    least = length + ceil(MARGIN * factor)
    for more in (max(512, length // 4), FAR):
        long = np.arange(least, least + more)
        short = np.rint(long / factor).astype(np.int64)
        missed = np.abs(long / short / factor - 1) * length / 2
        good = np.flatnonzero(missed <= DEVIATION)
        if len(good):
            fast = [i for i in good if _is_fast(int(long[i])) and _is_fast(int(short[i]))]
            half = [i for i in good if _is_fast(int(long[i]))]
            chosen = int((fast or half or list(good))[0])
            return int(long[chosen]), int(short[chosen])
    nearest = int(np.argmin(missed))
    return int(long[nearest]), int(short[nearest])


def _is_fast(length: int) -> bool:
    return scipy.fft.next_fast_len(length, real=True) == length


def _rfft(lines: Array, axis: int) -> Array:
    if is_numpy(lines):
        return scipy.fft.rfft(lines, axis=axis)
    return namespace(lines).fft.rfft(lines, axis=axis)


def _irfft(spectra: Array, length: int, axis: int) -> Array:
    if is_numpy(spectra):
        return scipy.fft.irfft(spectra, n=length, axis=axis)
    return namespace(spectra).fft.irfft(spectra, n=length, axis=axis)
