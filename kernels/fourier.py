"""Fourier transforms of images, and what is done by them: shifting, binning, padding.

Images are (..., ny, nx) float32, half spectra (..., ny, nx // 2 + 1) complex64. The centre of
an axis is index n // 2 and stays there in everything that changes a size.
"""

from __future__ import annotations

from math import ceil, pi

import numpy as np
import scipy.fft

from kernels.arrays import Array, asarray_like, device, is_numpy, namespace

Shape = tuple[int, int]


def rfft2(images: Array, shape: Shape | None = None) -> Array:
    """Transform images (..., ny, nx) to half spectra (..., ny, nx // 2 + 1).

    With a larger `shape` the images are padded with zeros behind their last rows and columns.
    """
    if is_numpy(images):
        return scipy.fft.rfft2(images, s=shape)  # three times as fast as numpy.fft
    return namespace(images).fft.rfftn(images, s=shape, axes=(-2, -1))


def irfft2(spectra: Array, shape: Shape) -> Array:
    """Transform half spectra back to images (..., ny, nx) of the given `shape`."""
    if is_numpy(spectra):
        return scipy.fft.irfft2(spectra, s=shape)
    return namespace(spectra).fft.irfftn(spectra, s=shape, axes=(-2, -1))


def frequencies(shape: Shape, like: Array, pixel_size: float = 1.0) -> tuple[Array, Array]:
    """Return the frequencies ky (ny, 1) and kx (1, nx // 2 + 1) of a half spectrum.

    Parameters
    ----------
    shape : (ny, nx)
        Of the image.
    like : Array
        Decides namespace and device.
    pixel_size : float
        In Å for frequencies in 1/Å; 1 for cycles per pixel.
    """
    ny, nx = shape
    ky = scipy.fft.fftfreq(ny, pixel_size).astype(np.float32)[:, None]
    kx = scipy.fft.rfftfreq(nx, pixel_size).astype(np.float32)[None, :]
    return asarray_like(ky, like), asarray_like(kx, like)


def _ramp(frequency: np.ndarray, distance: float, like: Array) -> Array:
    # In double precision on the host: 2π·k·d in float32 would lose 1e-4 px over 1000 px.
    return asarray_like(np.exp(-2j * pi * frequency * distance).astype(np.complex64), like)


def shift_phases(shape: Shape, dy: float, dx: float, like: Array) -> Array:
    """Return the factor (ny, nx // 2 + 1) that moves an image's content by (+dy, +dx) pixels."""
    ny, nx = shape
    return _ramp(scipy.fft.fftfreq(ny)[:, None], dy, like) * _ramp(
        scipy.fft.rfftfreq(nx)[None, :], dx, like
    )


def shift_images(images: Array, dy: float, dx: float) -> Array:
    """Move the content of images (..., ny, nx) by (+dy, +dx) pixels, wrapping around."""
    shape = images.shape[-2:]
    return irfft2(rfft2(images) * shift_phases(shape, dy, dx, images), shape)


