"""How 3-D CTF correction fits the workers, and the corrected planes that they hold meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import dask.utils

from kernels.ctf import Ctf
from kernels.plane_images import Layout, padded_shape
from tasks import cluster
from tasks.box import blocks
from tasks.chunks.ctf3d import AT_ONCE, Correcting, correct_plane, transform_view
from tasks.chunks.ctf3d_hands import band_of
from tasks.errors import WrongParameter
from tasks.scatter import Unit, parts_of, spread
from tasks.tomogram import FILLED, Job, room, slabs_of, writing_memory

LEAST_ROWS = 128  # of a slab: what back-projection takes at once
# A view that is aligned and transformed costs as much as so many corrected at a plane.
TRANSFORMED = 2
Layers = Sequence[tuple[Correcting, Layout]]


@dataclass(frozen=True)
class Plan:
    """How the work is split.

    Attributes
    ----------
    slabs : tuple of (start, stop)
        Rows of the box.
    group : int
        Views whose spectra every worker holds at once: of all while slabs are made, too, for the
        next pass.
    row : int
        What the planes of one row of the box take, of all workers together [bytes].
    plane, slab : int
        Most memory that a worker takes while planes and while slabs are made, without the planes
        that it holds [bytes].
    """

    slabs: tuple[tuple[int, int], ...]
    group: int
    row: int
    plane: int
    slab: int

    @property
    def beside(self) -> int:
        """What a worker must have room for beside the planes that it holds [bytes]."""
        return max(self.plane, self.slab)


def spectrum_bytes(how: Correcting, layers: int) -> int:
    """Return what the phases and spectra of one view take [bytes]."""
    wide, high = padded_shape(*how.box.frame, how.margin)
    return wide * (high // 2 + 1) * (4 + 8 * how.parts * layers)


def planned(job: Job, layers: Layers) -> Plan:
    """Split the work so that it fits, with as little done twice as possible.

    Each pass over the slabs corrects every plane again. Where the spectra of all views leave too
    little room, they are held in groups, one after another, and made again in each pass.

    Raises
    ------
    WrongParameter
        If a worker has too little memory however the work is split.
    """
    how, views, execution = layers[0][0], len(job.views), job.work.execution
    spectrum = spectrum_bytes(how, len(layers))
    columns = sum(layout.columns for _, layout in layers)
    widest = max(layout.columns_of_plane(int(n)) for _, layout in layers for n in layout.levels)
    nz, ny, nx = job.box.shape
    first, last = how.rows(ny // 2, ny // 2)
    more = last - first  # rows of views that a slab needs beside its own
    volumes = (1 if how.parameters.halves == "none" else 3) + (len(layers) > 1)
    apart = AT_ONCE if how.turned else 0  # rows that are made by themselves, and put in their place
    base = job.source.memory(len(layers))

    def slab(rows: int, grouped: bool = False) -> int:
        copies = (2 + grouped) * how.parts + how.fine  # packed, and as they are read
        taken = (rows + more) * copies * columns + (rows * volumes + apart) * nz * nx
        return base + 4 * taken + writing_memory(job, rows)

    slabs = slabs_of(job, lambda rows: slab(rows) + views * spectrum, LEAST_ROWS)
    longest = max(stop - start for start, stop in slabs)
    row = 4 * how.parts * columns
    wanted = row * (ny + more * len(slabs))
    found: list[tuple[int, Plan]] = []
    needed: list[int] = []
    memory, workers = cluster.worker_memory(execution), cluster.worker_count(execution)
    for group in range(views, 0, -1):
        held = group * spectrum
        plane = base + held + 3 * spectrum + 4 * how.parts * widest * job.box.frame[0]
        # Spectra that are dropped leave holes, which are too small for a volume.
        most = slab(longest, group < views) + held
        plan = Plan(tuple(slabs), group, row, plane, most)
        needed.append(int((plan.beside + row * (longest + more) / workers) / FILLED))
        if needed[-1] <= memory:
            passes = ceil(wanted / max(room(job, plan.beside), row * longest))
            again = 1 if group == views else passes
            images = sum(int((layout.count > 0).sum()) for _, layout in layers)
            found.append((passes * images + TRANSFORMED * again * views * len(layers), plan))
    if not found:
        raise WrongParameter(
            f"{job.work.series.name}: ctf3d takes {dask.utils.format_bytes(min(needed))} on each "
            f"worker, a worker has {dask.utils.format_bytes(memory)}: use fewer --workers, a "
            "larger --memory or a larger --binning"
        )
    return min(found, key=lambda one: one[0])[1]


@dataclass
class Held:
    """What workers hold for the slabs of a pass.

    Attributes
    ----------
    job : Job
    ctfs : sequence of Ctf
        Of the views.
    layers : sequence of (Correcting, Layout)
    plan : Plan
    bands : list
        Of all views, for the comparison of hands, once these were transformed.
    """

    job: Job
    ctfs: Sequence[Ctf]
    layers: Layers
    plan: Plan
    bands: list[Any] = field(default_factory=list)
    _kept: list[Any] = field(default_factory=list)

    def make_bands(self) -> None:
        """Transform all views for the comparison of hands alone."""
        for places in self._groups():
            self._hold_bands(self._transformed(places), places)

    def planes(self, slabs: Sequence[tuple[int, int]], bands: bool) -> list[list[Any]]:
        """Return what stands for the rows of all planes that each slab needs."""
        parts: dict[str, list[list[Any]]] = {}
        for places in self._groups():
            views = self._transformed(places)
            if bands and len(self.bands) < len(self.job.views):
                self._hold_bands(views, places)
            held = self.job.work.hold(
                correct_plane, self._units(views, places, slabs), self.plan.plane
            )
            del views
            # What is whole is dropped at once: workers would count its rows twice.
            each = parts_of(list(held.values()), len(slabs), self.job.work.execution)
            for name, *rows in zip(held, *each, strict=True):
                parts.setdefault(name, []).append(rows)
            del held, each
        names = [
            _name(layer, int(level))
            for layer, (_, layout) in enumerate(self.layers)
            for level in layout.levels
        ]
        return [[rows[i] for name in names for rows in parts[name]] for i in range(len(slabs))]

    def _groups(self) -> list[range]:
        return [range(*ends) for ends in blocks(len(self.job.views), self.plan.group)]

    def _units(
        self, views: Sequence[Any], places: range, slabs: Sequence[tuple[int, int]]
    ) -> list[Unit]:
        units = []
        for layer, (how, layout) in enumerate(self.layers):
            for level in layout.levels:
                images = [
                    int(i) for i in layout.of_plane(int(level)) if layout.images[i, 0] in places
                ]
                seen = [views[int(layout.images[i, 0]) - places.start] for i in images]
                arguments = (seen, images, how, layout, layer, slabs)
                units.append(Unit(_name(layer, int(level)), arguments))
        return units

    def _transformed(self, places: range) -> list[Any]:
        """Return what stands for the spectra of some views, which every worker holds."""
        if self._kept:
            return self._kept
        job, how = self.job, self.layers[0][0]
        units = [
            Unit(f"view-{job.each[i].index:03d}", (job.source, job.each[i], self.ctfs[i], how))
            for i in places
        ]
        made = job.work.hold(transform_view, units, self.plan.plane)
        views = [made[unit.name] for unit in units]
        spread(views, job.work.execution)
        if self.plan.group == len(job.views):
            self._kept = views
        return views

    def _hold_bands(self, views: Sequence[Any], places: range) -> None:
        how = self.layers[0][0]
        units = [Unit(f"band-{i:03d}", (view, how)) for i, view in zip(places, views, strict=True)]
        made = self.job.work.hold(band_of, units, self.plan.plane)
        self.bands += [made[unit.name] for unit in units]


def _name(layer: int, level: int) -> str:
    return f"plane-{layer}{level:+04d}"
