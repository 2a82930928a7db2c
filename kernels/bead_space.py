"""Beads in space: places where many views show something, once their geometry is known.

A candidate proposes a place at every depth of its ray, and the other views say whether something
free is where that place appears. What chance could explain is no bead: the chance is that of so
many views with a candidate so near by accident, among all places that were tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import cKDTree

from kernels.bead_find import Candidates
from kernels.geometry import View, aligned_from_raw, image_matrix, tilt_rotation

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Row = dict[int, int]  # view → candidate

CELL = 0.4  # of the reach: cells in which candidates are looked up
DEPTH = 2500.0  # Å on both sides of the middle within which beads are looked for
CHANCE = 1e-2  # of a track by accident, among all that were tried
COVERED = 0.4  # share of the views it could be seen in, in which a bead must be seen
LEAST_SEEN = 4  # views


@dataclass(frozen=True)
class Sky:
    """Candidates of all views as they appear, ready to be looked up.

    Attributes
    ----------
    used : (n,) indices of the views that have candidates.
    rows : (n, 2, 3), matrices : (n, 2, 2), shifts : (n, 2)
        Of those views: specimen → aligned → raw.
    aligned : n arrays (k, 2), trees : of them, free : n masks (k,)
    half : (2,) half the field [Å].
    reach : float
        How near a candidate must be [Å].
    """

    used: Counts
    rows: Floats
    matrices: Floats
    shifts: Floats
    aligned: list[Floats]
    trees: list[cKDTree]
    free: list[NDArray[np.bool_]]
    half: Floats
    reach: float

    @classmethod
    def of(
        cls,
        candidates: Sequence[Candidates | None],
        views: Sequence[View],
        reach: float,
        field: tuple[float, float],
    ) -> Sky:
        """Return the candidates of all views that have some, aligned.

        Parameters
        ----------
        candidates : sequence of Candidates or None
        views : sequence of View
        reach : float
            How near a candidate must be to a place [Å].
        field : (float, float)
            Width and height of the raw images [Å].
        """
        used = [i for i, found in enumerate(candidates) if found is not None and len(found)]
        aligned = [
            aligned_from_raw(found.xy, views[i])
            for i, found in enumerate(candidates)
            if found is not None and len(found)
        ]
        chosen = [views[i] for i in used]
        return cls(
            np.array(used, dtype=np.int64),
            np.stack([tilt_rotation(view)[:2] for view in chosen]),
            np.stack([image_matrix(view) for view in chosen]),
            np.array([(view.shift_x, view.shift_y) for view in chosen]),
            aligned,
            [cKDTree(places) for places in aligned],
            [np.ones(len(places), bool) for places in aligned],
            np.array(field) / 2,
            reach,
        )

    def seen(self, points: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Return where points (p, 3) are in the aligned views (n, p, 2), and if in the field."""
        flat = np.einsum("nxa,pa->npx", self.rows, points)
        raw = np.einsum("nxy,npy->npx", self.matrices, flat) + self.shifts[:, None, :]
        return flat, (np.abs(raw) <= self.half).all(axis=2)

    def support(self, points: Floats) -> tuple[Counts, Counts]:
        """Return in how many views something free is where points appear, and could be, (p,)."""
        counts = np.zeros((2, len(points)), np.int64)
        for k, (label, origin) in enumerate(self.maps):
            _count(
                points, self.rows[k], self.matrices[k], self.shifts[k], self.half,
                label, origin, self.reach * CELL, self.free[k], counts,
            )  # fmt: skip
        return counts[0], counts[1]

    @cached_property
    def maps(self) -> list[tuple[NDArray[np.int32], Floats]]:
        """Of each view, cells of the aligned frame with the candidate near them, or −1."""
        cell, made = self.reach * CELL, []
        for places, tree in zip(self.aligned, self.trees, strict=True):
            origin = places.min(axis=0) - 2 * self.reach
            size = np.ceil((places.max(axis=0) - origin + 2 * self.reach) / cell).astype(int)
            label = np.full(size[::-1], -1, np.int32)
            reach = int(np.ceil(self.reach / cell))
            steps = np.arange(-reach, reach + 1)
            dx, dy = (step.ravel() for step in np.meshgrid(steps, steps))
            middle = np.rint((places - origin) / cell).astype(int)
            x, y = (middle[:, :1] + dx).ravel(), (middle[:, 1:] + dy).ravel()
            distance, nearest = tree.query(origin + np.stack([x, y], axis=1) * cell)
            near = distance <= self.reach
            label[y[near], x[near]] = nearest[near]
            made.append((label, origin))
        return made

    def collect(self, point: Floats) -> tuple[Row, Counts]:
        """Return the free candidates near a point, which is fitted to them, and where it could be.

        Row by index into `used`.
        """
        row: Row = {}
        here = np.zeros(0, np.int64)
        for _ in range(3):
            flat, inside = self.seen(point[None])
            row, here = {}, np.flatnonzero(inside[:, 0])
            for k in here.tolist():
                distance, c = self.trees[k].query(flat[k, 0])
                if distance <= self.reach and self.free[k][c]:
                    row[k] = int(c)
            if len(row) < 3:
                break
            a = self.rows[list(row)].reshape(-1, 3)
            b = np.concatenate([self.aligned[k][c] for k, c in row.items()])
            point = np.linalg.lstsq(a, b, rcond=None)[0]
        return row, here


