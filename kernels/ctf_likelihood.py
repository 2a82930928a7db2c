"""Likelihood of the rings of a view: a gamma distribution with a logarithmic link.

The mean power P̂ of n samples of a spectrum P is gamma distributed, −log L = n (ln P + P̂ / P) but
for constants. Its maximum is found by Fisher scoring over everything at once: background, envelope
of the signal, mean defocus, astigmatism and, where asked, phase shift, gradient and thickness; the
curvature there gives their standard errors with all of the others unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from kernels.ctf import coefficients
from kernels.ctf_rings import Optics, Rings, contrast
from kernels.ctf_search import LEAST_DEFOCUS

Floats = NDArray[np.float64]

# What a fit may vary, and the step over which each changes little.
NAMES = ("defocus", "p", "q", "phase", "gradient_x", "gradient_y", "thickness")
# Legendre coefficients of ln S over the fitted range: what views of cryo-EM have, broadly.
ENVELOPE = np.asarray([-2.0, -1.0, 0.0])
ENVELOPE_SIGMA = np.asarray([2.0, 1.5, 0.7])
OUTLIER = 4.0  # standard deviations beyond which a sample counts as no more
ROUNDS = 30
LEAST_CONTRAST = 0.3


@dataclass(frozen=True)
class Point:
    """Where a view's likelihood is taken: lengths in Å, the phase shift in radians.

    `p`, `q` are (U − V)(cos 2α, sin 2α); the gradient is that of the defocus over x′ and y′.
    """

    defocus: float
    p: float = 0.0
    q: float = 0.0
    phase: float = 0.0
    gradient_x: float = 0.0
    gradient_y: float = 0.0
    thickness: float = 0.0
    envelope: Floats = field(default_factory=lambda: ENVELOPE.copy(), repr=False)
    background: Floats | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Gaussian:
    """What is known of one of a view's values before."""

    mean: float
    sigma: float


Priors = Mapping[str, Gaussian]


@dataclass(frozen=True)
class Maximum:
    """The most likely point, and how sharp the likelihood is there.

    Attributes
    ----------
    point : Point
    gain : float
        In log likelihood over a spectrum without rings, priors left out.
    posterior : float
        The same with the priors of the varied values.
    names : tuple of str
        The values that were varied.
    covariance : (n, n) float64
        Of them, priors left out; all else unknown.
    """

    point: Point
    gain: float
    posterior: float
    names: tuple[str, ...]
    covariance: Floats = field(repr=False)

    def error(self, name: str) -> float:
        """Return the standard error of one of the varied values."""
        i = self.names.index(name)
        return math.sqrt(max(float(self.covariance[i, i]), 0.0))


