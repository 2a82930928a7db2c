"""Images of a view at many defocus planes: made in one pass, and only the columns that count.

The aligned view is transformed once; each plane costs one multiplication of the spectrum and one
inverse transform, of which only the columns are finished that voxels of that plane appear in: at
high tilt a plane crosses the box in a narrow band. Images lie with the rows of the view, along the
tilt axis, contiguous: (columns, rows), as back-projection on the CPU reads them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from kernels import plane_images_cpu
from kernels.arrays import Array, asarray_like, is_numpy, namespace
from kernels.backproject import Projection
from kernels.ctf import Ctf
from kernels.ctf_correct import Correction, correct_spectrum, half_turns, numbers_of
from kernels.ctf_planes import Planes
from kernels.fine_rows import fine_columns, fine_rows
from kernels.fourier import fast_size

Shape = tuple[int, int]
# Columns kept around those that voxels can need, for rounding.
MARGIN = 1
# Pixels whose mean padding leads from and to: one alone is mostly noise where rows are filtered.
ENDS = 8


@dataclass(frozen=True)
class Layout:
    """Which columns of which images are kept, and where they lie, plane after plane.

    Attributes
    ----------
    images : (n_images, 2) int64
        View and plane of each image: views in order, and of each its planes in order.
    first, count : (n_images,) int64
        Columns kept: first … first + count − 1. A plane that no voxel sees has none.
    place : (n_images,) int64
        Where the view's column 0 would lie among the columns kept of all images, which are laid
        out by planes and, of each plane, by views. −first where none is kept.
    levels : (n_planes,) int64
        The planes there are, in order.
    """

    images: NDArray[np.int64]
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    place: NDArray[np.int64]
    levels: NDArray[np.int64]

    def of_plane(self, level: int) -> NDArray[np.int64]:
        """Return the images of one plane that keep columns, by view."""
        return np.flatnonzero((self.images[:, 1] == level) & (self.count > 0))

    def columns_of_plane(self, level: int) -> int:
        """Return how many columns the images of a plane keep together."""
        return int(self.count[self.images[:, 1] == level].sum())

    def fine(self) -> Layout:
        """Return that of the images sampled twice as finely across (`fine_plane`)."""
        count = np.array([fine_columns(int(n)) for n in self.count], dtype=np.int64)
        return _placed(self.images, 2 * self.first, count)

    def fine_plane(self, level: int, packed: Array) -> Array:
        """Return a plane's columns sampled twice as finely, (fine columns kept, rows) float32.

        Parameters
        ----------
        level : int
        packed : (columns kept, rows) float32
            Spline coefficients across, image after image.
        """
        xp = namespace(packed)
        stops = np.cumsum(self.count[self.of_plane(level)]).tolist()
        parts = [
            fine_rows(packed[start:stop, :], axis=0)
            for start, stop in zip([0, *stops], stops, strict=False)
        ]
        return xp.concat(parts, axis=0) if parts else packed

    @property
    def columns(self) -> int:
        """How many columns all images keep together."""
        return int(self.count.sum())


def lay_out(
    projection: Projection,
    planes: Planes,
    box: Shape,
    columns: int,
    y: tuple[float, float],
    margin: int = MARGIN,
) -> Layout:
    """Find the columns of each image that voxels of a box read.

    Parameters
    ----------
    projection : Projection
    planes : Planes
    box : (nz, nx)
    columns : int
        Width of the views.
    y : (first, last)
        Range of the indices iy for which levels are computed.
    margin : int
        Columns kept around those that voxels lie between; `fine_rows.REACH` for `Layout.fine`.
    """
    images, first, count = [], [], []
    for view in range(len(planes.x)):
        lowest = int(planes.first[view])
        for level in range(lowest, lowest + int(planes.count[view])):
            low, high = _seen(projection, planes, view, level, box, y)
            start = max(0, int(np.floor(low)) - margin) if low <= high else 0
            stop = min(columns, int(np.floor(high)) + 2 + margin) if low <= high else 0
            images.append((view, level))
            first.append(start)
            count.append(max(0, stop - start))
    return _placed(
        *(np.array(column, dtype=np.int64) for column in (images, first, count)),
    )


def _placed(
    images: NDArray[np.int64], first: NDArray[np.int64], count: NDArray[np.int64]
) -> Layout:
    """Return the layout of images of which these columns are kept."""
    order = np.lexsort((images[:, 0], images[:, 1]))
    begin = np.empty(len(images), dtype=np.int64)
    begin[order] = np.concatenate([[0], np.cumsum(count[order])[:-1]])
    return Layout(images, first, count, begin - first, np.unique(images[:, 1]))


def _seen(
    projection: Projection,
    planes: Planes,
    view: int,
    level: int,
    box: Shape,
    y: tuple[float, float],
) -> tuple[float, float]:
    """Return the lowest and the highest column of voxels that read a plane; inf, −inf if none."""
    reach = 1.0 if planes.blend else 0.5 + 1e-3
    base = planes.offset[view] + planes.y[view] * np.array(y)
    low, high = level - reach - base.max(), level + reach - base.min()
    # Voxels beyond the outermost planes read those.
    if level == planes.first[view]:
        low = -np.inf
    if level == planes.first[view] + planes.count[view] - 1:
        high = np.inf
    corners = [(0.0, 0.0), (0.0, box[1] - 1.0), (box[0] - 1.0, box[1] - 1.0), (box[0] - 1.0, 0.0)]
    depth = [planes.z[view] * z + planes.x[view] * x for z, x in corners]
    column = [
        projection.z[view] * z + projection.x[view] * x + projection.offset[view]
        for z, x in corners
    ]
    # Columns are linear over the part of the box between two depths: extreme at its corners.
    found = [c for c, d in zip(column, depth, strict=True) if low <= d <= high]
    for i in range(4):
        j = (i + 1) % 4
        for limit in (low, high):
            if np.isfinite(limit) and min(depth[i], depth[j]) < limit < max(depth[i], depth[j]):
                share = (limit - depth[i]) / (depth[j] - depth[i])
                found.append(column[i] + share * (column[j] - column[i]))
    return (min(found), max(found)) if found else (np.inf, -np.inf)


def padded_shape(rows: int, columns: int, margin: int) -> Shape:
    """Return the size (columns, rows) to which a view is padded: `margin` pixels at least."""
    return fast_size(columns + margin), fast_size(rows + margin)


def view_spectrum(view: Array, margin: int) -> Array:
    """Transform an aligned view.

    Parameters
    ----------
    view : (rows, columns) float32
    margin : int
        Pixels of padding at least: how far the CTF spreads what lies beyond an edge. They lead
        linearly from the mean of the last `ENDS` pixels to that of the first.

    Returns
    -------
    (padded columns, padded rows // 2 + 1) complex64
        Of the transposed view.
    """
    xp = namespace(view)
    rows, columns = view.shape
    wide, high = padded_shape(rows, columns, margin)
    padded = _led(_led(xp.permute_dims(view, (1, 0)), wide, 0), high, 1)
    if is_numpy(view):
        half = scipy.fft.rfft(np.ascontiguousarray(padded), axis=1)
        return scipy.fft.fft(half, axis=0, overwrite_x=True)
    return xp.fft.fft(xp.fft.rfft(padded, axis=1), axis=0)


def _led(image: Array, size: int, axis: int) -> Array:
    """Lengthen an axis to `size`: linearly from the mean of its last values to its first."""
    xp = namespace(image)
    more = size - image.shape[axis]
    form = (-1, 1) if axis == 0 else (1, -1)
    way = (np.arange(more, dtype=np.float64) + 1) / (more + 1)
    way = asarray_like(way.astype(np.float32).reshape(form), image)
    ends = (image[:ENDS, :], image[-ENDS:, :]) if axis == 0 else (image[:, :ENDS], image[:, -ENDS:])
    first, last = (xp.mean(end, axis=axis, keepdims=True) for end in ends)
    return xp.concat([image, last + (first - last) * way], axis=axis)


def view_phases(shape: Shape, margin: int, ctf: Ctf, pixel_size: float, like: Array) -> Array:
    """Return the CTF's phase of a view, as `corrected_columns` wants it.

    Parameters
    ----------
    shape : (rows, columns)
        Of the view.
    margin : int
        As given to `view_spectrum`.
    ctf : Ctf
        Of the view, its astigmatism angle counter-clockwise from the aligned view's +x.
    pixel_size : float
        [Å]
    like : Array
        Decides namespace and device.

    Returns
    -------
    (padded columns, padded rows // 2 + 1) float32
        `ctf_correct.half_turns`.
    """
    kx, ky = _frequencies(shape, margin, pixel_size, like)
    return half_turns(kx, ky, ctf.transposed())


def _frequencies(shape: Shape, margin: int, pixel_size: float, like: Array) -> tuple[Array, Array]:
    wide, high = padded_shape(*shape, margin)
    across = scipy.fft.fftfreq(wide, pixel_size).astype(np.float32)[:, None]
    along = scipy.fft.rfftfreq(high, pixel_size).astype(np.float32)[None, :]
    return asarray_like(across, like), asarray_like(along, like)


def corrected_columns(
    spectrum: Array,
    h: Array,
    shape: Shape,
    margin: int,
    ctf: Ctf,
    offset: float,
    columns: tuple[int, int],
    pixel_size: float,
    correction: Correction,
) -> Array:
    """Return a view corrected at one defocus, the columns asked for.

    Parameters
    ----------
    spectrum : (padded columns, padded rows // 2 + 1) complex64
        Of `view_spectrum`.
    h : likewise, float32
        Of `view_phases`.
    shape, margin, ctf, pixel_size
        As given to `view_phases`.
    offset : float
        Added to the defocus [Å].
    columns : (first, count)
    correction : Correction

    Returns
    -------
    (count, rows) float32
    """
    kx, ky = _frequencies(shape, margin, pixel_size, spectrum)
    first, count = columns
    high = padded_shape(*shape, margin)[1]
    peak = ctf.transposed()
    if is_numpy(spectrum) and spectrum.shape[1] >= plane_images_cpu.LEAST:
        numbers = numbers_of(offset, ctf.voltage, correction, peak)
        return plane_images_cpu.corrected_columns(
            *(spectrum, h, kx.ravel(), ky.ravel(), *numbers, columns, (high, shape[0]))
        )
    part = correct_spectrum(spectrum, h, kx, ky, offset, ctf.voltage, correction, peak)
    xp = namespace(spectrum)
    lines = xp.fft.ifft(part, axis=0)[first : first + count, :]
    return xp.fft.irfft(lines, n=high, axis=1)[:, : shape[0]]
