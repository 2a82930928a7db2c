"""Tracks of patches as linear functions of everything that is to be found.

Unknown are each view's shift, each patch's place, the coefficients of the deformation
(`kernels.deformation`) and, where a model has them, each view's turn of the axis, magnification
and tilt, all relative to where they are known to be already. What is expected beforehand, as a
standard deviation of each, stands for the gauge and keeps what is not observed at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.align_coarse import move_view
from kernels.deformation import Deformation, space_powers, space_terms, time_terms
from kernels.geometry import View, aligned_from_raw, tilt_rotation, tilted
from kernels.tracks import Tracks

Floats = NDArray[np.float64]

# Standard deviations beforehand [Å].
PRIOR_SHIFT, PRIOR_PLACE, PRIOR_FIELD = 200.0, 500.0, 100.0
# Of a view's axis and tilt [radians], and magnification.
PRIOR_OF = {"axis": 0.01, "magnification": 0.003, "tilt": 0.015}


@dataclass(frozen=True)
class Model:
    """What may differ.

    Attributes
    ----------
    degree, order : int
        Of the deformation: total degree in X and Y, and in time; 0: none.
    variables : tuple of str
        Of each view: axis, magnification, tilt.
    """

    degree: int = 0
    order: int = 0
    variables: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the model in words."""
        parts = [f"deformation {self.degree}, {self.order}"] if self.order else []
        return " + ".join([*parts, *self.variables]) or "shifts"


