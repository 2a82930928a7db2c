"""3-D CTF correction of one part: a view's spectrum, a plane of many views, a slab of the box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import wbp
from kernels.arrays import Array, asarray_like, to_host
from kernels.backproject_planes import backproject_planes
from kernels.ctf import Ctf
from kernels.ctf_correct import Correction
from kernels.ctf_planes import Planes
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
from tasks.chunks.reconstruct import edges_of, write_slab
from tasks.parameters.tomogram import Ctf3dParameters
from tasks.result import Result

Volume = NDArray[np.float32]
# Phases of the CTF of a view, and for each layer of the box its spectrum, or those of its halves.
Transformed = tuple[NDArray[np.float32], list[list[NDArray[np.complex64]]]]
# Rows of views that back-projection takes at once: with x-axis tilt levels of planes are those of
# the middle of the rows that these make.
AT_ONCE, LEAST_BLOCK = 127, 32


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

    @property
    def parts(self) -> int:
        """How many images there are of a view: itself, or its halves of frames."""
        return 2 if self.parameters.by_frames else 1

    def in_layers(self, layers: int) -> list[Correcting]:
        """Return how each layer of the box is made, of views in which its own place is undone."""
        if layers == 1:
            return [self]
        made, (nz, ny, nx), (x, y, middle) = [], self.box.shape, self.box.centre
        for z, after in pairwise(edges_of(nz, layers)):
            up = self.box.voxel * (z + (after - z) // 2 - nz // 2)
            box = replace(self.box, shape=(after - z, ny, nx), centre=(x, y, middle + up))
            planes = replace(self.planes, offset=self.planes.offset + z * self.planes.z)
            made.append(replace(self, box=box, planes=planes))
        return made

    def alike(self, start: int, stop: int) -> list[tuple[int, int, float]]:
        """Return parts [start, stop) of rows of the box, and the row whose levels each takes.

        Without x-axis tilt all rows have the same. Else parts are counted from the box's first
        row, so that no voxel depends on the slab that it is made in.
        """
        if not self.turned:
            return [(start, stop, self.box.first_row + (stop - start - 1) / 2)]
        first, last = self.box.projection(self.views, True).rows_needed(
            0, 0, np.arange(self.box.shape[0])
        )
        block, ny = max(LEAST_BLOCK, AT_ONCE - (last - first)), self.box.shape[1]
        parts = []
        for b in range(start - start % block, stop, block):
            end = min(b + block, ny)
            middle = self.box.first_row + (b + end - 1) / 2
            parts.append((max(b, start), min(end, stop), middle))
        return parts

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

    def spectrum_of(image: Array) -> NDArray[np.complex64]:
        spectrum = view_spectrum(wbp.filter_views(image, row_filter), how.margin)
        if how.fine:
            # Not before: what pads a row must not follow coefficients, whose last one is all noise.
            spectrum = spectrum * asarray_like(how.spline(), spectrum)
        return to_host(spectrum)

    parts = source.layers(one)
    h = view_phases(how.box.frame, how.margin, ctf, voxel, parts[0][0])
    return to_host(h), [
        [spectrum_of(image) for image in layer] for layer in zip(*parts, strict=True)
    ]


def correct_plane(
    transformed: Sequence[Transformed],
    images: Sequence[int],
    how: Correcting,
    layout: Layout,
    layer: int,
    slabs: Sequence[tuple[int, int]],
) -> tuple[Volume, ...]:
    """Correct views at one plane; return the rows that each slab needs.

    Parameters
    ----------
    transformed : sequence
        Of views that have the plane.
    images : sequence of int
        Of the layout, one for each of them.
    how : Correcting
    layout : Layout
        Both of a layer of the box.
    layer : int
    slabs : sequence of (start, stop)
        Rows of the box.

    Returns
    -------
    tuple of (parts, columns kept, rows) float32
    """
    ranges = [how.rows(*slab) for slab in slabs]
    kept = int(layout.count[list(images)].sum())
    out = [np.empty((how.parts, kept, last - first), np.float32) for first, last in ranges]
    at = 0
    for (h, spectra), i in zip(transformed, images, strict=True):
        view, level = (int(n) for n in layout.images[i])
        columns = (int(layout.first[i]), int(layout.count[i]))
        phases = on_device(h)
        for part, spectrum in enumerate(spectra[layer]):
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
    layers: Sequence[tuple[Correcting, Layout]],
    start: int,
    stop: int,
    packed: Sequence[Volume],
    step: float | None,
) -> dict[str, Any]:
    """Back-project rows `start` to `stop` from the planes' rows; write level 0 and the halves.

    `packed` are those of `correct_plane`: for each layer all planes, each of one group of views
    after another.
    """
    how = layers[0][0]
    weights = np.asarray(how.weights)
    if how.parameters.halves == "views":
        odd = np.arange(len(weights)) % 2 == 0
        asked = [(0, 2 * weights * chosen) for chosen in (odd, ~odd)]
    else:
        asked = [(part, weights) for part in range(how.parts)]
    of_layers = _by_planes(layers, packed)
    volumes = []
    for part, factors in asked:
        made = [
            slab(how, layout, start, stop, [plane[part] for plane in planes], factors)
            for (how, layout), planes in zip(layers, of_layers, strict=True)
        ]
        volumes.append(made[0] if len(made) == 1 else np.concatenate(made))
    if len(volumes) == 1:
        return write_slab(target, start, stop, volumes[0], (), step)
    whole = (volumes[0] + volumes[1]) * np.float32(0.5)
    return write_slab(target, start, stop, whole, volumes, step)


def _by_planes(
    layers: Sequence[tuple[Correcting, Layout]], packed: Sequence[Volume]
) -> list[list[Volume]]:
    """Return the planes of each layer, each of all views."""
    counts = [len(layout.levels) for _, layout in layers]
    groups = len(packed) // sum(counts)
    whole = [
        packed[i] if groups == 1 else np.concatenate(packed[i : i + groups], axis=1)
        for i in range(0, len(packed), groups)
    ]
    ends = np.cumsum([0, *counts]).tolist()
    return [whole[first:last] for first, last in pairwise(ends)]


def slab(
    how: Correcting,
    layout: Layout,
    start: int,
    stop: int,
    planes: Sequence[Volume],
    weights: NDArray[np.float64],
) -> Volume:
    """Return rows `start` to `stop` of a layer (nz, rows, nx) from the rows that they need.

    `planes` are (columns kept, rows), one for each plane of the layout.
    """
    nz, _, nx = how.box.shape
    whole, given = how.box.projection(how.views, how.turned), how.rows(start, stop)[0]

    def made(low: int, high: int, y_middle: float) -> Volume:
        first, last = how.rows(low, high)
        projection = whole.of_rows(low + how.box.first_row, first) if how.turned else whole
        return to_host(
            backproject_planes(
                [on_device(plane[:, first - given : last - given]) for plane in planes],
                layout,
                how.box.frame[1],
                projection,
                how.planes,
                (nz, high - low, nx),
                y_middle=y_middle,
                weights=weights,
                fine=how.fine,
            )
        )

    parts = how.alike(start, stop)
    if len(parts) == 1:
        return made(*parts[0])
    out = np.empty((nz, stop - start, nx), np.float32)
    for part in parts:
        out[:, part[0] - start : part[1] - start] = made(*part)
    return out
