"""Fourier transforms across the rows of 16 columns at once, on whole vector registers, for Numba.

SciPy's transform along a first axis copies columns out and in and works in vectors of four; on
images larger than the L2 cache it spends most of its time waiting. Here 16 columns, a vector of
reals and one of imaginaries for each row, stay in the L2 cache from pass to pass (Stockham's
scheme: each pass of radix 2, 3, 4 or 5 writes to another buffer, in the order of the next).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import cos, pi, sin
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from kernels.vectors_cpu import (
    FLOAT,
    FUSED,
    INDEX,
    LANES,
    VECTOR,
    data_of,
    ir,
    load,
    shuffle,
    splat,
    store,
    turned,
)

RADICES = (4, 5, 3, 2)
# Reals and imaginaries a multiple of 4 KiB apart would keep each other out of the L1 cache.
GAP = 5 * LANES


class _Vector:
    """A vector of 16 floats that the code being built holds."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: _Vector) -> _Vector:
        return _Vector(self.builder, self.builder.fadd(self.value, other.value, flags=FUSED))

    def __sub__(self, other: _Vector) -> _Vector:
        return _Vector(self.builder, self.builder.fsub(self.value, other.value, flags=FUSED))

    def __mul__(self, other: _Vector | float) -> _Vector:
        if isinstance(other, _Vector):
            factor = other.value
        else:
            factor = ir.Constant(VECTOR, [ir.Constant(FLOAT, float(np.float32(other)))] * LANES)
        return _Vector(self.builder, self.builder.fmul(self.value, factor, flags=FUSED))


Pair = tuple[_Vector, _Vector]


