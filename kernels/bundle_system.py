"""Residuals of a bundle adjustment, their derivatives, and one damped step.

Points are eliminated by the Schur complement, so that a step solves for the views' parameters
alone: some hundred, whatever the number of points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

from kernels.bundle_model import WIDTH
from kernels.deformation import Deformation, space_powers, space_terms, time_terms
from kernels.geometry import (
    image_derivatives,
    image_matrices,
    tilt_derivatives,
    tilt_rotations,
)
from kernels.tracks import Tracks

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Local:
    """A deformation that is solved with the views.

    Attributes
    ----------
    degree, powers : int
        Highest power of X and Y together, and of the time.
    half_width : float
        Unit of X and Y [Å].
    times : (n_views,)
        0 to 1.
    sigma : float
        Prior of each coefficient around 0 [Å].
    """

    degree: int
    powers: int
    half_width: float
    times: Floats
    sigma: float

    @property
    def size(self) -> int:
        """Number of coefficients."""
        return 3 * len(space_powers(self.degree)) * self.powers

    def deformation(self, coefficients: Floats) -> Deformation:
        """Return the deformation of (size,) coefficients."""
        shape = (3, len(space_powers(self.degree)), self.powers)
        return Deformation(coefficients.reshape(shape), self.half_width)


@dataclass(frozen=True)
class State:
    """Where an adjustment stands.

    Attributes
    ----------
    numbers : (n_views, `WIDTH`)
    points : (n_points, 3)
        NaN where a point has too few observations.
    coefficients : (size,)
        Of the deformation, none without.
    """

    numbers: Floats
    points: Floats
    coefficients: Floats

    @cached_property
    def matrices(self) -> Floats:
        """From aligned to raw coordinates, (n_views, 2, 2)."""
        axis, magnification, _, _, stretch, skew, _, _ = self.numbers.T
        return image_matrices(axis, np.exp(magnification), np.exp(stretch), skew)

    @cached_property
    def rotations(self) -> Floats:
        """From specimen to tilted coordinates, (n_views, 3, 3)."""
        return tilt_rotations(self.numbers[:, 2], self.numbers[:, 3])


def moved_points(
    points: Floats, tracks: Tracks, local: Local | None, coefficients: Floats
) -> Floats:
    """Return for each observation where its point is at that time, (m, 3)."""
    places = points[tracks.point]
    if local is None:
        return places
    space = space_terms(places, local.half_width, local.degree)
    time = time_terms(local.times, local.powers)[tracks.view]
    values = local.deformation(coefficients).coefficients
    return places + np.einsum("ms,ast,mt->ma", space, values, time)


def predicted(state: State, tracks: Tracks, local: Local | None = None) -> Floats:
    """Return where the observations should be, (m, 2) [Å] from the images' centre pixels."""
    matrices, rows = state.matrices, state.rotations[:, :2]
    places = moved_points(state.points, tracks, local, state.coefficients)
    flat = np.einsum("mab,mb->ma", rows[tracks.view], places)
    shifts = state.numbers[:, -2:]
    return np.einsum("mab,mb->ma", matrices[tracks.view], flat) + shifts[tracks.view]


def derivatives(
    state: State, tracks: Tracks, local: Local | None = None
) -> tuple[Floats, Floats, Floats]:
    """Return the derivatives of the predicted places.

    Returns
    -------
    by_view : (m, 2, `WIDTH`)
        By the numbers of the observation's view.
    by_point : (m, 2, 3)
        By the coordinates of its point.
    by_local : (m, 2, size)
        By the coefficients of the deformation.
    """
    axis, magnification, tilt, x_tilt, stretch, skew, _, _ = state.numbers.T
    matrices, rotations = state.matrices[tracks.view], state.rotations[tracks.view]
    of_image = image_derivatives(axis, np.exp(magnification), np.exp(stretch), skew)[tracks.view]
    of_tilt = tilt_derivatives(tilt, x_tilt)[tracks.view]
    places = moved_points(state.points, tracks, local, state.coefficients)
    flat = np.einsum("mab,mb->ma", rotations[:, :2], places)
    m = len(places)
    by_view = np.zeros((m, 2, WIDTH))
    turned = np.einsum("mkab,mb->mka", of_image, flat)
    tilted = np.einsum("mkab,mb->mka", of_tilt[:, :, :2], places)
    tilted = np.einsum("mab,mkb->mka", matrices, tilted)
    by_view[:, :, 0], by_view[:, :, 1] = turned[:, 0], turned[:, 1]
    by_view[:, :, 2], by_view[:, :, 3] = tilted[:, 0], tilted[:, 1]
    by_view[:, :, 4], by_view[:, :, 5] = turned[:, 2], turned[:, 3]
    by_view[:, 0, 6] = by_view[:, 1, 7] = 1.0
    by_point = np.einsum("mab,mbc->mac", matrices, rotations[:, :2])
    if local is None:
        return by_view, by_point, np.zeros((m, 2, 0))
    space = space_terms(state.points[tracks.point], local.half_width, local.degree)
    time = time_terms(local.times, local.powers)[tracks.view]
    by_local = np.einsum("mxa,ms,mt->mxast", by_point, space, time).reshape(m, 2, -1)
    # A point that is elsewhere is also moved by another amount.
    step = 1e-4 * local.half_width
    plain = by_point.copy()
    for axis in range(2):
        ahead = state.points.copy()
        ahead[:, axis] += step
        change = moved_points(ahead, tracks, local, state.coefficients) - places
        change[:, axis] -= step
        by_point[:, :, axis] += np.einsum("mab,mb->ma", plain, change) / step
    return by_view, by_point, by_local


