"""The next coarser level of a volume, and its statistics, in one pass over it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Volume = NDArray[np.float32]
PART = 1024  # numbers whose sum is exact enough in float32
LANES = 64
OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}


def halved(volume: Volume) -> Volume:
    """Return means of 2×2×2 voxels; an odd last plane, row or column is left out.

    Parameters
    ----------
    volume : (nz, ny, nx) float32

    Returns
    -------
    (nz // 2, ny // 2, nx // 2) float32
    """
    coarse = np.empty(tuple(n // 2 for n in volume.shape), dtype=np.float32)
    _halve(volume, coarse)
    return coarse


def measured(volume: Volume) -> dict[str, float]:
    """Return sum, sum of squares, minimum and maximum of all voxels, by these names.

    Parameters
    ----------
    volume : (nz, ny, nx) float32
        Not empty.
    """
    found = np.array([_measure(plane.ravel()) for plane in volume])
    return {
        "sum": float(found[:, 0].sum()),
        "squares": float(found[:, 1].sum()),
        "minimum": float(found[:, 2].min()),
        "maximum": float(found[:, 3].max()),
    }


@njit(**OPTIONS)  # type: ignore[untyped-decorator]
def _halve(volume: Any, coarse: Any) -> None:
    nz, ny, nx = coarse.shape
    sums = np.empty(2 * nx, np.float32)
    for z in range(nz):
        for y in range(ny):
            a, b = volume[2 * z, 2 * y], volume[2 * z + 1, 2 * y]
            c, d = volume[2 * z, 2 * y + 1], volume[2 * z + 1, 2 * y + 1]
            for x in range(2 * nx):
                sums[x] = (a[x] + b[x]) + (c[x] + d[x])
            for x in range(nx):
                coarse[z, y, x] = (sums[2 * x] + sums[2 * x + 1]) * np.float32(0.125)


@njit(fastmath={"reassoc", "contract", "nsz"}, **OPTIONS)  # type: ignore[untyped-decorator]
def _measure(values: Any) -> tuple[float, float, float, float]:
    total, squares = 0.0, 0.0
    lows, highs = np.full(LANES, values[0]), np.full(LANES, values[0])
    for start in range(0, values.size, PART):
        part = values[start : start + PART]
        some, square = np.float32(0), np.float32(0)
        for i in range(part.size):
            some += part[i]
            square += part[i] * part[i]
        total += float(some)
        squares += float(square)
        # Extremes by lanes, in whole vectors: a single one is sought one number at a time.
        whole = part.size // LANES * LANES
        for first in range(0, whole, LANES):
            for lane in range(LANES):
                value = part[first + lane]
                lows[lane] = value if value < lows[lane] else lows[lane]
                highs[lane] = value if value > highs[lane] else highs[lane]
        for value in part[whole:]:
            lows[0], highs[0] = min(lows[0], value), max(highs[0], value)
    return total, squares, lows.min(), highs.max()
