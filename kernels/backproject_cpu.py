"""Numba body of `kernels.backproject` for NumPy arrays.

All voxels of one (z, x) need the same pixels of the same columns, so y is innermost and has to
be contiguous: `ROW` rows of the views are transposed to (view, column, y) first, which the L3
cache can hold, and each block of voxels is transposed back when it is complete. Threads are
Python's, over nogil code: Numba's own pool may not be entered by two threads at once, as Dask
workers do.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.backproject import EDGE
from kernels.rows_cpu import ROW, add_rows, add_transposed, transpose
from kernels.threads import thread_count
from kernels.vectors_cpu import LANES

Volume = NDArray[np.float32]
Vectors = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

# A block's sums and what it reads of so many views must stay in the L2 cache.
BLOCK_Z, BLOCK_X, VIEWS = 16, 16, 12

INPUT = numba.types.Array(numba.float32, 3, "C", readonly=True)
VECTOR = numba.types.Array(numba.float64, 1, "C", readonly=True)
COUNTS = numba.types.Array(numba.int64, 1, "C", readonly=True)
ROWS = numba.float32[:, ::1]
OUTPUT = numba.float32[:, :, ::1]
WHOLE = numba.int64
# Signatures are given so that nothing is compiled later, for read-only arrays for example.
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract"},
}


@numba.njit(numba.void(INPUT, *[WHOLE] * 5, ROWS), **OPTIONS)
def turn_rows(images, image, start, low, high, first, rows):  # type: ignore[no-untyped-def]
    """Copy pixels [start + y, x] of one image to rows[first + x, y]; zeros but for [low, high)."""
    _, ny, columns = images.shape
    for x_block in range(0, columns, LANES):
        for y_block in range(0, ROW, LANES):
            y = start + y_block
            if x_block + LANES <= columns and low <= y and y + LANES <= high:
                at, to = (image * ny + y) * columns + x_block, (first + x_block) * ROW + y_block
                transpose(images, at, columns, rows, to, ROW)
            else:
                for i in range(x_block, min(x_block + LANES, columns)):
                    for j in range(LANES):
                        within = low <= y + j and y + j < high
                        value = images[image, y + j, i] if within else np.float32(0)
                        rows[first + i, y_block + j] = value


@numba.njit(
    numba.void(
        numba.float32[::1], *[WHOLE] * 4, *[WHOLE] * 3, OUTPUT, numba.boolean,
    ),
    **OPTIONS,
)  # fmt: skip
def write_rows(total, at, count, start, stop, z, y, x, out, add):  # type: ignore[no-untyped-def]
    """Write pixels [start, stop) of `count` rows to out[z, y …, x …], or add them."""
    _, ny, nx = out.shape
    for j in range(start, stop, LANES):
        row = y + j - start
        to = (z * ny + row) * nx + x
        if count == LANES and j + LANES <= stop:
            if add:
                add_transposed(total, at + j, ROW, out, to, nx)
            else:
                transpose(total, at + j, ROW, out, to, nx)
        else:
            for k in range(min(LANES, stop - j)):
                for i in range(count):
                    value = total[at + i * ROW + j + k]
                    if add:
                        value += out[z, row + k, x + i]
                    out[z, row + k, x + i] = value


@numba.njit(
    numba.void(
        *[ROWS, WHOLE, WHOLE, VECTOR, VECTOR, VECTOR, VECTOR, COUNTS, VECTOR],
        *[WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, OUTPUT, numba.boolean],
    ),
    **OPTIONS,
)
def _fill_blocks(  # type: ignore[no-untyped-def]
    rows, stride, columns, x_step, z_step, offset, weight, whole, part,
    n_rows, start, reach, z_start, first, last, out, add,
):  # fmt: skip
    """Fill or add to the blocks [first, last) of (z, x), from `reach` rows of the views."""
    nz, ny, nx = out.shape
    blocks_x = (nx + BLOCK_X - 1) // BLOCK_X
    voxels, n_views = BLOCK_Z * BLOCK_X, x_step.size
    index = np.empty((n_views, voxels), np.int64)
    left = np.empty((n_views, voxels), np.float32)
    right = np.empty((n_views, voxels), np.float32)
    total = np.empty(voxels * ROW + LANES, np.float32)
    base = -(total.ctypes.data // 4) % LANES  # a vector must not lie in two lines of the cache
    for block in range(first, last):
        z_block, x_block = block // blocks_x * BLOCK_Z, block % blocks_x * BLOCK_X
        size_z, size_x = min(BLOCK_Z, nz - z_block), min(BLOCK_X, nx - x_block)
        n = 0
        for view in range(n_views):
            seen = False
            for z in range(size_z):
                plane = z_step[view] * (z_start + z_block + z) + offset[view]
                for x in range(BLOCK_X):
                    column = x_step[view] * (x_block + x) + plane
                    near = min(max(int(column), 0), columns - 2)
                    inside = column >= -EDGE and column <= columns - 1 + EDGE
                    factor = weight[view] if inside else 0.0
                    seen |= inside
                    voxel = z * BLOCK_X + x
                    index[n, voxel] = (view * stride + near) * ROW
                    right[n, voxel] = factor * (column - near)
                    left[n, voxel] = factor * (1.0 - (column - near))
            n += seen
        total[:] = 0
        for k in range(0, n, VIEWS):
            for z in range(size_z):
                for x in range(size_x):
                    voxel = z * BLOCK_X + x
                    to, entry, count = base + voxel * ROW, k * voxels + voxel, min(VIEWS, n - k)
                    add_rows(total, to, rows, index, left, right, entry, voxels, count)
        for z in range(size_z):
            shift, share = whole[z_block + z], np.float32(part[z_block + z])
            at, end = base + z * BLOCK_X * ROW, n_rows
            if share > 0:
                end -= 1
                for x in range(size_x):
                    sums = total[at + x * ROW : at + (x + 1) * ROW]
                    for y in range(ROW - 1):
                        sums[y] += share * (sums[y + 1] - sums[y])
            # Row y of the volume is made of the views' rows y + shift and, by `share`, the next.
            y = max(start - shift, 0)
            stop = min(min(start + reach, end) - shift, ny)
            if y < stop:
                ahead = shift - start
                write_rows(
                    total, at, size_x, y + ahead, stop + ahead, z_block + z, y, x_block, out, add
                )


def aligned_empty(shape: tuple[int, ...]) -> Volume:
    """Return an uninitialised array that begins where a line of the cache does."""
    size = math.prod(shape)
    memory = np.empty(size + LANES, dtype=np.float32)
    start = -(memory.ctypes.data // 4) % LANES
    return memory[start : start + size].reshape(shape)


def row_stride(columns: int) -> int:
    """Return the distance of views in transposed rows: a power of two crowds a cache's sets."""
    return columns + (13 - columns) % 64