@dataclass(frozen=True)
class Problem:
    """Observations as linear functions of unknowns.

    Attributes
    ----------
    design : (m, 2, unknowns) float64
    target : (m, 2) float64
        Observed less expected x′, y′ [Å].
    sigma : (m,) float64
    point : (m,) int64
    prior : (unknowns,) float64
        Inverse variances beforehand.
    views : tuple of View
    n_points : int
    model : Model
    half_width : float
        See `Deformation` [Å].
    """

    design: Floats
    target: Floats
    sigma: Floats
    point: NDArray[np.int64]
    prior: Floats
    views: tuple[View, ...]
    n_points: int
    model: Model
    half_width: float

    @staticmethod
    def of(
        tracks: Tracks,
        views: Sequence[View],
        points: Floats,
        times: Sequence[float],
        half_width: float,
        model: Model,
    ) -> Problem:
        """Linearise around `views` and `points` (n_points, 3) [Å]."""
        m, n, p = len(tracks.view), tracks.n_views, tracks.n_points
        places = np.nan_to_num(points)
        terms = len(space_powers(model.degree)) * model.order
        view, point, rows = tracks.view, tracks.point, np.arange(m)
        rotation = np.stack([tilt_rotation(v)[:2] for v in views])[view]
        aligned, seen = np.empty((m, 2)), np.empty((m, 3))
        for i, v in enumerate(views):
            mine = view == i
            aligned[mine] = aligned_from_raw(tracks.xy[mine], v)
            seen[mine] = tilted(places[point[mine]], v)
        shift, place = np.zeros((m, 2, 2 * n)), np.zeros((m, 2, 3 * p))
        for k in range(2):
            shift[rows, k, 2 * view + k] = 1
            for a in range(3):
                place[rows, k, 3 * point + a] = rotation[:, k, a]
        space = space_terms(places, half_width, model.degree)[point] if terms else np.zeros((m, 0))
        power = time_terms(times, model.order)[view]
        both = (space[:, :, None] * power[:, None, :]).reshape(m, terms)
        field = (rotation[:, :, :, None] * both[:, None, None, :]).reshape(m, 2, 3 * terms)
        x, y, depth = seen.T
        slopes = {
            "axis": np.stack([-y, x], axis=1),
            "magnification": np.stack([x, y], axis=1),
            "tilt": np.stack([depth, np.zeros(m)], axis=1),
        }
        own = []
        for variable in model.variables:
            columns = np.zeros((m, 2, n))
            columns[rows, :, view] = slopes[variable]
            own.append(columns)
        prior = np.concatenate(
            [
                np.full(2 * n, PRIOR_SHIFT**-2),
                np.full(3 * p, PRIOR_PLACE**-2),
                np.full(3 * terms, PRIOR_FIELD**-2),
                *(np.full(n, PRIOR_OF[variable] ** -2) for variable in model.variables),
            ]
        )
        return Problem(
            np.concatenate([shift, place, field, *own], axis=2),
            aligned - seen[:, :2],
            tracks.sigma,
            point,
            prior,
            tuple(views),
            p,
            model,
            half_width,
        )

    @property
    def _starts(self) -> tuple[int, int, int]:
        """Return where the places, the field and the views' variables begin."""
        n = 2 * len(self.views)
        places = n + 3 * self.n_points
        return n, places, places + 3 * len(space_powers(self.model.degree)) * self.model.order

    def matrix(
        self, weights: Floats, chosen: NDArray[np.bool_] | None = None
    ) -> tuple[Floats, Floats]:
        """Return the normal equations of chosen observations, without what is expected."""
        rows = slice(None) if chosen is None else chosen
        weight = np.repeat(weights[rows] / self.sigma[rows] ** 2, 2)
        design = self.design[rows].reshape(-1, self.design.shape[2])
        weighted = design * weight[:, None]
        return weighted.T @ design, weighted.T @ self.target[rows].ravel()

    def solve(self, weights: Floats) -> Floats:
        """Return the unknowns that fit best."""
        matrix, pull = self.matrix(weights)
        return np.asarray(np.linalg.solve(matrix + np.diag(self.prior), pull), dtype=np.float64)

    def residuals(self, solution: Floats) -> Floats:
        """Return what the unknowns leave, (m, 2) [Å]."""
        return self.target - self.design @ solution

    def place_columns(self, point: int) -> slice:
        """Return which unknowns are the place of a patch."""
        start = self._starts[0] + 3 * point
        return slice(start, start + 3)

    def places(self, solution: Floats) -> Floats:
        """Return how far each patch is from where it was thought, (n_points, 3) [Å]."""
        return solution[self._starts[0] : self._starts[1]].reshape(-1, 3)

    def deformation(self, solution: Floats) -> Deformation | None:
        """Return the deformation, None in a model without."""
        if not self.model.order:
            return None
        field = solution[self._starts[1] : self._starts[2]]
        shape = (3, len(space_powers(self.model.degree)), self.model.order)
        return Deformation(field.reshape(shape), self.half_width)

    def seen_size(self, solution: Floats) -> float:
        """Return how far the deformation moves patches in the views, rms over observations [Å].

        But for what is common to a view, which is a shift of it, and for what is common to a
        patch, which is its place.
        """
        start, stop = self._starts[1:]
        moves = self.design[:, :, start:stop] @ solution[start:stop]
        rest = self.design[:, :, :start].reshape(-1, start)
        return float(np.sqrt(2 * np.mean(_beyond(moves.ravel(), rest) ** 2)))

    def moved_views(self, solution: Floats) -> tuple[View, ...]:
        """Return the views with what was found."""
        n = len(self.views)
        shifts = solution[: 2 * n].reshape(-1, 2)
        own = {
            variable: solution[self._starts[2] + k * n : self._starts[2] + (k + 1) * n]
            for k, variable in enumerate(self.model.variables)
        }
        none = np.zeros(n)
        axis, tilt = (np.degrees(own.get(name, none)) for name in ("axis", "tilt"))
        size = own.get("magnification", none)
        # The axis as a whole is the matching's, and the size of the specimen nobody's.
        return tuple(
            replace(
                move_view(view, float(shifts[i, 1]), float(shifts[i, 0])),
                axis=view.axis + float(axis[i]),
                tilt=view.tilt + float(tilt[i]),
                magnification=view.magnification * (1 + float(size[i] - size.mean())),
            )
            for i, view in enumerate(self.views)
        )

    def field_error(self, weights: Floats, points: Floats) -> float:
        """Return the standard error of the displacements at the end, rms over points [Å]."""
        degree, order = self.model.degree, self.model.order
        if not order:
            return 0.0
        start, stop = self._starts[1:]
        matrix = self.matrix(weights)[0] + np.diag(self.prior)
        covariance = np.linalg.inv(matrix)[start:stop, start:stop]
        space = space_terms(points, self.half_width, degree)
        both = np.repeat(space[:, :, None], order, axis=2).reshape(len(points), -1)
        size, variance = both.shape[1], 0.0
        for a in range(3):
            block = covariance[a * size : (a + 1) * size, a * size : (a + 1) * size]
            variance += float(np.einsum("na,ab,nb->n", both, block, both).mean())
        return float(np.sqrt(variance))


def _beyond(values: Floats, columns: Floats) -> Floats:
    """Return what no combination of columns makes of values."""
    fitted: Floats = columns @ np.linalg.lstsq(columns, values, rcond=None)[0]
    return values - fitted
