"""From tracks of patches to the specimen's deformation: one smooth field, if held-out data agree.

Unknown are each view's shift, each patch's place and the coefficients of the deformation
(`kernels.deformation`): the observations are linear in all of them, so a fit is one solution of
the normal equations, repeated with Tukey's weights against wrong matches.

How much deformation the tracks support is decided by cross-validation: each patch in turn is
predicted by a field that the others made. A richer field must predict the patches left out better
than a poorer one by more than chance, or the poorer one, in the end none, is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.align_coarse import move_view
from kernels.deformation import Deformation, space_powers, space_terms, time_terms
from kernels.geometry import View, aligned_from_raw, tilt_rotation
from kernels.tracks import Tracks

Floats = NDArray[np.float64]

# Total degree in X and Y, and in time, from poor to rich; none of either: no deformation.
MODELS = ((0, 0), (1, 1), (2, 1), (2, 2), (3, 1), (3, 2))
# What is expected before anything is measured, as standard deviations [Å].
PRIOR_SHIFT, PRIOR_PLACE, PRIOR_FIELD = 200.0, 500.0, 100.0
# Residuals beyond so many robust standard deviations have no weight (Tukey).
TUKEY = 6.0
LEAST_EXCESS = 0.1  # below: rounding
# A richer field is taken when it predicts better by so many standard errors.
BETTER = 2.0
# Patches are left out in so many groups at most.
FOLDS = 16
LEAST_PATCHES = 4


@dataclass(frozen=True)
class Field:
    """A deformation fitted to tracks, and what held-out patches say of it.

    Attributes
    ----------
    deformation : Deformation or None
        None where the tracks support none.
    views : tuple of View
        With shifts that go with it.
    points : (n_points, 3) float64
        X, Y, Z of the patches before anything moved [Å]; NaN where not observed.
    residuals : (m, 2) float64
        Of each observation, x′ and y′ in the aligned frame [Å].
    weights : (m,) float64
        0 for observations that do not agree, 1 for those that do.
    excess : float
        Robust standard deviation of the residuals over the expected one.
    predicted : dict
        (degree, order in time) → rms of the residuals of patches left out [standard errors].
    error : float
        Standard error of the field's displacements at the end of the series, rms over the
        patches [Å]; 0 without deformation.
    """

    deformation: Deformation | None
    views: tuple[View, ...]
    points: Floats
    residuals: Floats
    weights: Floats
    excess: float
    predicted: dict[tuple[int, int], float]
    error: float


def fit_field(
    tracks: Tracks,
    views: Sequence[View],
    points: Floats,
    times: Sequence[float],
    half_width: float,
    models: Sequence[tuple[int, int]] = MODELS,
) -> Field:
    """Fit the deformation that tracks of patches support.

    Parameters
    ----------
    tracks : Tracks
    views : sequence of View
        Good to a few Å but for the deformation; only their shifts change.
    points : (n_points, 3) float64
        About where the patches are [Å]; NaN for those not observed.
    times : (n_views,)
        0 to 1.
    half_width : float
        See `Deformation` [Å].
    models : sequence of (int, int)
        To choose from, from poor to rich.

    Raises
    ------
    ValueError
        If fewer than `LEAST_PATCHES` patches are observed.
    """
    seen = np.unique(tracks.point)
    if len(seen) < LEAST_PATCHES:
        raise ValueError(f"{len(seen)} patches are observed, at least {LEAST_PATCHES} are needed")
    supported = [m for m in models if 2 * len(space_powers(m[0])) <= 2 * (len(seen) - 1)]
    problems = {m: _Problem.of(tracks, views, points, times, half_width, m) for m in supported}
    rich = problems[supported[-1]]
    _, weights, _ = _robust(rich)
    errors = {m: _left_out(problem, weights, tracks.point) for m, problem in problems.items()}
    best = supported[0]
    for model in supported[1:]:
        gain = errors[best] - errors[model]
        if gain.mean() > BETTER * gain.std(ddof=1) / np.sqrt(len(gain)):
            best = model
    problem = problems[best]
    solution, weights, excess = _robust(problem)
    predicted = {m: float(np.sqrt(e.mean())) for m, e in errors.items()}
    residuals = problem.residuals(solution)
    places = np.full(points.shape, np.nan)
    places[seen] = points[seen] + problem.places(solution)[seen]
    moved = tuple(
        move_view(view, float(dy), float(dx))
        for view, (dx, dy) in zip(views, problem.shifts(solution), strict=True)
    )
    field = problem.field(solution)
    deformation = None if field is None else Deformation(field, half_width)
    error = problem.field_error(weights, excess, points[seen])
    return Field(deformation, moved, places, residuals, weights, excess, predicted, error)


@dataclass(frozen=True)
class _Problem:
    """Observations as linear functions of shifts (2 a view), places (3 a patch) and field."""

    design: Floats  # (m, 2, unknowns)
    target: Floats  # (m, 2)
    sigma: Floats  # (m,)
    prior: Floats  # (unknowns,) inverse variances
    counts: tuple[int, int]  # views, points
    model: tuple[int, int]
    half_width: float

    @staticmethod
    def of(
        tracks: Tracks,
        views: Sequence[View],
        points: Floats,
        times: Sequence[float],
        half_width: float,
        model: tuple[int, int],
    ) -> _Problem:
        m, n, p = len(tracks.view), tracks.n_views, tracks.n_points
        terms = len(space_powers(model[0])) * model[1]
        design = np.zeros((m, 2, 2 * n + 3 * p + 3 * terms))
        rows = np.arange(m)
        rotation = np.stack([tilt_rotation(view)[:2] for view in views])[tracks.view]
        aligned = np.empty((m, 2))
        for i, view in enumerate(views):
            chosen = tracks.view == i
            aligned[chosen] = aligned_from_raw(tracks.xy[chosen], view)
        target = aligned - np.einsum("mab,mb->ma", rotation, points[tracks.point])
        for k in range(2):
            design[rows, k, 2 * tracks.view + k] = 1
            for a in range(3):
                design[rows, k, 2 * n + 3 * tracks.point + a] = rotation[:, k, a]
        if terms:
            space = space_terms(np.nan_to_num(points), half_width, model[0])[tracks.point]
            power = time_terms(times, model[1])[tracks.view]
            both = (space[:, :, None] * power[:, None, :]).reshape(m, terms)
            field = rotation[:, :, :, None] * both[:, None, None, :]
            design[:, :, 2 * n + 3 * p :] = field.reshape(m, 2, 3 * terms)
        prior = np.concatenate(
            [
                np.full(2 * n, PRIOR_SHIFT**-2),
                np.full(3 * p, PRIOR_PLACE**-2),
                np.full(3 * terms, PRIOR_FIELD**-2),
            ]
        )
        return _Problem(design, target, tracks.sigma, prior, (n, p), model, half_width)

    def matrix(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the normal equations' matrix and right-hand side."""
        weight = np.repeat(weights / self.sigma**2, 2)
        rows = self.design.reshape(-1, self.design.shape[2])
        weighted = rows * weight[:, None]
        return weighted.T @ rows + np.diag(self.prior), weighted.T @ self.target.ravel()

    def solve(self, weights: Floats) -> Floats:
        """Return the unknowns that fit best."""
        return np.asarray(np.linalg.solve(*self.matrix(weights)), dtype=np.float64)

    def residuals(self, solution: Floats) -> Floats:
        return self.target - self.design @ solution

    def shifts(self, solution: Floats) -> Floats:
        return solution[: 2 * self.counts[0]].reshape(-1, 2)

    def places(self, solution: Floats) -> Floats:
        n, p = self.counts
        return solution[2 * n : 2 * n + 3 * p].reshape(-1, 3)

    def field(self, solution: Floats) -> Floats | None:
        n, p = self.counts
        degree, order = self.model
        if not order:
            return None
        return solution[2 * n + 3 * p :].reshape(3, len(space_powers(degree)), order)

    def field_error(self, weights: Floats, excess: float, points: Floats) -> float:
        n, p = self.counts
        degree, order = self.model
        if not order:
            return 0.0
        covariance = np.linalg.inv(self.matrix(weights)[0])[2 * n + 3 * p :, 2 * n + 3 * p :]
        space = space_terms(points, self.half_width, degree)
        both = np.repeat(space[:, :, None], order, axis=2).reshape(len(points), -1)
        size = both.shape[1]
        variance = 0.0
        for a in range(3):
            block = covariance[a * size : (a + 1) * size, a * size : (a + 1) * size]
            variance += float(np.einsum("na,ab,nb->n", both, block, both).mean())
        return float(np.sqrt(variance)) * max(1.0, excess)


