"""From tracks of patches to the specimen's deformation: one smooth field, if held-out data agree.

The observations are linear in what is unknown (`kernels.patch_problem`), so a fit is one solution
of the normal equations, repeated with Tukey's weights against wrong matches.

How much the tracks support is decided by cross-validation: each patch in turn is predicted by a
model that the others made. A richer model must predict the patches left out better than a poorer
one by more than chance; the poorest leaves everything but shifts as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.deformation import Deformation, displacements, space_powers
from kernels.geometry import View, image_matrix, tilt_rotation
from kernels.patch_problem import Model, Problem
from kernels.tracks import Tracks

Floats = NDArray[np.float64]

# Deformations to choose from: total degree in X and Y, and in time; none of either: none.
FIELDS = ((0, 0), (1, 1), (2, 1), (2, 2), (3, 1), (3, 2))
VARIABLES = ("axis", "magnification", "tilt")
# Residuals beyond so many robust standard deviations have no weight (Tukey).
TUKEY = 6.0
LEAST_EXCESS = 0.1  # below: rounding
# A richer model is taken when it predicts better by so many standard errors …
BETTER = 2.0
# … and by so much of the mean squared residual: more for variables of single views, which can
# stand in for a part of the deformation.
WORTH, WORTH_OF_VIEWS = 0.02, 0.1
# Patches are left out in so many groups at most.
FOLDS = 16
LEAST_PATCHES = 4


@dataclass(frozen=True)
class Field:
    """A model fitted to tracks, and what held-out patches say of it.

    Attributes
    ----------
    deformation : Deformation or None
        None where the tracks support none.
    views : tuple of View
        That go with it.
    points : (n_points, 3) float64
        X, Y, Z of the patches before anything moved [Å]; NaN where not observed.
    residuals : (m, 2) float64
        Of each observation, x′ and y′ in the aligned frame [Å].
    weights : (m,) float64
        0 for observations that do not agree, 1 for those that do.
    excess : float
        Robust standard deviation of the residuals over the expected one.
    model : Model
    predicted : dict
        Name of each model tried → rms of the residuals of patches left out [standard errors].
    error : float
        Standard error of the field's displacements at the end of the series, rms over the
        patches [Å]; 0 without deformation.
    shift_errors : (n_views, 2) float64
        Standard errors of the views' shifts x and y, from leaving patches out [Å]; NaN for views
        in which nothing is observed. By what all patches of a view err in common the shifts err
        more.
    """

    deformation: Deformation | None
    views: tuple[View, ...]
    points: Floats
    residuals: Floats
    weights: Floats
    excess: float
    model: Model
    predicted: dict[str, float]
    error: float
    shift_errors: Floats


def fit_field(
    tracks: Tracks,
    views: Sequence[View],
    points: Floats,
    times: Sequence[float],
    half_width: float,
    variables: Sequence[str] = VARIABLES,
    least: float = 0.0,
) -> Field:
    """Fit the deformation that tracks of patches support.

    Parameters
    ----------
    tracks : Tracks
    views : sequence of View
        Good to a few Å but for the deformation.
    points : (n_points, 3) float64
        About where the patches are [Å]; NaN for those not observed.
    times : (n_views,)
        0 to 1.
    half_width : float
        See `Deformation` [Å].
    variables : sequence of str
        Of each view, to be refined where patches left out agree: axis, magnification, tilt.
    least : float
        A deformation that is seen by less than this is none [Å] (`Problem.seen_size`): by so much
        patches may err in common, which leaving patches out does not show.

    Raises
    ------
    ValueError
        If fewer than `LEAST_PATCHES` patches are observed.
    """
    seen = np.unique(tracks.point)
    if len(seen) < LEAST_PATCHES:
        raise ValueError(f"{len(seen)} patches are observed, at least {LEAST_PATCHES} are needed")
    fields = [f for f in FIELDS if len(space_powers(f[0])) < len(seen)]

    def problem_of(model: Model) -> Problem:
        return Problem.of(tracks, views, points, times, half_width, model)

    _, weights, _ = _robust(problem_of(Model(*fields[-1], tuple(variables))))
    errors: dict[Model, Floats] = {}

    def error_of(model: Model) -> Floats:
        if model not in errors:
            errors[model] = _left_out(problem_of(model), weights)
        return errors[model]

    def best_of(fields: Sequence[tuple[int, int]]) -> Model:
        best = Model()
        while True:
            richer = [Model(*f, best.variables) for f in fields if f > (best.degree, best.order)]
            richer += [
                Model(best.degree, best.order, (*best.variables, variable))
                for variable in variables
                if variable not in best.variables
            ]
            better = [
                model
                for model in richer
                if _beats(
                    error_of(model),
                    error_of(best),
                    WORTH if model.variables == best.variables else WORTH_OF_VIEWS,
                )
            ]
            if not better:
                return best
            best = min(better, key=lambda model: float(error_of(model).mean()))

    best = best_of(fields)
    problem = problem_of(best)
    solution, weights, excess = _robust(problem)
    if best.order and problem.seen_size(solution) < least:
        best = best_of(())
        problem = problem_of(best)
        solution, weights, excess = _robust(problem)
    places = np.full(points.shape, np.nan)
    places[seen] = points[seen] + problem.places(solution)[seen]
    return Field(
        problem.deformation(solution),
        problem.moved_views(solution),
        places,
        problem.residuals(solution),
        weights,
        excess,
        best,
        {model.name: float(np.sqrt(e.mean())) for model, e in errors.items()},
        max(
            problem.field_error(weights, points[seen]) * max(1.0, excess),
            _error_by_patches(problem, weights, points[seen]),
        ),
        _shift_errors(problem, weights, np.unique(tracks.view)),
    )


def _beats(new: Floats, old: Floats, worth: float) -> bool:
    """Tell whether a model predicts the groups left out better than another."""
    gain = old - new
    chance = BETTER * float(gain.std(ddof=1)) / np.sqrt(len(gain))
    return float(gain.mean()) > max(chance, worth * float(old.mean()))


def _robust(problem: Problem) -> tuple[Floats, Floats, float]:
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


def _left_out(problem: Problem, weights: Floats) -> Floats:
    """Return the mean squared residual [standard errors²] of each group of patches left out."""
    found = []
    for group, solution in _without_groups(problem, weights):
        errors = []
        for j in group:
            # Only where it is may be learned from a patch that is left out.
            mine = problem.point == j
            weight = np.repeat(weights[mine] / problem.sigma[mine] ** 2, 2)
            design, root = problem.design[mine], np.sqrt(weight)
            left = (problem.target[mine] - design @ solution).ravel()
            place = design[:, :, problem.place_columns(j)].reshape(-1, 3)
            move = np.linalg.lstsq(place * root[:, None], left * root, rcond=None)[0]
            total = float((weight * (left - place @ move) ** 2).sum())
            errors.append(total / max(2 * float(weights[mine].sum()), 1.0))
        found.append(float(np.mean(errors)))
    return np.array(found)


def _without_groups(
    problem: Problem, weights: Floats
) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Yield groups of patches, and what is found without each."""
    seen = np.unique(problem.point)
    groups = [seen[fold::FOLDS] for fold in range(min(FOLDS, len(seen)))]
    own = [problem.matrix(weights, np.isin(problem.point, group)) for group in groups]
    whole = [sum(part[k] for part in own) for k in range(2)]
    for group, (matrix, pull) in zip(groups, own, strict=True):
        rest = whole[0] - matrix + np.diag(problem.prior)
        yield group, np.asarray(np.linalg.solve(rest, whole[1] - pull), dtype=np.float64)


