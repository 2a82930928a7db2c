"""The specimen's plane from the defocus gradients of the views: pre-tilt, and a check of the hand.

A plane Z = −X tan α + Y tan γ in the specimen frame shows the gradient of
`kernels.geometry.defocus_gradient`; α adds to the tilt angle, γ is its rise along the tilt axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.ctf_fit import GradientFit
from kernels.geometry import View, defocus_gradient

Floats = NDArray[np.float64]

LARGEST = 25.0  # degrees
STEEPEST = 88.0  # degrees of tilt and pre-tilt together
STEP = 0.1  # degrees, of the derivatives
ROUNDS = 10


@dataclass(frozen=True)
class Plane:
    """How the specimen lies on the stage.

    Attributes
    ----------
    pretilt : (float, float)
        α about the tilt axis and γ across it [degrees].
    errors : (float, float)
        Their standard errors [degrees].
    slope, slope_error : float
        Gradient over that which the tilts of the given hand should make: 1 but for noise; α free.
    """

    pretilt: tuple[float, float]
    errors: tuple[float, float]
    slope: float
    slope_error: float


def fit_plane(gradients: Sequence[GradientFit], views: Sequence[View], hand: int) -> Plane | None:
    """Fit the specimen's plane to the gradients of the views.

    Parameters
    ----------
    gradients : sequence of GradientFit
    views : sequence of View
        One for each gradient.
    hand : {+1, −1}

    Returns
    -------
    Plane or None
        None where the gradients do not determine it to 25°.
    """
    steepest = max((abs(view.tilt) for view in views), default=0.0)
    largest = float(np.clip(STEEPEST - steepest, 1.0, LARGEST))
    pretilt = np.zeros(2)
    covariance = np.eye(2)
    for _ in range(ROUNDS):
        information, pull = np.zeros((2, 2)), np.zeros(2)
        for found, view in zip(gradients, views, strict=True):
            here = np.asarray(defocus_gradient(view, hand, _pair(pretilt)))
            moved = [
                np.asarray(defocus_gradient(view, hand, _pair(pretilt + step)))
                for step in STEP * np.eye(2)
            ]
            slopes = (np.stack(moved, axis=1) - here[:, None]) / STEP
            information += slopes.T @ found.information @ slopes
            pull += slopes.T @ (found.pull - found.information @ here)
        if np.linalg.cond(information) > 1e8:
            return None
        covariance = np.asarray(np.linalg.inv(information), dtype=np.float64)
        step = covariance @ pull
        pretilt = np.clip(pretilt + step, -largest, largest)
        if np.abs(step).max() < 1e-3:
            break
    if np.abs(pretilt).max() >= largest or np.sqrt(np.diag(covariance)).max() > LARGEST:
        return None
    errors = np.sqrt(np.diag(covariance))
    slope, slope_error = fit_slope(gradients, views, hand)
    return Plane(_pair(pretilt), _pair(errors), slope, slope_error)


def fit_slope(
    gradients: Sequence[GradientFit], views: Sequence[View], hand: int
) -> tuple[float, float]:
    """Return the factor of the tilts' gradient, beside constants along x′ and y′, and its error.

    Parameters
    ----------
    gradients : sequence of GradientFit
    views : sequence of View
        One for each gradient.
    hand : {+1, −1}
        Whose gradient the factor multiplies.
    """
    information, pull = np.zeros((3, 3)), np.zeros(3)
    for found, view in zip(gradients, views, strict=True):
        design = np.column_stack([defocus_gradient(view, hand), np.eye(2)])
        information += design.T @ found.information @ design
        pull += design.T @ found.pull
    covariance = np.linalg.pinv(information)
    return float((covariance @ pull)[0]), math.sqrt(max(float(covariance[0, 0]), 0.0))


def _pair(values: Floats) -> tuple[float, float]:
    return float(values[0]), float(values[1])
