"""IMOD's antialias kernels: their weights, and what newstack itself gives."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from kernels.antialias import KERNELS, reduce_by_kernel, weights
from kernels.reduce import reduce_image, reduced_places

# newstack (IMOD 4.7) -shrink 3 -antialias 1 … 6 -mode 2 on the 75×93 image below: columns 0, 15
# and 30 of row 12 of 25×31. Sizes are odd, so that its centre is ours.
NEWSTACK = {
    "box": (6.3333, 7.0000, 6.2222),
    "blackman": (6.3236, 6.3986, 6.7832),
    "triangle": (6.3611, 5.8765, 6.7361),
    "mitchell": (6.3669, 5.8869, 6.5616),
    "lanczos2": (6.5288, 5.9581, 6.6694),
    "lanczos3": (6.6770, 5.9577, 6.6776),
}


def image() -> np.ndarray:
    rows, columns = np.indices((75, 93))
    return ((7 * rows + 5 * columns + rows * columns) % 13).astype(np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
def test_newstack_gives_the_same(kernel: str) -> None:
    places = reduced_places(75, 3), reduced_places(93, 3)
    out = reduce_by_kernel(image(), places, 3, kernel)
    assert out.shape == (25, 31)
    np.testing.assert_allclose(out[12, [0, 15, 30]], NEWSTACK[kernel], atol=2e-4)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("factor", [1.0, 1.4, 2.0, 3.7])
def test_weights_add_up_to_one_and_stay_on_the_axis(kernel: str, factor: float) -> None:
    for length in (7, 50, 51):
        first, table = weights(length, reduced_places(length, factor), factor, kernel)
        np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-6)
        assert first.min() >= 0
        assert first.max() + table.shape[1] <= length


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_constant_stays_itself_up_to_the_edges(kernel: str) -> None:
    out = reduce_image(np.full((31, 44), 7.5, np.float32), 2.6, kernel)
    np.testing.assert_allclose(out, 7.5, rtol=1e-6)


def test_a_box_is_the_mean_of_whole_pixels() -> None:
    values = np.random.default_rng(0).normal(size=(33, 45)).astype(np.float32)
    places = reduced_places(33, 3), reduced_places(45, 3)
    expected = values.reshape(11, 3, 15, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(reduce_by_kernel(values, places, 3, "box"), expected, atol=1e-6)


def test_wider_kernels_let_less_through_above_the_new_nyquist_frequency() -> None:
    wave = np.tile(np.cos(2 * np.pi * 0.4 * np.arange(400)), (40, 1)).astype(np.float32)
    powers = [
        reduce_image(wave, 2, kernel)[:, 20:-20].var() / wave.var()
        for kernel in ("blackman", "box", "mitchell", "lanczos3")
    ]
    assert all(a > b for a, b in pairwise(powers))
    assert powers[-1] < 1e-3


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="antialias kernel is 'gauss', expected one of box, bl"):
        weights(8, reduced_places(8, 2), 2, "gauss")