def crop_spectra(spectra: Array, shape: Shape, new_shape: Shape) -> Array:
    """Crop half spectra of images of `shape` to those of images of `new_shape`.

    The image's mean is kept, and its centre pixel stays the centre pixel.

    Parameters
    ----------
    spectra : (..., ny, nx // 2 + 1) complex
    shape, new_shape : (ny, nx)
        `new_shape` no larger than `shape`.

    Returns
    -------
    (..., new ny, new nx // 2 + 1) complex

    Raises
    ------
    ValueError
        If `new_shape` exceeds `shape`.
    """
    (ny, nx), (my, mx) = shape, new_shape
    if my > ny or mx > nx:
        raise ValueError(f"cannot crop a spectrum of {ny}×{nx} to {my}×{mx}: it is smaller")
    xp = namespace(spectra)
    upper = (my + 1) // 2
    rows = xp.concat(
        [spectra[..., :upper, : mx // 2 + 1], spectra[..., ny - (my - upper) :, : mx // 2 + 1]],
        axis=-2,
    )
    # A pixel n // 2 of the large image must become m // 2 of the small one: the two pixel
    # grids share the origin, so the content moves by the difference in units of new pixels.
    dy, dx = my // 2 - (ny // 2) * my / ny, mx // 2 - (nx // 2) * mx / nx
    rows = rows * ((my * mx) / (ny * nx))
    if dy or dx:
        rows = rows * shift_phases(new_shape, dy, dx, spectra)
    return rows


def bin_images(images: Array, factor: float) -> Array:
    """Reduce images by Fourier cropping: no aliasing, mean and centre pixel kept.

    Parameters
    ----------
    images : (..., ny, nx) float32
    factor : float
        Old pixels per new pixel, at least 1: a whole number or a simple ratio. The edges beyond
        ``factor × new size`` are trimmed evenly around the centre first.

    Returns
    -------
    (..., ⌊ny / factor⌋, ⌊nx / factor⌋) float32

    Raises
    ------
    ValueError
        If `factor` is below 1 or makes no whole number of pixels.
    """
    ny, nx = images.shape[-2:]
    new_shape, used = binned_shape((ny, nx), factor)
    if new_shape == (ny, nx):
        return images
    inner = trim(images, used)
    return irfft2(crop_spectra(rfft2(inner), used, new_shape), new_shape)


def binned_shape(shape: Shape, factor: float) -> tuple[Shape, Shape]:
    """Return the size after binning by `factor`, and the part of the image that it uses.

    Factors that are no whole number take the largest size of which `factor` makes whole pixels.
    """
    if factor < 1:
        raise ValueError(f"binning is {factor}, it must be at least 1")
    new, used = zip(*(_binned_length(n, factor) for n in shape), strict=True)
    return (new[0], new[1]), (used[0], used[1])


def _binned_length(length: int, factor: float) -> tuple[int, int]:
    largest = int(length / factor + 1e-9)
    for new in range(largest, max(1, largest - 20), -1):
        used = round(new * factor)
        if used <= length and abs(used - new * factor) <= 1e-5 * used:
            return new, used
    raise ValueError(
        f"binning {factor} makes no whole number of pixels of {length}: "
        "choose a whole number or a simple ratio such as 1.5"
    )


def fast_size(size: float) -> int:
    """Return the next even length ≥ `size` with no prime factor above 5."""
    # Real transforms in SciPy count 2, 3 and 5 as good factors.
    return 2 * scipy.fft.next_fast_len(max(1, ceil(size / 2)), real=True)


def trim(images: Array, shape: Shape) -> Array:
    """Cut images (..., ny, nx) to `shape`, the centre pixel staying the centre pixel."""
    y, x = (n // 2 - m // 2 for n, m in zip(images.shape[-2:], shape, strict=True))
    if y < 0 or x < 0:
        raise ValueError(f"cannot trim {images.shape[-2:]} to the larger {shape}")
    return images[..., y : y + shape[0], x : x + shape[1]]


def pad(images: Array, shape: Shape, fill: float | None = None) -> Array:
    """Enlarge images (..., ny, nx) to `shape`, the centre pixel staying the centre pixel.

    `fill` is the value of the margin; by default each image's mean along its edges.
    """
    xp = namespace(images)
    (ny, nx), (my, mx) = images.shape[-2:], shape
    y, x = my // 2 - ny // 2, mx // 2 - nx // 2
    if y < 0 or x < 0 or y + ny > my or x + nx > mx:
        raise ValueError(f"cannot pad {(ny, nx)} to the smaller {shape}")
    lead = images.shape[:-2]
    if fill is None:
        edge = (
            xp.sum(images[..., 0, :] + images[..., -1, :], axis=-1)
            + xp.sum(images[..., :, 0] + images[..., :, -1], axis=-1)
        ) / (2 * (ny + nx))
        margin = edge[..., None, None]
    else:
        margin = asarray_like(np.float32(fill), images)
    out = xp.broadcast_to(margin, (*lead, my, mx)) + xp.zeros(
        (*lead, my, mx), dtype=images.dtype, device=device(images)
    )
    out[..., y : y + ny, x : x + nx] = images
    return out


def edge_window(shape: Shape, width: int, like: Array) -> Array:
    """Return a window (ny, nx): 1 inside, a raised cosine `width` pixels wide to 0 at the edges."""
    sides = []
    for n in shape:
        distance = np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5
        sides.append(0.5 - 0.5 * np.cos(pi * np.clip(distance / max(width, 1), 0, 1)))
    window = (sides[0][:, None] * sides[1][None, :]).astype(np.float32)
    return asarray_like(window, like)


def taper(images: Array, width: int) -> Array:
    """Fade images (..., ny, nx) to their mean over `width` pixels along the edges."""
    xp = namespace(images)
    mean = xp.mean(images, axis=(-2, -1), keepdims=True)
    return (images - mean) * edge_window(images.shape[-2:], width, images) + mean
