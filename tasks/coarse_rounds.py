"""Rounds of coarse alignment: links between views, their closure, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from kernels.align_closure import AGREEING, Closure, close_links
from kernels.align_coarse import PairShift, aligned_shape, move_view, neighbour_pairs
from kernels.align_links import Guess, solve_magnifications
from kernels.geometry import View
from tasks.chunks.alignment import REDUCED
from tasks.chunks.coarse import (
    compare_magnifications,
    find_axis,
    follow_views,
    link_pairs,
    memory_of_links,
)
from tasks.parameters import CoarseParameters
from tasks.scatter import Unit
from tasks.work import Work

PAIRS_PER_UNIT = 18
SURE = 5.0  # σ of a peak that is looked for where the others say
FURTHER = 3  # times the reach, for views that are tied to nothing
AXIS_RANGE = {"check": 10.0, "refine": 10.0, "search": 90.0}  # degrees to either side
MOST_TURNS = 3  # of the axis
SETTLED = 0.3  # degrees
SLACK = 0.01  # of the field: how far the sum of views may move one


@dataclass(frozen=True)
class Ties:
    """Links of a series, measured with the views as they are turned.

    Attributes
    ----------
    work : Work
    views : list of View
        Their shifts do not matter.
    used : list of bool
    pixel_size : float
        Of the reduced views [Å].
    parameters : CoarseParameters
    stage : str
        Distinguishes the units of the step.
    """

    work: Work
    views: list[View]
    used: list[bool]
    pixel_size: float
    parameters: CoarseParameters
    stage: str

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of the aligned frame."""
        _, ny, nx = self.work.result.array(REDUCED).shape
        return aligned_shape((ny, nx), self.views[0].axis)

    def moved(self, closure: Closure) -> list[View]:
        """Return the views where the links put them."""
        return [
            move_view(
                replace(view, shift_x=0.0, shift_y=0.0),
                float(dy) * self.pixel_size,
                float(dx) * self.pixel_size,
            )
            for view, (dy, dx) in zip(self.views, closure.shifts, strict=True)
        ]

    def close(self) -> tuple[list[tuple[int, int]], Closure]:
        """Link neighbours, close the links, and look again where they disagree."""
        tilts = [view.tilt for view in self.views]
        pairs = neighbour_pairs(tilts, self.used, self.parameters.neighbours)
        further = neighbour_pairs(tilts, self.used, FURTHER * self.parameters.neighbours)
        links = self._links("0", pairs, [None] * len(pairs))
        closure = close_links(pairs, links, tilts, self.shape)
        radius = AGREEING * min(self.shape)
        for turn in range(1, self.parameters.iterations):
            again: dict[tuple[int, int], Guess | None] = {
                pair: (dy, dx, radius)
                for pair, (agrees, dy, dx) in zip(pairs, closure.links, strict=True)
                if not agrees and closure.tied[list(pair)].all()
            }
            again |= dict.fromkeys(
                pair for pair in further if pair not in pairs and not closure.tied[list(pair)].all()
            )
            if not again:
                break
            found = self._links(str(turn), list(again), list(again.values()))
            known = dict(zip(pairs, links, strict=True))
            for (pair, guess), peaks in zip(again.items(), found, strict=True):
                sure = tuple(p for p in peaks if guess is None or p.confidence >= SURE)
                known[pair] = known.get(pair, ()) + sure
            pairs, links = list(known), list(known.values())
            closure = close_links(pairs, links, tilts, self.shape)
        return pairs, closure

    def magnified(self, pairs: list[tuple[int, int]], closure: Closure) -> list[View]:
        """Return the views with magnifications that make agreeing pairs of one size."""
        good = [
            (pair, (dy, dx, 5.0))
            for pair, (agrees, dy, dx) in zip(pairs, closure.links, strict=True)
            if agrees
        ]
        groups = [
            good[i : i + PAIRS_PER_UNIT // 3] for i in range(0, len(good), PAIRS_PER_UNIT // 3)
        ]
        names = [f"{self.stage}-size-{i:03d}" for i in range(len(groups))]
        told = self.work.scatter(
            compare_magnifications,
            [
                Unit(name, (self.work.result, *map(list, zip(*group, strict=True)), *self._rest))
                for name, group in zip(names, groups, strict=True)
            ],
            memory=memory_of_links(self.shape, PAIRS_PER_UNIT),
        )
        ratios = [value for name in names for value in told[name]["magnifications"]]
        sizes = solve_magnifications([pair for pair, _ in good], ratios, len(self.views))
        return [
            replace(view, magnification=view.magnification * float(size))
            for view, size in zip(self.views, sizes, strict=True)
        ]

    def followed(self, closure: Closure) -> Closure:
        """Return the closure with the views brought onto the sums of those before them."""
        tilts = [view.tilt for view in self.views]
        tied = [i for i in np.argsort(np.abs(tilts), kind="stable").tolist() if closure.tied[i]]
        sides = [
            [i for i in tied[1:] if (tilts[i] >= tilts[tied[0]]) == up] for up in (True, False)
        ]
        orders = [[tied[0], *side] for side in sides if side]
        names = [f"{self.stage}-sum-{i}" for i in range(len(orders))]
        shifts = [(float(dy), float(dx)) for dy, dx in closure.shifts]
        radius = max(3.0, SLACK * min(self.shape))
        told = self.work.scatter(
            follow_views,
            [
                Unit(name, (self.work.result, order, shifts, radius, *self._rest))
                for name, order in zip(names, orders, strict=True)
            ],
            memory=memory_of_links(self.shape, len(tilts)),
        )
        found, confidence = closure.shifts.copy(), closure.confidence.copy()
        for name, order in zip(names, orders, strict=True):
            for i, (dy, dx, height) in islice(
                zip(order, told[name]["shifts"], strict=True), 1, None
            ):
                found[i], confidence[i] = (dy, dx), height
        return replace(closure, shifts=found, confidence=confidence)

    def axis(self, closure: Closure) -> tuple[float, float] | None:
        """Return the tilt axis that the views show and its standard error, None if too few are."""
        indices = np.flatnonzero(closure.tied).tolist()
        if len(indices) < 5:
            return None
        name, search = f"{self.stage}-axis", AXIS_RANGE[self.parameters.axis]
        told = self.work.scatter(
            find_axis,
            [
                Unit(
                    name,
                    (self.work.result, indices, self.moved(closure), self.pixel_size, search),
                )
            ],
            memory=memory_of_links(self.shape, 1),
        )
        return told[name]["axis"], told[name]["error"]

    @property
    def _rest(self) -> tuple[list[View], float, CoarseParameters]:
        return self.views, self.pixel_size, self.parameters

    def _links(
        self, turn: str, pairs: list[tuple[int, int]], guesses: list[Guess | None]
    ) -> list[tuple[PairShift, ...]]:
        starts = range(0, len(pairs), PAIRS_PER_UNIT)
        groups = [slice(i, i + PAIRS_PER_UNIT) for i in starts]
        names = [f"{self.stage}-{turn}-{i:03d}" for i in range(len(groups))]
        told = self.work.scatter(
            link_pairs,
            [
                Unit(name, (self.work.result, pairs[group], guesses[group], *self._rest))
                for name, group in zip(names, groups, strict=True)
            ],
            memory=memory_of_links(self.shape, PAIRS_PER_UNIT),
        )
        return [
            tuple(PairShift(*peak) for peak in peaks)
            for name in names
            for peaks in told[name]["links"]
        ]
