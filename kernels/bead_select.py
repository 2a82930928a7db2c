"""Which beads to use, and the surfaces of the ice on which they lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Two surfaces are told apart where their distance exceeds so many spreads of both together.
APART = 4.0
LEAST_APART = 200.0  # Å: no ice is thinner with beads on both sides
LEAST_ON_SURFACE = 2


@dataclass(frozen=True)
class Surfaces:
    """Beads by the surface on which they lie.

    Attributes
    ----------
    side : (n,) int
        −1 on the lower, +1 on the upper surface, all 0 where there is but one.
    apart : float or None
        Distance of the surfaces at the beads' middle [Å].
    slope : (float, float)
        Rise of both along X and Y.
    """

    side: NDArray[np.int64]
    apart: float | None
    slope: tuple[float, float]


def surfaces_of(points: Floats) -> Surfaces:
    """Return on which of two parallel surfaces each of points (n, 3) [Å] lies.

    The surfaces share their slope. Starting from heights over the common plane, sides and slope are
    found in turn.
    """
    n = len(points)
    one = Surfaces(np.zeros(n, np.int64), None, (0.0, 0.0))
    if n < 5:
        return one
    centred = points - points.mean(axis=0)
    design = np.column_stack([centred[:, :2], np.ones(n)])
    slope = np.linalg.lstsq(design, centred[:, 2], rcond=None)[0][:2]
    side = np.zeros(n, np.int64)
    for _ in range(20):
        height = centred[:, 2] - centred[:, :2] @ slope
        order = np.sort(height)
        # The split that leaves the least variance on both sides.
        cost = [
            order[:k].var() * k + order[k:].var() * (n - k)
            for k in range(LEAST_ON_SURFACE, n - LEAST_ON_SURFACE + 1)
        ]
        k = LEAST_ON_SURFACE + int(np.argmin(cost))
        new = np.where(height >= 0.5 * (order[k - 1] + order[k]), 1, -1)
        design = np.column_stack([centred[:, :2], new > 0, new < 0]).astype(np.float64)
        fitted = np.linalg.lstsq(design, centred[:, 2], rcond=None)[0]
        slope = fitted[:2]
        if (new == side).all():
            break
        side = new
    left = centred[:, 2] - design @ fitted
    apart = float(fitted[2] - fitted[3])
    spread = float(np.sqrt((left**2).sum() / max(n - 4, 1)))
    if apart < max(APART * spread, LEAST_APART):
        return one
    return Surfaces(side, apart, (float(slope[0]), float(slope[1])))


def best_spread(
    points: Floats, counts: NDArray[np.integer], number: int, side: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Return the indices of `number` beads that are seen often and lie far apart.

    Parameters
    ----------
    points : (n, 3)
        In Å.
    counts : (n,)
        Views in which each is seen.
    number : int
    side : (n,), optional
        Of `Surfaces`: as many from both sides, if it can be.
    """
    chosen = [int(np.argmax(counts))]
    share = counts / counts.max()
    while len(chosen) < min(number, len(points)):
        distance = np.linalg.norm(points[:, None, :2] - points[None, chosen, :2], axis=2).min(
            axis=1
        )
        worth = distance * share**2
        if side is not None and (side != 0).any():
            taken = [int((side[chosen] == s).sum()) for s in (-1, 1)]
            rarer = -1 if taken[0] < taken[1] else 1
            worth = np.where(side == rarer, 4 * worth, worth)
        worth[chosen] = -1
        chosen.append(int(np.argmax(worth)))
    return np.array(sorted(chosen), dtype=np.int64)
