"""Closure of the links between views: which peaks are right, and which views are not tied in.

Every link offers several displacements, few of them true. True ones close loops: what leads from
view to view and back again comes back to where it started. So one view of nothing, or one whose
links point anywhere, breaks nothing: the others are linked past it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.align_coarse import PairShift, solve_shifts, stretch
from kernels.fourier import Shape

Floats = NDArray[np.float64]
Candidates = tuple[PairShift, ...]

# Of the shorter side: displacements that differ by less agree. Matter off the plane, which moves
# with the tilt, makes neighbouring views differ by about a hundredth.
AGREEING = 0.03
TRUSTED = 6.0  # σ: higher than any of 10⁵ places of noise
# Beads and other sharp things are no Gaussian noise: by chance they give peaks of 10 σ, but then
# several of them.
OUTSTANDING = 1.5  # times the lowest of a pair's peaks that are kept
TYING = (0.3, 0.75)  # share of a view's links that must agree, with a trusted one among them or not
LEAST_LINKS = 3  # without a trusted one
SWEEPS = 10


@dataclass(frozen=True)
class Closure:
    """What all links together say.

    Attributes
    ----------
    shifts : (n, 2) float64
        Displacement (dy, dx) of each view's content in the aligned frame [pixels]; that of its
        neighbour in tilt where a view is not tied in.
    confidence : (n,) float64
        Mean height of each view's agreeing peaks [σ].
    agreeing : (n,) float64
        Share of each view's links that agree with the solution; NaN without links.
    tied : (n,) bool
        Whether agreeing links lead from each view to the bulk of the series.
    residual : float
        Median distance of agreeing links from the solution [pixels].
    links : list of (bool, dy, dx)
        Of each pair: whether it agrees, and the displacement that the solution says [pixels].
    """

    shifts: Floats
    confidence: Floats
    agreeing: Floats
    tied: NDArray[np.bool_]
    residual: float
    links: list[tuple[bool, float, float]]


def close_links(
    pairs: Sequence[tuple[int, int]],
    candidates: Sequence[Candidates],
    tilts: Sequence[float],
    shape: Shape,
) -> Closure:
    """Choose one peak of every link, or none, and solve for the views' displacements.

    Parameters
    ----------
    pairs : sequence of (reference, moving)
    candidates : sequence of tuple of PairShift, as many
        From `kernels.align_links.link_views`.
    tilts : (n,)
        Of all views [degrees].
    shape : (ny, nx)
        Of the views.
    """
    n = len(tilts)
    tolerance = AGREEING * min(shape)
    scales = np.stack([np.ones(n), [stretch(tilt) for tilt in tilts]], axis=1)
    # In units of the untilted specimen a link is a plain difference of two places.
    offers = [
        [(np.array((c.dy, c.dx)) / scales[r], c.confidence) for c in offered]
        for (r, _), offered in zip(pairs, candidates, strict=True)
    ]
    support = _loop_support(pairs, offers, scales, tolerance)
    places = _outline(pairs, offers, support, n)
    for _ in range(SWEEPS):
        before = places.copy()
        for v in sorted(range(n), key=lambda i: abs(tilts[i]), reverse=True):
            places[v] = _voted(v, pairs, offers, places, scales, tolerance)
        if np.abs(places - before).max() < 1e-6:
            break
    places, chosen, agree = _solved(pairs, candidates, offers, places, tilts, tolerance)
    return _told(pairs, candidates, chosen, agree, places, tilts)


def _loop_support(
    pairs: Sequence[tuple[int, int]],
    offers: list[list[tuple[Floats, float]]],
    scales: Floats,
    tolerance: float,
) -> list[list[int]]:
    """Return in how many triangles each offer of each link closes with offers of the others."""
    at = {pair: k for k, pair in enumerate(pairs)} | {(m, r): ~k for k, (r, m) in enumerate(pairs)}
    linked: dict[int, set[int]] = {}
    for r, m in pairs:
        linked.setdefault(r, set()).add(m)
        linked.setdefault(m, set()).add(r)

    def offered(a: int, b: int) -> Floats:
        k = at[a, b]
        moves = np.array([move for move, _ in offers[max(k, ~k)]]).reshape(-1, 2)
        return moves if k >= 0 else -moves

    counts = []
    for k, (r, m) in enumerate(pairs):
        count = [0] * len(offers[k])
        for other in linked[r] & linked[m]:
            ways = (offered(r, other)[:, None] + offered(other, m)[None]).reshape(-1, 2)
            for c, (move, _) in enumerate(offers[k]):
                miss = np.hypot(*((ways - move) * scales[m]).T)
                count[c] += bool((miss < tolerance).any())
        counts.append(count)
    return counts


def _outline(
    pairs: Sequence[tuple[int, int]],
    offers: list[list[tuple[Floats, float]]],
    support: list[list[int]],
    n: int,
) -> Floats:
    """Return first places (n, 2), along the tree of the best links."""
    best = [
        (offers[k][c][1] * (1 + support[k][c]), k, c)
        for k in range(len(pairs))
        for c in range(len(offers[k]))
    ]
    places, group = np.zeros((n, 2)), np.arange(n)
    for _, k, c in sorted(best, reverse=True):
        r, m = pairs[k]
        if group[r] == group[m]:
            continue
        members = group == group[m]
        places[members] += places[r] + offers[k][c][0] - places[m]
        group[members] = group[r]
    return places


def _voted(
    view: int,
    pairs: Sequence[tuple[int, int]],
    offers: list[list[tuple[Floats, float]]],
    places: Floats,
    scales: Floats,
    tolerance: float,
) -> Floats:
    """Return the place of a view that most of its links' offers vote for."""
    votes, weights, voters = [], [], []
    for k, (r, m) in enumerate(pairs):
        if view not in (r, m):
            continue
        for move, height in offers[k]:
            votes.append(places[r] + move if view == m else places[m] - move)
            weights.append(height)
            voters.append(k)
    if not votes:
        return places[view]
    at, weight, voter = np.array(votes), np.array(weights), np.array(voters)
    apart = ((at[:, None] - at[None]) * scales[view]) ** 2
    close = np.sqrt(apart.sum(axis=2)) < tolerance
    # Each link has one vote for a place, its highest peak near by.
    strength = [
        sum(weight[near & (voter == k)].max(initial=0.0) for k in set(voters)) for near in close
    ]
    return at[int(np.argmax(strength))]


