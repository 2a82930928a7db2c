"""Reconstruction of one part of a tomogram: filtered rows of a view, a slab, a coarser level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kernels import wbp
from kernels.arrays import Array, namespace, to_host
from kernels.backproject import backproject
from kernels.fine_rows import fine_rows, spline_filter
from kernels.geometry import View
from kernels.halving import halved, measured
from tasks.box import Box
from tasks.chunks.aligned import OneView, Source, rows_between
from tasks.chunks.device import on_device
from tasks.chunks.iterated import iterated, rows_around
from tasks.parameters import ReconstructParameters
from tasks.parameters.tomogram import TomogramParameters
from tasks.result import Result

Volume = NDArray[np.float32]
Halves = Literal["none", "frames", "views"]
HALVES = ("odd", "even")
KEPT = "iteration-"  # begins the names of volumes kept on the way
# Standard deviations of the noise that the largest stored number stands for.
RANGE = {"int16": 65.0, "int8": 6.4}


@dataclass(frozen=True)
class Reconstruction:
    """How the rows of the views become a slab.

    Attributes
    ----------
    views : tuple of View
    box : Box
    turned : bool
        Whether the specimen is tilted about x, so that rows mix.
    parameters : ReconstructParameters
    layers : int
        Of planes, made of rows of their own where a deformation is undone.
    """

    views: tuple[View, ...]
    box: Box
    turned: bool
    parameters: ReconstructParameters
    layers: int = 1

    @property
    def edges(self) -> list[int]:
        """First plane of each layer, and the number of planes."""
        return edges_of(self.box.shape[0], self.layers)

    @property
    def iterates(self) -> bool:
        """Whether the views are left unfiltered, and their projections compared with them."""
        return self.parameters.method != "wbp"

    @property
    def fine(self) -> bool:
        """Whether filtered rows are coefficients of a spline, sampled for back-projection."""
        return not self.iterates and self.parameters.interpolation == "spline"

    @property
    def filters_halves(self) -> bool:
        """Whether rows of views are filtered otherwise for a half of the views than for all."""
        given = self.parameters
        return given.halves == "views" and given.weighting == "exact" and not self.iterates

    def half(self, odd: int) -> Reconstruction:
        """Return how every other view becomes a slab, from the first or the second on."""
        return replace(self, views=self.views[odd::2])

    @property
    def weights(self) -> NDArray[np.float64]:
        """Factor of each view in weighted back-projection."""
        if self.parameters.weighting == "exact":
            return np.ones(len(self.views))
        return wbp.angular_steps([view.tilt for view in self.views])

    def row_filter(self, place: int) -> wbp.Filter:
        """Return the filter of the rows of one view, that at `place` of `views`."""
        given, n = self.parameters, wbp.padded_width(self.box.frame[1])
        if given.weighting == "exact":
            tilts = [view.tilt for view in self.views]
            thickness = float(self.box.shape[0])
            row_filter = wbp.exact(n, tilts, thickness, given.radial_cutoff, given.radial_falloff)
            row_filter = row_filter[place, 0]
        elif given.weighting == "hamming":
            row_filter = wbp.hamming_like(n, given.radial_cutoff)
        else:
            row_filter = wbp.ramp(n, given.radial_cutoff, given.radial_falloff)
        if given.sirt_like_iterations:
            row_filter = row_filter * wbp.sirt_like(n, given.sirt_like_iterations)
        if self.fine:
            row_filter = row_filter * spline_filter(n)
        return row_filter

    def rows(self, start: int, stop: int) -> tuple[int, int]:
        """Return [first, last) of the frame's rows that rows [start, stop) of the box need."""
        first, last = start + self.box.first_row, stop + self.box.first_row
        return rows_around(self, first, last) if self.turned else (first, last)

    def made(
        self, rows: Array, start: int, stop: int, keep: Any = None, first: int | None = None
    ) -> Array:
        """Return the slab (nz, stop − start, nx) of views' rows (layer, view, row, column).

        The rows begin with `first` of the frame; by default with the first that is needed.
        """
        low = start + self.box.first_row
        if first is None:
            first = self.rows(start, stop)[0]
        if self.iterates:
            return iterated(self, rows[0, ...], low, first, stop - start, keep)
        projection, nx = self.box.projection(self.views, self.turned), self.box.shape[2]
        of = projection.of_rows(low, first) if self.turned else projection
        if self.fine:
            of = of.fine()
        layers = [
            backproject(
                fine_rows(rows[k, ...]) if self.fine else rows[k, ...],
                *(of, (after - z, stop - start, nx)),
                z_start=z,
                weights=self.weights,
            )
            for k, (z, after) in enumerate(pairwise(self.edges))
        ]
        return layers[0] if len(layers) == 1 else namespace(rows).concat(layers, axis=0)


