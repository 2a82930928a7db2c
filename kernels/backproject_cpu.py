"""Numba body of `kernels.backproject` for NumPy arrays.

All voxels of one (z, x) need the same pixels of the same columns, so the loop over y is the
inner one and needs y contiguous: a tile of rows is transposed to (view, column, y) first, and
each block of voxels is transposed back when it is complete. Threads are Python's, over nogil
code: Numba's own pool may not be entered by two threads at once, as Dask workers do.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]
Vectors = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

TILE = 512  # most y at once: the rows being added must stay in the L1 cache
BLOCK_Z, BLOCK_X, VIEWS = 8, 16, 24  # what a block of voxels reads must stay in the L2 cache
PASS = 4  # views added per pass over a row

_INPUT = numba.types.Array(numba.float32, 3, "C", readonly=True)
_VECTOR = numba.types.Array(numba.float64, 1, "C", readonly=True)
_ROWS = numba.float32[:, ::1]
# Signatures are given so that nothing is compiled later, for read-only arrays for example.
_options: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract"},
}


@numba.njit(numba.void(_INPUT, numba.int64, numba.int64, numba.int64, _ROWS), **_options)
def _turn_view(views, view, y_start, first_row, rows):  # type: ignore[no-untyped-def]
    """Copy rows y_start … of one view to rows[first_row + column, y], zeros beyond its end."""
    columns, length = views.shape[2], rows.shape[1]
    used = min(length, views.shape[1] - y_start)
    for x_block in range(0, columns, 32):
        x_end = min(x_block + 32, columns)
        for y_block in range(0, used, 64):
            for x in range(x_block, x_end):
                row = rows[first_row + x]
                for y in range(y_block, min(y_block + 64, used)):
                    row[y] = views[view, y_start + y, x]
        rows[first_row + x_block : first_row + x_end, used:] = 0


@numba.njit(
    numba.void(
        *[_ROWS, numba.int64, numba.int64, _VECTOR, _VECTOR, _VECTOR, _VECTOR],
        *[numba.int64, numba.int64, numba.int64, numba.int64, numba.float32[:, :, ::1]],
        numba.boolean,
    ),
    **_options,
)
def _accumulate_blocks(  # type: ignore[no-untyped-def]
    rows, stride, columns, x_step, z_step, offset, weight, y_start, z_start, first, last, out, add
):
    """Fill or add to the blocks [first, last) of (z, x), for the y of one tile."""
    nz, ny, nx = out.shape
    length = rows.shape[1]
    blocks_x = (nx + BLOCK_X - 1) // BLOCK_X
    voxels = BLOCK_Z * BLOCK_X
    index = np.empty((voxels, VIEWS), np.int64)
    left = np.empty((voxels, VIEWS), np.float32)
    right = np.empty((voxels, VIEWS), np.float32)
    count = np.empty(voxels, np.int64)
    total = np.empty((voxels, length), np.float32)
    for block in range(first, last):
        z_block, x_block = block // blocks_x * BLOCK_Z, block % blocks_x * BLOCK_X
        size_z, size_x = min(BLOCK_Z, nz - z_block), min(BLOCK_X, nx - x_block)
        total[:] = 0
        for first_view in range(0, x_step.size, VIEWS):
            for z in range(size_z):
                for x in range(size_x):
                    voxel, n = z * BLOCK_X + x, 0
                    for view in range(first_view, min(first_view + VIEWS, x_step.size)):
                        column = x_step[view] * (x_block + x) + (
                            z_step[view] * (z_start + z_block + z) + offset[view]
                        )
                        if column >= 0 and column <= columns - 1:
                            whole = min(int(column), columns - 2)
                            index[voxel, n] = view * stride + whole
                            right[voxel, n] = weight[view] * (column - whole)
                            left[voxel, n] = weight[view] * (1.0 - (column - whole))
                            n += 1
                    while n % PASS:
                        index[voxel, n] = index[voxel, n - 1]
                        left[voxel, n] = right[voxel, n] = 0
                        n += 1
                    count[voxel] = n
            for z in range(size_z):
                for x in range(size_x):
                    voxel = z * BLOCK_X + x
                    sums = total[voxel]
                    for k in range(0, count[voxel], PASS):
                        i, f, g = index[voxel, k:], left[voxel, k:], right[voxel, k:]
                        f0, f1, f2, f3 = f[0], f[1], f[2], f[3]
                        g0, g1, g2, g3 = g[0], g[1], g[2], g[3]
                        a0, b0, a1, b1 = rows[i[0]], rows[i[0] + 1], rows[i[1]], rows[i[1] + 1]
                        a2, b2, a3, b3 = rows[i[2]], rows[i[2] + 1], rows[i[3]], rows[i[3] + 1]
                        # One chain from left to right: the sum does not depend on the passes.
                        for y in range(length):
                            sums[y] = (
                                sums[y]
                                + f0 * a0[y] + g0 * b0[y] + f1 * a1[y] + g1 * b1[y]
                                + f2 * a2[y] + g2 * b2[y] + f3 * a3[y] + g3 * b3[y]
                            )  # fmt: skip
        for z in range(size_z):
            for y in range(min(length, ny - y_start)):
                line = out[z_block + z, y_start + y]
                for x in range(size_x):
                    value = total[z * BLOCK_X + x, y]
                    if add:
                        value += line[x_block + x]
                    line[x_block + x] = value


def accumulate(
    out: Volume,
    views: Volume,
    vectors: Vectors,
    weights: NDArray[np.float64],
    z_start: int,
    *,
    add: bool,
) -> None:
    """Write to `out`, or add to it, the slab that `kernels.backproject` describes.

    Uses ``numba.get_num_threads()`` threads, and memory for one tile of `TILE` rows of all views.
    """
    (n_views, ny, columns), (nz, _, nx) = views.shape, out.shape
    x_step, z_step, offset = (np.ascontiguousarray(v, dtype=np.float64) for v in vectors)
    tiles = -(-ny // TILE)
    length = -(-ny // tiles // 16) * 16  # whole vectors
    # The distance of views is no power of two, which would crowd them in few sets of the cache.
    stride = columns + (13 - columns) % 64
    rows = np.empty((n_views * stride, length), dtype=np.float32)
    blocks = -(-nz // BLOCK_Z) * -(-nx // BLOCK_X)
    threads = numba.get_num_threads()
    ends = np.linspace(0, blocks, min(blocks, 8 * threads) + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        for y_start in range(0, ny, length):

            def turn(view: int, y_start: int = y_start) -> None:
                _turn_view(views, view, y_start, view * stride, rows)

            def fill(piece: int, y_start: int = y_start) -> None:
                _accumulate_blocks(
                    rows, stride, columns, x_step, z_step, offset, weights,
                    y_start, z_start, ends[piece], ends[piece + 1], out, add,
                )  # fmt: skip

            list(pool.map(turn, range(n_views)))  # list: wait, and raise what they raised
            list(pool.map(fill, range(len(ends) - 1)))
