"""From candidates in single views to beads in space: links that one geometry explains.

Outward from the lowest tilt, each view's candidates vote for its shift against where the tracks
so far are expected; every few views all of it is adjusted. Then the geometry is good, views that
were misled are voted again, and beads are looked for over their whole depth (`bead_space`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from kernels.align_coarse import move_view, stretch
from kernels.bead_find import Candidates
from kernels.bead_space import COVERED, LEAST_SEEN, Row, in_space
from kernels.bundle import Solution, solve
from kernels.geometry import View, aligned_from_raw, image_matrix, tilt_rotation
from kernels.tracks import Tracks

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

STRONG = 0.5  # correlation with which a candidate may begin a track
# Of a diameter: how far a candidate may be from where it is expected, at first and in the end.
NEAR, NEARER = 0.3, 0.12
DEPTH_PRIOR = 600.0  # Å
ADJUST_EVERY = 4  # views
LEAST_TRACKS = 3


@dataclass(frozen=True)
class Linked:
    """Tracks of candidates, and the geometry that they gave.

    Attributes
    ----------
    tracks : Tracks
    solution : Solution or None
        None when there are no tracks.
    chance : (n_points,) float64
        Logarithm (base 10) of the chance of such a track by accident.
    """

    tracks: Tracks
    solution: Solution | None
    chance: Floats


def link(
    candidates: Sequence[Candidates | None],
    views: Sequence[View],
    diameter: float,
    field: tuple[float, float],
    *,
    search: float = 300.0,
    sigma: float = 3.0,
) -> Linked:
    """Link candidates into tracks.

    Parameters
    ----------
    candidates : sequence of Candidates or None
        Of each view; None for views that take no part.
    views : sequence of View
        Coarse alignment.
    diameter : float
        Of the beads [Å].
    field : (float, float)
        Width and height of the raw images [Å].
    search : float
        How far a coarse shift may be wrong [Å].
    sigma : float
        Standard error of a candidate's place [Å].
    """
    grown = _grow(candidates, views, diameter, search, sigma)
    none = Linked(_tracks([], len(views), sigma), None, np.zeros(0))
    if grown is None:
        return none
    for _ in range(2):  # all beads are known now: views that were misled are found
        again = _revoted(candidates, grown, diameter, search)
        linked = _relinked(candidates, again, NEAR * diameter, field, views, sigma)
        if linked.solution is None:
            return linked
        grown = linked.solution
    return _relinked(candidates, grown, NEARER * diameter, field, views, sigma)


def link_again(
    candidates: Sequence[Candidates | None],
    solution: Solution,
    diameter: float,
    field: tuple[float, float],
    *,
    sigma: float = 3.0,
) -> Linked:
    """Link candidates once more, with a geometry that is known well: what was missed is found.

    Parameters as of `link`; the geometry of the result stays close to that of `solution`.
    """
    return _relinked(candidates, solution, NEARER * diameter, field, solution.views, sigma)


def _relinked(
    candidates: Sequence[Candidates | None],
    solution: Solution,
    reach: float,
    field: tuple[float, float],
    views: Sequence[View],
    sigma: float,
) -> Linked:
    known = solution.points[np.isfinite(solution.points).all(axis=1)]
    found = in_space(candidates, solution.views, known, reach, field)
    if len(found) < LEAST_TRACKS:  # one track fits any views, for their shifts are free
        return Linked(_tracks([], len(views), sigma), None, np.zeros(0))
    tracks = _tracks([row for row, _ in found], len(views), sigma, candidates)
    again = solve(tracks, views, with_errors=False)
    return Linked(tracks, again, np.array([chance for _, chance in found]))


def _tracks(
    rows: Sequence[Row],
    n_views: int,
    sigma: float,
    candidates: Sequence[Candidates | None] = (),
) -> Tracks:
    entries = [(v, j, c) for j, row in enumerate(rows) for v, c in sorted(row.items())]
    view = np.array([e[0] for e in entries], dtype=np.int64)
    point = np.array([e[1] for e in entries], dtype=np.int64)
    places = [of.xy[c] for v, _, c in entries if (of := candidates[v]) is not None]
    xy = np.array(places, dtype=np.float64).reshape(-1, 2)
    return Tracks(view, point, xy, np.full(len(view), sigma), n_views, len(rows))


def _grow(
    candidates: Sequence[Candidates | None],
    views: Sequence[View],
    diameter: float,
    search: float,
    sigma: float,
) -> Solution | None:
    """Return a first geometry from tracks that grow from the lowest tilt outward."""
    now = list(views)
    order = sorted(
        (i for i, found in enumerate(candidates) if found is not None),
        key=lambda i: abs(views[i].tilt),
    )
    rows: list[Row] = []
    solution: Solution | None = None
    for count, i in enumerate(order):
        found = candidates[i]
        if found is None or not len(found):
            continue
        if rows:
            points, spread = _places(rows, candidates, now, sigma)
            worth = np.array([len(row) for row in rows], dtype=np.float64)
            before = now[i]
            now[i] = _voted(found, points, worth, before, diameter, search)
            _carry(now, i, before, order[count + 1 :])
            _assign(rows, i, found, points, spread, now[i], diameter)
        taken = {row[i] for row in rows if i in row}
        done = order[: count + 1]
        rows = [row for row in rows if _lives(row, done)]
        rows += [
            {i: c}
            for c in range(len(found))
            if c not in taken and found.correlation[c] >= STRONG and abs(views[i].tilt) < 40
        ]
        if count and (count % ADJUST_EVERY == 0 or i == order[-1]):
            long = [row for row in rows if len(row) >= min(LEAST_SEEN, 3 + count // 4)]
            if len(long) >= 3:
                tracks = _tracks(long, len(views), sigma, candidates)
                solution = solve(tracks, views, with_errors=False, rounds=25)
                moved = {v for row in long for v in row}
                before_all, turned = list(now), _turned(now, solution.views, moved, done)
                for k in order:
                    now[k] = solution.views[k] if k in moved else turned_by(now[k], turned)
                for side in (1, -1):
                    last = [k for k in done if k in moved and views[k].tilt * side >= 0]
                    if last:
                        _carry(now, last[-1], before_all[last[-1]], order[count + 1 :])
    return solution


def _lives(row: Row, done: Sequence[int]) -> bool:
    """Tell whether a track is still worth following: seen in enough views since it began."""
    since = len(done) - min(done.index(v) for v in row)
    return since < 4 or len(row) >= COVERED * since


def _turned(
    before: Sequence[View], after: Sequence[View], moved: set[int], done: Sequence[int]
) -> float:
    """Return how the axis turned [degrees], for the views that are still to come."""
    turns = [after[k].axis - before[k].axis for k in done if k in moved]
    return float(np.median(turns)) if turns else 0.0


def turned_by(view: View, turn: float) -> View:
    """Return a view with its axis turned by so many degrees."""
    return replace(view, axis=view.axis + turn)


def _carry(now: list[View], i: int, before: View, following: Sequence[int]) -> None:
    """Move the views beyond view `i`, on its side, as much as that was moved.

    Coarse shifts are good between neighbours; what is wrong with one is wrong with the next.
    """
    shift = np.array(
        [now[i].shift_x - before.shift_x, now[i].shift_y - before.shift_y], dtype=np.float64
    )
    x, y = np.linalg.solve(image_matrix(now[i]), shift)
    for k in following:
        if now[k].tilt * now[i].tilt >= 0:
            ratio = stretch(now[k].tilt) / stretch(now[i].tilt)
            now[k] = move_view(now[k], float(y), float(x) * ratio)


def _revoted(
    candidates: Sequence[Candidates | None], solution: Solution, diameter: float, search: float
) -> Solution:
    """Return the solution with views moved to where more candidates meet its points."""
    points = solution.points[np.isfinite(solution.points).all(axis=1)]
    worth = np.ones(len(points))
    views = list(solution.views)

    def met(found: Candidates, view: View) -> int:
        expected = points @ tilt_rotation(view)[:2].T
        distance, _ = cKDTree(aligned_from_raw(found.xy, view)).query(expected)
        return int((distance <= NEAR * diameter).sum())

    for i, found in enumerate(candidates):
        if found is not None and len(found):
            voted = _voted(found, points, worth, views[i], diameter, search)
            if met(found, voted) > met(found, views[i]):
                views[i] = voted
    return replace(solution, views=tuple(views))


def _places(
    rows: Sequence[Row],
    candidates: Sequence[Candidates | None],
    views: Sequence[View],
    sigma: float,
) -> tuple[Floats, Floats]:
    """Return where tracks are in space (n, 3) and the covariance of that (n, 3, 3) [Å]."""
    prior = np.diag([1e-8, 1e-8, DEPTH_PRIOR**-2])
    rotations = [tilt_rotation(view)[:2] for view in views]
    points, spread = np.zeros((len(rows), 3)), np.zeros((len(rows), 3, 3))
    # A candidate's place, and what is left of the views' own shifts.
    weight = 1 / (sigma**2 + 10.0**2)
    aligned = [
        None if found is None else aligned_from_raw(found.xy, view)
        for found, view in zip(candidates, views, strict=True)
    ]
    for j, row in enumerate(rows):
        information, right = prior.copy(), np.zeros(3)
        for v, c in row.items():
            places = aligned[v]
            if places is not None:
                a = rotations[v]
                information += weight * a.T @ a
                right += weight * a.T @ places[c]
        spread[j] = np.linalg.inv(information)
        points[j] = spread[j] @ right
    return points, spread


def _voted(
    found: Candidates,
    points: Floats,
    worth: Floats,
    view: View,
    diameter: float,
    search: float,
) -> View:
    """Return a view moved to where most candidates meet expected tracks."""
    a = tilt_rotation(view)[:2]
    expected = points @ a.T
    aligned = aligned_from_raw(found.xy, view)
    apart = (aligned[:, None, :] - expected[None, :, :]).reshape(-1, 2)
    # What many views have seen, and what looks like a bead, counts more.
    weights = (found.correlation[:, None] * worth[None, :]).ravel()
    near = np.hypot(*apart.T) <= search
    if not near.any():
        return view
    apart, weights = apart[near], weights[near]
    cell = 0.1 * diameter
    bins = 2 * int(np.ceil(search / cell)) + 1
    edges = (np.arange(bins + 1) - bins / 2) * cell
    votes, _ = np.histogramdd(apart, bins=[edges, edges], weights=weights)
    votes = ndimage.gaussian_filter(votes, 0.5 * NEAR * diameter / cell, mode="constant")
    # Of equal votes, the smaller move.
    steps = np.arange(bins) - bins // 2
    votes *= 1 - 1e-3 * np.hypot(steps[:, None], steps[None, :]) / bins
    peak = np.unravel_index(int(votes.argmax()), votes.shape)
    best = np.array([steps[peak[0]], steps[peak[1]]]) * cell
    for radius in (0.6, 0.4):
        inside = np.hypot(*(apart - best).T) <= radius * diameter
        if inside.any():
            best = np.median(apart[inside], axis=0)
    return move_view(view, float(best[1]), float(best[0]))


def _assign(
    rows: list[Row],
    i: int,
    found: Candidates,
    points: Floats,
    spread: Floats,
    view: View,
    diameter: float,
) -> None:
    """Add a view's candidates to the tracks that are nearest to them, one each."""
    a = tilt_rotation(view)[:2]
    expected = points @ a.T
    covariance = np.einsum("xa,nab,yb->nxy", a, spread, a)
    reach = NEAR * diameter + 2 * np.sqrt(covariance[:, [0, 1], [0, 1]])
    reach = np.minimum(reach, 0.8 * diameter)
    aligned = aligned_from_raw(found.xy, view)
    apart = np.abs(aligned[None, :, :] - expected[:, None, :]) / reach[:, None, :]
    distance = np.hypot(apart[..., 0], apart[..., 1])
    pairs = np.argwhere(distance < 1)
    taken_rows: set[int] = set()
    taken: set[int] = set()
    for j, c in sorted(pairs.tolist(), key=lambda pair: float(distance[pair[0], pair[1]])):
        if j not in taken_rows and c not in taken:
            rows[j][i] = c
            taken_rows.add(j)
            taken.add(c)
