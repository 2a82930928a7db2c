"""Numba body of `kernels.plane_images.corrected_columns`: correction and transform in one pass.

The spectrum is read once; 16 of its columns at a time are multiplied by the correction, and
transformed in the L2 cache; only the rows asked for are written.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.backproject_cpu import aligned_empty
from kernels.butterflies_cpu import GAP, LANES, inverse, join, scheme, split
from kernels.ctf_correct import OPTIONS, weigh_row

GROUP = 4  # of 16 columns, which are read together: 512 bytes of each row


@numba.njit(**OPTIONS)  # type: ignore[untyped-decorator]
def _fill(
    spectrum: Any, h: Any, kx2: Any, ky2: Any, numbers: Any, mode: Any, begins: Any,
    radices: Any, twiddles: Any, one: Any, other: Any, first: Any, count: Any, scale: Any, out: Any,
) -> None:  # fmt: skip
    length, columns = h.shape
    imaginary = length * LANES + GAP
    size = 2 * imaginary
    weights = np.empty(GROUP * LANES, np.float32)
    for group in range(0, begins.size, GROUP):
        together = min(GROUP, begins.size - group)
        low, high = begins[group], begins[group + together - 1] + LANES
        for row in range(length):
            factors = weights[: high - low]
            weigh_row(h[row, low:high], kx2[row], ky2[low:high], numbers, mode, factors)
            for i in range(high - low):
                factors[i] *= scale
            for i in range(together):
                begin = begins[group + i]
                at, to = 2 * (row * columns + begin), i * size + row * LANES
                split(spectrum, at, weights, begin - low, one, to, imaginary)
        for i in range(together):
            begin = begins[group + i]
            found, at = inverse(one, other, i * size, length, radices, twiddles, imaginary)
            for row in range(count):
                place = row * out.shape[1] + 2 * begin
                join(found, at + (first + row) * LANES, imaginary, out, place)


def corrected_lines(
    spectrum: NDArray[np.complex64],
    h: NDArray[np.float32],
    kx: NDArray[np.float32],
    ky: NDArray[np.float32],
    numbers: NDArray[np.float32],
    mode: int,
    first: int,
    count: int,
) -> NDArray[np.complex64]:
    """Return rows first … first + count − 1 of a spectrum corrected and transformed along x.

    Parameters
    ----------
    spectrum, h : (nx, nk)
        Of `plane_images.view_spectrum` and `view_phases`; at least 16 columns.
    kx, ky : (nx,) and (nk,)
        Frequencies [1/Å].
    numbers, mode
        Of `ctf_correct.numbers_of`.
    first, count : int

    Returns
    -------
    (count, nk) complex64
    """
    length, columns = h.shape
    radices, twiddles = scheme(length)
    size = 2 * (length * LANES + GAP)
    # The last 16 columns overlap those before them, so that none are fewer.
    begins = np.minimum(np.arange(0, columns, LANES), columns - LANES)
    out = aligned_empty((count, 2 * LANES * len(begins)))
    _fill(
        spectrum.view(np.float32), h, kx * kx, ky * ky, numbers, mode, begins, radices, twiddles,
        *(aligned_empty((GROUP * size,)), aligned_empty((size,))),
        *(first, count, np.float32(1 / length), out),
    )  # fmt: skip
    return out.view(np.complex64)[:, :columns]