def _error_by_patches(problem: Problem, weights: Floats, points: Floats) -> float:
    """Return the jackknife's error of the displacements at the end, rms over points [Å].

    Larger than the observations' errors say where the field has not the form of a polynomial.
    """
    fields = [problem.deformation(solution) for _, solution in _without_groups(problem, weights)]
    ends = np.array([displacements(field, points, 1.0) for field in fields if field is not None])
    if not len(ends):
        return 0.0
    ends -= ends.mean(axis=1, keepdims=True)  # a shift of the view
    scatter = np.square(ends - ends.mean(axis=0)).sum(axis=(0, 2)) * (len(ends) - 1) / len(ends)
    return float(np.sqrt(scatter.mean()))


def _shift_errors(problem: Problem, weights: Floats, seen: NDArray[np.int64]) -> Floats:
    """Return the jackknife's errors of the shifts, (n_views, 2) [Å]; NaN but for views `seen`.

    A translation of the specimen, which moves all views and patches, is no error.
    """
    views = [problem.views[i] for i in seen]
    found = np.array(
        [
            solution[: 2 * len(problem.views)].reshape(-1, 2)[seen]
            for _, solution in _without_groups(problem, weights)
        ]
    )
    apart = (found - found.mean(axis=0)).reshape(len(found), -1)
    columns = np.stack([tilt_rotation(view)[:2] for view in views]).reshape(-1, 3)
    apart -= (columns @ np.linalg.lstsq(columns, apart.T, rcond=None)[0]).T
    matrices = np.stack([image_matrix(view) for view in views])
    raw = np.einsum("vab,gvb->gva", matrices, apart.reshape(found.shape))
    errors = np.full((len(problem.views), 2), np.nan)
    errors[seen] = np.sqrt(np.square(raw).sum(axis=0) * (len(found) - 1) / len(found))
    return errors
