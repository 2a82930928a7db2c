"""Thickness and position of the specimen's slab: what several measurements say, and a verdict.

The slab lies between two parallel planes; its middle is the plane

    Z = centre − X · tan(pitch) + Y · tan(rise)

in the specimen frame (`kernels.geometry`): the pitch adds to the tilt angle, as the pre-tilt of
`geometry.defocus_gradient` does, the rise is along the tilt axis. The thickness is along the
normal. Beads (`thickness_beads`), a quick tomogram (`thickness_profile`), the brightness of the
views (`from_attenuation`) and the nodes of Thon rings (`ctf_thickness`) each tell part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

Floats = NDArray[np.float64]

QUANTITIES = ("thickness", "centre", "pitch", "rise")
DISAGREEMENT = 3.0  # combined standard errors
# Relative error of a mean free path that was not measured on this microscope.
PATH_ERROR = 0.15
# Views that are 3 % brighter at one end of the series than at the other, as of a drifting beam or
# of ice that gets thinner, shift the pitch by a degree or two.
PITCH_ERROR = 1.5


@dataclass(frozen=True)
class Estimate:
    """What one measurement says about the slab; NaN and infinite errors for what it does not.

    Attributes
    ----------
    method : str
    thickness, centre : float
        [Å]
    pitch, rise : float
        [degrees]
    thickness_error, centre_error, pitch_error, rise_error : float
        Standard errors.
    """

    method: str
    thickness: float = nan
    thickness_error: float = inf
    centre: float = nan
    centre_error: float = inf
    pitch: float = nan
    pitch_error: float = inf
    rise: float = nan
    rise_error: float = inf


@dataclass(frozen=True)
class Verdict:
    """The slab as all measurements together have it.

    Attributes
    ----------
    slab : Estimate
    doubts : tuple of str
        Which measurement disagrees with the others about what, in words; empty when all agree.
    """

    slab: Estimate
    doubts: tuple[str, ...]


def verdict(estimates: Sequence[Estimate]) -> Verdict:
    """Combine estimates, each weighted with its error; what disagrees is left out and told.

    Of two that disagree by more than three combined errors the less precise one goes; of more,
    the one that lies farthest from the mean of the others. An error grows with the scatter that
    remains.
    """
    values: dict[str, float] = {}
    doubts: list[str] = []
    for quantity in QUANTITIES:
        said = [
            (e.method, getattr(e, quantity), getattr(e, f"{quantity}_error"))
            for e in estimates
            if np.isfinite(getattr(e, quantity)) and np.isfinite(getattr(e, f"{quantity}_error"))
        ]
        while len(said) > 1:
            apart = [_apart(said, i) for i in range(len(said))]
            # Of two the distance is the same: the less precise one goes.
            worst = max(range(len(said)), key=lambda i: (round(apart[i], 9), said[i][2]))
            if apart[worst] <= DISAGREEMENT:
                break
            method, value, error = said.pop(worst)
            mean, _ = _mean(said)
            doubts.append(
                f"{quantity} by {method} is {value:.4g} ± {error:.2g}, by "
                f"{', '.join(name for name, _, _ in said)} {mean:.4g}"
            )
        if said:
            values[quantity], values[f"{quantity}_error"] = _mean(said)
    methods = ", ".join(e.method for e in estimates)
    return Verdict(Estimate(methods, **values), tuple(doubts))


def _mean(said: Sequence[tuple[str, float, float]]) -> tuple[float, float]:
    values, errors = (np.array([row[i] for row in said]) for i in (1, 2))
    weights = 1 / errors**2
    mean = float((weights * values).sum() / weights.sum())
    scatter = float((weights * (values - mean) ** 2).sum()) / max(len(said) - 1, 1)
    return mean, sqrt(max(1.0, scatter) / weights.sum())


def _apart(said: Sequence[tuple[str, float, float]], i: int) -> float:
    """Return how far one value is from the mean of the others, in combined errors."""
    others = [row for j, row in enumerate(said) if j != i]
    weights = np.array([1 / row[2] ** 2 for row in others])
    mean = float((weights * [row[1] for row in others]).sum() / weights.sum())
    return abs(said[i][1] - mean) / sqrt(said[i][2] ** 2 + 1 / weights.sum())


def from_attenuation(
    means: ArrayLike,
    tilts: ArrayLike,
    mean_free_path: float,
    path_error: float = PATH_ERROR,
    method: str = "attenuation",
) -> Estimate:
    """Measure the slab by how its views darken with the tilt (Beer and Lambert).

    ``ln I = ln I₀ − t / (Λ cos(θ + pitch))``: no image of the bare beam is needed.

    Parameters
    ----------
    means : (n_views,)
        Mean of each view for the same dose, in any unit; not positive: left out.
    tilts : (n_views,)
        [degrees]
    mean_free_path : float
        Λ, of what aperture and energy filter let through [Å].
    path_error : float
        Its relative standard error.

    Returns
    -------
    Estimate
        Of thickness and pitch; without them if fewer than six views tell.
    """
    brightness, angles = np.asarray(means, dtype=np.float64), np.asarray(tilts, dtype=np.float64)
    used = np.isfinite(brightness) & (brightness > 0)
    if used.sum() < 6 or np.ptp(angles[used]) < 30:
        return Estimate(method)
    logs, angles = np.log(brightness[used]), angles[used]

    def residuals(p: Floats) -> Floats:
        return p[0] - p[1] / np.cos(np.radians(angles + p[2])) - logs

    steep = 89.0 - np.abs(angles).max()
    start = np.array([logs.max() + 0.3, 0.3, 0.0])
    bounds = ([-inf, 0, -min(20.0, steep)], [inf, inf, min(20.0, steep)])
    plain = least_squares(residuals, start, bounds=bounds, x_scale=[1, 0.3, 1])
    scale = max(1.4826 * float(np.median(np.abs(plain.fun))), 1e-9)
    fit = least_squares(
        residuals, plain.x, bounds=bounds, loss="soft_l1", f_scale=scale, x_scale=[1, 0.3, 1]
    )
    noise = np.mean(np.minimum(np.abs(fit.fun), 3 * scale) ** 2) * len(logs) / (len(logs) - 3)
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac) * noise
    slope, pitch = float(fit.x[1]), float(fit.x[2])
    error = sqrt(covariance[1, 1] + (slope * path_error) ** 2)
    return Estimate(
        method,
        thickness=slope * mean_free_path,
        thickness_error=error * mean_free_path,
        pitch=pitch,
        pitch_error=sqrt(covariance[2, 2] + PITCH_ERROR**2),
    )
