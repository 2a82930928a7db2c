"""Rows moved plane by plane: linear between rows, whatever part of them is asked for."""

import numpy as np

from kernels.arrays import to_host
from kernels.moved_rows import moved_rows


def test_rows_lie_between_those_of_the_volume(on):
    y = np.arange(20.0, dtype=np.float32)
    volume = np.broadcast_to((y[:, None] ** 1.0)[None], (4, 20, 3)).copy()
    shifts = [0.0, 2.25, -3.5, 30.0]
    found = to_host(moved_rows(on(volume), shifts, 1, 18))
    for z, shift in enumerate(shifts):
        places = 1 + np.arange(18) + shift
        expected = np.where((places >= 0) & (places <= 19), places, 0)
        np.testing.assert_allclose(found[z], np.repeat(expected[:, None], 3, 1), atol=1e-5)


def test_a_part_is_that_of_the_whole():
    volume = np.random.default_rng(1).normal(size=(5, 40, 6)).astype(np.float32)
    shifts = np.round(0.37 * np.arange(5) - 1.1, 6)
    whole = moved_rows(volume, shifts, 4, 30)
    part = moved_rows(volume[:, 10:35], shifts, 4 + 12 - 10, 10)
    np.testing.assert_array_equal(part, whole[:, 12:22])