@njit(nogil=True, cache=True)
def _count(  # type: ignore[no-untyped-def]
    points, row, matrix, shift, half, label, origin, cell, free, counts
):
    """Add to counts[0] where something free is near a point in a view, to counts[1] if inside."""
    for p in range(len(points)):
        x = row[0, 0] * points[p, 0] + row[0, 1] * points[p, 1] + row[0, 2] * points[p, 2]
        y = row[1, 0] * points[p, 0] + row[1, 1] * points[p, 1] + row[1, 2] * points[p, 2]
        raw_x = matrix[0, 0] * x + matrix[0, 1] * y + shift[0]
        raw_y = matrix[1, 0] * x + matrix[1, 1] * y + shift[1]
        if abs(raw_x) > half[0] or abs(raw_y) > half[1]:
            continue
        counts[1, p] += 1
        i, j = round((y - origin[1]) / cell), round((x - origin[0]) / cell)
        if 0 <= i < label.shape[0] and 0 <= j < label.shape[1]:
            c = label[i, j]
            if c >= 0 and free[c]:
                counts[0, p] += 1


def in_space(
    candidates: Sequence[Candidates | None],
    views: Sequence[View],
    known: Floats,
    reach: float,
    field: tuple[float, float],
) -> list[tuple[Row, float]]:
    """Return tracks, known places first, with the logarithm of the chance of each."""
    sky = Sky.of(candidates, views, reach, field)
    depths = np.arange(-DEPTH, DEPTH + 1, sky.reach)
    found: list[tuple[Row, float]] = []

    def take(points: Floats) -> None:
        for point in points:
            row, here = sky.collect(point)
            if len(row) < max(LEAST_SEEN, COVERED * len(here)):
                continue
            # Of what no other bead explains, one candidate proposed the place, and two numbers of
            # the others fitted it.
            free = np.array([left.sum() for left in sky.free])
            rate = free * np.pi * sky.reach**2 / (field[0] * field[1])
            trials = float(free.sum() * len(depths))
            likely = max(stats.poisson.sf(len(row) - 3, rate[here].sum()), 1e-300)
            chance = float(np.log10(likely * trials))
            if chance > np.log10(CHANCE):
                continue
            for k, c in row.items():
                sky.free[k][c] = False
            found.append(({int(sky.used[k]): c for k, c in row.items()}, chance))

    take(known)
    for k in np.argsort([abs(views[i].tilt) for i in sky.used.tolist()], kind="stable").tolist():
        left = np.flatnonzero(sky.free[k])
        if not len(left):
            continue
        points = _along_ray(sky.aligned[k][left], views[int(sky.used[k])], depths)
        support, seen = (of.reshape(len(left), -1) for of in sky.support(points.reshape(-1, 3)))
        support = np.where(support >= np.maximum(LEAST_SEEN, COVERED * seen), support, 0)
        best = support.argmax(axis=1)
        order = np.argsort(support[np.arange(len(left)), best])[::-1]
        take(np.array([points[c, best[c]] for c in order if support[c, best[c]]]).reshape(-1, 3))
    return found


def _along_ray(places: Floats, view: View, depths: Floats) -> Floats:
    """Return points of the specimen (n, depths, 3) that a view sees at aligned `places`."""
    inverse = tilt_rotation(view).T
    seen = np.empty((len(places), len(depths), 3))
    seen[:, :, :2] = places[:, None, :]
    # The depth along the beam that has such a Z: the third row of the inverse.
    seen[:, :, 2] = (depths[None, :] - places @ inverse[2, :2, None]) / inverse[2, 2]
    return seen @ inverse.T
