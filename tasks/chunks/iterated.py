"""A slab by SIRT or SART: rows by themselves also where the specimen is tilted about x.

X-axis tilt moves the rows of each plane by the plane's own amount, the same in all views. In a
volume whose planes are moved so, rows are independent of one another: they are solved for there,
and moved back once. No voxel depends on the slab that it is made in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kernels import iterative, wbp
from kernels.arrays import Array, asarray_like, namespace
from kernels.backproject import Projection, backproject
from kernels.moved_rows import moved_rows
from tasks.box import angstrom, blocks

if TYPE_CHECKING:
    from tasks.chunks.reconstruct import Reconstruction

# Rows that are solved for at once where views are tilted differently about x, so that rows mix:
# always the same ones, and around them as many as their rays cross three times over.
BLOCK, CROSSED = 128, 3


def rows_are_alone(projection: Projection) -> bool:
    """Tell whether all views have the rows of each plane moved by the same."""
    if projection.row_z is None or projection.row_offset is None:
        return True
    return bool(np.ptp(projection.row_z) < 1e-9 and np.ptp(projection.row_offset) < 1e-6)


def rows_around(how: Reconstruction, start: int, stop: int) -> tuple[int, int]:
    """Return [first, last) of the frame's rows that rows [start, stop) of the frame need."""
    projection = how.box.projection(how.views, how.turned)
    low, high = projection.rows_needed(start, stop, np.arange(how.box.shape[0]))
    if how.iterates and not rows_are_alone(projection):
        reach = (CROSSED - 1) * max(start - low, high - stop)
        low, high = low - reach, high + reach
    return max(low, 0), min(high, how.box.frame[0])


def iterated(
    how: Reconstruction, rows: Array, low: int, first: int, count: int, keep: Any = None
) -> Array:
    """Return rows [low, low + count) of the frame reconstructed, (nz, count, nx).

    Parameters
    ----------
    how : Reconstruction
    rows : (view, row, column) float32
        From row `first` of the frame on.
    low, first, count : int
    keep : callable, optional
        Given the iterations done, rows (nz, n, nx) so far, and which is the first of them.
    """
    projection, (nz, _, _) = how.box.projection(how.views, how.turned), how.box.shape
    if not how.turned:
        return _solved(how, rows, projection, lambda v: v, keep and (lambda n, v: keep(n, v, 0)))
    if rows_are_alone(projection):
        shifts = projection.row_shifts(np.arange(nz))[0]
        return _solved(
            how,
            rows,
            Projection(projection.x, projection.z, projection.offset),
            lambda v: moved_rows(v, shifts, low - first, count),
            keep and (lambda n, v: keep(n, v, 0)),
        )
    parts = []
    for start, stop in blocks(count, BLOCK):
        begin, end = rows_around(how, low + start, low + stop)
        inner = slice(low + start - begin, low + stop - begin)
        parts.append(
            _solved(
                how,
                rows[:, begin - first : end - first, :],
                projection.of_rows(begin, begin),
                lambda v, inner=inner: v[:, inner, :],
                keep and (lambda n, v, start=start: keep(n, v, start)),
            )
        )
    return namespace(rows).concat(parts, axis=1)


def _solved(how: Reconstruction, rows: Array, of: Projection, placed: Any, keep: Any) -> Array:
    """Solve for a volume of as many rows as there are; return what `placed` makes of it."""
    given, (nz, _, nx) = how.parameters, how.box.shape
    shape = (nz, rows.shape[1], nx)
    sign = 1.0 if given.invert else -1.0  # matter bright, which "positive" needs
    start = None
    if given.start == "wbp":
        filtered = [
            wbp.filter_views(rows[i, ...], how.row_filter(i)) for i in range(len(how.views))
        ]
        stacked = namespace(rows).stack(filtered)
        start = sign * backproject(stacked, of, shape, weights=how.weights)
    mask = None
    if given.mask is not None:
        height = angstrom(given.mask, how.box.voxel) / how.box.voxel
        inside = np.abs(np.arange(nz) - nz // 2) <= height / 2
        mask = asarray_like(inside.astype(np.float32)[:, None, None], rows)
    volume = iterative.reconstruct(
        rows * np.float32(sign),
        of,
        shape,
        given.iterations,
        subsets=1 if given.method == "sirt" else min(given.subsets, len(how.views)),
        relaxation=given.relaxation,
        positive=given.positive,
        mask=mask,
        start=start,
        callback=keep and (lambda n, v: keep(n, sign * placed(v))),
    )
    return np.float32(sign) * placed(volume)
