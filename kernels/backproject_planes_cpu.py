"""Numba body of `kernels.backproject_planes` for NumPy arrays; see `kernels.backproject_cpu`.

A voxel's row of the transposed images is chosen by its column and by its plane; from there on the
sums are the same. All planes of all views are transposed for `ROW` rows at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.backproject import EDGE
from kernels.backproject_cpu import (
    BLOCK_X,
    BLOCK_Z,
    OPTIONS,
    VIEWS,
    Vectors,
    Volume,
    aligned_empty,
    write_rows,
)
from kernels.fine_rows import fine_images
from kernels.rows_cpu import ROW, add_rows
from kernels.threads import thread_count
from kernels.vectors_cpu import LANES

Counts = NDArray[np.int64]
TIE = 1e-6  # as in kernels.backproject_planes


@numba.njit(**OPTIONS)
def _fill_blocks(  # type: ignore[no-untyped-def]
    rows, place, columns, x_step, z_step, offset, level_x, level_z, level_offset,
    image, first_plane, planes, blend, weight, whole, part,
    n_rows, start, reach, z_start, first, last, out,
):  # fmt: skip
    """Add to the blocks [first, last) of (z, x), from `reach` rows of the images."""
    nz, ny, nx = out.shape
    blocks_x = (nx + BLOCK_X - 1) // BLOCK_X
    voxels, n_views = BLOCK_Z * BLOCK_X, x_step.size
    entries = 2 * n_views if blend else n_views
    index = np.empty((entries, voxels), np.int64)
    left = np.empty((entries, voxels), np.float32)
    right = np.empty((entries, voxels), np.float32)
    total = np.empty(voxels * ROW + LANES, np.float32)
    base = -(total.ctypes.data // 4) % LANES
    for block in range(first, last):
        z_block, x_block = block // blocks_x * BLOCK_Z, block % blocks_x * BLOCK_X
        size_z, size_x = min(BLOCK_Z, nz - z_block), min(BLOCK_X, nx - x_block)
        n = 0
        for view in range(n_views):
            if weight[view] == 0:
                continue
            seen, mixed = False, False
            for z in range(size_z):
                iz = z_start + z_block + z
                row = z_step[view] * iz + offset[view]
                height = level_z[view] * iz + level_offset[view] - first_plane[view]
                for x in range(BLOCK_X):
                    column = x_step[view] * (x_block + x) + row
                    near = min(max(int(column), 0), columns - 2)
                    inside = column >= -EDGE and column <= columns - 1 + EDGE
                    factor = weight[view] if inside else 0.0
                    seen |= inside
                    level = level_x[view] * (x_block + x) + height
                    level = min(max(level, 0.0), planes[view] - 1.0)
                    voxel = z * BLOCK_X + x
                    share = column - near
                    if blend:
                        low = min(int(level), max(planes[view] - 2, 0))
                        above = factor * (level - low)
                        below = factor - above
                        mixed |= above != 0
                        # Where nothing is taken any row will do: the column may not be kept.
                        here = place[image[view] + low] + near
                        next_plane = min(low + 1, planes[view] - 1)
                        there = place[image[view] + next_plane] + near
                        index[n, voxel] = here * ROW if below != 0 else 0
                        right[n, voxel] = below * share
                        left[n, voxel] = below * (1.0 - share)
                        index[n + 1, voxel] = there * ROW if above != 0 else 0
                        right[n + 1, voxel] = above * share
                        left[n + 1, voxel] = above * (1.0 - share)
                    else:
                        plane = max(int(np.ceil(level - 0.5 - TIE)), 0)
                        index[n, voxel] = (place[image[view] + plane] + near) * ROW if inside else 0
                        right[n, voxel] = factor * share
                        left[n, voxel] = factor * (1.0 - share)
            if seen:
                n += 2 if mixed else 1
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
            y = max(start - shift, 0)
            stop = min(min(start + reach, end) - shift, ny)
            if y < stop:
                ahead = shift - start
                write_rows(
                    total, at, size_x, y + ahead, stop + ahead, z_block + z, y, x_block, out, True
                )


def accumulate(
    out: Volume,
    packed: Sequence[Volume],
    place: Counts,
    columns: int,
    vectors: Vectors,
    levels: Vectors,
    planes: tuple[Counts, Counts, Counts],
    blend: bool,
    weights: NDArray[np.float64],
    row_shifts: NDArray[np.float64],
    z_start: int,
    stops: Sequence[Counts] | None = None,
) -> None:
    """Add to `out` the slab that `kernels.backproject_planes` describes.

    `packed` are the columns kept of all images, (columns, rows), `place` where each image's
    column 0 would lie among them; `planes` the index of each view's first image, its first plane,
    and how many it has. With `stops`, where each image of each plane ends among its columns, these
    are coefficients of splines, and all else tells of their samples (`kernels.fine_rows`). Uses
    `thread_count` threads, and memory for `ROW` rows of all images.
    """
    n_rows, (nz, _, nx) = packed[0].shape[1], out.shape
    whole = np.floor(row_shifts).astype(np.int64)
    part = np.round(row_shifts - whole, 6)  # the same whatever rows the slab begins with
    reach = ROW - 1 if part.any() else ROW
    sizes = [len(part) for part in packed]
    if stops is not None:
        sizes = [2 * int(ends[-1]) - len(ends) if len(ends) else 0 for ends in stops]
    begins = np.concatenate([[0], np.cumsum(sizes)])
    # One column more: linear interpolation reads it, with weight 0, after the last.
    rows = aligned_empty((int(begins[-1]) + 1, ROW))
    rows[-1] = 0
    blocks = -(-nz // BLOCK_Z) * -(-nx // BLOCK_X)
    threads = thread_count()
    ends = np.linspace(0, blocks, min(blocks, 8 * threads) + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, n_rows, reach):
            stop = min(start + ROW, n_rows)

            def gather(i: int, start: int = start, stop: int = stop) -> None:
                into = rows[begins[i] : begins[i + 1]]
                if stops is None:
                    into[:, : stop - start] = packed[i][:, start:stop]
                else:
                    fine_images(packed[i][:, start:stop], stops[i], into[:, : stop - start])
                into[:, stop - start :] = 0

            def fill(piece: int, start: int = start) -> None:
                _fill_blocks(
                    rows, place, columns, *vectors, *levels, *planes, blend,
                    weights, whole, part, n_rows, start, reach, z_start,
                    ends[piece], ends[piece + 1], out,
                )  # fmt: skip

            list(pool.map(gather, range(len(packed))))  # list: wait, and raise what they raised
            list(pool.map(fill, range(len(ends) - 1)))
