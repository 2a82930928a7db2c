from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.fft

from kernels.arrays import to_host
from kernels.backproject import aligned_projection, backproject
from kernels.fine_rows import fine_columns, fine_rows, spline_filter
from kernels.geometry import View

N = 128


def waves(frequency: float, places: Any) -> Any:
    return np.cos(2 * np.pi * frequency * places + 0.7)


def coefficients(rows: Any) -> Any:
    n = rows.shape[-1]
    return scipy.fft.irfft(scipy.fft.rfft(rows) * spline_filter(n), n).astype(np.float32)


@pytest.mark.parametrize(("frequency", "allowed"), [(0.25, 0.003), (0.375, 0.1), (0.4375, 0.4)])
def test_samples_lie_on_the_wave(frequency: float, allowed: float) -> None:
    rows = waves(frequency, np.arange(N))[None]
    found = fine_rows(coefficients(rows))[0, 6:-6]
    truth = waves(frequency, np.arange(6, 2 * N - 7) / 2)
    assert found.size == fine_columns(N) - 12
    np.testing.assert_allclose(found[::2], truth[::2], atol=1e-5)
    assert np.abs(found - truth).max() < allowed
    # Half-way between pixels linear interpolation damps a wave to cos πf.
    assert np.abs(found - truth).max() < 0.5 * (1 - np.cos(np.pi * frequency))


@pytest.mark.parametrize("shape", [(3, 17), (2, 3, 17), (1, 1)])
def test_all_namespaces_and_axes_agree(on: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    padded = np.pad(values, [*[(0, 0)] * (len(shape) - 1), (2, 3)], mode="edge").astype(float)
    part = {by: padded[..., 2 + by : 2 + by + shape[-1]] for by in range(-2, 4)}
    truth = np.zeros((*shape[:-1], 2 * shape[-1] - 1))
    truth[..., ::2] = (66 * part[0] + 26 * (part[-1] + part[1]) + part[-2] + part[2]) / 120
    half = 1682 * (part[0] + part[1]) + 237 * (part[-1] + part[2]) + part[-2] + part[3]
    truth[..., 1::2] = half[..., :-1] / 3840
    np.testing.assert_allclose(to_host(fine_rows(on(values))), truth, atol=1e-6)
    if len(shape) == 2:
        down = to_host(fine_rows(on(np.ascontiguousarray(values.T)), axis=0))
        np.testing.assert_allclose(down, truth.T, atol=1e-6)


def test_a_tomogram_keeps_detail_near_nyquist() -> None:
    views = [View(tilt, 0.0) for tilt in (-52.0, -17.0, 23.0, 41.0)]
    shape, frequency = (24, 1, 48), 0.38
    projection = aligned_projection(views, shape, N)
    x, z = np.arange(48), np.arange(24)[:, None]
    truth = np.zeros((24, 48))
    for a, b, c in zip(projection.x, projection.z, projection.offset, strict=True):
        truth += waves(frequency, a * x + b * z + c)
    rows = np.repeat(waves(frequency, np.arange(N))[None, None], 4, axis=0)
    fine = backproject(fine_rows(coefficients(rows)), projection.fine(), shape)[:, 0]
    plain = backproject(rows.astype(np.float32), projection, shape)[:, 0]
    errors = [float(np.sqrt(np.mean((found - truth) ** 2))) for found in (fine, plain)]
    assert errors[0] < 0.5 * errors[1]