def _transform(x: list[Pair]) -> list[Pair]:
    """Return Σ x[j] exp(2πi jk / n), reals and imaginaries, for n of `RADICES`."""
    n = len(x)
    if n == 2:
        (a, ai), (b, bi) = x
        return [(a + b, ai + bi), (a - b, ai - bi)]
    if n == 4:
        (p, pi_), (m, mi) = _transform([x[0], x[2]])
        (q, qi), (d, di) = _transform([x[1], x[3]])
        return [(p + q, pi_ + qi), (m - di, mi + d), (p - q, pi_ - qi), (m + di, mi - d)]
    pairs = range(1, n // 2 + 1)
    sums = {j: (x[j][0] + x[n - j][0], x[j][1] + x[n - j][1]) for j in pairs}
    differences = {j: (x[j][0] - x[n - j][0], x[j][1] - x[n - j][1]) for j in pairs}
    found = [x[0]] * n
    for j in pairs:
        found[0] = (found[0][0] + sums[j][0], found[0][1] + sums[j][1])
    for k in pairs:
        even, odd = x[0], None
        for j in pairs:
            c, s = cos(2 * pi * j * k / n), sin(2 * pi * j * k / n)
            even = (even[0] + sums[j][0] * c, even[1] + sums[j][1] * c)
            part = (differences[j][0] * s, differences[j][1] * s)
            odd = part if odd is None else (odd[0] + part[0], odd[1] + part[1])
        assert odd is not None
        found[k] = (even[0] - odd[1], even[1] + odd[0])
        found[n - k] = (even[0] + odd[1], even[1] - odd[0])
    return found


def _butterfly(radix: int) -> Any:
    def butterfly(
        typing: Any, source: Any, at: Any, step: Any, target: Any, to: Any, stride: Any,
        imaginary: Any, twiddles: Any, first: Any,
    ) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
        """Transform `radix` vectors from ``source[at + step·j]`` to ``target[to + stride·k]``.

        Imaginaries lie `imaginary` further; ``twiddles[first …]`` are cosine and sine for k > 0.
        """
        signature = types.void(
            *(source, types.int64, types.int64, target), *[types.int64] * 3, twiddles, types.int64
        )

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data, out, factors = (
                data_of(context, builder, signature.args[i], arguments[i]) for i in (0, 3, 7)
            )
            at, step, to, stride, imaginary, first = (arguments[i] for i in (1, 2, 4, 5, 6, 8))

            def place(start: Any, stride: Any, i: int) -> tuple[Any, Any]:
                real = builder.add(start, builder.mul(stride, INDEX(i)))
                return real, builder.add(real, imaginary)

            def factor(i: int) -> _Vector:
                address = builder.gep(factors, [builder.add(first, INDEX(i))])
                return _Vector(builder, splat(builder, builder.load(address)))

            def read(i: int) -> Pair:
                real, imaginary = place(at, step, i)
                return (
                    _Vector(builder, load(builder, data, real)),
                    _Vector(builder, load(builder, data, imaginary)),
                )

            for k, (a, b) in enumerate(_transform([read(i) for i in range(radix)])):
                if k:
                    c, s = factor(2 * k - 2), factor(2 * k - 1)
                    a, b = a * c - b * s, a * s + b * c
                for value, address in zip((a, b), place(to, stride, k), strict=True):
                    store(builder, value.value, out, address)
            return context.get_dummy_value()

        return signature, generate

    return intrinsic(butterfly)


_radix_2, _radix_3, _radix_4, _radix_5 = (_butterfly(radix) for radix in (2, 3, 4, 5))


def _split(
    typing: Any, source: Any, at: Any, weights: Any, of: Any, target: Any, to: Any, imaginary: Any
) -> tuple[Any, Callable[..., Any]]:
    """Part 16 complex numbers, ``source[at : at + 32]`` as floats, times ``weights[of …]``."""
    signature = types.void(source, types.int64, weights, types.int64, target, *[types.int64] * 2)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, factors, out = (
            data_of(context, builder, signature.args[i], arguments[i]) for i in (0, 2, 4)
        )
        at, of, to, imaginary = (arguments[i] for i in (1, 3, 5, 6))
        low = load(builder, data, at)
        high = load(builder, data, builder.add(at, INDEX(LANES)))
        weight = load(builder, factors, of)
        for part, place in ((0, to), (1, builder.add(to, imaginary))):
            value = shuffle(builder, low, high, [2 * i + part for i in range(LANES)])
            store(builder, builder.fmul(value, weight), out, place)
        return context.get_dummy_value()

    return signature, generate


def _join(
    typing: Any, source: Any, at: Any, imaginary: Any, target: Any, to: Any
) -> tuple[Any, Callable[..., Any]]:
    """Write what `_split` parts as complex numbers again, to ``target[to : to + 32]``."""
    signature = types.void(source, types.int64, types.int64, target, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, out = (data_of(context, builder, signature.args[i], arguments[i]) for i in (0, 3))
        at, imaginary, to = (arguments[i] for i in (1, 2, 4))
        real = load(builder, data, at)
        other = load(builder, data, builder.add(at, imaginary))
        for half in (0, 1):
            lanes = [half * LANES // 2 + i // 2 + LANES * (i % 2) for i in range(LANES)]
            place = builder.add(to, INDEX(half * LANES))
            store(builder, shuffle(builder, real, other, lanes), out, place)
        return context.get_dummy_value()

    return signature, generate


def _unfold(
    typing: Any, source: Any, at: Any, step: Any, other: Any, target: Any, to: Any, mirror: Any,
    stride: Any, imaginary: Any, count: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """Make of half spectra of 2 × 16 real columns the whole ones of 16 complex columns.

    Eight frequencies of columns A from ``source[at]`` on and of B from ``source[other]`` on, as
    floats, `step` apart. The first `count` of them are written, A + iB, to ``target[to …]``,
    `stride` apart, and conj A + i conj B to ``target[mirror …]``, downwards.
    """
    signature = types.void(source, *[types.int64] * 3, target, *[types.int64] * 5)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, out = (data_of(context, builder, signature.args[i], arguments[i]) for i in (0, 4))
        at, step, other, to, mirror, stride, imaginary, count = (
            arguments[i] for i in (1, 2, 3, 5, 6, 7, 8, 9)
        )
        # Float j of each of 16 columns, in one vector.
        a, b = (
            turned(
                builder,
                [
                    load(builder, data, builder.add(start, builder.mul(step, INDEX(i))))
                    for i in range(LANES)
                ],
            )
            for start in (at, other)
        )
        for i in range(LANES // 2):
            with builder.if_then(builder.icmp_signed("<", INDEX(i), count)):
                real_a, imaginary_a, real_b, imaginary_b = (
                    _Vector(builder, part[2 * i + odd]) for part in (a, b) for odd in (0, 1)
                )
                up = builder.add(to, builder.mul(stride, INDEX(i)))
                down = builder.sub(mirror, builder.mul(stride, INDEX(i)))
                for place, real, other_part in (
                    (up, real_a - imaginary_b, imaginary_a + real_b),
                    (down, real_a + imaginary_b, real_b - imaginary_a),
                ):
                    store(builder, real.value, out, place)
                    store(builder, other_part.value, out, builder.add(place, imaginary))
        return context.get_dummy_value()

    return signature, generate


split: Any = intrinsic(_split)
join: Any = intrinsic(_join)
unfold: Any = intrinsic(_unfold)


@lru_cache(maxsize=8)
def scheme(n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the radices of a transform of length n, and cosines and sines of all its passes.

    Raises
    ------
    ValueError
        If n has a factor that is not 2, 3 or 5.
    """
    radices, left = [], n
    for radix in RADICES:
        while left % radix == 0:
            radices.append(radix)
            left //= radix
    if left > 1:
        raise ValueError(f"length {n} has the factor {left}: only 2, 3 and 5 are possible")
    tables, left = [np.empty(0)], n
    for radix in radices:
        rows = left // radix
        angles = 2 * pi / left * np.outer(np.arange(rows), np.arange(1, radix))
        tables.append(np.stack([np.cos(angles), np.sin(angles)], axis=-1).ravel())
        left = rows
    return np.array(radices, dtype=np.int64), np.concatenate(tables).astype(np.float32)


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
def inverse(one, other, at, length, radices, twiddles, imaginary):  # type: ignore[no-untyped-def]
    """Transform 16 columns, rows from ``one[at]`` on; return the buffer that has the result.

    Not normalised. `other` is a buffer for as many columns; the result lies in it from 0 on, or in
    `one` where it was, `length` rows of 16 reals and, `imaginary` further, their imaginaries.
    """
    left, done, first = length, 1, 0
    source, target, origin, there = one, other, at, 0
    for radix in radices:
        rows = left // radix
        step, stride = done * rows * LANES, done * LANES
        for p in range(rows):
            for q in range(done):
                a = origin + (q + done * p) * LANES
                b = there + (q + done * radix * p) * LANES
                if radix == 4:
                    _radix_4(source, a, step, target, b, stride, imaginary, twiddles, first)
                elif radix == 5:
                    _radix_5(source, a, step, target, b, stride, imaginary, twiddles, first)
                elif radix == 3:
                    _radix_3(source, a, step, target, b, stride, imaginary, twiddles, first)
                else:
                    _radix_2(source, a, step, target, b, stride, imaginary, twiddles, first)
            first += 2 * (radix - 1)
        left, done = rows, done * radix
        source, target = target, source
        origin, there = there, origin
    return source, origin
