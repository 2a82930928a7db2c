"""3-D CTF correction of one part: a view's spectrum, a plane of all views, a slab of the box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from kernels import wbp
from kernels.arrays import asarray_like, to_host
from kernels.backproject_planes import backproject_planes
from kernels.ctf import Ctf
from kernels.ctf_correct import Correction
from kernels.ctf_planes import Planes, lay_planes
from kernels.fine_rows import REACH, spline_filter
from kernels.geometry import View
from kernels.plane_images import (
    MARGIN,
    Layout,
    corrected_columns,
    lay_out,
    padded_shape,
    view_phases,
    view_spectrum,
)
from tasks.box import Box
from tasks.chunks.aligned import OneView, Source
from tasks.chunks.device import on_device
from tasks.chunks.reconstruct import write_slab
from tasks.parameters.tomogram import Ctf3dParameters
from tasks.result import Result

Volume = NDArray[np.float32]
# Phases of the CTF of a view, and its spectrum or those of its halves.
Transformed = tuple[NDArray[np.float32], list[NDArray[np.complex64]]]
BAND = 64  # rows in the middle on which hands are compared
COARSE, FINE = 1 / 50, 0.45  # frequencies at which they are [1/Å, cycles per voxel]
PARTS = 8  # of the band, whose scatter tells the error
CHECK_DEPTH = 200.0  # Å that the comparison is deep: then even and odd views overlap in k


@dataclass(frozen=True)
class Correcting:
    """How views are corrected and back-projected.

    Attributes
    ----------
    views, ctfs : tuple
        Of the views, and their CTFs in the aligned frame.
    box : Box
    turned : bool
        Whether the specimen is tilted about x.
    planes : Planes
        Of the box over all rows of the frame.
    correction : Correction
    weights : tuple of float
        Of the views.
    margin : int
        Pixels of padding: how far the CTF spreads a point.
    parameters : Ctf3dParameters
    """

    views: tuple[View, ...]
    ctfs: tuple[Ctf, ...]
    box: Box
    turned: bool
    planes: Planes
    correction: Correction
    weights: tuple[float, ...]
    margin: int
    parameters: Ctf3dParameters

    def layout(self) -> Layout:
        """Return which columns of which images are needed."""
        nz, ny, nx = self.box.shape
        low = self.box.first_row
        projection = self.box.projection(self.views, self.turned)
        margin = REACH if self.fine else MARGIN
        rows = (low, low + ny - 1.0)
        return lay_out(projection, self.planes, (nz, nx), self.box.frame[1], rows, margin)

    def rows(self, start: int, stop: int) -> tuple[int, int]:
        """Return [first, last) of the frame's rows that rows [start, stop) of the box need."""
        first, last = start + self.box.first_row, stop + self.box.first_row
        if self.turned:
            projection = self.box.projection(self.views, True)
            first, last = projection.rows_needed(first, last, np.arange(self.box.shape[0]))
        return max(first, 0), min(last, self.box.frame[0])

    @property
    def fine(self) -> bool:
        """Whether rows are coefficients of a spline, sampled for back-projection."""
        return self.parameters.interpolation == "spline" and self.parameters.compat == "none"

    def row_filter(self) -> wbp.Filter:
        """Return the filter of the rows of views."""
        given = self.parameters
        n = wbp.padded_width(self.box.frame[1])
        return wbp.ramp(n, given.radial_cutoff, given.radial_falloff)

    def spline(self) -> NDArray[np.float32]:
        """Return the factor (padded columns, 1) of spectra that makes rows coefficients."""
        wide = padded_shape(*self.box.frame, self.margin)[0]
        return spline_filter(wide, whole=True)[:, None]


def transform_view(source: Source, one: OneView, ctf: Ctf, how: Correcting) -> Transformed:
    """Bring a view into the aligned frame, filter its rows, and transform it."""
    row_filter, voxel = how.row_filter(), how.box.voxel
    filtered = [wbp.filter_views(part, row_filter) for part in source.aligned(one)]
    spectra = [view_spectrum(part, how.margin) for part in filtered]
    h = view_phases(how.box.frame, how.margin, ctf, voxel, spectra[0])
    if how.fine:
        # Not before: what pads a row must not follow coefficients, whose last one is all noise.
        factor = asarray_like(how.spline(), spectra[0])
        spectra = [spectrum * factor for spectrum in spectra]
    return to_host(h), [to_host(spectrum) for spectrum in spectra]