@dataclass(frozen=True)
class System:
    """The normal equations, weighted, of the free parameters and of the points.

    Attributes
    ----------
    hessian : (p, p), gradient : (p,)
        Of the parameters, priors included.
    cross : (p, n, 3)
    blocks : (n, 3, 3), slopes : (n, 3)
        Of the points.
    """

    hessian: Floats
    gradient: Floats
    cross: Floats
    blocks: Floats
    slopes: Floats

    def step(self, damping: float) -> tuple[Floats, Floats]:
        """Return the damped step of the parameters and of the points."""
        blocks = self.blocks.copy()
        diagonal = np.einsum("nii->ni", blocks)
        diagonal *= 1 + damping
        diagonal += 1e-12
        inverse = np.linalg.inv(blocks)
        p = len(self.gradient)
        taken = np.einsum("pna,nab->pnb", self.cross, inverse)
        reduced = self.hessian - taken.reshape(p, -1) @ self.cross.reshape(p, -1).T
        reduced[np.diag_indices(p)] += damping * np.diagonal(self.hessian)
        right = self.gradient - taken.reshape(p, -1) @ self.slopes.ravel()
        change = np.linalg.solve(reduced, right) if p else np.zeros(0)
        rest = self.slopes - np.einsum("pna,p->na", self.cross, change)
        return change, np.einsum("nab,nb->na", inverse, rest)

    def covariance(self) -> Floats:
        """Return that of the parameters, (p, p), the points being free, for weights 1 / σ²."""
        inverse = np.linalg.inv(self.blocks + 1e-12 * np.eye(3))
        p = len(self.gradient)
        taken = np.einsum("pna,nab->pnb", self.cross, inverse).reshape(p, -1)
        return np.linalg.inv(self.hessian - taken @ self.cross.reshape(p, -1).T)


def normal_equations(
    state: State,
    tracks: Tracks,
    weights: Floats,
    mix: sparse.csr_array,
    priors: Floats,
    parameters: Floats,
    local: Local | None,
) -> System:
    """Return the normal equations at a state.

    Parameters
    ----------
    weights : (m,)
        Of the observations, 1 / variance times what robustness leaves.
    mix, priors
        Of `bundle_model.mixing`.
    parameters : (p,)
        Values now, those of the deformation last, for the priors.
    """
    by_view, by_point, by_local = derivatives(state, tracks, local)
    residual = tracks.xy - predicted(state, tracks, local)
    n_views, n_points = tracks.n_views, tracks.n_points
    size = by_local.shape[2]
    # Each observation knows only its view's numbers: small sums first, then the mixing.
    of_views = np.zeros((n_views, WIDTH, WIDTH + 1))
    to_local = np.zeros((n_views, WIDTH, size))
    pairs = np.zeros((n_views, WIDTH, n_points, 3))
    of_points = np.zeros((n_points, 3, 4 + size))
    of_local = np.zeros((size, size + 1))
    _accumulate(
        tracks.view, tracks.point, weights, by_view, by_local, by_point, residual,
        of_views, to_local, pairs, of_points, of_local,
    )  # fmt: skip
    turned = mix.T.tocsr()
    parts = np.asarray(mix.todense()).reshape(n_views, WIDTH, -1)
    hessian = turned @ np.matmul(of_views[:, :, :WIDTH], parts).reshape(mix.shape)
    gradient = turned @ of_views[:, :, WIDTH].ravel()
    cross = turned @ pairs.reshape(n_views * WIDTH, 3 * n_points)
    if local is not None:
        corner = turned @ to_local.reshape(n_views * WIDTH, size)
        hessian = np.block([[hessian, corner], [corner.T, of_local[:, :size]]])
        gradient = np.concatenate([gradient, of_local[:, size]])
        along = of_points[:, :, 4:].transpose(2, 0, 1).reshape(size, -1)
        cross = np.concatenate([cross, along])
        priors = np.concatenate([priors, np.full(size, local.sigma)])
    hessian = hessian + np.diag(priors**-2.0)
    gradient = gradient - parameters / priors**2
    return System(
        hessian,
        gradient,
        cross.reshape(-1, n_points, 3),
        np.ascontiguousarray(of_points[:, :, :3]),
        np.ascontiguousarray(of_points[:, :, 3]),
    )


@njit(nogil=True, cache=True)
def _accumulate(
    view: Any, point: Any, weights: Any, by_view: Any, by_local: Any, by_point: Any, residual: Any,
    of_views: Any, to_local: Any, pairs: Any, of_points: Any, of_local: Any,
) -> None:  # fmt: skip
    """Add the products of all observations, views' numbers first, residuals last."""
    width, size = by_view.shape[2], by_local.shape[2]
    for m in range(view.size):
        v, p, w = view[m], point[m], weights[m]
        for k in range(2):
            r = residual[m, k]
            for a in range(width):
                left = w * by_view[m, k, a]
                if left == 0.0:
                    continue
                for b in range(width):
                    of_views[v, a, b] += left * by_view[m, k, b]
                of_views[v, a, width] += left * r
                for b in range(3):
                    pairs[v, a, p, b] += left * by_point[m, k, b]
                for b in range(size):
                    to_local[v, a, b] += left * by_local[m, k, b]
            for a in range(3):
                left = w * by_point[m, k, a]
                for b in range(3):
                    of_points[p, a, b] += left * by_point[m, k, b]
                of_points[p, a, 3] += left * r
                for b in range(size):
                    of_points[p, a, 4 + b] += left * by_local[m, k, b]
            for a in range(size):
                left = w * by_local[m, k, a]
                for b in range(size):
                    of_local[a, b] += left * by_local[m, k, b]
                of_local[a, size] += left * r
