"""Reduction of images by IMOD's antialias kernels: box, Blackman, triangle, Mitchell, Lanczos.

A kernel is as wide as the *new* pixels ask, K(d / factor) at a distance of d old pixels, applied
along y and x in one pass over the image. Its weights are normalised at every new pixel, so that
the margins keep their level [1]_ [2]_.

References
----------
.. [1] D. P. Mitchell, A. N. Netravali, Computer Graphics 22(4):221 (1988),
   doi:10.1145/378456.378514
.. [2] K. Turkowski, in Graphics Gems (1990) 147, doi:10.1016/B978-0-08-050753-8.50042-5
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.arrays import Array, asarray_like, is_numpy, namespace

Floats = NDArray[np.float64]


def _blackman(d: Floats) -> Floats:
    return 0.42 + 0.5 * np.cos(np.pi * d) + 0.08 * np.cos(2 * np.pi * d)


def _triangle(d: Floats) -> Floats:
    return 1 - d


def _mitchell(d: Floats) -> Floats:
    # B = C = 1/3: the middle of what observers of reference 1 found pleasant.
    near = (7 * d**3 - 12 * d**2 + 16 / 3) / 6
    far = (-7 / 3 * d**3 + 12 * d**2 - 20 * d + 32 / 3) / 6
    return np.where(d < 1, near, far)


def _lanczos2(d: Floats) -> Floats:
    return np.sinc(d) * np.sinc(d / 2)


def _lanczos3(d: Floats) -> Floats:
    return np.sinc(d) * np.sinc(d / 3)


# Reach in new pixels, and the value at a distance within it. A box is an area: see `weights`.
KERNELS: dict[str, tuple[float, Callable[[Floats], Floats]]] = {
    "box": (0.5, np.ones_like),
    "blackman": (1.0, _blackman),
    "triangle": (1.0, _triangle),
    "mitchell": (2.0, _mitchell),
    "lanczos2": (2.0, _lanczos2),
    "lanczos3": (3.0, _lanczos3),
}


def weights(
    length: int, places: Floats, factor: float, kernel: str
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return how the pixels of one axis add up to new pixels.

    Parameters
    ----------
    length : int
        Of the axis.
    places : (m,)
        Indices on that axis at which the new pixels have their centres.
    factor : float
        Old pixels per new pixel, at least 1.
    kernel : str
        One of `KERNELS`.

    Returns
    -------
    first : (m,) int64
        Old pixel that the first weight belongs to; the others follow it.
    weights : (m, taps) float32
        Each row adds up to 1; pixels beyond the ends of the axis have none.

    Raises
    ------
    ValueError
        If the kernel is unknown.
    """
    if kernel not in KERNELS:
        raise ValueError(f"antialias kernel is {kernel!r}, expected one of {', '.join(KERNELS)}")
    reach, value = KERNELS[kernel]
    taps = min(length, 2 * ceil(reach * factor + 0.5) + 1)
    first = np.clip(np.floor(places).astype(np.int64) - taps // 2, 0, length - taps)
    d = np.abs(first[:, None] + np.arange(taps) - places[:, None])
    if kernel == "box":  # how much of an old pixel lies in the new one
        table = np.clip((factor + 1) / 2 - d, 0, 1)
    else:
        table = np.where(d < reach * factor, value(d / factor), 0.0)
    return first, (table / table.sum(axis=1, keepdims=True)).astype(np.float32)


def reduce_by_kernel(image: Array, places: tuple[Floats, Floats], factor: float, k: str) -> Array:
    """Reduce an image with one of `KERNELS`.

    Parameters
    ----------
    image : (ny, nx) float32
    places : (my,), (mx,)
        Indices (y and x) in `image` at which the new pixels have their centres.
    factor : float
        Old pixels per new pixel.
    k : str
        Name of the kernel.

    Returns
    -------
    (my, mx) float32
    """
    tables = [weights(n, p, factor, k) for n, p in zip(image.shape, places, strict=True)]
    if is_numpy(image):
        out = np.empty((len(places[0]), len(places[1])), dtype=np.float32)
        _reduce(np.ascontiguousarray(image), *tables[0], *tables[1], out)
        return out
    by_y, by_x = (
        asarray_like(_matrix(n, *table), image)
        for n, table in zip(image.shape, tables, strict=True)
    )
    xp = namespace(image)
    return xp.matmul(xp.matmul(by_y, image), xp.permute_dims(by_x, (1, 0)))


def _matrix(
    length: int, first: NDArray[np.int64], table: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return weights as a matrix (m, length): what matrix products of GPUs are fast at."""
    matrix = np.zeros((len(first), length), dtype=np.float32)
    np.put_along_axis(matrix, first[:, None] + np.arange(table.shape[1]), table, axis=1)
    return matrix


# One thread: the views of a series are spread over workers, and the loop lets others run.
@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _reduce(image: Any, first_y: Any, by_y: Any, first_x: Any, by_x: Any, out: Any) -> None:
    line = np.empty(image.shape[1], dtype=np.float32)  # stays in the cache between y and x
    for row in range(out.shape[0]):
        line[:] = 0
        for j in range(by_y.shape[1]):
            weight, source = by_y[row, j], image[first_y[row] + j]
            if weight != 0:
                for i in range(line.size):
                    line[i] += weight * source[i]
        for column in range(out.shape[1]):
            start, total = first_x[column], np.float32(0)
            for i in range(by_x.shape[1]):
                total += by_x[column, i] * line[start + i]
            out[row, column] = total
