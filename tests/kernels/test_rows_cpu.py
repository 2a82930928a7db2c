"""Sums and transposes of rows on vector registers, against NumPy."""

import numpy as np
import pytest
from numba import njit

from kernels.rows_cpu import ROW, add_rows, add_transposed, transpose
from kernels.vectors_cpu import LANES


@njit
def _sum(total, rows, index, left, right, step, count):
    add_rows(total, 5, rows, index, left, right, 1, step, count)


@njit
def _turn(source, target, add):
    if add:
        add_transposed(source, 3, 40, target, 7, 33)
    else:
        transpose(source, 3, 40, target, 7, 33)


@pytest.mark.parametrize(("step", "count"), [(1, 1), (1, 6), (2, 3)])
def test_rows_are_added_with_their_weights(step, count):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((9, ROW), dtype=np.float32)
    left, right = rng.standard_normal((2, 7), dtype=np.float32)
    index = rng.integers(0, 8, 7)
    total = np.arange(ROW + 9, dtype=np.float32)
    expected = total.copy()
    for k in range(1, 1 + step * count, step):
        expected[5 : 5 + ROW] += left[k] * rows[index[k]] + right[k] * rows[index[k] + 1]
    _sum(total, rows, index * ROW, left, right, step, count)
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("add", [False, True])
def test_a_square_is_transposed_and_nothing_else_touched(add):
    source = np.arange(800, dtype=np.float32).reshape(20, 40)
    target = np.full((20, 33), 0.5, np.float32)
    expected = target.copy().ravel()
    for i in range(LANES):
        for j in range(LANES):
            place = 7 + 33 * j + i
            expected[place] = add * expected[place] + source.ravel()[3 + 40 * i + j]
    _turn(source, target, add)
    np.testing.assert_array_equal(target.ravel(), expected)
