"""Gold beads: found in every view, linked in space, centred where they are expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kernels.bead_find import Candidates
from kernels.bead_select import best_spread, surfaces_of
from kernels.bead_track import Linked, link, link_again
from kernels.bundle import LEAST_VIEWS, Solution, solve
from kernels.bundle_model import Model
from kernels.geometry import View, project
from kernels.tracks import Tracks
from tasks.bead_store import write_tracks
from tasks.choice import ENOUGH
from tasks.chunks.fiducials import (
    centre_in_view,
    find_in_view,
    measure_in_view,
    memory_of_beads,
)
from tasks.parameters import Execution, FiducialParameters
from tasks.scatter import Unit
from tasks.work import Outcome, Work, begin, step_task

# A bead that is centred must look like the others: correlation with their mean, and strength.
LEAST_ALIKE, WEAKEST, STRONGEST = 0.5, 0.4, 2.0
REACH = 0.15  # of a diameter: how far from where it is expected a bead may be
CHANGED = 0.12  # of a diameter: by so much another diameter makes a second search worth while
MEASURED_VIEWS = 7
# A bead must be found in most views where it could be; views need some beads, and most have them.
COVERED = 0.4
LEAST_IN_VIEW, LEAST_HELD = 3, 0.8


@step_task("fiducials")
def fiducials(
    project: str,
    series: str,
    parameters: FiducialParameters = FiducialParameters(),
    branch: str = "main",
    execution: Execution = Execution(),
) -> Outcome:
    """Find the beads of a series and follow them through its views, without seeds.

    Writes ``tracks`` and ``points`` (`tasks.bead_store`). Where there are too few beads the result
    says so, and a run goes on without markers.
    """
    work = begin("fiducials", project, series, parameters, branch, execution)
    if work.done:
        return work.adopt()
    search = _Search(work, parameters)
    diameter = parameters.diameter
    linked = search.linked(diameter, 0)
    if parameters.adjust_diameter and linked.solution is not None:
        measured = search.measured(linked.solution, diameter)
        if measured is not None and abs(measured / diameter - 1) > CHANGED:
            again = search.linked(measured, 1)
            if len(again.tracks.view) >= 0.9 * len(linked.tracks.view):
                diameter, linked = measured, again
    if linked.solution is None:
        return _too_few(work, parameters, 0)
    tracks, solution = search.followed(linked, diameter)
    kept = _chosen(work, parameters, tracks, solution)
    tracks, points = _renumbered(tracks, solution.points, kept)
    counts = np.bincount(tracks.view, minlength=tracks.n_views)
    held = float(np.mean(counts[search.used] >= LEAST_IN_VIEW)) if len(kept) else 0.0
    if len(kept) < parameters.least_beads or held < LEAST_HELD:
        return _too_few(work, parameters, len(kept), tracks, points)
    write_tracks(work.result, tracks, points)
    levels = surfaces_of(points)
    return work.finish(
        f"{len(points)} beads of {diameter / 10:.1f} nm, {counts[search.used].mean():.0f} in a view"
        + (f", on two surfaces {levels.apart / 10:.0f} nm apart" if levels.apart else ""),
        table=[
            {
                "view": i + 1,
                "tilt angle [°]": search.views[i].tilt,
                "candidates": search.counts.get(i, 0),
                "beads": int(counts[i]),
            }
            for i in search.used
        ],
        extra={
            ENOUGH: True,
            "beads": len(points),
            "diameter_A": diameter,
            "surfaces": 2 if levels.apart else 1,
            "surfaces_apart_A": levels.apart,
        },
    )


def _too_few(
    work: Work,
    parameters: FiducialParameters,
    count: int,
    tracks: Tracks | None = None,
    points: NDArray[np.float64] | None = None,
) -> Outcome:
    if tracks is not None and points is not None:
        write_tracks(work.result, tracks, points)
    found = "no beads" if not count else f"{count} bead{'s' if count > 1 else ''}"
    needed = f"where {parameters.least_beads} are needed, {LEAST_IN_VIEW} of them in a view"
    return work.finish(
        f"too few beads: {found} {needed}; align without markers",
        table=[{"beads": count}],
        extra={ENOUGH: False, "beads": count},
    )


class _Search:
    """The views of a series, and what is looked for in them."""

    def __init__(self, work: Work, parameters: FiducialParameters) -> None:
        record = work.record
        self.work, self.parameters = work, parameters
        self.source = work.input("erase")
        self.pixel_size = work.image_pixel_size
        _, rows, columns = self.source.images().shape
        self.shape = (int(rows), int(columns))
        self.field = (columns * self.pixel_size, rows * self.pixel_size)
        self.views = [record.geometry(i) for i in range(len(record.views))]
        self.used = list(record.included)
        self.counts: dict[int, int] = {}
        self.candidates: list[Candidates | None] = []

    def linked(self, diameter: float, turn: int) -> Linked:
        """Return tracks of what looks like a bead of that diameter [Å]."""
        names = {i: f"find-{turn}-{i:03d}" for i in self.used}
        reports = self.work.scatter(
            find_in_view,
            [Unit(names[i], (self.source, i, self.pixel_size, diameter)) for i in self.used],
            memory=memory_of_beads(self.shape),
        )
        self.candidates = [None] * len(self.views)
        for i in self.used:
            found = reports[names[i]]
            self.candidates[i] = Candidates(
                np.array(found["xy"], dtype=np.float64).reshape(-1, 2),
                np.array(found["correlation"], dtype=np.float64),
                np.array(found["depth"], dtype=np.float64),
            )
            self.counts[i] = len(found["xy"])
        with threadpool_limits(1):
            return link(
                self.candidates, self.views, diameter, self.field, search=self.parameters.search
            )

    def measured(self, solution: Solution, diameter: float) -> float | None:
        """Return the diameter as views of low tilt show it [Å]."""
        chosen = sorted(self.used, key=lambda i: abs(self.views[i].tilt))[:MEASURED_VIEWS]
        reports = self.work.scatter(
            measure_in_view,
            [
                Unit(
                    f"measure-{i:03d}",
                    (self.source, i, self.pixel_size, diameter, _expected(solution, i)),
                )
                for i in chosen
            ],
            memory=memory_of_beads(self.shape),
        )
        found = [r["diameter"] for r in reports.values() if r["diameter"] is not None]
        return float(np.median(found)) if found else None

    def followed(self, linked: Linked, diameter: float) -> tuple[Tracks, Solution]:
        """Return the tracks of beads that are centred where the geometry expects them."""
        solution, tracks = linked.solution, linked.tracks
        assert solution is not None
        for turn in range(self.parameters.rounds):
            if turn:  # the geometry is better now: what was missed may be found
                with threadpool_limits(1):
                    again = link_again(self.candidates, solution, diameter, self.field)
                if again.solution is None:
                    break
                solution = again.solution
            found = self._centred(solution, diameter, turn)
            if found is None:
                break
            tracks = found
            model = Model(rotation="all", magnification="all", tilt="grouped")
            start = self.views if turn == 0 else solution.views
            with threadpool_limits(1):
                simple = solve(tracks, start, with_errors=False)
                solution = solve(tracks, simple.views, model, start=simple, with_errors=False)
        return tracks, solution

    def _centred(self, solution: Solution, diameter: float, turn: int) -> Tracks | None:
        names = {i: f"centre-{turn}-{i:03d}" for i in self.used}
        reports = self.work.scatter(
            centre_in_view,
            [
                Unit(
                    names[i],
                    (
                        self.source,
                        i,
                        self.pixel_size,
                        diameter,
                        _expected(solution, i),
                        REACH * diameter,
                    ),
                )
                for i in self.used
            ],
            memory=memory_of_beads(self.shape),
        )
        rows = [
            (i, *bead)
            for i in self.used
            for bead in reports[names[i]]["beads"]
            if bead[4] >= LEAST_ALIKE and WEAKEST <= bead[5] <= STRONGEST
        ]
        if not rows:
            return None
        table = np.array(rows, dtype=np.float64)
        number = table[:, 1].astype(np.int64)
        often = np.bincount(number, minlength=len(solution.points)) >= LEAST_VIEWS
        table = table[often[number]]
        if not len(table):
            return None
        return Tracks(
            table[:, 0].astype(np.int64),
            table[:, 1].astype(np.int64),
            table[:, 2:4],
            table[:, 4],
            len(self.views),
            len(solution.points),
        )


def _expected(solution: Solution, view: int) -> list[list[float]]:
    """Return where the points of a solution appear in a view [Å]."""
    places: list[list[float]] = project(solution.points, solution.views[view]).tolist()
    return places


def _chosen(
    work: Work, parameters: FiducialParameters, tracks: Tracks, solution: Solution
) -> NDArray[np.int64]:
    """Return the points that are kept: all good ones, or the best spread."""
    counts = np.bincount(tracks.point, minlength=tracks.n_points)
    good = (counts >= LEAST_VIEWS) & np.isfinite(solution.points).all(axis=1)
    # Most observations of a bead agree with the others, or it is none.
    left = np.bincount(tracks.point, solution.weights, minlength=tracks.n_points)
    good &= left >= 0.4 * counts
    good &= counts >= COVERED * _could_be_seen(work, solution)
    good &= ~_excluded(work, parameters, solution)
    kept = np.flatnonzero(good)
    if parameters.beads is not None and len(kept) > parameters.beads:
        places = solution.points[kept]
        sides = surfaces_of(places).side if parameters.surfaces != 1 else None
        kept = kept[best_spread(places, counts[kept], parameters.beads, sides)]
    return kept


def _could_be_seen(work: Work, solution: Solution) -> NDArray[np.int64]:
    """Return in how many views that are not left out each point lies within the field."""
    _, rows, columns = work.input("erase").images().shape
    half = np.array([columns, rows]) * work.image_pixel_size / 2
    inside = [
        (np.abs(project(solution.points, solution.views[i])) <= half).all(axis=1)
        for i in work.record.included
    ]
    return np.sum(inside, axis=0, dtype=np.int64)


def _excluded(work: Work, parameters: FiducialParameters, solution: Solution) -> NDArray[np.bool_]:
    """Tell which points lie in regions of the view of lowest tilt that the user excludes."""
    views: Sequence[View] = solution.views
    lowest = min(work.record.included, key=lambda i: abs(views[i].tilt))
    _, rows, columns = work.input("erase").images().shape
    places = project(solution.points, views[lowest]) / work.image_pixel_size
    places = places + np.array([columns // 2, rows // 2])
    out = np.zeros(len(places), bool)
    for x, y, width, height in parameters.exclude_regions:
        low, high = np.array([x, y]), np.array([x + width, y + height])
        out |= ((places >= low) & (places <= high)).all(axis=1)
    return out


def _renumbered(
    tracks: Tracks, points: NDArray[np.float64], kept: NDArray[np.int64]
) -> tuple[Tracks, NDArray[np.float64]]:
    """Return tracks and points of those kept, numbered by place: along y, then x."""
    kept = kept[np.lexsort((points[kept, 0], points[kept, 1]))]
    number = np.full(tracks.n_points, -1)
    number[kept] = np.arange(len(kept))
    rows = number[tracks.point] >= 0
    chosen = tracks.chosen(rows)
    renumbered: Any = number[chosen.point]
    return (
        Tracks(chosen.view, renumbered, chosen.xy, chosen.sigma, tracks.n_views, len(kept)),
        points[kept],
    )