def _robust(problem: _Problem) -> tuple[Floats, Floats, float]:
    """Return solution, weights 0 to 1, and the residuals' spread [standard errors]."""
    weights, excess = np.ones(len(problem.sigma)), 1.0
    solution = problem.solve(weights)
    for _ in range(8):
        apart = np.linalg.norm(problem.residuals(solution), axis=1) / problem.sigma
        # The median of a two-dimensional normal deviate's length is 1.18.
        excess = float(np.median(apart)) / 1.18
        away = np.minimum(apart / (TUKEY * max(excess, LEAST_EXCESS)), 1)
        new = (1 - away**2) ** 2
        solution = problem.solve(new)
        if np.abs(new - weights).max() < 1e-3:
            break
        weights = new
    return solution, weights, excess


def _left_out(problem: _Problem, weights: Floats, point: NDArray[np.int64]) -> Floats:
    """Return the mean squared residual [standard errors²] of each group of patches left out."""
    seen = np.unique(point)
    n = problem.counts[0]
    rows = problem.design.reshape(-1, problem.design.shape[2])
    found = []
    for fold in range(min(FOLDS, len(seen))):
        out = np.isin(point, seen[fold::FOLDS])
        solution = problem.solve(np.where(out, 0.0, weights))
        # Only where it is may be learned from a patch that is left out.
        errors = []
        for j in seen[fold::FOLDS]:
            mine = np.repeat(point == j, 2)
            weight = np.repeat(weights / problem.sigma**2, 2)[mine]
            place = rows[mine, 2 * n + 3 * j : 2 * n + 3 * j + 3]
            rest = problem.target.ravel()[mine] - rows[mine] @ solution
            root = np.sqrt(weight)
            move = np.linalg.lstsq(place * root[:, None], rest * root, rcond=None)[0]
            total = (weight * (rest - place @ move) ** 2).sum()
            errors.append(total / max(2 * weights[point == j].sum(), 1.0))
        found.append(float(np.mean(errors)))
    return np.array(found)
