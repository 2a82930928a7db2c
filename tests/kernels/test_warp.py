"""Three bodies of one warp agree, and the two passes do what one displacement asks for."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import arrays, gridding, warp

TABLE = gridding.polynomials(gridding.steepness(0.25))


def planted(shape, size=6.0, shift=(3.3, -12.6)):
    """Return nodes of a smooth displacement (y, x) that varies by some `size` pixels."""
    step = warp.node_step(shape)
    y, x = warp.node_positions(shape, step)
    down, across = size * (x * x + y / 2 - x * y), size * (np.sin(2 * y) - x / 3)
    return warp.two_passes(np.array([down + shift[0], across + shift[1]]), step)


def image(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("shape", [(150, 201), (96, 130), (65, 64), (9, 12)])
@pytest.mark.parametrize("size", [0.5, 4.0])
def test_every_namespace_agrees_with_the_reference(on, shape, size):
    nodes = planted(shape, size)
    expected, out = np.ones(shape, np.float32), on(np.ones(shape, np.float32))
    warp.reference_add_warped(image(*shape), nodes, TABLE, expected)
    warp.add_warped(on(image(*shape)), nodes, TABLE, out)
    np.testing.assert_allclose(arrays.to_host(out), expected, atol=5e-5)


@pytest.mark.parametrize("shape", [(150, 201), (65, 64)])
def test_the_cuda_source_run_on_the_cpu_agrees_with_the_reference(shape, cuda_on_cpu):
    nodes = planted(shape)
    expected, out = np.ones(shape, np.float32), np.ones(shape, np.float32)
    warp.reference_add_warped(image(*shape), nodes, TABLE, expected)
    run = cuda_on_cpu("warp")
    for name, (grid, block, arguments) in warp.cuda_launches(image(*shape), nodes, TABLE, out):
        run(name, (grid, block, arguments))
    np.testing.assert_allclose(out, expected, atol=5e-5)


def test_a_pixel_takes_its_value_from_its_displaced_place():
    shape = (120, 140)
    y, x = np.indices(shape)
    planes = {"y": y.astype(np.float32), "x": x.astype(np.float32)}
    step = warp.node_step(shape)
    rows, columns = warp.node_positions(shape, step)
    displacement = np.array([5 + 3 * columns + 2 * rows, -4 + 6 * rows - 2 * columns])
    nodes = warp.two_passes(displacement, step)
    here_y, here_x = (y - 60) / 120, (x - 70) / 140
    expected = {
        "y": y + 5 + 3 * here_x + 2 * here_y,
        "x": x - 4 + 6 * here_y - 2 * here_x,
    }
    inner = np.s_[16:-16, 16:-16]  # beyond, the image is mirrored
    for axis, plane in planes.items():
        out = np.zeros(shape, np.float32)
        warp.add_warped(plane, nodes, TABLE, out)
        np.testing.assert_allclose(out[inner], expected[axis][inner], atol=3e-3)


def test_weights_keep_the_mean_and_have_the_stated_response():
    for binning in (1.0, 1.5, 2.0, 4.0):
        beta = gridding.steepness(0.5 / binning)
        length, table = 64, gridding.polynomials(beta)
        left = arrays.to_host(gridding.response((length, length), (length, length), beta, TABLE)[0])
        k = int(0.4 * length / binning)
        wave = np.exp(2j * np.pi * k * np.arange(-2, 4) / length)
        fractions = (np.arange(16) + 0.5) / 16
        _, weights = warp._pixel_weights(fractions, table)
        np.testing.assert_allclose(np.sum(weights, axis=0), 1, atol=1e-6)
        seen = np.mean(wave @ weights * np.exp(-2j * np.pi * k * fractions / length))
        assert seen == pytest.approx(left[k, 0], rel=2e-4)


def test_a_coarse_grid_becomes_its_field():
    places = np.linspace(-0.5, 0.5, 9)
    y, x = np.meshgrid(places, places, indexing="ij")
    grid = np.stack([y * x, y - x], axis=-1)[None]
    field = warp.grid_field(grid)
    seen = field(np.array([[0.1]]), np.array([[-0.3]]))
    np.testing.assert_allclose(seen[0, :, 0, 0], [-0.03, 0.4], atol=1e-9)
    with pytest.raises(ValueError, match=r"the grid is \(9, 9\)"):
        warp.grid_field(y)


def test_sizes_that_disagree_are_refused():
    with pytest.raises(ValueError, match=r"nodes are \(\d+, \d+\), expected"):
        warp.add_warped(image(90, 80), planted((40, 40)), TABLE, image(90, 80))
