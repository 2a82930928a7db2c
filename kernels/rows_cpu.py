"""Sums and transposes of rows of `ROW` pixels on whole vector registers, for Numba code.

Numba's own vectorised loops check at run time, before each row, whether arrays overlap, and keep
no sums in registers from one row to the next: back-projection then reaches half of what these
two functions reach. They are written in LLVM's vectors of 16 floats, which LLVM cuts to what the
machine has. Offsets are in elements; nothing is checked. Numba's cache on disk does not see when
this file changes, only when the callers' do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic

from kernels.vectors_cpu import (
    FUSED,
    INDEX,
    LANES,
    VECTOR,
    data_of,
    load,
    splat,
    store,
    turned,
)

ROW = 128  # pixels of a row: eight vectors, whose sums and addends fit the registers


def _add_rows(
    typing: Any, total: Any, at: Any, rows: Any, index: Any, left: Any, right: Any, first: Any,
    step: Any, count: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """Add ``left[k] · row(index[k]) + right[k] · row(index[k] + ROW)`` to a row of sums.

    Parameters
    ----------
    total, rows : float32 arrays
        The sums are ``total[at : at + ROW]`` (flat), a row is ``rows[i : i + ROW]``.
    index, left, right : int64, float32, float32 arrays
        Used from `first` on, every `step`-th, `count` ≥ 1 of them in this order: the sum is one
        chain.
    """
    signature = types.void(total, types.int64, rows, index, left, right, *[types.int64] * 3)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        at, first, stride, count = (arguments[i] for i in (1, 6, 7, 8))
        sums, source, index, left, right = (
            data_of(context, builder, kinds[i], arguments[i]) for i in (0, 2, 3, 4, 5)
        )
        steps = [INDEX(LANES * i) for i in range(ROW // LANES)]
        start = [load(builder, sums, builder.add(at, step)) for step in steps]
        before = builder.block
        loop, end = builder.append_basic_block("loop"), builder.append_basic_block("end")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(INDEX)
        k.add_incoming(first, before)
        parts = [builder.phi(VECTOR) for _ in steps]
        row = builder.load(builder.gep(index, [k]))
        weights = [splat(builder, builder.load(builder.gep(w, [k]))) for w in (left, right)]
        after = []
        for step, part, begun in zip(steps, parts, start, strict=True):
            part.add_incoming(begun, before)
            value = part
            for weight, ahead in zip(weights, (0, ROW), strict=True):
                place = builder.add(row, builder.add(step, INDEX(ahead)))
                product = builder.fmul(weight, load(builder, source, place), flags=FUSED)
                value = builder.fadd(product, value, flags=FUSED)
            after.append(value)
        following = builder.add(k, stride)
        k.add_incoming(following, loop)
        for part, value in zip(parts, after, strict=True):
            part.add_incoming(value, loop)
        more = builder.icmp_signed("<", following, builder.add(first, builder.mul(stride, count)))
        builder.cbranch(more, loop, end)
        builder.position_at_end(end)
        for step, value in zip(steps, after, strict=True):
            store(builder, value, sums, builder.add(at, step))
        return context.get_dummy_value()

    return signature, generate


def _transpose(add: bool) -> Callable[..., tuple[Any, Callable[..., Any]]]:
    def transpose(
        typing: Any, source: Any, at: Any, step: Any, target: Any, to: Any, stride: Any
    ) -> tuple[Any, Callable[..., Any]]:
        signature = types.void(source, *[types.int64] * 2, target, *[types.int64] * 2)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            at, step, to, stride = (arguments[i] for i in (1, 2, 4, 5))
            data, out = (data_of(context, builder, signature.args[i], arguments[i]) for i in (0, 3))
            block = [
                load(builder, data, builder.add(at, builder.mul(step, INDEX(i))))
                for i in range(LANES)
            ]
            for i, value in enumerate(turned(builder, block)):
                place = builder.add(to, builder.mul(stride, INDEX(i)))
                if add:
                    value = builder.fadd(load(builder, out, place), value)
                store(builder, value, out, place)
            return context.get_dummy_value()

        return signature, generate

    return transpose


add_rows: Any = intrinsic(_add_rows)
# transpose(source, at, step, target, to, stride): target[to + stride·j + i] of 16 × 16 floats
# becomes source[at + step·i + j], or has it added.
transpose: Any = intrinsic(_transpose(False))
add_transposed: Any = intrinsic(_transpose(True))
