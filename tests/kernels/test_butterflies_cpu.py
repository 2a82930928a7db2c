from __future__ import annotations

import numpy as np
import pytest

from kernels.butterflies_cpu import GAP, LANES, inverse, scheme
from kernels.plane_images_cpu import corrected_columns


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 30, 60, 128, 225, 1152, 1200])
@pytest.mark.parametrize("start", [0, 64])
def test_sixteen_columns_are_transformed_as_numpy_does(length: int, start: int) -> None:
    rng = np.random.default_rng(length)
    columns = rng.standard_normal((length, LANES)) + 1j * rng.standard_normal((length, LANES))
    radices, twiddles = scheme(length)
    assert np.prod(radices, initial=1) == length
    imaginary = length * LANES + GAP
    one, other = (np.zeros(start + 2 * imaginary, np.float32) for _ in range(2))
    one[start : start + length * LANES] = columns.real.ravel()
    one[start + imaginary : start + imaginary + length * LANES] = columns.imag.ravel()
    found, at = inverse(one, other, start, length, radices, twiddles, imaginary)
    parts = [found[i : i + length * LANES] for i in (at, at + imaginary)]
    expected = np.fft.ifft(columns, axis=0) * length
    got = (parts[0] + 1j * parts[1]).reshape(length, LANES)
    np.testing.assert_allclose(got, expected, atol=2e-6 * length**0.5 * np.abs(expected).max())


def test_a_length_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(ValueError, match="length 1148 has the factor 287"):
        scheme(1148)


@pytest.mark.parametrize("shape", [(60, 32), (60, 30), (64, 90), (90, 144)])
@pytest.mark.parametrize("columns", [(0, 60), (7, 20), (59, 1), (3, 0), (2, 33)])
@pytest.mark.parametrize("cut", [0, 13])
def test_columns_are_those_of_numpy(
    shape: tuple[int, int], columns: tuple[int, int], cut: int
) -> None:
    rng = np.random.default_rng(0)
    wide, high = shape
    half = (wide, high // 2 + 1)
    spectrum = (rng.standard_normal((*half, 2)) @ (1, 1j)).astype(np.complex64)
    kx, ky = (np.zeros(n, np.float32) for n in half)
    h = np.where(rng.random(half) < 0.5, 0.5, 1.5).astype(np.float32)  # flips
    (first, count), numbers = columns, np.zeros(4, np.float32)
    rows = high - cut
    found = corrected_columns(spectrum, h, kx, ky, numbers, 0, columns, (high, rows))
    lines = np.fft.ifft(np.where(h < 1, spectrum, -spectrum), axis=0)[first : first + count]
    expected = np.fft.irfft(lines, high, axis=1)[:, :rows] if count else np.zeros((0, rows))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-6)
