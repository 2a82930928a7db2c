"""How well the rings of a tilted view agree with a slope of the defocus: a check of its sign.

In tiles far from the tilt axis the power spectrum has rings where the CTF at the tile's own defocus
has them. With the opposite hand they are taken for those of the other side, and without correction
for those of the middle.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.ctf import Ctf, ctf_2d, wavelength
from kernels.ctf_slope import Slope
from kernels.fourier import Shape, frequencies

COARSE = 1 / 50  # 1/Å: below, images have more than rings
OUTER = 0.5  # of the largest change of defocus, which a tile must have
BACKGROUND = 4  # degree of the smooth curve through the logarithm of the power
# Turns of the CTF's square by which the farthest tiles must differ from the middle at the finest
# detail: there the two hands then have rings where the other has none.
LEAST_RINGS = 0.25


def tile_size(shape: Shape) -> int:
    """Return the side of a tile [pixels]: 256, or less of small images."""
    return min(256, min(shape) // 4 * 2)


def can_tell(shape: Shape, ctf: Ctf, pixel_size: float, slope: Slope, finest: float) -> bool:
    """Tell whether rings differ over an image by enough to be compared up to `finest` [1/Å]."""
    offsets = _offsets(_corners(shape), shape, pixel_size, slope)
    turns = wavelength(ctf.voltage) * np.abs(offsets).max() * finest**2  # of the CTF's square
    return finest > 1.5 * COARSE and bool(turns > LEAST_RINGS)


def agreements(
    image: NDArray[np.float32],
    ctf: Ctf,
    pixel_size: float,
    slopes: Sequence[Slope],
    finest: float,
) -> NDArray[np.float64]:
    """Return how the power of outer tiles correlates with the CTF's square there.

    Parameters
    ----------
    image : (ny, nx) float32
    ctf : Ctf
        In the frame of the image.
    pixel_size : float
        In Å.
    slopes : sequence of Slope
        The first one chooses the tiles.
    finest : float
        Frequency up to which rings are compared [1/Å].

    Returns
    -------
    (2, n_slopes) float64
        Of the tiles on the side that is less underfocused by the first slope, and on the other.
    """
    shape = (image.shape[0], image.shape[1])
    box = tile_size(shape)
    corners = _corners(shape)
    offsets = [_offsets(corners, shape, pixel_size, slope) for slope in slopes]
    outer = np.abs(offsets[0]) >= OUTER * np.abs(offsets[0]).max()
    ky, kx = frequencies((box, box), np.zeros(1, np.float32), pixel_size)
    k = np.hypot(ky, kx)
    band = (k > COARSE) & (k < finest)
    window = np.outer(np.hanning(box), np.hanning(box)).astype(np.float32)
    powers = []
    for y, x in corners[outer]:
        tile = image[y : y + box, x : x + box]
        powers.append(np.abs(np.fft.rfft2((tile - tile.mean()) * window))[band] ** 2)
    curve = np.polynomial.Polynomial.fit(k[band], np.log(np.mean(powers, axis=0)), BACKGROUND)
    smooth = np.exp(curve(k[band]))
    sums = np.zeros((2, len(slopes), 3))
    for place, power in zip(np.flatnonzero(outer), powers, strict=True):
        ripple = power / smooth
        ripple -= ripple.mean()
        side = int(offsets[0][place] > 0)
        for n in range(len(slopes)):
            rings = ctf_2d(ky, kx, ctf.with_offset(float(offsets[n][place])))[band] ** 2
            rings -= rings.mean()
            sums[side, n] += ripple @ rings, ripple @ ripple, rings @ rings
    norms = np.sqrt(sums[..., 1] * sums[..., 2])
    return np.divide(sums[..., 0], norms, out=np.zeros(norms.shape), where=norms > 0)


def _corners(shape: Shape) -> NDArray[np.int64]:
    """Return the first row and column (n, 2) of tiles that overlap by half."""
    box = tile_size(shape)
    rows, columns = (range(0, n - box + 1, box // 2) for n in shape)
    return np.array([(y, x) for y in rows for x in columns], dtype=np.int64)


def _offsets(
    corners: NDArray[np.int64], shape: Shape, pixel_size: float, slope: Slope
) -> NDArray[np.float64]:
    """Return by how much the defocus in the middle of tiles differs from that of the view [Å]."""
    middles = corners + tile_size(shape) / 2 - 0.5 - [n // 2 for n in shape]
    found = slope.middle + pixel_size * (middles @ [slope.y, slope.x])
    return np.asarray(found, dtype=np.float64)
