"""Which variables of a bundle adjustment the data support: by leaving points out.

A model is solved without some points; each of these is then placed where it fits the views best,
three numbers from dozens of observations, and what is left tells how well the views predict what
they have not seen. A variable is freed only where that gets better by more than its standard
error, point by point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.bundle import LEAST_VIEWS, TUKEY, Solution, fitted_point, solve
from kernels.bundle_model import Model
from kernels.bundle_system import Local
from kernels.geometry import View
from kernels.tracks import Tracks

Floats = NDArray[np.float64]

FOLDS = 5
LEAST_POINTS = 4  # fewer cannot be left out
FOLD_ROUNDS = 5
# Freed one after the other, in this order; stretch and skew together.
LADDER: tuple[tuple[str, ...], ...] = (
    ("rotation",),
    ("magnification",),
    ("tilt",),
    ("stretch", "skew"),
)
# Powers of X and Y together, and of time, of the deformations that are tried.
# Linear ones are what magnification, stretch and tilt do.
DEFORMATIONS = ((2, 1), (2, 2), (3, 2))
WORTH = 2.0  # standard errors by which a deformation must predict better
SPREAD = 50.0  # Å, of a coefficient: what an undamaged series stays far below
MEASURED = 3.0  # measurements per unknown that a model needs


@dataclass(frozen=True)
class Tried:
    """How well a model predicts points that it has not seen.

    Attributes
    ----------
    model : Model
    local : Local or None
    score : float
        Mean over points of their mean residual, outliers cut off [Å].
    by_point : (n_points,)
        NaN for points without observations enough.
    """

    model: Model
    local: Local | None
    score: float
    by_point: Floats

    def __str__(self) -> str:
        """Return the model in words."""
        if self.local is None:
            return str(self.model)
        return f"{self.model}, deformation of degree {self.local.degree} and {self.local.powers}"


@dataclass(frozen=True)
class Selected:
    """The chosen solution, and all that were tried, in order."""

    solution: Solution
    tried: tuple[Tried, ...]
    chosen: int


def left_out(
    tracks: Tracks,
    views: Sequence[View],
    model: Model,
    *,
    local: Local | None = None,
    start: Solution | None = None,
    folds: int = FOLDS,
    robust: bool = True,
) -> Tried:
    """Return how well a model predicts points that it has not seen.

    Parameters
    ----------
    tracks, views, model, local, robust
        As of `bundle.solve`.
    start : Solution, optional
        Of all points, from which the solutions of the folds go on.
    folds : int
        The points are left out in so many lots; as many as points: one by one.
    """
    full = start or solve(tracks, views, model, local=local, robust=robust, with_errors=False)
    counts = np.bincount(tracks.point, minlength=tracks.n_points)
    usable = np.flatnonzero(counts >= LEAST_VIEWS)
    # Lots that are spread alike over the field: by the angle around its middle.
    middle = np.nanmedian(full.points[usable], axis=0)
    around = np.arctan2(*(full.points[usable, :2] - middle[:2]).T)
    lots = np.empty(tracks.n_points, np.int64)
    lots[usable[np.argsort(around)]] = np.arange(len(usable)) % min(folds, len(usable))
    limit = TUKEY * full.factor * tracks.sigma
    scores = np.full(tracks.n_points, np.nan)
    for lot in range(min(folds, len(usable))):
        out = (lots == lot) & (counts >= LEAST_VIEWS)
        held = out[tracks.point]
        try:
            without = solve(
                tracks.chosen(~held),
                views,
                model,
                local=local,
                start=full,
                robust=robust,
                rounds=FOLD_ROUNDS,
                tolerance=1e-4,
                with_errors=False,
            )
        except ValueError:  # nothing is left to solve with
            continue
        _, residuals = fitted_point(tracks.chosen(held), without)
        cut = np.minimum(np.hypot(*residuals.T), limit[held])
        points = tracks.point[held]
        sums = np.bincount(points, cut, minlength=tracks.n_points)
        scores[out] = sums[out] / counts[out]
    return Tried(model, local, float(np.nanmean(scores)), scores)


def select(
    tracks: Tracks,
    views: Sequence[View],
    *,
    times: Floats | None = None,
    half_width: float | None = None,
    robust: bool = True,
    first: Model | None = None,
) -> Selected:
    """Choose by leaving points out which variables are free, and solve with them.

    Parameters
    ----------
    tracks, views, robust
        As of `bundle.solve`.
    times : (n_views,), optional
        0 to 1: deformations over time are tried, too.
    half_width : float, optional
        Unit of X and Y of deformations [Å]; that of the points by default.
    first : Model, optional
        The simplest one; by default one rotation.
    """
    first = first or Model()
    counts = np.bincount(tracks.point, minlength=tracks.n_points)
    best = solve(tracks, views, first, robust=robust, with_errors=False)
    if (counts >= LEAST_VIEWS).sum() < LEAST_POINTS:
        return Selected(solve(tracks, views, first, robust=robust), (), 0)
    tried = [left_out(tracks, views, first, start=best, robust=robust)]
    chosen = 0

    def attempt(model: Model, local: Local | None, worth: float = 1.0) -> None:
        nonlocal best, chosen
        found = solve(
            tracks, views, model, local=local, start=best, robust=robust, with_errors=False
        )
        if found.measurements < MEASURED * found.unknowns:
            return
        tried.append(left_out(tracks, views, model, local=local, start=found, robust=robust))
        if _is_better(tried[-1], tried[chosen], worth):
            best, chosen = found, len(tried) - 1

    for names in LADDER:
        for mode in ("grouped", "all"):
            changes = dict.fromkeys(names, mode)
            attempt(replace(tried[chosen].model, **changes), None)  # type: ignore[arg-type]
    if times is not None:
        width = half_width or float(np.nanmax(np.abs(best.points[:, :2])))
        for degree, powers in DEFORMATIONS:
            attempt(tried[chosen].model, Local(degree, powers, width, times, SPREAD), WORTH)
            if chosen != len(tried) - 1:
                break  # what did not help will not help with more freedom
    model, local = tried[chosen].model, tried[chosen].local
    solution = solve(tracks, views, model, local=local, start=best, robust=robust)
    return Selected(solution, tuple(tried), chosen)


def _is_better(new: Tried, old: Tried, errors: float) -> bool:
    """Tell whether a model predicts better than another by more than so many standard errors."""
    gain = old.by_point - new.by_point
    gain = gain[np.isfinite(gain)]
    if len(gain) < 2:
        return False
    return bool(gain.mean() > errors * gain.std(ddof=1) / np.sqrt(len(gain)))
