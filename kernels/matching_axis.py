"""The tilt axis with the best matches: one angle, or one that varies slowly over the tilt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Array
from kernels.geometry import View
from kernels.matching_sweep import Matched, sweep

# A variation of the axis is believed when it stands out by so many standard errors.
SIGNIFICANT = 4.0
# Blocks of views that are left out in turn; no axis is believed better than the floor [degrees].
BLOCKS = 6
VARY = 0.25  # step of the search for variations [degrees]
# From further away than this a climb does not find the top: angles are tried so far apart first.
CLIMBS, SCAN = 10.0, 4.0
FLOOR = 0.01


@dataclass(frozen=True)
class Turn:
    """How far the axis was turned.

    Attributes
    ----------
    angle : float
        At the largest tilt, of a turn that varies [degrees].
    error : float
        Standard error, from leaving views out; infinite without a maximum [degrees].
    at_end : bool
        Whether the best angle lies at the end of what was searched.
    """

    angle: float
    error: float
    at_end: bool


def refine_axis(
    images: Array,
    views: Sequence[View],
    pixel_size: float,
    used: Sequence[bool],
    thickness: float = 3000.0,
    search: float = 3.0,
    step: float = 0.5,
    basis: Sequence[float] | None = None,
) -> tuple[Matched, Turn]:
    """Turn the tilt axis to where a sweep has the best mean score.

    Parameters
    ----------
    images, views, pixel_size, used, thickness
        As of `kernels.align_matching.match_series`.
    search : float
        The largest turn [degrees].
    step : float
        Of the climb [degrees]; the parabola through the three best scores says where between.
    basis : (n,), optional
        Turn of each view relative to the angle that is looked for; 1 for all by default.
    """
    shape = np.ones(len(views)) if basis is None else np.asarray(basis, dtype=np.float64)

    def turned(angle: float) -> Matched:
        trial = [
            replace(view, axis=view.axis + angle * float(part))
            for view, part in zip(views, shape, strict=True)
        ]
        return sweep(images, trial, pixel_size, used, thickness)

    return climb(turned, search, step)


def vary_axis(
    images: Array,
    views: Sequence[View],
    pixel_size: float,
    used: Sequence[bool],
    thickness: float = 3000.0,
    search: float = 2.0,
) -> tuple[Matched, tuple[Turn, ...]]:
    """Let the axis turn in proportion to the tilt, then to its square, where that is significant.

    Parameters as of `refine_axis`. The turns that are returned are those that were kept.
    """
    scaled = np.array([view.tilt for view in views]) / max(abs(view.tilt) for view in views)
    result = sweep(images, views, pixel_size, used, thickness)
    kept = []
    for basis in (scaled, scaled**2 - float(np.mean(scaled**2))):
        trial, total = result, 0.0
        for _ in range(5):  # shifts that go with a turn let it go further
            trial, turn = refine_axis(
                images, trial.views, pixel_size, used, thickness, search, VARY, basis.tolist()
            )
            total += turn.angle
            if turn.at_end or abs(turn.angle) < VARY / 2:
                break
        if abs(total) > SIGNIFICANT * turn.error and not turn.at_end:
            result = trial
            kept.append(Turn(total, turn.error, False))
    return result, tuple(kept)


def climb(
    trial: Callable[[float], Matched], search: float, step: float = 0.5
) -> tuple[Matched, Turn]:
    """Return the trial with the highest score among angles within ± `search` degrees.

    Beyond ± 90° are axes that were tried, turned by half: there is no end of the search.
    """
    tried = {0.0: trial(0.0)}
    limit = search if search < 90 else np.inf

    def best_of(angles: Sequence[float]) -> float:
        for angle in angles:
            if abs(angle) <= limit and angle not in tried:
                tried[angle] = trial(angle)
        return max(tried, key=lambda angle: tried[angle].score)

    step = min(step, search)
    best, before = 0.0, np.nan
    if search > CLIMBS:
        count = int(search / SCAN)
        best = best_of([k * SCAN for k in range(-count, count + 1)])
    while best != before:
        before, best = best, best_of((best - step, best + step))
    around = (best - step, best, best + step)
    if not all(angle in tried for angle in around):
        return tried[best], Turn(best, float("inf"), True)
    scores = np.stack([tried[angle].scores for angle in around])
    middle = _vertex(scores[:, tried[best].scores != 0].mean(axis=1), step)
    if middle is None:
        return tried[best], Turn(best, float("inf"), False)
    error = _left_out(scores[:, tried[best].scores != 0], step)
    best = best_of([best + middle])
    return tried[best], Turn(best, error, False)


def _vertex(scores: NDArray[np.float64], step: float) -> float | None:
    """Return where a parabola through three scores has its maximum, from the middle one."""
    low, middle, high = scores.tolist()
    if low - 2 * middle + high >= 0:
        return None
    return step * 0.5 * (low - high) / (low - 2 * middle + high)


def _left_out(scores: NDArray[np.float64], step: float) -> float:
    """Return the standard error of the vertex of mean scores (3, n), leaving views out.

    Neighbours in tilt err together, so blocks of them are left out.
    """
    if scores.shape[1] < 2:
        return float("inf")
    blocks = np.array_split(np.arange(scores.shape[1]), min(BLOCKS, scores.shape[1]))
    found = [_vertex(np.delete(scores, block, axis=1).mean(axis=1), step) for block in blocks]
    if any(vertex is None for vertex in found):
        return float("inf")
    spread = np.sqrt((len(blocks) - 1) * np.var(np.array(found, dtype=np.float64)))
    return float(np.hypot(spread, FLOOR))