def filter_view(
    source: Source,
    one: OneView,
    place: int,
    how: Reconstruction,
    slabs: Sequence[tuple[int, int]],
) -> tuple[Volume, ...]:
    """Bring one view into the aligned frame, and filter its rows.

    Parameters
    ----------
    source : Source
    one : OneView
    place : int
        Of the view among `how.views`.
    how : Reconstruction
    slabs : sequence of (start, stop)
        Rows of the box.

    Returns
    -------
    tuple of (parts, layers, rows, columns) float32
        The rows that each slab needs: of the view, or of its halves; or of the view filtered for
        all views, and for its half of them.
    """
    parts = source.layers(one)
    if not how.iterates:
        filters = [how.row_filter(place)]
        if how.filters_halves:
            filters.append(how.half(place % 2).row_filter(place // 2))
        parts = [
            [wbp.filter_views(layer, row_filter) for layer in part]
            for row_filter in filters
            for part in parts
        ]
    whole = np.stack([np.stack([to_host(layer) for layer in part]) for part in parts])
    return tuple(np.array(rows_between(whole, *how.rows(*slab))) for slab in slabs)


def back_project_slab(
    target: Result,
    how: Reconstruction,
    start: int,
    stop: int,
    rows: Sequence[Volume],
    step: float | None,
) -> dict[str, Any]:
    """Reconstruct rows `start` to `stop` of the tomogram, and of its halves; write level 0.

    `rows` are those of `filter_view`, of all views; `step` is what 1 of a stored integer means.
    """
    stacked = np.stack(rows, axis=2)
    halves = how.parameters.halves
    volumes = []
    if halves == "views":
        for odd in (0, 1):
            rows_of_half = on_device(np.ascontiguousarray(stacked[-1][:, odd::2]))
            first = how.rows(start, stop)[0]
            volumes.append(to_host(how.half(odd).made(rows_of_half, start, stop, first=first)))
        keep = _keeper(target, how, start)
        whole = to_host(how.made(on_device(stacked[0]), start, stop, keep))
    else:
        volumes = [
            to_host(how.made(on_device(part), start, stop, _keeper(target, how, start, i)))
            for i, part in enumerate(stacked)
        ]
        whole = volumes[0]
        if halves == "frames":
            whole = volumes[0] + volumes[1]
            whole *= np.float32(0.5)
    return write_slab(target, start, stop, whole, volumes if halves != "none" else (), step)


def edges_of(planes: int, layers: int) -> list[int]:
    """Return the first plane of each of `layers` of a box, and the number of planes."""
    return [round(planes * k / layers) for k in range(layers + 1)]


def _keeper(target: Result, how: Reconstruction, start: int, part: int = 0) -> Any:
    """Return what keeps a slab after some iterations: of halves of frames their mean."""
    every = how.parameters.keep_every
    if every is None or not how.iterates:
        return None

    def keep(iteration: int, volume: Array, at: int) -> None:
        if iteration % every:
            return
        kept = to_host(volume)
        array = target.array(kept_name(iteration))
        rows = slice(start + at, start + at + kept.shape[1])
        if how.parameters.by_frames:
            kept = kept * np.float32(0.5)
            if part:
                kept += array[:, rows]
        array[:, rows] = kept

    return keep


def kept_name(iteration: int) -> str:
    """Return the name of the array of a volume kept after some iterations."""
    return f"{KEPT}{iteration:03d}"


def noise_of_rows(how: Reconstruction, start: int, stop: int, rows: Sequence[Volume]) -> float:
    """Return the standard deviation of a few rows of the tomogram: the scale of integers."""
    return float(to_host(how.made(on_device(np.stack(rows, axis=2)[0]), start, stop)).std())


def write_slab(
    target: Result,
    start: int,
    stop: int,
    whole: Volume,
    halves: Sequence[Volume],
    step: float | None,
) -> dict[str, float]:
    """Write rows of levels 0 and 1, and those of the halves; return their statistics.

    `start` is a multiple of 128, so that no two slabs share a brick of level 1 either.
    """
    level, below = target.array("0"), target.array("1") if "1" in target.group() else None
    deep = 2 * level.chunks[0]
    # Whole bricks of both levels at a time: copies of the slab would take as much as it does.
    for low in range(0, len(whole), deep):
        part = slice(low, low + deep)
        level[part, start:stop] = stored(whole[part], level.dtype, step)
        for name, half in zip(HALVES, halves, strict=False):
            array = target.array(name)
            array[part, start:stop] = stored(half[part], array.dtype, step)
        if below is not None and len(whole[part]) > 1:
            rows = slice(start // 2, min(stop // 2, below.shape[1]))
            coarse = halved(whole[part])[:, : rows.stop - rows.start, : below.shape[2]]
            planes = slice(low // 2, low // 2 + len(coarse))
            below[planes, rows] = stored(coarse, below.dtype, step)
    return measured(whole)


def stored(values: Volume, dtype: np.dtype[Any], step: float | None) -> NDArray[Any]:
    """Return values as a number type has them; integers are multiples of `step`, and clipped."""
    if dtype.kind != "i" or step is None:
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values / np.float32(step)), limits.min, limits.max).astype(dtype)


def step_of(parameters: TomogramParameters, noise: float) -> float | None:
    """Return what 1 of a stored integer means, None where numbers are stored as they are."""
    return step_for(parameters.storage, noise)


def step_for(storage: str, noise: float) -> float | None:
    """Return what 1 of a number type means, None for floats."""
    reach = RANGE.get(storage)
    return None if reach is None else reach * noise / np.iinfo(storage).max


def halve(target: Result, level: int, start: int, stop: int) -> dict[str, Any]:
    """Average 2×2×2 voxels of the level above into rows `start` to `stop` of `level`."""
    above, below = target.array(str(level - 1)), target.array(str(level))
    nz, _, nx = below.shape
    part = np.asarray(above[: 2 * nz, 2 * start : 2 * stop, : 2 * nx], dtype=np.float32)
    below[:, start:stop] = stored(halved(part), below.dtype, 1.0)
    return {}
