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

from kernels.backproject_cpu import (
    INPUT,
    OPTIONS,
    OUTPUT,
    ROWS,
    WHOLE,
    Vectors,
    Volume,
    aligned_empty,
    row_stride,
    turn_rows,
    write_rows,
)
from kernels.rows_cpu import LANES, ROW, add_rows

PLANES = 16  # transposed and projected at once
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
        *[ROWS, WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, WHOLE],
        *[numba.float64] * 4,
        *[numba.float32[::1], WHOLE],
    ),
    **OPTIONS,
)
def _project_view(  # type: ignore[no-untyped-def]
    rows, planes, stride, nx, z_start, first, columns, x_step, z_step, offset, weight, total, base
):
    """Add the planes in `rows` to the columns of one view, total[base + column · ROW …]."""
    near = np.empty((planes, nx), np.int64)
    low = np.empty((planes, nx), np.float32)
    high = np.empty((planes, nx), np.float32)
    ahead = np.zeros(planes, np.int64)
    for z in range(planes):
        plane = z_step * (z_start + z) + offset
        for x in range(nx):
            # The very numbers that back-projection multiplies with.
            place = x_step * x + plane
            left = min(max(int(place), 0), columns - 2)
            factor = weight if place >= 0 and place <= columns - 1 else 0.0
            high[z, x] = factor * (place - left)
            low[z, x] = factor * (1.0 - (place - left))
            near[z, x] = left if factor != 0 else (-9 if place < 0 else columns + 9)
    index = np.empty(ENTRIES, np.int64)
    first_weight = np.empty(ENTRIES, np.float32)
    second_weight = np.empty(ENTRIES, np.float32)
    sign = 1 if x_step >= 0 else -1
    for k in range(columns):
        # Columns in the order in which they appear along x.
        column = k if sign > 0 else columns - 1 - k
        to, n = base + (first + column) * ROW, 0
        least, most = sign * (column - (sign > 0)), sign * (column - (sign < 0))
        for z in range(planes):
            x = ahead[z]
            while x < nx and sign * near[z, x] < least:
                x += 1
            ahead[z] = x
            while x < nx and sign * near[z, x] <= most:
                index[n] = (z * stride + x) * ROW
                first_weight[n] = low[z, x] if near[z, x] == column else high[z, x]
                x += 1
                second_weight[n] = 0
                if x < nx and sign * near[z, x] <= most:
                    second_weight[n] = low[z, x] if near[z, x] == column else high[z, x]
                x += 1
                n += 1
                if n == ENTRIES:
                    add_rows(total, to, rows, index, first_weight, second_weight, 0, 1, n)
                    n = 0
        if n > 0:
            add_rows(total, to, rows, index, first_weight, second_weight, 0, 1, n)


@numba.njit(numba.void(numba.float32[::1], *[WHOLE] * 6, OUTPUT), **OPTIONS)
def _write_view(total, base, first, view, start, stop, columns, out):  # type: ignore[no-untyped-def]
    """Add the sums of one view's rows [start, stop) to out[view]."""
    for x in range(0, columns, LANES):
        at, count = base + (first + x) * ROW, min(LANES, columns - x)
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

    Uses ``numba.get_num_threads()`` threads, and memory for `ROW` rows of all views and of
    `PLANES` planes.
    """
    (n_views, n_rows, columns), (nz, ny, nx) = out.shape, volume.shape
    x_step, z_step, offset = vectors
    whole = np.floor(row_shifts).astype(np.int64)
    part = row_shifts - whole
    reach = ROW - 1 if part.any() else ROW
    stride, view_stride = row_stride(nx + 1), row_stride(columns)
    rows = aligned_empty((PLANES * stride, ROW))
    rows[:] = 0  # the voxel after a plane's last is read, with weight 0
    total = aligned_empty((n_views * view_stride * ROW,))
    with ThreadPoolExecutor(numba.get_num_threads()) as pool:
        for start in range(0, n_rows, reach):
            total[:] = 0
            for z in range(0, nz, PLANES):
                planes = min(PLANES, nz - z)

                def turn(i: int, z: int = z, start: int = start) -> None:
                    shift, share = int(whole[z + i]), np.float32(part[z + i])
                    low, high = max(0, -shift), min(ny, n_rows - int(share > 0) - shift)
                    _turn_plane(volume, z + i, start, low, high, shift, share, i * stride, rows)

                def project(view: int, z: int = z, planes: int = planes) -> None:
                    _project_view(
                        rows, planes, stride, nx, z_start + z, view * view_stride, columns,
                        x_step[view], z_step[view], offset[view], weights[view], total, 0,
                    )  # fmt: skip

                list(pool.map(turn, range(planes)))
                list(pool.map(project, range(n_views)))

            def write(view: int, start: int = start) -> None:
                stop = min(start + reach, n_rows)
                _write_view(total, 0, view * view_stride, view, start, stop, columns, out)

            list(pool.map(write, range(n_views)))
