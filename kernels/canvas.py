"""Half spectra of large images, cropped on the way: what lies beyond is never computed.

An image is laid on a canvas of a size that transforms fast. Its margin goes from the image
mirrored at the one edge over to the image mirrored at the other, so that nothing wraps around
and no step rings. Rows are transformed first, and only the columns kept are transformed then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, pi

import numpy as np
import scipy.fft

from kernels.arrays import Array, asarray_like, device, is_numpy, namespace
from kernels.fourier import Shape, binned_shape, fast_size, irfft2, trim
from kernels.threads import thread_count

ROWS, COLUMNS = 64, 64  # that are transformed at once and stay in the cache
MARGIN = 16  # pixels at least, for steps to fade

Take = Callable[[slice, Array], None]


@dataclass(frozen=True)
class Canvas:
    """Sizes (ny, nx) of an image on its way.

    Attributes
    ----------
    image : of the image as it comes
    padded : with its margin
    cropped : of `padded` after binning
    binned : of the image after binning
    """

    image: Shape
    padded: Shape
    cropped: Shape
    binned: Shape


def canvas(shape: Shape, binning: float, margin: float = 0) -> Canvas:
    """Choose the sizes for images of `shape`.

    Parameters
    ----------
    shape : (ny, nx)
    binning : float
        Old pixels per new pixel, at least 1.
    margin : float
        Pixels wanted between the image's one edge and, across the border, the other.

    Raises
    ------
    ValueError
        If `binning` is below 1 or makes no whole number of pixels.
    """
    binned, _ = binned_shape(shape, binning)
    lengths = [_lengths(n, binning, max(MARGIN, ceil(margin))) for n in shape]
    padded, cropped = zip(*lengths, strict=True)
    return Canvas(shape, (padded[0], padded[1]), (cropped[0], cropped[1]), binned)


def _lengths(length: int, binning: float, margin: int) -> tuple[int, int]:
    """Return a fast length ≥ `length` + `margin` and what is left of it by `binning`."""
    least = length + min(margin, length // 2)
    found = []
    for new in range(ceil(least / binning), int(2 * length / binning) + 1):
        old = round(new * binning)
        if old >= least and abs(old - new * binning) <= 1e-5 * old:
            slow = not (fast_size(old) == old and fast_size(new) == new)
            found.append((slow, old, new))
            if not slow:
                break
    if not found:
        raise ValueError(f"binning {binning} makes no whole number of pixels of {length}")
    return min(found)[1:]


def add_spectrum(image: Array, sizes: Canvas, shift: tuple[float, float], take: Take) -> None:
    """Transform an image whose content is displaced by `shift`, undoing that.

    Parameters
    ----------
    image : (ny, nx) float32
    sizes : Canvas
    shift : (y, x)
        [pixels of the image]
    take : callable
        Is given pieces (cropped ny, columns) complex64 of the half spectrum, after a slice that
        tells which columns; several at once where threads are used. The binned image's centre
        pixel lies at the centre pixel of the cropped image, and its mean is kept.
    """
    xp = namespace(image)
    fft = scipy.fft if is_numpy(image) else xp.fft
    (py, px), (qy, qx) = sizes.padded, sizes.cropped
    ramps = []
    for n, p, q, d, axis in zip(sizes.image, sizes.padded, sizes.cropped, shift, "yx", strict=True):
        k = scipy.fft.fftfreq(q, 1 / q) if axis == "y" else np.arange(q // 2 + 1)
        phases = np.exp(-2j * pi * k / p * (q // 2 * p / q - n // 2 - d)) * (q / p)
        ramps.append(asarray_like(phases.astype(np.complex64), image))
    rows = xp.empty((sizes.image[0], qx // 2 + 1), dtype=xp.complex64, device=device(image))
    upper = (qy + 1) // 2

    def transform_rows(piece: slice) -> None:
        extended = _extended(image[piece, :], px, 1)
        rows[piece, :] = fft.rfft(extended, axis=1)[:, : qx // 2 + 1] * ramps[1][None, :]

    def transform_columns(piece: slice) -> None:
        full = fft.fft(_extended(rows[:, piece], py, 0), axis=0)
        kept = full if py == qy else xp.concat([full[:upper, :], full[py - qy + upper :, :]])
        take(piece, kept * ramps[0][:, None])

    with workers(image) as run:
        run(transform_rows, sizes.image[0], ROWS)
        run(transform_columns, qx // 2 + 1, COLUMNS)


def cropped_image(spectrum: Array, sizes: Canvas) -> Array:
    """Return the binned image (ny, nx) of a half spectrum made by `add_spectrum`."""
    with scipy.fft.set_workers(_threads(spectrum)):
        return trim(irfft2(spectrum, sizes.cropped), sizes.binned)


@contextmanager
def workers(image: Array) -> Iterator[Callable[[Callable[[slice], None], int, int], None]]:
    """Give a function that spreads pieces of work over threads where `image` is a NumPy array.

    It is called with the work, the number of rows (or columns), and how many make a piece.
    Other namespaces do all at once.
    """
    with ThreadPoolExecutor(_threads(image)) as pool:

        def run(work: Callable[[slice], None], count: int, size: int) -> None:
            step = size if is_numpy(image) else count
            pieces = [slice(i, min(i + step, count)) for i in range(0, count, step)]
            list(pool.map(work, pieces))  # list: wait, and raise what they raised

        yield run


def _threads(image: Array) -> int:
    if not is_numpy(image):
        return 1

    return thread_count()


def _extended(image: Array, length: int, axis: int) -> Array:
    """Add the margin behind the end of an axis: from the mirrored end to the mirrored start."""
    xp = namespace(image)
    margin = length - image.shape[axis]
    if not margin:
        return image
    fade = 0.5 - 0.5 * np.cos(pi * (np.arange(margin) + 0.5) / margin)
    weight = asarray_like(fade.astype(np.float32), image)
    weight = weight[None, :] if axis == 1 else weight[:, None]
    back = xp.flip(image, axis=axis)
    first, last = (
        (back[:, :margin], back[:, -margin:])
        if axis == 1
        else (back[:margin, :], back[-margin:, :])
    )
    return xp.concat([image, first * (1 - weight) + last * weight], axis=axis)