def accumulate(
    out: Volume,
    views: Volume,
    vectors: Vectors,
    weights: NDArray[np.float64],
    row_shifts: NDArray[np.float64],
    z_start: int,
    *,
    add: bool,
) -> None:
    """Write to `out`, or add to it, the slab that `kernels.backproject` describes.

    Voxels of planes whose row shift leads out of the views are left as they are. Uses
    `thread_count` threads, and memory for `ROW` rows of all views.
    """
    (n_views, n_rows, columns), (nz, _, nx) = views.shape, out.shape
    x_step, z_step, offset = (np.ascontiguousarray(v, dtype=np.float64) for v in vectors)
    whole = np.floor(row_shifts).astype(np.int64)
    part = np.round(row_shifts - whole, 6)  # the same whatever rows the slab begins with
    reach = ROW - 1 if part.any() else ROW
    stride = row_stride(columns)
    rows = aligned_empty((n_views * stride, ROW))
    blocks = -(-nz // BLOCK_Z) * -(-nx // BLOCK_X)
    threads = thread_count()
    ends = np.linspace(0, blocks, min(blocks, 8 * threads) + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, n_rows, reach):

            def turn(view: int, start: int = start) -> None:
                turn_rows(views, view, start, 0, n_rows, view * stride, rows)

            def fill(piece: int, start: int = start) -> None:
                _fill_blocks(
                    rows, stride, columns, x_step, z_step, offset, weights, whole, part,
                    n_rows, start, reach, z_start, ends[piece], ends[piece + 1], out, add,
                )  # fmt: skip

            list(pool.map(turn, range(n_views)))  # list: wait, and raise what they raised
            list(pool.map(fill, range(len(ends) - 1)))