class Likelihood:
    """The likelihood of one view's rings."""

    def __init__(self, rings: Rings, optics: Optics, defocus: float) -> None:
        self.rings = rings
        # The window hides fringes of fine spacing and the noise of that spacing alike.
        seen = contrast(rings.k, defocus, optics, rings.window)
        self.weight = rings.weight / np.maximum(seen, LEAST_CONTRAST) ** 2
        self.optics = optics
        self.basis = rings.backgrounds()
        self.a, self.b, self.c = coefficients(optics.ctf(0.0, 0.0, 0.0))
        self.limit = OUTLIER / np.sqrt(np.maximum(rings.weight, 1e-3))
        self.log_data = np.log(np.maximum(rings.power, 1e-30))
        self.flat = self._flat()

    def _flat(self) -> tuple[Floats, float]:
        """Return the background that fits best without any rings, and its −log likelihood."""
        rings = self.rings
        weight = self.weight.sum(axis=0)
        power = (self.weight * rings.power).sum(axis=0) / np.maximum(weight, 1e-9)
        power = np.where(weight > 0, power, 1.0)
        design = self.basis.reshape(len(self.basis), -1)
        w, y = weight.ravel(), power.ravel()
        normal = (design * w) @ design.T + 1e-9 * w.sum() * np.eye(len(design))
        beta = np.linalg.solve(normal, (design * w) @ np.log(y))
        for _ in range(4):
            rest = np.clip(y / np.exp(beta @ design) - 1, -1, 4)
            beta = beta + np.linalg.solve(normal, (design * w) @ rest)
        return beta, self._cost(np.tensordot(beta, self.basis, axes=1)[None])

    def _cost(self, log_power: Floats) -> float:
        rings = self.rings
        ratio = rings.power * np.exp(-log_power)
        # A sample far off (a crystal, a bead) pulls no harder than one at the limit.
        limit = self.limit
        far = (1 + limit) * (1 + self.log_data - np.log1p(limit)) - limit * log_power
        cost = np.where(ratio > 1 + limit, far, log_power + ratio)
        return float((self.weight * cost).sum())

    def model(self, point: Point, names: tuple[str, ...] = ()) -> tuple[Floats, list[Floats]]:
        """Return ln(1 + S·½(1 − c·cos 2φ)) (groups, sectors, rings) and its derivatives.

        The derivatives are by the envelope's coefficients, then by the values named.
        """
        rings = self.rings
        local = point.defocus + rings.offsets((point.gradient_x, point.gradient_y))
        shape = local[:, None, None] * rings.k2 + 0.5 * (
            point.p * rings.k2_cos + point.q * rings.k2_sin
        )
        phase = self.a * shape + self.b * rings.k2**2 + (self.c + point.phase)
        window = contrast(rings.k, local[:, None], self.optics, rings.window)[:, None, :]
        node, slope = thickness_factor(rings.k, self.a, point.thickness)
        seen = window * node
        fringes = np.cos(2 * phase)
        signal = 0.5 * np.exp(np.clip(point.envelope @ rings.envelopes, -12, 6))
        excess = signal * (1 - seen * fringes)
        total = 1 + excess
        if not names:
            return np.log(total), []
        share = excess / total
        columns = [share * row for row in rings.envelopes]
        turned = 2 * signal * seen * np.sin(2 * phase) / total
        for name in names:
            if name == "defocus":
                columns.append(turned * (self.a * rings.k2))
            elif name == "p":
                columns.append(turned * (0.5 * self.a * rings.k2_cos))
            elif name == "q":
                columns.append(turned * (0.5 * self.a * rings.k2_sin))
            elif name == "phase":
                columns.append(turned)
            elif name == "gradient_x":
                columns.append(turned * (self.a * rings.k2) * rings.x[:, None, None])
            elif name == "gradient_y":
                columns.append(turned * (self.a * rings.k2) * rings.y[:, None, None])
            elif name == "thickness":
                columns.append(-signal * window * slope * fringes / total)
            else:
                raise ValueError(f"{name!r} is not one of {', '.join(NAMES)}")
        return np.log(total), columns

    def background(self, point: Point) -> Floats:
        """Return the log background (sectors, rings) at a point."""
        beta = self.flat[0] if point.background is None else point.background
        return np.tensordot(beta, self.basis, axes=1)

    def cost(self, point: Point) -> float:
        """Return the −log likelihood at a point."""
        return self._cost(self.background(point)[None] + self.model(point)[0])

    def maximise(
        self, start: Point, names: tuple[str, ...], priors: Priors, rounds: int = ROUNDS
    ) -> Maximum:
        """Climb from `start` to the maximum of likelihood and priors.

        Parameters
        ----------
        start : Point
        names : tuple of str
            What is varied, besides background and envelope; the defocus stays at least 1000 Å.
        priors : mapping of str to Gaussian
            Of varied values; those without a prior are free.
        rounds : int
            At most.
        """
        nb, ne = len(self.basis), len(ENVELOPE)
        start = replace(start, defocus=max(start.defocus, LEAST_DEFOCUS))
        vector = self._vector(start, names)
        point = start
        damping = 1e-3
        cost = self.cost(point) + self._prior_cost(point, names, priors)
        information = np.eye(len(vector))
        for _ in range(rounds):
            information, slope = self._normal(point, names)
            held, pull = self._prior_normal(point, names, priors, nb, ne)
            improved = False
            for _ in range(6):
                damped = information + held
                damped = damped + damping * np.diag(np.diag(damped)) + 1e-12 * np.eye(len(damped))
                step = np.linalg.solve(damped, slope + pull)
                trial = self._point(start, vector + step, names, nb, ne)
                new = self.cost(trial) + self._prior_cost(trial, names, priors)
                if new <= cost and math.isfinite(new):
                    improved = True
                    break
                damping *= 8
            if not improved:
                break
            gained, cost, point, vector = cost - new, new, trial, self._vector(trial, names)
            damping = max(damping / 8, 1e-6)
            if gained < 2e-3:
                break
        # The envelope's priors stay: without them a view without rings has no covariance at all.
        held, _ = self._prior_normal(point, names, {}, nb, ne)
        whole = np.asarray(np.linalg.pinv(information + held), dtype=np.float64)
        covariance = whole[nb + ne :, nb + ne :]
        gain = self.flat[1] - self.cost(point)
        penalty = self._prior_cost(point, names, priors)
        return Maximum(point, gain, gain - penalty, names, covariance)

    def _normal(self, point: Point, names: tuple[str, ...]) -> tuple[Floats, Floats]:
        """Return the Fisher information and the slope of the log likelihood."""
        rings = self.rings
        log_rings, columns = self.model(point, names)
        rest = rings.power * np.exp(-log_rings - self.background(point)) - 1
        rest = np.minimum(rest, self.limit)
        # The background is the same in all groups: sum those before the products.
        weight = self.weight
        shape = (len(self.basis), -1)
        basis = self.basis.reshape(shape)
        total = weight.sum(axis=0).ravel()
        own = np.stack(columns).reshape(len(columns), -1)
        weighted = own * weight.ravel()
        summed = weighted.reshape(len(columns), *weight.shape).sum(axis=1)
        cross = basis @ summed.reshape(len(columns), -1).T
        information = np.block([[(basis * total) @ basis.T, cross], [cross.T, weighted @ own.T]])
        slope = np.concatenate(
            [basis @ (weight * rest).sum(axis=0).ravel(), weighted @ rest.ravel()]
        )
        return information, slope

    def _vector(self, point: Point, names: tuple[str, ...]) -> Floats:
        beta = self.flat[0] if point.background is None else point.background
        return np.concatenate([beta, point.envelope, [getattr(point, name) for name in names]])

    def _point(
        self, start: Point, vector: Floats, names: tuple[str, ...], nb: int, ne: int
    ) -> Point:
        values = {name: getattr(start, name) for name in NAMES}
        values |= dict(zip(names, vector[nb + ne :].tolist(), strict=True))
        values["defocus"] = max(values["defocus"], LEAST_DEFOCUS)
        return Point(**values, envelope=vector[nb : nb + ne], background=vector[:nb])

    @staticmethod
    def _prior_normal(
        point: Point, names: tuple[str, ...], priors: Priors, nb: int, ne: int
    ) -> tuple[Floats, Floats]:
        held = np.zeros(nb + ne + len(names))
        pull = np.zeros_like(held)
        held[nb : nb + ne] = ENVELOPE_SIGMA**-2
        pull[nb : nb + ne] = (ENVELOPE - point.envelope) * ENVELOPE_SIGMA**-2
        for i, name in enumerate(names):
            if name in priors:
                held[nb + ne + i] = priors[name].sigma ** -2
                pull[nb + ne + i] = (priors[name].mean - getattr(point, name)) * held[nb + ne + i]
        return np.diag(held), pull

    @staticmethod
    def _prior_cost(point: Point, names: tuple[str, ...], priors: Priors) -> float:
        total = 0.5 * float((((point.envelope - ENVELOPE) / ENVELOPE_SIGMA) ** 2).sum())
        for name in names:
            if name in priors:
                away = (getattr(point, name) - priors[name].mean) / priors[name].sigma
                total += 0.5 * away**2
        return total


def thickness_factor(k: Floats, a: float, thickness: float) -> tuple[Floats, Floats]:
    """Return how the specimen's thickness damps the fringes (rings,), and its derivative by it.

    Fringes of a slab seen through all depths t along the beam are sinc(πλk²t) as strong.

    References
    ----------
    .. [1] G. McMullan et al., Ultramicroscopy 158:26 (2015), equation 3.
    """
    if thickness <= 0:
        return np.ones_like(k), np.zeros_like(k)
    x = a * k**2 * thickness
    factor = np.sinc(x / np.pi)
    return factor, (np.cos(x) - factor) / thickness
