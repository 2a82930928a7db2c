"""Marker-free alignment: match each view with a projection of the other views' reconstruction.

The views' features are smeared into a small volume. Only its dense part is projected: what
many views agree on stands far above their streaks, so the reference is sharp where a linear one
would be blurred over the specimen's thickness and drift with it (rms of the beads on simulated
series: 1.0 to 1.5 Å, without beads 1.4 Å; linear reference 4 to 220 Å).

`grow` starts from a coarse alignment and adds one view after another, from low tilt to high;
`sweep` matches every view with all others, until nothing moves (`kernels.matching_sweep`);
`refine_axis` looks for the tilt axis with the best matches (`kernels.matching_axis`), `rescue`
for views that do not match (`kernels.matching_rescue`). What may be far off is found on views
reduced by 2, and refined on the views as they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from kernels.arrays import Array, namespace
from kernels.fourier import bin_images
from kernels.geometry import View
from kernels.matching_axis import CLIMBS, Turn, refine_axis, vary_axis
from kernels.matching_rescue import lost_views, rescue, with_views, without
from kernels.matching_sweep import Matched, centre_across, grow, move_origin, sweep

# Views whose shorter side has fewer pixels are not reduced.
SMALLEST = 320
# Searches of the axis: turn on either side, step [degrees]. A first one goes as far as is asked.
FIRST_STEP = 1.0
SECOND = (2.0, 0.5)
LAST = (1.0, 0.25)


@dataclass(frozen=True)
class Aligned:
    """Result of aligning a series without markers.

    Attributes
    ----------
    matched : Matched
        The last sweep, its origin in the middle of the dense matter's depth and, across, where
        the raw images' centres lie on average.
    turn : Turn or None
        The last search of the axis, None without.
    varying : tuple of Turn
        Variations of the axis over the tilt that were significant: linear, quadratic.
    lost : tuple of int
        Views that do not match, and took no part in the end.
    rescued : tuple of int
        Views that were found far from where the coarse alignment had put them.
    thickness : float
        Depth of the volume in the end [Å].
    """

    matched: Matched
    turn: Turn | None = None
    varying: tuple[Turn, ...] = ()
    lost: tuple[int, ...] = ()
    rescued: tuple[int, ...] = ()
    thickness: float = 0.0


@dataclass
class _State:
    """What the stages hand on."""

    result: Matched
    pixel_size: float
    used: list[bool]
    thickness: float
    tolerance: float
    turn: Turn | None = None
    varying: tuple[Turn, ...] = ()
    lost: list[int] = field(default_factory=list)
    rescued: list[int] = field(default_factory=list)

    @property
    def settings(self) -> tuple[float, list[bool], float]:
        return self.pixel_size, self.used, self.thickness

    def settle(self, images: Array, rounds: int) -> None:
        """Sweep until nothing moves."""
        for _ in range(rounds):
            self.result = sweep(images, self.result.views, *self.settings)
            if self.result.change < self.tolerance:
                break

    def centre(self) -> None:
        """Put the origin into the middle of the dense matter; a volume that just holds it."""
        low, high = self.result.depths
        middle = (low + high) / 2
        views = move_origin(centre_across(self.result.views, self.used), middle)
        self.result = replace(self.result, views=views, depths=(low - middle, high - middle))
        self.thickness = min(self.thickness, 1.2 * (high - low) + 400)

    def turn_axis(self, images: Array, search: float, step: float) -> None:
        self.result, self.turn = refine_axis(
            images, self.result.views, *self.settings, search=search, step=step
        )


def align_series(
    images: Array,
    views: Sequence[View],
    pixel_size: float,
    used: Sequence[bool],
    thickness: float = 3000.0,
    axis: Literal["fixed", "one", "varying"] = "one",
    axis_search: float = 10.0,
    tolerance: float = 0.5,
    rounds: int = 6,
) -> Aligned:
    """Refine the shifts and the tilt axis of a coarsely aligned series without markers.

    Parameters
    ----------
    images : (n, ny, nx) float32
        Raw views, binned to a pixel of about 10 Å (250 to 500 pixels a side).
    views : sequence of View, n long
        Coarse alignment, good to about 200 Å.
    pixel_size : float
        Of `images` [Å].
    used : (n,)
        False for dark and excluded views, which take no part.
    thickness : float
        Depth of the volume: holds the specimen wherever the coarse alignment put it [Å].
    axis : {"fixed", "one", "varying"}
        Whether the tilt axis is refined: not at all, one angle, or slowly varying over the tilt.
    axis_search : float
        It is looked for so far on either side of its first value [degrees].
    tolerance : float
        Sweeps end when the shifts change by less, root mean square [Å].
    rounds : int
        Sweeps at most.

    Raises
    ------
    ValueError
        If the numbers of images, views and flags differ, or fewer than 3 views are used.
    """
    reduced = min(images.shape[1:]) >= SMALLEST
    xp = namespace(images)
    small = images
    if reduced:
        small = xp.stack([bin_images(images[i, ...], 2) for i in range(len(views))])
    size = pixel_size * 2 if reduced else pixel_size
    first = grow(small, views, size, used, thickness)
    state = _State(first, size, list(used), thickness, tolerance)
    _find_lost(small, state)
    state.centre()
    if axis != "fixed" and axis_search > 0:
        state.settle(small, 2)
        state.turn_axis(small, axis_search, FIRST_STEP)
        if state.turn is not None and abs(state.turn.angle) > CLIMBS:
            # What was placed by an axis so far off is placed anew.
            turned = [replace(view, axis=view.axis + state.turn.angle) for view in views]
            state.used, state.lost, state.thickness = list(used), [], thickness
            state.result = grow(small, turned, size, used, thickness)
            _find_lost(small, state)
            state.centre()
            state.settle(small, 2)
            state.turn_axis(small, CLIMBS, FIRST_STEP)
        state.settle(small, 2)
        state.turn_axis(small, min(SECOND[0], axis_search), SECOND[1])
    state.settle(small, rounds)
    _find_lost(small, state)
    state.centre()
    state.pixel_size = pixel_size
    if reduced:
        state.settle(images, 2)
    if axis != "fixed" and axis_search > 0:
        at_end = bool(state.turn and state.turn.at_end)
        state.turn_axis(images, min(LAST[0], axis_search), LAST[1])
        if at_end and state.turn is not None:
            state.turn = replace(state.turn, at_end=True)
        if axis == "varying":
            state.result, state.varying = vary_axis(images, state.result.views, *state.settings)
    state.settle(images, rounds)
    state.centre()
    return Aligned(
        state.result,
        state.turn,
        state.varying,
        tuple(sorted(state.lost)),
        tuple(sorted(set(state.rescued) - set(state.lost))),
        state.thickness,
    )


def match_series(
    images: Array,
    views: Sequence[View],
    pixel_size: float,
    used: Sequence[bool],
    thickness: float = 3000.0,
    axis_search: float = 3.0,
    tolerance: float = 0.5,
    rounds: int = 6,
) -> Matched:
    """Return `align_series`'s views and scores alone; 0 as `axis_search` leaves the axis."""
    found = align_series(
        images,
        views,
        pixel_size,
        used,
        thickness,
        "one" if axis_search > 0 else "fixed",
        axis_search,
        tolerance,
        rounds,
    )
    return found.matched


def _find_lost(images: Array, state: _State) -> None:
    """Look for the views that do not match, and leave out those that are not found."""
    state.result = sweep(images, state.result.views, *state.settings)
    tilts = [view.tilt for view in state.result.views]
    # A view that was lost while the axis was wrong may match now.
    lost = [*state.lost, *lost_views(state.result.scores, tilts, state.used)]
    if not lost or np.sum(state.used) - len(lost) < 3:
        return
    state.used = with_views(state.used, lost)
    state.result = rescue(images, state.result, *state.settings, lost)
    state.result = sweep(images, state.result.views, *state.settings)
    still = [i for i in lost_views(state.result.scores, tilts, state.used) if i in lost]
    state.rescued += [i for i in lost if i not in still]
    state.lost = still
    state.used = without(state.used, still)