def correct_plane(
    transformed: Sequence[Transformed],
    images: Sequence[int],
    how: Correcting,
    layout: Layout,
    slabs: Sequence[tuple[int, int]],
) -> tuple[Volume, ...]:
    """Correct all views at one plane; return the rows that each slab needs.

    Parameters
    ----------
    transformed : sequence
        Of the views that have the plane.
    images : sequence of int
        Of the layout, one for each of them.
    how : Correcting
    layout : Layout
    slabs : sequence of (start, stop)
        Rows of the box.

    Returns
    -------
    tuple of (parts, columns kept, rows) float32
    """
    parts = len(transformed[0][1]) if transformed else 1
    ranges = [how.rows(*slab) for slab in slabs]
    kept = int(layout.count[list(images)].sum())
    out = [np.empty((parts, kept, last - first), dtype=np.float32) for first, last in ranges]
    at = 0
    for (h, spectra), i in zip(transformed, images, strict=True):
        view, level = (int(n) for n in layout.images[i])
        columns = (int(layout.first[i]), int(layout.count[i]))
        phases = on_device(h)
        for part, spectrum in enumerate(spectra):
            image = to_host(
                corrected_columns(
                    *(on_device(spectrum), phases, how.box.frame, how.margin, how.ctfs[view]),
                    *(level * how.planes.step, columns, how.box.voxel, how.correction),
                )
            )
            for (first, last), rows in zip(ranges, out, strict=True):
                rows[part, at : at + columns[1]] = image[:, first:last]
        at += columns[1]
    return tuple(out)


def back_project_corrected(
    target: Result,
    how: Correcting,
    layout: Layout,
    start: int,
    stop: int,
    packed: Sequence[Volume],
    step: float | None,
) -> dict[str, Any]:
    """Back-project rows `start` to `stop` from the planes' rows; write level 0 and the halves."""
    halves = how.parameters.halves
    weights = np.asarray(how.weights)
    if halves == "views":
        odd = np.arange(len(weights)) % 2 == 0
        volumes = [
            _slab(how, layout, start, stop, packed, 0, 2 * weights * chosen)
            for chosen in (odd, ~odd)
        ]
    else:
        parts = packed[0].shape[0]
        volumes = [_slab(how, layout, start, stop, packed, part, weights) for part in range(parts)]
    if halves == "none":
        return write_slab(target, start, stop, volumes[0], (), step)
    whole = (volumes[0] + volumes[1]) * np.float32(0.5)
    return write_slab(target, start, stop, whole, volumes, step)


def _slab(
    how: Correcting,
    layout: Layout,
    start: int,
    stop: int,
    packed: Sequence[Volume],
    part: int,
    weights: NDArray[np.float64],
) -> Volume:
    nz, _, nx = how.box.shape
    projection = how.box.projection(how.views, how.turned)
    low, first = start + how.box.first_row, how.rows(start, stop)[0]
    projection = projection.of_rows(low, first) if how.turned else projection
    return to_host(
        backproject_planes(
            [on_device(plane[part]) for plane in packed],
            layout,
            how.box.frame[1],
            projection,
            how.planes,
            (nz, stop - start, nx),
            y_middle=low + (stop - start - 1) / 2,
            weights=weights,
            fine=how.fine,
        )
    )


def can_score_hands(voxel: float) -> bool:
    """Tell whether voxels of that size [Å] hold any frequency at which hands are compared."""
    return FINE / voxel > 1.1 * COARSE


