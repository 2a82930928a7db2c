"""Numba body of `kernels.plane_images.corrected_columns`: all in two passes through the L2 cache.

The spectrum is read once: 16 frequencies along y at a time are multiplied by the correction and
transformed along x, and only the columns asked for are written. Of these 32 at a time are
transformed along y, as 16 complex ones.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.backproject_cpu import aligned_empty
from kernels.butterflies_cpu import GAP, inverse, join, scheme, split, unfold
from kernels.ctf_correct import OPTIONS, weigh_row
from kernels.rows_cpu import transpose
from kernels.vectors_cpu import LANES

LEAST = LANES  # frequencies along y that a spectrum must have
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


@numba.njit(**OPTIONS)  # type: ignore[untyped-decorator]
def _finish(
    lines: Any, pitch: Any, length: Any, radices: Any, twiddles: Any, one: Any, other: Any,
    block: Any, out: Any,
) -> None:  # fmt: skip
    count, rows = out.shape
    imaginary = length * LANES + GAP
    last = length // 2
    for column in range(0, count, 2 * LANES):
        a, b = column * pitch, (column + LANES) * pitch
        for k in range(0, last + 1, 8):
            # Of k = 0 there is no mirror image: what is written there is overwritten below.
            unfold(
                lines, a + 2 * k, pitch, b + 2 * k, one, k * LANES,
                (length - k) * LANES, LANES, imaginary, min(8, last + 1 - k),
            )  # fmt: skip
        for k in (0, last):  # their spectra are real, whatever rounding and correction made of them
            for lane in range(LANES):
                one[k * LANES + lane] = lines[column + lane, 2 * k]
                one[imaginary + k * LANES + lane] = lines[column + LANES + lane, 2 * k]
        found, _ = inverse(one, other, 0, length, radices, twiddles, imaginary)
        for part in range(2):
            first = column + part * LANES
            kept = min(LANES, count - first)
            at = part * imaginary
            for row in range(0, rows, LANES):
                if kept == LANES and row + LANES <= rows:
                    transpose(found, at + row * LANES, LANES, out, first * rows + row, rows)
                elif kept > 0:
                    transpose(found, at + row * LANES, LANES, block, 0, LANES)
                    for i in range(kept):
                        for j in range(min(LANES, rows - row)):
                            out[first + i, row + j] = block[i, j]


def corrected_columns(
    spectrum: NDArray[np.complex64],
    h: NDArray[np.float32],
    kx: NDArray[np.float32],
    ky: NDArray[np.float32],
    numbers: NDArray[np.float32],
    mode: int,
    columns: tuple[int, int],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Return columns of an image, whose spectrum is given, corrected.

    Parameters
    ----------
    spectrum, h : (nx, ny // 2 + 1)
        Of `plane_images.view_spectrum` and `view_phases`; at least `LANES` frequencies along y.
    kx, ky : (nx,) and (ny // 2 + 1,)
        Frequencies [1/Å].
    numbers, mode
        Of `ctf_correct.numbers_of`.
    columns : (first, count)
    shape : (ny, rows)
        Length of the columns, which is even, and how much of it is returned.

    Returns
    -------
    (count, rows) float32
    """
    (wide, half), (high, rows), (first, count) = h.shape, shape, columns
    size = 2 * (max(wide, high) * LANES + GAP)
    # Columns are read 16 at a time where fewer are left of the last ones.
    one, other = aligned_empty((GROUP * size,)), aligned_empty((size + LANES * LANES,))
    # The last 16 frequencies overlap those before them, so that none are fewer.
    begins = np.minimum(np.arange(0, half, LANES), half - LANES)
    # Two real columns are transformed as one complex one, 16 of which together.
    padded = -(-count // (2 * LANES)) * 2 * LANES
    lines = aligned_empty((padded, 2 * LANES * len(begins)))
    lines[count:] = 0
    _fill(
        spectrum.view(np.float32), h, kx * kx, ky * ky, numbers, mode, begins, *scheme(wide),
        one, other, first, count, np.float32(1 / (wide * high)), lines,
    )  # fmt: skip
    out = np.empty((count, rows), np.float32)
    block = np.empty((LANES, LANES), np.float32)
    _finish(lines, lines.shape[1], high, *scheme(high), one, other, block, out)
    return out
