"""CTF correction of a tilted view in strips: the defocus changes linearly across the image.

A flat specimen's defocus is constant along the tilt axis. Where it is constant, the image is
corrected at one defocus; strips of neighbouring defoci, parallel to those lines whatever their
direction in the image, are blended linearly.

Of the whole view one transform is taken, and one inverse transform for each strip, of which only
the strip is used. Transforming padded strips instead, as is common, cuts off what electrons have
carried away, and a flip's square wave has harmonics that reach three and five times as far.
Measured on white noise, 1024² at 60°, 3 µm, strips of 15 nm, against the whole view (rms error of
the padded strips, their time over that of the whole view):

* 5.4 Å, padding 16, 64, 256 pixels: flipped 30, 19, 8 %, multiplied 2.8, 1.2, 0.3 %; 0.2, 0.3, 1;
* 1.35 Å, padding 64, 256 pixels: flipped 64, 41 %, multiplied 46, 1.4 %; 0.3, 0.6.

What is cheap and right is a larger distance of strips: blended, they err with its square.

References
----------
.. [1] Q. Xiong et al., J. Struct. Biol. 168:378 (2009): phase flipping by strips.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.arrays import Array, asarray_like, is_numpy, namespace
from kernels.ctf import Ctf, wavelength
from kernels.ctf_correct import OPTIONS, Correction, correct_spectrum, half_turns
from kernels.ctf_slope import Slope, Strips
from kernels.fourier import Shape, fast_size, frequencies, irfft2, rfft2

SMALLEST_MARGIN = 16  # pixels
ROUNDING = 1e-6  # of a level: what is looked at is a little more than what has a weight


def correct_strips(
    image: Array,
    ctf: Ctf,
    pixel_size: float,
    slope: Slope,
    strips: Strips,
    correction: Correction,
    margin: int | None = None,
) -> Array:
    """Return a view corrected for its CTF in strips; its mean is kept.

    Parameters
    ----------
    image : (ny, nx) float32
    ctf : Ctf
        Of the view, in the frame of the image.
    pixel_size : float
        In Å.
    slope : Slope
    strips : Strips
        Of `lay_strips` for this image.
    correction : Correction
    margin : int, optional
        By which the mirrored image is continued on every side [pixels]; default: as far as
        electrons travel sideways.

    Returns
    -------
    (ny, nx) float32, where `image` lives
    """
    shape = (image.shape[0], image.shape[1])
    xp = namespace(image)
    mean = xp.mean(image)
    if margin is None:
        margin = margin_of(ctf, pixel_size, strips)
    padded, corner = _mirrored(image - mean, margin)
    spectrum = rfft2(padded)
    size = (padded.shape[0], padded.shape[1])
    ky, kx = frequencies(size, spectrum, pixel_size)
    h = half_turns(ky, kx, ctf)
    rows, columns = (slice(start, start + n) for start, n in zip(corner, shape, strict=True))
    if is_numpy(image):
        out = np.full(shape, mean, np.float32)
    else:
        out = xp.zeros_like(image) + mean
        levels = _levels(shape, pixel_size, slope, strips, image)
    for place, offset in enumerate(strips.offsets.tolist()):
        found = correct_spectrum(spectrum, h, ky, kx, offset, ctf.voltage, correction, ctf)
        flat = irfft2(found, size)[rows, columns]
        if len(strips.offsets) == 1:
            return out + flat
        if is_numpy(image):
            scale = pixel_size / strips.step
            middle = (slope.middle - strips.offsets[0]) / strips.step
            by_y, by_x, last = scale * slope.y, scale * slope.x, len(strips.offsets) - 1
            _add_strip(out, flat, by_y, by_x, middle, place, last, strips.blend)
        else:
            out = out + flat * _weights(levels, place, strips.blend)
    return out


def reference_correct_strips(
    image: NDArray[np.floating],
    ctf: Ctf,
    pixel_size: float,
    slope: Slope,
    strips: Strips,
    correction: Correction,
    margin: int,
) -> NDArray[np.float64]:
    """Return what `correct_strips` does, plainly and in double precision but for the factors."""
    values = np.asarray(image, dtype=np.float64)
    mean = values.mean()
    padded, corner = _mirrored(values - mean, margin)
    size: Shape = (padded.shape[0], padded.shape[1])
    ky, kx = frequencies(size, np.zeros(1, np.float32), pixel_size)
    h, ones = half_turns(ky, kx, ctf), np.ones((size[0], size[1] // 2 + 1), np.complex64)
    spectrum, out = np.fft.rfft2(padded), np.full(values.shape, mean)
    levels = _levels(image.shape, pixel_size, slope, strips, np.zeros(1, np.float32))
    for place, offset in enumerate(strips.offsets.tolist()):
        factor = correct_spectrum(ones, h, ky, kx, offset, ctf.voltage, correction, ctf)
        flat = np.fft.irfft2(spectrum * factor.real, size)
        part = flat[corner[0] : corner[0] + image.shape[0], corner[1] : corner[1] + image.shape[1]]
        out += part * (_weights(levels, place, strips.blend) if len(strips.offsets) > 1 else 1)
    return out


def margin_of(ctf: Ctf, pixel_size: float, strips: Strips) -> int:
    """Return how far electrons travel sideways at the highest frequency, and more [pixels].

    Parameters
    ----------
    ctf : Ctf
    pixel_size : float
        In Å.
    strips : Strips
    """
    length, k = wavelength(ctf.voltage), 0.5 * sqrt(2) / pixel_size
    defocus = abs(ctf.defocus) + 0.5 * abs(ctf.astigmatism) + float(np.abs(strips.offsets).max())
    sideways = length * defocus * k - ctf.cs * 1e7 * length**3 * k**3
    return SMALLEST_MARGIN + ceil(abs(sideways) / pixel_size)


def _mirrored(image: Array, margin: int) -> tuple[Array, tuple[int, int]]:
    """Return an image continued by its mirror image to a fast size, and its corner therein."""
    xp = namespace(image)
    corner = []
    for axis in (0, 1):
        n = image.shape[axis]
        size = fast_size(n + 2 * margin)
        before = (size - n) // 2
        places = np.arange(size) - before
        turn = places % (2 * n)
        index = asarray_like(np.where(turn < n, turn, 2 * n - 1 - turn), image)
        image = xp.take(image, index, axis=axis)
        corner.append(before)
    return image, (corner[0], corner[1])


def _levels(
    shape: tuple[int, ...], pixel_size: float, slope: Slope, strips: Strips, like: Array
) -> Array:
    """Return where each pixel lies between the strips: 0 at the first one's middle, 1 at the next.

    Pixels beyond the middles of the outermost strips are theirs alone. All weights of a pixel are
    made from this one number, so that no rounding gives it to none of two strips, or to both.
    """
    xp = namespace(like)
    y, x = (pixel_size * (np.arange(n) - n // 2) for n in shape)
    rows = (slope.middle - strips.offsets[0] + slope.y * y) / strips.step
    columns = slope.x * x / strips.step
    levels = asarray_like(rows.astype(np.float32)[:, None], like) + asarray_like(
        columns.astype(np.float32)[None, :], like
    )
    return xp.clip(levels, 0.0, float(len(strips.offsets) - 1))


def _weights(levels: Array, place: int, blend: float) -> Array:
    """Return the weight of strip `place` at levels: of two strips the lower has what is left."""
    xp = namespace(levels)
    lower = xp.floor(levels)
    if blend == 0:  # the lower one has the pixel half-way
        upper = xp.astype(levels - lower > 0.5, xp.float32)
    else:
        upper = xp.clip(0.5 + (levels - lower - 0.5) / blend, 0.0, 1.0)
    none = xp.zeros_like(upper)
    return xp.where(lower == place, 1 - upper, xp.where(lower == place - 1, upper, none))


@njit(**OPTIONS)  # type: ignore[untyped-decorator]
def _add_strip(
    out: Any,
    flat: Any,
    by_y: float,
    by_x: float,
    middle: float,
    place: int,
    final: int,
    blend: float,
) -> None:
    """Add strip `place` of 0 … `final` to `out`; levels are `by_y` · y + `by_x` · x + `middle`."""
    ny, nx = out.shape
    reach = 0.5 * (1 + blend) + ROUNDING
    for y in range(ny):
        row = by_y * (y - ny // 2) + middle
        first, last = 0, nx - 1
        if by_x != 0:
            one, other = (place - reach - row) / by_x, (place + reach - row) / by_x
            # Of an axis that is nearly along x they may be beyond what an integer holds.
            low, high = min(max(min(one, other), -nx), nx), min(max(max(one, other), -nx), nx)
            first = max(0, int(np.floor(low)) + nx // 2)
            last = min(nx - 1, int(np.ceil(high)) + nx // 2)
        elif abs(row - place) > reach:
            continue
        for x in range(first, last + 1):
            level = min(max(row + by_x * (x - nx // 2), 0.0), float(final))
            lower = int(level)
            if blend > 0:
                weight = min(1.0, max(0.0, 0.5 + (level - lower - 0.5) / blend))
            else:
                weight = 1.0 if level - lower > 0.5 else 0.0
            if lower == place:  # of two strips the lower has what is left
                out[y, x] += np.float32(1 - weight) * flat[y, x]
            elif lower == place - 1:
                out[y, x] += np.float32(weight) * flat[y, x]