def score_hands(
    transformed: Sequence[Transformed],
    how: Correcting,
    hand: int,
    middle: float,
    depths: Sequence[float],
) -> dict[str, float]:
    """Return how well odd and even views agree off the tilt axis, by the hand used.

    In a thin sheet at the specimen's middle, a band of rows long, in its outer thirds, at planes
    four times as far apart as in the tomogram, between 1/50 Å and 0.9 of Nyquist: the correlation
    of a tomogram of the odd views with one of the even. Odd and even views share no noise; a
    wrong correction leaves them phases that differ. What the views' own shapes do to the
    correlation is the same for both hands: only the difference tells, and only where it is several
    times its error; of fields narrower than a micrometre or of coarse voxels it tells nothing.
    `middle` is Z of the specimen's middle, `depths` are z′ where the views' defoci hold [Å].

    Returns
    -------
    dict
        'as used', 'opposite', 'none' → correlation; 'error' → standard error of the difference of
        the first two, from parts of the band.
    """
    frame, voxel = how.box.frame, how.box.voxel
    band = min(BAND, frame[0])
    low = (frame[0] - band) // 2
    factor = 1 / how.spline() if how.fine else np.float32(1)
    views = [_band(t[1][0] * factor, frame, how.margin, low, band) for t in transformed]
    plain = how.parameters.model_copy(update={"interpolation": "linear"})
    nz = max(8, 2 * round(CHECK_DEPTH / voxel / 2))
    box = Box(voxel, how.box.binning, (band, frame[1]), (nz, band, frame[1]), 0, (0, 0, middle))
    found = {}
    for name, sign in (("as used", hand), ("opposite", -hand), ("none", 0)):
        planes = lay_planes(
            how.views,
            box.shape,
            voxel,
            box.centre,
            step=4 * how.planes.step if sign else 1e9,
            hand=sign or 1,
            depths=depths,
        )
        checked = Correcting(
            *(how.views, how.ctfs, box, False, planes, Correction("multiply"), how.weights),
            *(how.margin, plain),
        )
        products = _agreement(views, checked, corrected=sign != 0)
        found[name] = products[:, 0] / products[:, 1].mean()
    difference = found["as used"] - found["opposite"]
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    return {name: float(part.mean()) for name, part in found.items()} | {"error": float(error)}


def _band(
    spectrum: NDArray[np.complex64], frame: tuple[int, int], margin: int, low: int, band: int
) -> NDArray[np.complex64]:
    """Return the spectrum of some rows of a view."""
    high = padded_shape(*frame, margin)[1]
    lines = scipy.fft.ifft(spectrum, axis=0)[: frame[1]]
    rows = scipy.fft.irfft(lines, high, axis=1)[:, low : low + band]
    return view_spectrum(np.ascontiguousarray(rows.T), margin)


def _agreement(
    views: Sequence[NDArray[np.complex64]], how: Correcting, *, corrected: bool
) -> NDArray[np.float64]:
    """Return Σ A·B and √(Σ A² Σ B²) of the tomograms of odd and even views, by parts (n, 2)."""
    layout, box = how.layout(), how.box
    phases = [view_phases(box.frame, how.margin, ctf, box.voxel, views[0]) for ctf in how.ctfs]
    if not corrected:
        phases = [np.full_like(h, 0.5) for h in phases]  # where the factor is 1
    packed = []
    for level in layout.levels:
        images = []
        for i in layout.of_plane(int(level)):
            view = int(layout.images[i, 0])
            offset = float(level) * how.planes.step if corrected else 0.0
            columns = (int(layout.first[i]), int(layout.count[i]))
            images.append(
                corrected_columns(
                    *(views[view], phases[view], box.frame, how.margin, how.ctfs[view]),
                    *(offset, columns, box.voxel, how.correction),
                )
            )
        empty = np.zeros((0, box.frame[0]), dtype=np.float32)
        packed.append(np.concatenate([empty, *images])[None])
    odd = np.arange(len(how.views)) % 2 == 0
    weights = np.asarray(how.weights)
    volumes = [
        _slab(how, layout, 0, box.shape[1], packed, 0, weights * chosen) for chosen in (odd, ~odd)
    ]
    outer = np.abs(np.arange(box.shape[2]) - box.shape[2] / 2) > box.shape[2] / 6
    ky = scipy.fft.fftfreq(box.shape[1], box.voxel)[:, None]
    kx = scipy.fft.rfftfreq(box.shape[2], box.voxel)
    k = np.hypot(ky, kx)
    passed = (k > COARSE) & (k < FINE / box.voxel)
    one, other = (
        scipy.fft.irfft2(scipy.fft.rfft2(v) * passed, v.shape[1:])[:, :, outer] for v in volumes
    )
    parts = [np.array_split(v, PARTS, axis=1) for v in (one, other)]
    return np.array(
        [
            [(a * b).sum(), np.sqrt(np.square(a).sum() * np.square(b).sum())]
            for a, b in zip(*parts, strict=True)
        ],
        dtype=np.float64,
    )
