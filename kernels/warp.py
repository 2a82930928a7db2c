"""Add images warped by a smooth field, interpolated along x, then along y.

Pixel (y, x) of the sum takes the value of the image at (y + down, x + across). The displacement
is given at nodes every few pixels and linear between them. Beyond its edges an image goes on
mirrored. NumPy arrays take the Numba body of `warp_cpu`, CuPy arrays ``cuda/warp.cu``; both are
tested against `reference_add_warped`, which serves every other namespace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline
from scipy.ndimage import map_coordinates

from kernels.arrays import Array, asarray_like, cuda_module, device, is_cupy, is_numpy, namespace
from kernels.fourier import Shape
from kernels.gridding import TAPS, TERMS

Field = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]

CUDA_THREADS = 128  # along x


@dataclass(frozen=True)
class Nodes:
    """A displacement for the two passes [pixels], at the pixels that are multiples of `step`.

    Attributes
    ----------
    down : (rows, columns) float32
        Along y, at pixels of the sum.
    across : (rows, columns) float32
        Along x, at the place along y from which the second pass reads.
    step : int
        Pixels between nodes.
    """

    down: NDArray[np.float32]
    across: NDArray[np.float32]
    step: int


def node_step(shape: Shape) -> int:
    """Return the distance of nodes for images of `shape`: a power of two, 64 or more on a side."""
    return int(2 ** np.clip(np.floor(np.log2(max(shape) / 64)), 2, 6))


def node_positions(shape: Shape, step: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return y and x of all nodes, each (rows, columns), as (i − n // 2) / n."""
    y, x = ((np.arange((n - 1) // step + 2) * step - n // 2) / n for n in shape)
    rows, columns = np.meshgrid(y, x, indexing="ij")
    return rows, columns


def two_passes(displacement: NDArray[np.float64], step: int) -> Nodes:
    """Split a displacement (2, rows, columns), y and x, at nodes into two passes.

    The first pass stands at y′ = y + down(y, x) when it asks for `across`, which is known at y.
    """
    down, across = displacement
    row, column = np.indices(down.shape, dtype=np.float64)
    y = row
    for _ in range(4):  # the field is smooth: each round gains two digits
        moved = map_coordinates(down, [y, column], order=1, mode="nearest")
        y = row - moved / step
    across = map_coordinates(across, [y, column], order=1, mode="nearest")
    return Nodes(down.astype(np.float32), across.astype(np.float32), step)


def grid_field(grid: NDArray[np.float64]) -> Field:
    """Return the field through displacements on a coarse grid, interpolated by cubic splines.

    Parameters
    ----------
    grid : (n, gy, gx, 2)
        Displacement (y, x) of frame after frame at evenly spaced places from the one edge of the
        frame, −0.5, to the other, 0.5.

    Returns
    -------
    callable
        Takes y and x as (i − n // 2) / n and returns (n, 2, …).
    """
    values = np.asarray(grid, dtype=np.float64)
    if values.ndim != 4 or values.shape[3] != 2 or min(values.shape[1:3]) < 2:
        raise ValueError(f"the grid is {values.shape}, expected (n, gy, gx, 2), gy and gx over 1")

    places = [np.linspace(-0.5, 0.5, n) for n in values.shape[1:3]]
    degrees = [min(3, n - 1) for n in values.shape[1:3]]
    splines = [
        [RectBivariateSpline(*places, frame[..., i], kx=degrees[0], ky=degrees[1]) for i in (0, 1)]
        for frame in values
    ]

    def field(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([[axis.ev(y, x) for axis in frame] for frame in splines])

    return field


def add_warped(image: Array, nodes: Nodes, table: NDArray[np.float32], out: Array) -> None:
    """Add a warped image to `out`.

    Parameters
    ----------
    image : (ny, nx) float32
    nodes : Nodes
    table : (3, 2, TERMS) float32
        Weights of the six pixels, from `gridding.polynomials`. The sum is to be divided by
        `gridding.response` in Fourier space.
    out : (ny, nx) float32
        Added to in place, C-contiguous.

    Raises
    ------
    ValueError
        If the sizes do not agree.
    """
    shape = (image.shape[0], image.shape[1])
    expected = tuple((n - 1) // nodes.step + 2 for n in shape)
    if tuple(out.shape) != shape or nodes.down.shape != expected:
        raise ValueError(
            f"image {shape}, out {tuple(out.shape)}: must be the same; nodes are "
            f"{nodes.down.shape}, expected {expected}"
        )
    if is_numpy(image):
        from kernels import warp_cpu  # Numba takes half a second to import

        warp_cpu.add_warped(image, nodes.across, nodes.down, nodes.step, table, out)
    elif is_cupy(image):
        module = cuda_module("warp")
        for name, launch in cuda_launches(image, nodes, table, out):
            module.get_function(name)(*launch)
    else:
        reference_add_warped(image, nodes, table, out)


Launch = tuple[tuple[int, int, int], tuple[int, int, int], tuple[Any, ...]]


def cuda_launches(
    image: Array, nodes: Nodes, table: NDArray[np.float32], out: Array
) -> list[tuple[str, Launch]]:
    """Return the two CUDA kernels with grids, blocks and arguments, living where `image` does."""
    xp = namespace(image)
    ny, nx = image.shape
    margin = _margin(nodes)
    rows = ny + 2 * margin
    buffer = xp.empty((rows, nx), dtype=xp.float32, device=device(image))
    across, down, weights = (asarray_like(a, image) for a in (nodes.across, nodes.down, table))
    sizes = [np.int32(v) for v in (ny, nx, margin, nodes.step, *nodes.down.shape)]
    blocks = -(-nx // CUDA_THREADS)
    block = (CUDA_THREADS, 1, 1)
    source = xp.asarray(image, copy=False) if is_numpy(image) else image
    return [
        ("across", ((blocks, rows, 1), block, (source, across, weights, buffer, *sizes))),
        ("down", ((blocks, ny, 1), block, (buffer, down, weights, out, *sizes))),
    ]


def reference_add_warped(
    image: Array, nodes: Nodes, table: NDArray[np.float32], out: Array
) -> None:
    """Do what `add_warped` does, plainly and slowly, in any array-API namespace."""
    ny, nx = image.shape
    margin = _margin(nodes)
    y, x = np.arange(-margin, ny + margin), np.arange(nx)
    rows = _mirrored(y, ny)[:, None] * nx
    whole, weights = _pixel_weights(_at_pixels(nodes.across, y, x, nodes.step), table)
    buffer = _weighted(
        image, [rows + _mirrored(x + whole + j - 2, nx) for j in range(TAPS)], weights
    )
    y = np.arange(ny)
    whole, weights = _pixel_weights(_at_pixels(nodes.down, y, x, nodes.step), table)
    rows = y[:, None] + whole + margin - 2
    out[...] = out + _weighted(buffer, [(rows + j) * nx + x for j in range(TAPS)], weights)


def _margin(nodes: Nodes) -> int:
    """Return how many rows beyond the edges the second pass may read."""
    return TAPS // 2 + 1 + int(np.ceil(np.abs(nodes.down).max()))


def _mirrored(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    folded = index % (2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)


def _at_pixels(
    nodes: NDArray[np.float32], y: NDArray[np.int64], x: NDArray[np.int64], step: int
) -> NDArray[np.float64]:
    """Return the displacement at the pixels (y, x), linear between the nodes."""
    places = np.meshgrid(y / step, x / step, indexing="ij")
    return map_coordinates(nodes.astype(np.float64), places, order=1, mode="nearest")


def _pixel_weights(
    displacement: NDArray[np.float64], table: NDArray[np.float32]
) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
    """Return the whole pixels of displacements, and the weights of the six pixels around."""
    whole = np.floor(displacement).astype(np.int64)
    s = displacement - whole - 0.5
    powers = [(s * s) ** k for k in range(TERMS)]
    parts = [
        [sum(c * p for c, p in zip(row, powers, strict=True)) for row in pixel] for pixel in table
    ]
    before = [even + s * odd for even, odd in parts]
    after = [even - s * odd for even, odd in reversed(parts)]
    return whole, [w.astype(np.float32) for w in before + after]


def _weighted(
    image: Array, indices: list[NDArray[np.int64]], weights: list[NDArray[np.float32]]
) -> Array:
    xp = namespace(image)
    flat = xp.reshape(image, (-1,))
    total = xp.zeros(weights[0].size, dtype=xp.float32, device=device(image))
    for index, weight in zip(indices, weights, strict=True):
        values = xp.take(flat, asarray_like(index.ravel(), image), axis=0)
        total = total + values * asarray_like(weight.ravel(), image)
    return xp.reshape(total, weights[0].shape)
