"""Fit of the CTF to the tile spectra of one view.

Defocus, astigmatism and the shape of the envelope maximise a likelihood that is a function of the
correlation of the spectra with the rings expected (kernels/ctf_rings.py), found by a brute-force
search on the rotational average and refined in two dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from kernels.ctf import Ctf
from kernels.ctf_profile import CtfProfile, equiphase_profile, fitted_resolution
from kernels.ctf_rings import LEAST_DEFOCUS, RINGS_PER_SAMPLE, SHAPES, Rings, Shape, evidence
from kernels.spectra import PolarSpectra

Floats = NDArray[np.float64]

Point = tuple[float, float, float]  # mean defocus and the components p, q of astigmatism, in Å
STARTS = 3  # peaks of the first search that are refined


@dataclass(frozen=True)
class CtfSearch:
    """Where the CTF is looked for.

    Attributes
    ----------
    min_resolution, max_resolution
        Range of the spectrum that is fitted, in Å; cut at 95 % of the Nyquist frequency.
    min_defocus, max_defocus, step
        Range and step of the first search, in Å.
    astigmatism_tolerance
        Expected size of the astigmatism in Å: a larger one must be earned by the data.
    """

    min_resolution: float = 30.0
    max_resolution: float = 5.0
    min_defocus: float = 5000.0
    max_defocus: float = 50000.0
    step: float = 500.0
    astigmatism_tolerance: float = 1000.0

    def __post_init__(self) -> None:
        if not self.min_resolution > self.max_resolution > 0:
            raise ValueError(
                f"resolutions are {self.min_resolution} to {self.max_resolution} Å, "
                "expected the larger number first"
            )
        if not LEAST_DEFOCUS <= self.min_defocus < self.max_defocus:
            raise ValueError(
                f"defocus range is {self.min_defocus} to {self.max_defocus} Å, "
                f"expected a range above {LEAST_DEFOCUS}"
            )
        for name in ("step", "astigmatism_tolerance"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)} Å, expected more than 0")


@dataclass(frozen=True)
class CtfPrior:
    """What other views tell about one view before it is fitted: Gaussian, in Å.

    `astigmatism` is (U − V)(cos 2α, sin 2α), in which angles have no jump.
    """

    defocus: float
    defocus_sigma: float
    astigmatism: tuple[float, float] = (0.0, 0.0)
    astigmatism_sigma: float = 500.0


@dataclass(frozen=True)
class CtfFit:
    """What one view's spectra say.

    Attributes
    ----------
    ctf : Ctf
    score : float
        Correlation of data and fit over the fitted range, −1 to 1.
    fit_resolution : float
        To which the fit follows the data, in Å.
    uncertainty, astigmatism_uncertainty : float
        Standard errors of the mean defocus and of a component of the astigmatism, from the
        curvature of the likelihood, in Å.
    evidence : float
        Gain in log likelihood over a spectrum without rings.
    search_defocus, search_evidence : (n,) float64
        The first search: mean defocus in Å and the evidence for it.
    profile : CtfProfile
        One-dimensional averages of data and fit.
    """

    ctf: Ctf
    score: float
    fit_resolution: float
    uncertainty: float
    astigmatism_uncertainty: float
    evidence: float
    search_defocus: Floats = field(repr=False)
    search_evidence: Floats = field(repr=False)
    profile: CtfProfile = field(repr=False)

    @property
    def astigmatism(self) -> tuple[float, float]:
        """(U − V)(cos 2α, sin 2α) in Å."""
        turn = math.radians(2 * self.ctf.astigmatism_angle)
        return self.ctf.astigmatism * math.cos(turn), self.ctf.astigmatism * math.sin(turn)


def fit_ctf(
    polar: PolarSpectra,
    offsets: ArrayLike,
    pixel_size: float,
    search: CtfSearch | None = None,
    prior: CtfPrior | None = None,
    *,
    voltage: float = 300.0,
    cs: float = 2.7,
    amplitude_contrast: float = 0.07,
    phase_shift: float = 0.0,
) -> CtfFit:
    """Estimate defocus and astigmatism of a view, tilted or not, from its tiles' spectra.

    Parameters
    ----------
    polar : PolarSpectra
        Of the view's tiles.
    offsets : (n_tiles,)
        Defocus at each tile's centre minus that of the view, in Å, from the tilt geometry.
    pixel_size
        In Å.
    search : CtfSearch, optional
    prior : CtfPrior, optional
        What other views tell; the defocus is then looked for within four sigma of it.
    voltage, cs, amplitude_contrast, phase_shift
        Known constants, in kV, mm, as a fraction and in degrees.

    Returns
    -------
    CtfFit
        Of the view: at the raw image's centre.

    Raises
    ------
    ValueError
        If offsets and tiles differ in number, the box is too small for the resolution range, a
        tile is empty or the search range is outside the prior's.

    References
    ----------
    .. [1] A. Rohou and N. Grigorieff, J. Struct. Biol. 192:216 (2015).
    .. [2] D. N. Mastronarde, J. Struct. Biol. 216:108057 (2024), for tiles scaled to one defocus.
    """
    search = search or CtfSearch()
    shifts = np.asarray(offsets, dtype=np.float64)
    if shifts.shape != polar.power.shape[:1]:
        raise ValueError(f"{shifts.shape} offsets for {len(polar.power)} tiles")
    optics = Ctf(0.0, 0.0, 0.0, voltage, cs, amplitude_contrast, phase_shift)
    rings = Rings(polar, shifts, pixel_size, (search.min_resolution, search.max_resolution), optics)
    expected = prior or CtfPrior(0.0, math.inf, (0.0, 0.0), search.astigmatism_tolerance)

    defocus, gain, shape = _search(rings, search, prior)
    starts = _highest_peaks(defocus, gain + _log_prior(defocus, expected))
    refined = [_refine(rings, start, expected, shape, search) for start in starts]
    _, (mean, p, q), shape = max(refined)

    data = rings.residual(rings.scaled(rings.power, mean))
    model = rings.residual(rings.model(mean, p, q, shape))
    score = rings.correlation(data, model)
    half = 0.5 * math.hypot(p, q)
    ctf = Ctf(
        mean + half, mean - half, math.degrees(0.5 * math.atan2(q, p)),
        voltage, cs, amplitude_contrast, phase_shift,
    )  # fmt: skip
    profile = equiphase_profile(
        data,
        rings.ring_residual(rings.ring_model(mean, shape)),
        rings.weight,
        np.sqrt(np.maximum(rings.k2 + 0.5 * (p * rings.k2_cos + q * rings.k2_sin) / mean, 0)),
        rings.ring_k,
        ctf,
    )
    uncertainty, astigmatism_uncertainty = _uncertainty(rings, data, (mean, p, q), shape, expected)
    return CtfFit(
        ctf=ctf,
        score=score,
        fit_resolution=fitted_resolution(profile),
        uncertainty=uncertainty,
        astigmatism_uncertainty=astigmatism_uncertainty,
        evidence=float(evidence(score, rings.samples)),
        search_defocus=defocus,
        search_evidence=gain,
        profile=profile,
    )


def _search(
    rings: Rings, search: CtfSearch, prior: CtfPrior | None
) -> tuple[Floats, Floats, Shape]:
    low, high, step = search.min_defocus, search.max_defocus, search.step
    if prior is not None:
        low = max(low, prior.defocus - 4 * prior.defocus_sigma)
        high = min(high, prior.defocus + 4 * prior.defocus_sigma)
    n = max(3, math.ceil((high - low) / step) + 1)
    if high <= low:
        raise ValueError(f"the expected defocus {prior and prior.defocus} Å is out of the search")
    candidates = np.linspace(low, high, n)
    scores = np.zeros((n, len(SHAPES)))
    for i, defocus in enumerate(candidates):
        data = rings.ring_residual(rings.scaled(rings.ring_power, defocus))
        models = np.stack([rings.ring_model(defocus, shape) for shape in SHAPES])
        models = rings.ring_residual(models)
        norm = (rings.ring_weight * data**2).sum() * (rings.ring_weight * models**2).sum(axis=1)
        scores[i] = (rings.ring_weight * data * models).sum(axis=1) / np.sqrt(norm)
    samples = len(rings.ring_k) / RINGS_PER_SAMPLE
    shape = SHAPES[int(scores.max(axis=0).argmax())]
    return candidates, evidence(scores.max(axis=1), samples), shape


def _log_prior(defocus: ArrayLike, prior: CtfPrior) -> Floats:
    return -0.5 * ((np.asarray(defocus) - prior.defocus) / prior.defocus_sigma) ** 2


def _highest_peaks(positions: Floats, heights: Floats) -> list[float]:
    padded = np.pad(heights, 1, constant_values=-np.inf)
    peak = np.flatnonzero((heights >= padded[:-2]) & (heights >= padded[2:]))
    top = float(heights.max())
    peak = peak[heights[peak] >= top - max(8.0, 0.5 * abs(top))]
    order = peak[np.argsort(-heights[peak], kind="stable")][:STARTS]
    return [float(positions[i]) for i in order]


def _refine(
    rings: Rings, start: float, prior: CtfPrior, shape: Shape, search: CtfSearch
) -> tuple[float, Point, Shape]:
    """Return the log posterior, (defocus, p, q) and the shape found near `start`."""

    def posterior(point: ArrayLike, data: Floats, shape: Shape) -> float:
        d, p, q = np.asarray(point, dtype=np.float64)
        if not search.min_defocus <= d <= search.max_defocus:
            return -math.inf
        model = rings.residual(rings.model(d, p, q, shape))
        gain = float(evidence(rings.correlation(data, model), rings.samples))
        away = math.hypot(p - prior.astigmatism[0], q - prior.astigmatism[1])
        return gain - 0.5 * (away / prior.astigmatism_sigma) ** 2 + float(_log_prior(d, prior))

    centre = np.asarray([start, *prior.astigmatism])
    data = rings.residual(rings.scaled(rings.power, start))
    reach = prior.astigmatism_sigma * np.asarray([-1.2, -0.6, 0.0, 0.6, 1.2])
    trials = [
        centre + np.asarray([d, p, q])
        for d in search.step * np.asarray([-0.8, -0.4, 0.0, 0.4, 0.8])
        for p in reach
        for q in reach
    ]
    point: Floats = max(trials, key=lambda trial: posterior(trial, data, shape))
    value = -math.inf
    for _ in range(2):  # the tiles' scales depend on the defocus that they give
        data = rings.residual(rings.scaled(rings.power, point[0]))
        fixed = data
        shape = max(SHAPES, key=lambda b: posterior(point, fixed, b))
        simplex = point + np.asarray([[0, 0, 0], [100, 0, 0], [0, 100, 0], [0, 0, 100]])
        found = minimize(
            lambda x, b=shape, d=fixed: -posterior(x, d, b),
            point,
            method="Nelder-Mead",
            options={"initial_simplex": simplex, "xatol": 1.0, "fatol": 1e-3, "maxfev": 300},
        )
        point, value = found.x, -float(found.fun)
    return value, (float(point[0]), float(point[1]), float(point[2])), shape


def _uncertainty(
    rings: Rings, data: Floats, point: Point, shape: Shape, prior: CtfPrior
) -> tuple[float, float]:
    d, p, q = point
    model = rings.residual(rings.model(*point, shape))
    weight = rings.weight
    amplitude = (weight * data * model).sum() / (weight * model**2).sum()
    columns = [model]
    for x, y, z in 10.0 * np.eye(3):  # Å
        up = rings.model(d + x, p + y, q + z, shape)
        down = rings.model(d - x, p - y, q - z, shape)
        columns.append(amplitude * rings.residual(up - down) / 20.0)
    design = np.stack([column.ravel() for column in columns], axis=1)
    w = weight.ravel()[:, None]
    noise = (weight * (data - amplitude * model) ** 2).sum() / max(np.count_nonzero(weight), 1)
    information = design.T @ (w * design) / (noise * RINGS_PER_SAMPLE)
    widths = [math.inf, prior.defocus_sigma, prior.astigmatism_sigma, prior.astigmatism_sigma]
    information += np.diag(np.asarray(widths) ** -2.0)
    variance = np.diag(np.linalg.pinv(information))
    return math.sqrt(variance[1]), math.sqrt(0.5 * (variance[2] + variance[3]))