def _solved(
    pairs: Sequence[tuple[int, int]],
    candidates: Sequence[Candidates],
    offers: list[list[tuple[Floats, float]]],
    places: Floats,
    tilts: Sequence[float],
    tolerance: float,
) -> tuple[Floats, list[PairShift | None], list[bool]]:
    """Let the offers nearest to the places refine them; return them and which links agree."""
    n = len(tilts)
    scales = np.stack([np.ones(n), [stretch(tilt) for tilt in tilts]], axis=1)
    chosen: list[PairShift | None] = [None] * len(pairs)
    agree = [False] * len(pairs)
    for _ in range(3):
        for k, (r, m) in enumerate(pairs):
            says = places[m] - places[r]
            miss = [float(np.hypot(*((move - says) * scales[r]))) for move, _ in offers[k]]
            near = int(np.argmin(miss)) if miss else -1
            chosen[k] = candidates[k][near] if miss else None
            agree[k] = bool(miss) and miss[near] < tolerance
        believed = _believed(pairs, candidates, chosen, agree, n)
        agree = [
            good and bool(believed[[r, m]].all()) for good, (r, m) in zip(agree, pairs, strict=True)
        ]
        ends = [pair for pair, good in zip(pairs, agree, strict=True) if good]
        kept = [c for c, good in zip(chosen, agree, strict=True) if good and c is not None]
        for part in _parts(ends, n):
            inside = [j for j, (r, _) in enumerate(ends) if r in part]
            found, _ = solve_shifts([ends[j] for j in inside], [kept[j] for j in inside], tilts)
            members = sorted(part)
            anchor = min(members, key=lambda i: abs(tilts[i]))
            places[members] = found[members] / scales[members] + places[anchor]
    return places, chosen, agree


def _believed(
    pairs: Sequence[tuple[int, int]],
    candidates: Sequence[Candidates],
    chosen: Sequence[PairShift | None],
    agree: Sequence[bool],
    n: int,
) -> NDArray[np.bool_]:
    """Return which views lie where they do by more than chance."""
    ends, good = np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(agree, dtype=np.bool_)
    trusted = np.array(
        [
            c is not None
            and c.confidence >= max(TRUSTED, OUTSTANDING * min(o.confidence for o in offered))
            for c, offered in zip(chosen, candidates, strict=True)
        ],
        dtype=np.bool_,
    )
    believed = np.zeros(n, dtype=np.bool_)
    for i in np.unique(ends):
        own = (ends == i).any(axis=1)
        sure, share = bool((own & good & trusted).any()), float(good[own].mean())
        believed[i] = share >= TYING[0] if sure else share >= TYING[1] and own.sum() >= LEAST_LINKS
    return believed


def _parts(ends: Sequence[tuple[int, int]], n: int) -> list[set[int]]:
    """Return the sets of views that links tie together, the largest first."""
    group = np.arange(n)
    for r, m in ends:
        group[group == group[m]] = group[r]
    parts = [set(np.flatnonzero(group == g).tolist()) for g in np.unique(group)]
    return sorted((part for part in parts if len(part) > 1), key=len, reverse=True)


def _told(
    pairs: Sequence[tuple[int, int]],
    candidates: Sequence[Candidates],
    chosen: Sequence[PairShift | None],
    agree: Sequence[bool],
    places: Floats,
    tilts: Sequence[float],
) -> Closure:
    n = len(tilts)
    scales = np.stack([np.ones(n), [stretch(tilt) for tilt in tilts]], axis=1)
    parts = _parts([pair for pair, good in zip(pairs, agree, strict=True) if good], n)
    tied = np.zeros(n, dtype=np.bool_)
    tied[sorted(parts[0]) if parts else []] = True
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    good = np.array(agree, dtype=np.bool_)
    heights = np.array([0.0 if c is None else c.confidence for c in chosen])
    share, confidence = np.full(n, np.nan), np.zeros(n)
    for i in np.unique(ends):
        own = (ends == i).any(axis=1)
        share[i] = good[own].mean()
        confidence[i] = heights[own & good].mean() if (own & good).any() else 0.0
    if tied.any():
        known = np.flatnonzero(tied)
        angles = np.asarray(tilts, dtype=np.float64)
        places = places - places[known[np.argmin(np.abs(angles[known]))]]
        for i in np.flatnonzero(~tied):
            places[i] = places[known[np.argmin(np.abs(angles[known] - angles[i]))]]
    else:
        places = np.zeros((n, 2))
    says = (places[ends[:, 1]] - places[ends[:, 0]]) * scales[ends[:, 0]]
    told = np.array([(np.nan, np.nan) if c is None else (c.dy, c.dx) for c in chosen])
    miss = np.hypot(*(told.reshape(-1, 2) - says).T)
    return Closure(
        shifts=places * scales,
        confidence=confidence,
        agreeing=share,
        tied=tied,
        residual=float(np.median(miss[good])) if good.any() else float("nan"),
        links=[(bool(g), float(dy), float(dx)) for g, (dy, dx) in zip(good, says, strict=True)],
    )
