"""Astigmatism from the wedges of several views of a tilt series together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.ctf import Ctf, coefficients
from kernels.ctf_strip_curves import contrast, log_power, strength
from kernels.ctf_strip_power import in_range
from kernels.ctf_strip_search import Group
from kernels.ctf_strips import WedgeSpectra

Floats = NDArray[np.float64]

GRID = 600.0  # Å: of the first search; a ring at 5 Å moves by a tenth of a fringe
LARGEST = 6  # steps of it
DIFFERENCE = 20.0  # Å: of numerical derivatives
WANTED = 50.0  # Å: error of a component for which more views are taken
ITERATIONS = 4


@dataclass(frozen=True)
class Astigmatism:
    """(U − V)(cos 2α, sin 2α) and the standard error of either, in Å."""

    p: float
    q: float
    error: float


def find_astigmatism(
    series: Sequence[WedgeSpectra],
    ctfs: Sequence[Ctf],
    shapes: Floats,
    excess: Floats,
    groups: Sequence[Group],
    pixel: float,
    resolutions: tuple[float, float],
    tolerance: float,
) -> list[Astigmatism]:
    """Estimate the astigmatism that explains the wedges of each group of views best.

    Parameters
    ----------
    series : sequence of WedgeSpectra
    ctfs : sequence of Ctf
        Of the views: defocus and phase shift are kept.
    shapes : (views, 2) float64
        B and s of their envelopes.
    excess : (views,) float64
        Factor by which their noise exceeds that of the samples.
    groups : sequence of Group
        One for each view. More views than the least number are taken where rings are weak.
    pixel
        In Å.
    resolutions
        Fitted range, in Å.
    tolerance
        Expected size of the astigmatism, in Å: a larger one must be earned by the data.
    """
    views = [
        _View(*given, pixel, resolutions)
        for given in zip(series, ctfs, shapes, excess, strict=True)
    ]
    axis = GRID * np.arange(-LARGEST, LARGEST + 1)
    trials = [(p, q) for p in axis for q in axis if math.hypot(p, q) <= GRID * (LARGEST + 0.5)]
    gains = np.asarray([[view.gain(*trial) for trial in trials] for view in views])
    prior = np.asarray([-0.5 * (p * p + q * q) / tolerance**2 for p, q in trials])
    at = [
        np.asarray(trials[int((gains[group.members].sum(axis=0) + prior).argmax())])
        for group in groups
    ]
    rule = np.eye(2) / tolerance**2
    for _ in range(ITERATIONS):
        parts = [view.parabola(*point) for view, point in zip(views, at, strict=True)]
        information = np.asarray([part[0] for part in parts])
        pull = np.asarray([part[0] @ x + part[1] for part, x in zip(parts, at, strict=True)])
        taken = [_taken(group, information) for group in groups]
        total = [information[group].sum(axis=0) + rule for group in taken]
        at = [
            np.linalg.solve(matrix, pull[group].sum(axis=0))
            for matrix, group in zip(total, taken, strict=True)
        ]
    errors = [_error(matrix) for matrix in total]
    return [
        Astigmatism(float(p), float(q), error) for (p, q), error in zip(at, errors, strict=True)
    ]


def _taken(group: Group, information: Floats) -> NDArray[np.intp]:
    """As many of the nearest views as bring the error down to what is wanted."""
    running = np.cumsum(information[group.views], axis=0)
    for n in range(group.least, len(group.views)):
        if _error(running[n - 1] + np.eye(2) * 1e-12) <= WANTED:
            return group.views[:n]
    return group.views


def _error(information: Floats) -> float:
    return math.sqrt(0.5 * float(np.trace(np.linalg.inv(information))))


class _View:
    """One view's wedges and what they gain from an astigmatism."""

    def __init__(
        self,
        wedges: WedgeSpectra,
        ctf: Ctf,
        shape: Floats,
        excess: float,
        pixel: float,
        resolutions: tuple[float, float],
    ) -> None:
        within = (slice(None), in_range(wedges, pixel, resolutions))
        self.weight = wedges.count[within]
        self.scale = wedges.samples / excess
        self.defocus, self.coefficients = ctf.defocus, coefficients(ctf)
        self.k2, self.k2_cos, self.k2_sin = (
            values[within] / pixel**2 for values in (wedges.k2, wedges.k2_cos, wedges.k2_sin)
        )
        self.k = np.sqrt(self.k2)
        self.strength = strength(self.k, shape)
        a, b, _ = self.coefficients
        slope = 4 * self.k * (a * self.defocus + 2 * b * self.k2)
        self.visible = contrast(slope, wedges.window * pixel)
        self.smooth = self._smooth()
        power = np.where(self.weight > 0, wedges.power[within], 1.0)
        # The logarithm of a mean of few samples is low on average, by half their number's inverse.
        few = 0.5 / np.maximum(self.weight * wedges.samples, 1)
        self.data = self._residual(np.log(power) + few)

    def _smooth(self) -> Floats:
        """Smooth functions of the frequency, and of 2α times the frequency: drift is one-sided."""
        k2 = np.maximum(self.k2, 1e-12)
        turn = [np.ones_like(k2), self.k2_cos / k2, self.k2_sin / k2]
        x = self.k / self.k.max()
        functions = [x**i * t for t, n in zip(turn, (5, 3, 3), strict=True) for i in range(n)]
        columns = np.stack([(np.sqrt(self.weight) * f).ravel() for f in functions], axis=1)
        return np.asarray(np.linalg.qr(columns)[0])

    def _residual(self, values: Floats) -> Floats:
        """Weighted values (n,) without their smooth part."""
        flat = (np.sqrt(self.weight) * values).ravel()
        return np.asarray(flat - self.smooth @ (self.smooth.T @ flat))

    def _model(self, p: float, q: float) -> Floats:
        a, b, c = self.coefficients
        along = a * (self.defocus * self.k2 + 0.5 * (p * self.k2_cos + q * self.k2_sin))
        phase = along + b * self.k2**2 + c
        return self._residual(log_power(phase, self.visible, self.strength))

    def gain(self, p: float, q: float) -> float:
        """Return the gain in log likelihood over no rings."""
        model = self._model(p, q)
        dot = max(float(self.data @ model), 0.0)
        return 0.5 * self.scale * dot**2 / float(model @ model)

    def parabola(self, p: float, q: float) -> tuple[Floats, Floats]:
        """Return the curvature (2, 2), positive, and the slope (2,) of the gain."""
        model = self._model(p, q)
        norm = float(model @ model)
        amplitude = max(float(self.data @ model) / norm, 0.0)
        steps = [
            (self._model(p + x, q + y) - self._model(p - x, q - y)) / (2 * DIFFERENCE)
            for x, y in ((DIFFERENCE, 0.0), (0.0, DIFFERENCE))
        ]
        design = amplitude * np.stack(steps, axis=1)
        design -= np.outer(model, model @ design) / norm
        left = self.data - amplitude * model
        return self.scale * (design.T @ design), self.scale * (design.T @ left)
