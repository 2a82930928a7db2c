"""Numba body of `kernels.project` for NumPy arrays.

The adjoint of `backproject_cpu` without its scattered additions: a pixel gathers the voxels of
each plane that appear in it, which are neighbours along x, so that rows along y are summed in
registers as there. Some planes at a time, which the L3 cache can hold, are transposed to
(z, x, y) and projected into all views.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.backproject import EDGE
from kernels.backproject_cpu import (
    INPUT,
    OPTIONS,
    OUTPUT,
    ROWS,
    VECTOR,
    WHOLE,
    Vectors,
    Volume,
    aligned_empty,
    row_stride,
    turn_rows,
    write_rows,
)
from kernels.rows_cpu import ROW, add_rows
from kernels.threads import thread_count
from kernels.vectors_cpu import LANES

PLANES, BLOCK_X = 16, 64  # transposed at once; projected at once, from the L2 cache
ENTRIES = 64  # pairs of voxels that are collected before they are summed


@numba.njit(numba.void(INPUT, *[WHOLE] * 5, numba.float32, WHOLE, ROWS), **OPTIONS)
def _turn_plane(volume, z, start, low, high, shift, share, first, rows):  # type: ignore[no-untyped-def]
    """Copy a plane's rows as the views' rows [start …) get them: shifted, then by `share` mixed."""
    if share == 0:
        turn_rows(volume, z, start - shift, low, high, first, rows)
        return
    turn_rows(volume, z, start - shift - 1, low, high, first, rows)
    for x in range(volume.shape[2]):
        row = rows[first + x]
        for y in range(ROW - 1):
            row[y] = row[y + 1] + share * (row[y] - row[y + 1])


@numba.njit(
    numba.void(
        *[ROWS, WHOLE, WHOLE, WHOLE, WHOLE, VECTOR, VECTOR, VECTOR, VECTOR, WHOLE, WHOLE],
        *[WHOLE, WHOLE, numba.float32[::1]],
    ),
    **OPTIONS,
)
def _project_planes(  # type: ignore[no-untyped-def]
    rows, planes, stride, nx, z_start, x_step, z_step, offset, weight, first, last,
    columns, view_stride, total,
):  # fmt: skip
    """Add the planes in `rows` to the views [first, last): total[(view, column) · ROW …]."""
    near = np.empty((planes, BLOCK_X), np.int64)
    low = np.empty((planes, BLOCK_X), np.float32)
    high = np.empty((planes, BLOCK_X), np.float32)
    ahead = np.empty(planes, np.int64)
    index = np.empty(ENTRIES, np.int64)
    first_weight = np.empty(ENTRIES, np.float32)
    second_weight = np.empty(ENTRIES, np.float32)
    for x_block in range(0, nx, BLOCK_X):
        size = min(BLOCK_X, nx - x_block)
        for view in range(first, last):
            sign = 1 if x_step[view] >= 0 else -1
            # Columns in the order in which they appear along x, as `sign` · column.
            begin, end = columns + 9, -columns - 9
            for z in range(planes):
                plane = z_step[view] * (z_start + z) + offset[view]
                ahead[z] = 0
                for x in range(size):
                    # The very numbers that back-projection multiplies with.
                    place = x_step[view] * (x_block + x) + plane
                    inside = place >= -EDGE and place <= columns - 1 + EDGE
                    left = min(max(int(place), 0), columns - 2)
                    factor = weight[view] if inside else 0.0
                    high[z, x] = factor * (place - left)
                    low[z, x] = factor * (1.0 - (place - left))
                    near[z, x] = sign * (left if inside else (-9 if place < 0 else columns + 9))
                    if inside:
                        begin = min(begin, sign * left)
                        end = max(end, sign * left)
            # A voxel counts in the columns near and near + 1.
            for k in range(begin - (sign < 0), end + (sign > 0) + 1):
                to, n = (view * view_stride + sign * k) * ROW, 0
                least, most = k - (sign > 0), k + (sign < 0)
                for z in range(planes):
                    x = ahead[z]
                    while x < size and near[z, x] < least:
                        x += 1
                    ahead[z] = x
                    while x < size and near[z, x] <= most:
                        index[n] = (z * stride + x_block + x) * ROW
                        first_weight[n] = low[z, x] if near[z, x] == k else high[z, x]
                        x += 1
                        second_weight[n] = 0
                        if x < size and near[z, x] <= most:
                            second_weight[n] = low[z, x] if near[z, x] == k else high[z, x]
                        x += 1
                        n += 1
                        if n == ENTRIES:
                            add_rows(total, to, rows, index, first_weight, second_weight, 0, 1, n)
                            n = 0
                if n > 0:
                    add_rows(total, to, rows, index, first_weight, second_weight, 0, 1, n)


@numba.njit(numba.void(numba.float32[::1], *[WHOLE] * 5, OUTPUT), **OPTIONS)
def _write_view(total, first, view, start, stop, columns, out):  # type: ignore[no-untyped-def]
    """Add the sums of one view's rows [start, stop) to out[view]."""
    for x in range(0, columns, LANES):
        at, count = (first + x) * ROW, min(LANES, columns - x)
        write_rows(total, at, count, 0, stop - start, view, start, x, out, True)


def accumulate(
    out: Volume,
    volume: Volume,
    vectors: Vectors,
    weights: NDArray[np.float64],
    row_shifts: NDArray[np.float64],
    z_start: int,
) -> None:
    """Add to `out` the views that `kernels.project` describes.

    Uses `thread_count` threads, and memory for `ROW` rows of all views and of
    `PLANES` planes.
    """
    (n_views, n_rows, columns), (nz, ny, nx) = out.shape, volume.shape
    x_step, z_step, offset = (np.ascontiguousarray(v, dtype=np.float64) for v in vectors)
    whole = np.floor(row_shifts).astype(np.int64)
    part = row_shifts - whole
    reach = ROW - 1 if part.any() else ROW
    stride, view_stride = row_stride(nx + 1), row_stride(columns)
    rows = aligned_empty((PLANES * stride, ROW))
    rows[:] = 0  # the voxel after a plane's last is read, with weight 0
    total = aligned_empty((n_views * view_stride * ROW,))
    threads = thread_count()
    ends = np.linspace(0, n_views, min(n_views, threads) + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, n_rows, reach):
            total[:] = 0
            for z in range(0, nz, PLANES):
                planes = min(PLANES, nz - z)

                def turn(i: int, z: int = z, start: int = start) -> None:
                    shift, share = int(whole[z + i]), np.float32(part[z + i])
                    low, high = max(0, -shift), min(ny, n_rows - int(share > 0) - shift)
                    _turn_plane(volume, z + i, start, low, high, shift, share, i * stride, rows)

                def project(piece: int, z: int = z, planes: int = planes) -> None:
                    _project_planes(
                        rows, planes, stride, nx, z_start + z, x_step, z_step, offset, weights,
                        ends[piece], ends[piece + 1], columns, view_stride, total,
                    )  # fmt: skip

                list(pool.map(turn, range(planes)))  # list: wait, and raise what they raised
                list(pool.map(project, range(len(ends) - 1)))

            def write(view: int, start: int = start) -> None:
                stop = min(start + reach, n_rows)
                _write_view(total, view * view_stride, view, start, stop, columns, out)

            list(pool.map(write, range(n_views)))
