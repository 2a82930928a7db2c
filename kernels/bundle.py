"""Bundle adjustment: views and points that explain all observations, robustly.

Levenberg–Marquardt with analytic derivatives; weights by Tukey's biweight, whose scale is the
observations' own standard errors times one factor that the residuals tell. One solver for beads
and for patches of the specimen.

References
----------
.. [1] D. N. Mastronarde and S. R. Held, J. Struct. Biol. 197:102 (2017): the model, robust fitting.
.. [2] B. Triggs et al., Bundle adjustment: a modern synthesis (2000): the Schur complement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kernels.bundle_model import VARIABLES, WIDTH, Model, mixing, numbers_of, views_of
from kernels.bundle_system import Local, State, normal_equations, predicted
from kernels.deformation import Deformation
from kernels.geometry import View, fit_points
from kernels.tracks import Tracks

Floats = NDArray[np.float64]

TUKEY = 4.685  # keeps 95 % of the efficiency on normal errors
RAYLEIGH = 1.1774  # median length of a plane vector whose coordinates have deviation 1
LEAST_VIEWS = 3  # observations that a point needs
ROUNDS, TOLERANCE = 60, 1e-7
AROUND, LEAST_AROUND = 2, 12  # views on both sides, and observations, for a view's own scale
LEAST_FACTOR = 0.05  # of the standard errors: noise-free tests must not divide by 0


@dataclass(frozen=True)
class Solution:
    """What a bundle adjustment found.

    Attributes
    ----------
    model : Model
    views : tuple of View
        All views; those without observations keep their start.
    points : (n_points, 3)
        X, Y, Z [Å]; NaN where a point has fewer than `LEAST_VIEWS` observations.
    deformation : Deformation or None
    residuals : (m, 2)
        Predicted − observed [Å]; NaN for observations of points that were left out.
    weights : (m,)
        What robustness leaves of each observation, 0 to 1.
    factor : float
        By which the stated standard errors are to be multiplied.
    errors : (n_views, 8)
        Standard errors of the views' numbers (`bundle_model.VARIABLES`, shifts), 0 if fixed; of
        what no image can tell, such as the common magnification, the error is left out.
    measurements, unknowns : int
    """

    model: Model
    views: tuple[View, ...]
    points: Floats
    deformation: Deformation | None
    residuals: Floats
    weights: Floats
    factor: float
    errors: Floats
    measurements: int
    unknowns: int
    local: Local | None = None
    coefficients: Floats | None = None

    @property
    def lengths(self) -> Floats:
        """Lengths of the residuals, (m,) [Å]."""
        return np.hypot(*self.residuals.T)

    @property
    def mean_residual(self) -> float:
        """Mean length of all residuals, unweighted [Å]."""
        return float(np.nanmean(self.lengths))


def solve(
    tracks: Tracks,
    views: Sequence[View],
    model: Model | None = None,
    *,
    local: Local | None = None,
    start: Solution | None = None,
    robust: bool = True,
    rounds: int = ROUNDS,
    tolerance: float = TOLERANCE,
    with_errors: bool = True,
) -> Solution:
    """Adjust views and points to tracks.

    Parameters
    ----------
    tracks : Tracks
    views : sequence of View
        Where to start, n_views long; also what the weak priors hold on to.
    model : Model, optional
        Which variables of the views are free; by default the shifts and one rotation.
    local : Local, optional
        A deformation to be solved as well.
    start : Solution, optional
        From which to go on, for speed.
    robust : bool
    rounds : int
        Steps at most.
    tolerance : float
        Relative change of the cost at which to end.
    with_errors : bool

    Raises
    ------
    ValueError
        If the views' number is wrong, or no point has enough observations.
    """
    model = model or Model()
    if len(views) != tracks.n_views:
        raise ValueError(f"{len(views)} views for tracks in {tracks.n_views}")
    counts = np.bincount(tracks.point, minlength=tracks.n_points)
    kept = counts[tracks.point] >= LEAST_VIEWS
    if not kept.any():
        raise ValueError(f"no point is seen in {LEAST_VIEWS} views or more")
    # Points are numbered anew without those that take no part.
    chosen = np.flatnonzero(counts >= LEAST_VIEWS)
    place = np.zeros(tracks.n_points, np.int64)
    place[chosen] = np.arange(len(chosen))
    inner = Tracks(
        tracks.view[kept],
        place[tracks.point[kept]],
        tracks.xy[kept],
        tracks.sigma[kept],
        tracks.n_views,
        len(chosen),
    )
    used = np.bincount(inner.view, minlength=tracks.n_views) > 0
    mix, priors = mixing(model, views, used.tolist())
    size = local.size if local else 0
    base = numbers_of(views)
    first = numbers_of(start.views) if start else base
    wide = np.asarray(mix.todense())
    parameters = np.linalg.lstsq(wide, (first - base).ravel(), rcond=None)[0]
    coefficients = np.zeros(size)
    if start is not None and start.coefficients is not None and len(start.coefficients) == size:
        coefficients = start.coefficients
    parameters = np.concatenate([parameters, coefficients])
    points = start.points[chosen] if start is not None else _triangulated(inner, views)
    lost = ~np.isfinite(points).all(axis=1)
    if lost.any():
        points[lost] = _triangulated(inner, views)[lost]

    def state_at(values: Floats, places: Floats) -> State:
        numbers = base + (mix @ values[: mix.shape[1]]).reshape(base.shape)
        return State(numbers, places, values[mix.shape[1] :])

    spread = np.concatenate([priors, np.full(size, local.sigma if local else 1.0)])
    damping, factor = 1e-4, 1.0
    left = np.ones(len(inner.view))
    state = state_at(parameters, points)
    for count in range(rounds):
        lengths = np.hypot(*(predicted(state, inner, local) - inner.xy).T) / inner.sigma
        if count < 2 or robust or count % 5 == 0:
            factor, left = _weights(lengths, inner.view, len(views), robust, count)
        weights = left / (factor * inner.sigma) ** 2
        before = float(left @ lengths**2) / factor**2 + float(((parameters / spread) ** 2).sum())
        system = normal_equations(state, inner, weights, mix, priors, parameters, local)
        for _ in range(8):
            change, move = system.step(damping)
            trial = state_at(parameters + change, points + move)
            new = np.hypot(*(predicted(trial, inner, local) - inner.xy).T) / inner.sigma
            after = float(left @ new**2) / factor**2
            after += float((((parameters + change) / spread) ** 2).sum())
            if after <= before * (1 + 1e-12):
                break
            damping = max(10 * damping, 1e-6)
        else:
            break
        parameters, points, state = parameters + change, points + move, trial
        damping = max(damping / 10, 1e-12)
        gain = (before - after) / max(before, 1e-30)
        if gain < tolerance and count >= 3:
            break
    residual = predicted(state, inner, local) - inner.xy
    lengths = np.hypot(*residual.T) / inner.sigma
    factor, left = _weights(lengths, inner.view, len(views), robust, 99)
    residuals, all_weights = np.full((len(kept), 2), np.nan), np.zeros(len(kept))
    residuals[kept], all_weights[kept] = residual, left
    everything = np.full((tracks.n_points, 3), np.nan)
    everything[chosen] = points
    errors = np.zeros_like(base)
    unknowns = mix.shape[1] + size + 3 * len(chosen)
    if with_errors:
        weights = left / (factor * inner.sigma) ** 2
        system = normal_equations(state, inner, weights, mix, priors, parameters, local)
        covariance = system.covariance()[: mix.shape[1], : mix.shape[1]]
        # Observations pay for the parameters that they determine.
        paid = max(1.0, 2 * left.sum()) / max(2 * left.sum() - unknowns, 1.0)
        told = _without_gauge(wide, state, used)
        variances = ((told @ covariance) * told).sum(axis=1) * paid
        errors = np.sqrt(np.maximum(variances, 0)).reshape(base.shape)
    solved = views_of(state.numbers, views)
    return Solution(
        model=model,
        views=tuple(s if u else v for s, v, u in zip(solved, views, used, strict=True)),
        points=everything,
        deformation=local.deformation(state.coefficients) if local else None,
        residuals=residuals,
        weights=all_weights,
        factor=factor,
        errors=errors,
        measurements=2 * int(kept.sum()),
        unknowns=unknowns,
        local=local,
        coefficients=state.coefficients if local else None,
    )


def _without_gauge(mix: Floats, state: State, used: NDArray[np.bool_]) -> Floats:
    """Return the mixing without what no image can tell: its errors would be those of the priors.

    The common magnification, tilt and x-axis tilt, and where the specimen's origin lies.
    """
    n = len(used)
    told = mix.reshape(n, WIDTH, -1).copy()
    for k in (VARIABLES.index(name) for name in ("magnification", "tilt", "x_tilt")):
        told[used, k] -= told[used, k].mean(axis=0)
    moved = np.einsum("nab,nbc->nac", state.matrices, state.rotations[:, :2])[used].reshape(-1, 3)
    shifts = told[used, -2:].reshape(2 * int(used.sum()), -1)
    shifts = shifts - moved @ np.linalg.lstsq(moved, shifts, rcond=None)[0]
    told[used, -2:] = shifts.reshape(int(used.sum()), 2, -1)
    return told.reshape(mix.shape)


def _triangulated(tracks: Tracks, views: Sequence[View]) -> Floats:
    raw = np.zeros((tracks.n_views, tracks.n_points, 2))
    seen = np.zeros((tracks.n_views, tracks.n_points), bool)
    raw[tracks.view, tracks.point], seen[tracks.view, tracks.point] = tracks.xy, True
    return fit_points(raw, seen, views)


def _weights(
    lengths: Floats, view: NDArray[np.int64], n_views: int, robust: bool, count: int
) -> tuple[float, Floats]:
    """Return the factor of the standard errors, and what robustness leaves, (m,).

    An outlier is what is far off for its own view and the views beside it: where the model is at
    fault, whole views are off, and must not lose their say.
    """
    factor = max(LEAST_FACTOR, float(np.median(lengths)) / RAYLEIGH)
    if not robust:
        return factor, np.ones(len(lengths))
    ratio = lengths / _local_factors(lengths, view, n_views, factor)[view]
    if count < 3:  # Huber's first: nothing is thrown out before the fit has begun
        return factor, np.minimum(1.0, 2.0 / np.maximum(ratio, 1e-12))
    return factor, np.where(ratio < TUKEY, (1 - (ratio / TUKEY) ** 2) ** 2, 0.0)


def _local_factors(lengths: Floats, view: NDArray[np.int64], n_views: int, factor: float) -> Floats:
    """Return the factor of each view: from medians of a few views, not below the common one."""
    order = np.argsort(view, kind="stable")
    bounds = np.searchsorted(view[order], np.arange(n_views + 1))
    found = np.full(n_views, factor)
    for i in range(n_views):
        near = order[bounds[max(0, i - AROUND)] : bounds[min(n_views, i + AROUND + 1)]]
        if len(near) >= LEAST_AROUND:
            found[i] = max(factor, float(np.median(lengths[near])) / RAYLEIGH)
    return found


def fitted_point(
    tracks: Tracks, solution: Solution, views: Sequence[View] | None = None
) -> tuple[Floats, Floats]:
    """Return the place of each point given the views, and residuals (m, 2) [Å].

    For points that took no part in the solution: those held out, or new ones.
    """
    held = tuple(views or solution.views)
    points = _triangulated(tracks, held)
    local, coefficients = solution.local, solution.coefficients
    none = np.zeros(0) if coefficients is None else coefficients
    numbers = numbers_of(held)
    empty = sparse.csr_array((numbers.size, 0))
    for _ in range(3 if local else 1):
        state = State(numbers, points, none)
        lengths = np.hypot(*(predicted(state, tracks, local) - tracks.xy).T) / tracks.sigma
        _, left = _weights(lengths, tracks.view, len(held), True, 0)
        system = normal_equations(
            state, tracks, left / tracks.sigma**2, empty, np.zeros(0), none, local
        )
        blocks = system.blocks + 1e-12 * np.eye(3)
        points = points + np.einsum("nab,nb->na", np.linalg.inv(blocks), system.slopes)
    state = State(numbers, points, none)
    return points, predicted(state, tracks, local) - tracks.xy
