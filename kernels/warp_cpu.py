"""Numba body of `kernels.warp` for NumPy arrays.

A strip of rows is interpolated along x into a buffer that stays in the cache, then along y into
the sum. Within a cell of the field the displacement is linear and hardly changes, so a run of
pixels shares the six source pixels' offsets and everything is read in order, in vectors.
Threads are Python's, over nogil code (see `kernels.backproject_cpu`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.threads import thread_count

STRIP = 64  # rows: with their margin, about the L2 cache at 8000 columns
# Most pixels by which a run may leave the range of ½ around its middle: see `polynomials`.
SLACK = 0.09

_options: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz"},
}
_LINE = numba.float32[::1]
_IMAGE = numba.types.Array(numba.float32, 2, "C", readonly=True)
_NODES = numba.types.Array(numba.float32, 2, "C", readonly=True)
_TABLE = numba.types.Array(numba.float32, 3, "C", readonly=True)


@numba.njit(inline="always")
def _reflected(i, n):  # type: ignore[no-untyped-def]
    """Return the index of a pixel beyond the edges in the image mirrored there."""
    i = i % (2 * n)
    return i if i < n else 2 * n - 1 - i


@numba.njit(inline="always")
def _interpolate(  # type: ignore[no-untyped-def]
    source, first, stride, start, slope, table, out, begin, length, keep
):
    """Write to `out`, `length` pixels from `begin`, the weighted sums of six source pixels each.

    The source pixels are ``first + i + j · stride``, j = 0 … 5, and their weights those of
    s = start + slope · i. What was there is kept times `keep`.
    """
    p0, p1, p2, p3, p4 = table[0, 0]
    q0, q1, q2, q3, q4 = table[0, 1]
    r0, r1, r2, r3, r4 = table[1, 0]
    t0, t1, t2, t3, t4 = table[1, 1]
    u0, u1, u2, u3, u4 = table[2, 0]
    v0, v1, v2, v3, v4 = table[2, 1]
    # Unsigned: an index that may be negative, which Numba allows, keeps loops from being vectors.
    k0, begin = np.uint64(first), np.uint64(begin)
    k1 = np.uint64(first + stride)
    k2, k3 = np.uint64(first + 2 * stride), np.uint64(first + 3 * stride)
    k4, k5 = np.uint64(first + 4 * stride), np.uint64(first + 5 * stride)
    for i in range(np.uint64(length)):
        s = start + slope * np.float32(np.int32(i))
        z = s * s
        even = p0 + z * (p1 + z * (p2 + z * (p3 + z * p4)))
        odd = s * (q0 + z * (q1 + z * (q2 + z * (q3 + z * q4))))
        total = (even + odd) * source[k0 + i] + (even - odd) * source[k5 + i]
        even = r0 + z * (r1 + z * (r2 + z * (r3 + z * r4)))
        odd = s * (t0 + z * (t1 + z * (t2 + z * (t3 + z * t4))))
        total += (even + odd) * source[k1 + i] + (even - odd) * source[k4 + i]
        even = u0 + z * (u1 + z * (u2 + z * (u3 + z * u4)))
        odd = s * (v0 + z * (v1 + z * (v2 + z * (v3 + z * v4))))
        total += (even + odd) * source[k2 + i] + (even - odd) * source[k3 + i]
        out[begin + i] = keep * out[begin + i] + total


@numba.njit(inline="always")
def _interpolate_row(  # type: ignore[no-untyped-def]
    source, origin, stride, values, step, table, out, begin, length, keep
):
    """Interpolate a row cell by cell; `values` are the displacements at the nodes along it.

    Without displacement, pixel x of the row is ``origin + x`` in `source`.
    """
    for cell in range((length + step - 1) // step):
        slope = (values[cell + 1] - values[cell]) / np.float32(step)
        run = max(1, step // (1 + int(abs(slope) * step / np.float32(2 * SLACK))))
        end = min((cell + 1) * step, length)
        for x in range(cell * step, end, run):
            count = min(run, end - x)
            start = values[cell] + slope * np.float32(x - cell * step)
            whole = int(np.floor(start + slope * np.float32(0.5) * np.float32(count - 1)))
            s = start - np.float32(whole) - np.float32(0.5)
            first = origin + x + (whole - 2) * stride
            _interpolate(source, first, stride, s, slope, table, out, begin + x, count, keep)


@numba.njit(inline="always")
def _between_rows(nodes, y, step, line):  # type: ignore[no-untyped-def]
    """Write the nodes' values, interpolated to row y, to `line`."""
    y = min(max(y, 0), (nodes.shape[0] - 1) * step)
    row = min(y // step, nodes.shape[0] - 2)
    part = np.float32(y - row * step) / np.float32(step)
    for j in range(line.size):
        line[j] = nodes[row, j] + part * (nodes[row + 1, j] - nodes[row, j])


@numba.njit(
    numba.void(
        *[_IMAGE, _NODES, _NODES, numba.int64, _TABLE, numba.int64, numba.int64],
        _LINE,
    ),
    **_options,
)
def _add_strip(image, across, down, step, table, first, last, out):  # type: ignore[no-untyped-def]
    """Add the rows [first, last) of the warped image to those of `out`."""
    ny, nx = image.shape
    row0, row1 = first // step, (last - 1) // step + 2
    lowest = first - 3 + int(np.floor(down[row0:row1].min()))
    highest = last + 5 + int(np.floor(down[row0:row1].max()))
    margin = 6 + int(np.ceil(np.abs(across).max()))
    strip = np.zeros((highest - lowest) * nx, np.float32)
    line = np.empty(nx + 2 * margin, np.float32)
    values = np.empty(down.shape[1], np.float32)
    for y in range(lowest, highest):
        source = image[_reflected(y, ny)]
        line[margin : margin + nx] = source
        for i in range(margin):
            line[margin - 1 - i] = source[_reflected(-1 - i, nx)]
            line[margin + nx + i] = source[_reflected(nx + i, nx)]
        _between_rows(across, y, step, values)
        begin = (y - lowest) * nx
        _interpolate_row(line, margin, 1, values, step, table, strip, begin, nx, np.float32(0))
    for y in range(first, last):
        _between_rows(down, y, step, values)
        origin = (y - lowest) * nx
        _interpolate_row(strip, origin, nx, values, step, table, out, y * nx, nx, np.float32(1))


def add_warped(
    image: NDArray[np.float32],
    across: NDArray[np.float32],
    down: NDArray[np.float32],
    step: int,
    table: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Do what `kernels.warp.add_warped` describes, on `thread_count` threads."""
    ny = image.shape[0]
    source = np.ascontiguousarray(image, dtype=np.float32)

    total = out.reshape(-1)

    def add(first: int) -> None:
        _add_strip(source, across, down, step, table, first, min(first + STRIP, ny), total)

    with ThreadPoolExecutor(thread_count()) as pool:
        list(pool.map(add, range(0, ny, STRIP)))  # list: wait, and raise what they raised
