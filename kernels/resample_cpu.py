"""Quintic B-spline interpolation at the places of a plane's pixels, in Numba code.

The six weights along an axis are six polynomials of one distance: here they are the lanes of one
vector, and so are the six pixels of a row that they weigh. A pixel is then six products of
vectors, and LLVM need not find out what a loop over single numbers could share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic, register_jitable

from kernels.vectors_cpu import FLOAT, FUSED, INDEX, data_of, ir

# Pixels before the first and after the last, as periodic images continue, that are read.
BEFORE, AFTER = 2, 5
# Rounding must not put a pixel of the outermost row outside [pixels].
EDGE = 1e-3
TAPS, WIDE = 6, 8
EIGHT = ir.VectorType(FLOAT, WIDE)
# 120 × the coefficients of t⁰ … t⁵ of the weights at the distances 2 + t, 1 + t, t, 1 − t, 2 − t
# and 3 − t (Unser, IEEE Signal Processing Magazine 16(6):22 (1999), eq. 9, of degree 5).
POLYNOMIALS = np.array(
    [
        [1, -5, 10, -10, 5, -1],
        [26, -50, 20, 20, -20, 5],
        [66, 0, -60, 0, 30, -10],
        [26, 50, 20, -20, -20, 10],
        [1, 5, 10, 10, 5, -5],
        [0, 0, 0, 0, 0, 1],
    ]
)


def _constant(values: Any) -> Any:
    return ir.Constant(EIGHT, [ir.Constant(FLOAT, float(np.float32(v))) for v in values])


def _lanes(builder: Any, value: Any, lanes: list[int]) -> Any:
    index = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(value, value, index)


def _multiplied(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(builder.fmul(a, b, flags=FUSED), c, flags=FUSED)


def _weights(builder: Any, t: Any) -> Any:
    """Return the weights at a distance in the first six of eight lanes, and two zeros."""
    one = builder.insert_element(ir.Constant(EIGHT, ir.Undefined), t, ir.IntType(32)(0))
    at = _lanes(builder, one, [0] * WIDE)
    columns = [_constant([*(POLYNOMIALS[:, power] / 120), 0, 0]) for power in range(TAPS)]
    value = columns[-1]
    for column in columns[-2::-1]:
        value = _multiplied(builder, value, at, column)
    return value


def _spline(
    typing: Any, coefficients: Any, at: Any, step: Any, down: Any, across: Any
) -> tuple[Any, Callable[..., Any]]:
    """Return the spline at a place.

    Parameters
    ----------
    coefficients : (rows, columns) float32
        Eight of each of six rows are read, from element `at` on, `step` elements apart.
    at, step : int64
    down, across : float32
        How far the place is beyond the third row and the third pixel, 0 to 1.
    """
    signature = types.float32(coefficients, types.int64, types.int64, types.float32, types.float32)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base = data_of(context, builder, signature.args[0], arguments[0])
        at, step = arguments[1], arguments[2]
        rows, total = _weights(builder, arguments[3]), ir.Constant(EIGHT, [FLOAT(0.0)] * WIDE)
        for k in range(TAPS):
            place = builder.add(at, builder.mul(step, INDEX(k)))
            line = builder.load(builder.bitcast(builder.gep(base, [place]), EIGHT.as_pointer()))
            line.align = 4
            total = _multiplied(builder, _lanes(builder, rows, [k] * WIDE), line, total)
        total = builder.fmul(total, _weights(builder, arguments[4]))
        for width in (4, 2, 1):
            lower = _lanes(builder, total, list(range(width)))
            total = builder.fadd(lower, _lanes(builder, total, list(range(width, 2 * width))))
        return builder.extract_element(total, ir.IntType(32)(0))

    return signature, generate


spline: Any = intrinsic(_spline)


@register_jitable(inline="always")
def _between(nodes: Any, axis: Any, i: Any, j: Any, f: Any, g: Any) -> Any:
    """Return one component of a displacement, linear between four nodes."""
    low = nodes[i, j, axis] + g * (nodes[i, j + 1, axis] - nodes[i, j, axis])
    high = nodes[i + 1, j, axis] + g * (nodes[i + 1, j + 1, axis] - nodes[i + 1, j, axis])
    return low + f * (high - low)


# One thread: the views of a series are spread over workers, and the loop lets others run.
@njit(
    types.void(
        types.Array(types.float32, 2, "C", readonly=True),
        types.Array(types.float64, 2, "C", readonly=True),
        types.Array(types.float64, 1, "C", readonly=True),
        types.Array(types.float32, 3, "C", readonly=True),
        types.int64,
        types.float32,
        types.float32[:, ::1],
    ),
    nogil=True,
    cache=True,
    fastmath={"contract", "reassoc"},
)
def sample(
    coefficients: Any, matrix: Any, offset: Any, nodes: Any, step: Any, fill: Any, out: Any
) -> None:
    """Write a spline's values at ``matrix @ ((iy, ix) + nodes) + offset`` to `out`.

    Parameters
    ----------
    coefficients : (ny + 7, nx + 7) float32
        `BEFORE` pixels before the first and `AFTER` after the last on each axis.
    matrix, offset : (2, 2), (2,) float64
    nodes : (rows, columns, 2) float32
        Of a `resample.Field`, `step` pixels apart; empty: none.
    fill : float32
        Value beyond the image.
    out : (rows, columns) float32
    """
    wide = coefficients.shape[1]
    ny, nx = coefficients.shape[0] - BEFORE - AFTER, wide - BEFORE - AFTER
    for row in range(out.shape[0]):
        i, f = row // step, row % step / step
        for column in range(out.shape[1]):
            v, u = float(row), float(column)
            if nodes.size:
                j, g = column // step, column % step / step
                v += _between(nodes, 0, i, j, f, g)
                u += _between(nodes, 1, i, j, f, g)
            y = matrix[0, 0] * v + matrix[0, 1] * u + offset[0]
            x = matrix[1, 0] * v + matrix[1, 1] * u + offset[1]
            if not (-EDGE <= y <= ny - 1 + EDGE and -EDGE <= x <= nx - 1 + EDGE):
                out[row, column] = fill
                continue
            iy, ix = int(y), int(x)
            down, across = np.float32(y - iy), np.float32(x - ix)
            out[row, column] = spline(coefficients, iy * wide + ix, wide, down, across)
