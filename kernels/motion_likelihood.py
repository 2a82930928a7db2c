"""Likelihood of the frames' places in a movie, and its maximum.

Every pair of frames counts. With spectra F_g whitened to unit power, S the specimen's part of it
and N = 1 − S, the log-likelihood of the places s_g is Σ_k w |Σ_g F_g exp(2πi k·s_g)|² with
w = S / (N (N + n S)): the maximum over a Gaussian specimen. S is measured as the cross-power of
the frames in rings, so that Thon rings, resolution and dose find their weight by themselves.
A Gaussian prior on second differences in time joins the frames of views with hardly any signal;
its width is learnt by expectation-maximisation (as in RELION's polishing, Zivanov et al. 2019,
doi:10.1107/S205225251801463X, where it is trained beforehand).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, map_coordinates

from kernels.arrays import Array, asarray_like, namespace, to_host
from kernels.fourier import (
    Shape,
    crop_spectra,
    edge_window,
    frequencies,
    irfft2,
    rfft2,
    shift_phases,
)

FINE_PIXEL = 4.0  # Å: finer detail adds about 3 % to the precision at 0.4 e/Å² a frame
WORKING_SIZE = 1024  # pixels: larger images have signal to spare
SPIKE = 10.0  # standard deviations
TAPER = 0.06  # of the shorter side
HIGH_PASS = 500.0  # Å: illumination and its gradients stay with the camera
RING_SIGNIFICANCE = 2.0  # standard deviations from which a ring's cross-power is signal
RING_SMOOTHING = 2.0  # rings
DRIFT_STEP = 2.5  # Å
MAX_STEPS = 20
LONGEST_STEP = 10.0  # Å
TOLERANCE = 0.01  # Å
ROUGHNESS_RANGE = (0.3, 30.0)  # Å
MAX_DISPLACEMENT = 500.0  # Å: weak prior that keeps the solution finite without any signal


@dataclass(frozen=True)
class Movie:
    """Whitened half spectra of the frames, and the frequencies that may count."""

    spectra: list[Array]
    shape: Shape
    pixel: tuple[float, float]  # Å, of y and x
    frequency: NDArray[np.float32]  # 1/Å
    ring: NDArray[np.intp]
    band: NDArray[np.float32]  # 0 where the frame's edges or the illumination dominate
    independent: float  # share of the coefficients that the taper leaves independent

    @classmethod
    def read(cls, frames: Iterable[Array], pixel_size: float) -> Movie:
        """Reduce and whiten `frames`."""
        spectra: list[Array] = []
        shape = new_shape = (0, 0)
        window: Array = None
        for frame in frames:
            if not spectra:
                shape = (frame.shape[0], frame.shape[1])
                factor = max(1.0, FINE_PIXEL / pixel_size, max(shape) / WORKING_SIZE)
                new_shape = _even(shape, factor)
                window = edge_window(new_shape, int(TAPER * min(new_shape)), frame)
            if tuple(frame.shape) != shape:
                raise ValueError(f"a frame is {tuple(frame.shape)}, the first one is {shape}")
            spectrum = rfft2(_without_spikes(frame))
            small = irfft2(crop_spectra(spectrum, shape, new_shape), new_shape)
            spectra.append(rfft2((small - namespace(small).mean(small)) * window))
        if not spectra:
            raise ValueError("the movie has no frames, at least one is needed")
        squared = to_host(window).astype(np.float64) ** 2
        pixel = (pixel_size * shape[0] / new_shape[0], pixel_size * shape[1] / new_shape[1])
        raw = cls._of(spectra, new_shape, pixel, squared.mean() ** 2 / (squared**2).mean())
        power = to_host(sum(abs(f) ** 2 for f in spectra)) / len(spectra)
        profile = _ring_mean(power, raw.ring)[raw.ring]
        root = np.sqrt(np.where(profile > 0, profile, np.inf)).astype(np.float32)
        whitening = asarray_like(1 / root, spectra[0])
        return replace(raw, spectra=[f * whitening for f in spectra])

    @classmethod
    def _of(
        cls, spectra: list[Array], shape: Shape, pixel: tuple[float, float], independent: float
    ) -> Movie:
        ky, kx = (to_host(k) for k in frequencies(shape, spectra[0]))
        frequency = np.hypot(ky / pixel[0], kx / pixel[1])
        ring = np.rint(np.hypot(ky, kx) * min(shape)).astype(np.intp)
        band = (1 - np.exp(-((frequency * HIGH_PASS) ** 2))) * (np.hypot(ky, kx) < 0.5)
        # Edges, and rows and columns of unequal gain, live on the axes and do not move.
        band = band * (np.abs(ky) * shape[0] > 1.5) * (kx * shape[1] > 1.5)
        return cls(spectra, shape, pixel, frequency, ring, band.astype(np.float32), independent)

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.spectra)

    def reduced(self, pixel_size: float) -> Movie:
        """Return the movie at a coarser pixel."""
        factor = max(1.0, pixel_size / max(self.pixel))
        shape = _even(self.shape, factor)
        pixel = (
            self.pixel[0] * self.shape[0] / shape[0],
            self.pixel[1] * self.shape[1] / shape[1],
        )
        scale = (self.shape[0] * self.shape[1]) / (shape[0] * shape[1])
        spectra = [crop_spectra(f, self.shape, shape) * scale for f in self.spectra]
        return self._of(spectra, shape, pixel, self.independent)

    def aligned(self, places: NDArray[np.float64]) -> list[Array]:
        """Return the spectra moved back by `places` [Å]."""
        return [
            f * shift_phases(self.shape, -dy / self.pixel[0], -dx / self.pixel[1], f)
            for f, (dy, dx) in zip(self.spectra, places, strict=True)
        ]

    def specimen_power(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean product of two frames by ring, in units of the noise."""
        aligned = self.aligned(places)
        cross = abs(sum(aligned)) ** 2 - sum(abs(f) ** 2 for f in aligned)
        power = to_host(cross) / (self.count * (self.count - 1))
        return _ring_mean(power, self.ring, self.band > 0)

    def plain_weight(self, b_factor: float) -> NDArray[np.float32]:
        """Return weights for a specimen whose power falls off by a B-factor."""
        shape = self.band * np.exp(-b_factor * self.frequency**2 / 4)
        power = self.specimen_power(np.zeros((self.count, 2)))[self.ring]
        amplitude = max(float((shape * power).sum() / (shape**2).sum()), 1e-6)
        return self._likelihood_weight(amplitude * shape)

    def ring_weight(self, places: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return weights from the specimen's power as seen in the frames aligned by `places`."""
        members = np.bincount(self.ring[self.band > 0], minlength=self.ring.max() + 1)
        counted = gaussian_filter1d(members.astype(float), RING_SMOOTHING)
        power = gaussian_filter1d(self.specimen_power(places) * members, RING_SMOOTHING)
        power = power / np.maximum(counted, 1)
        averaged = counted * 2 * np.sqrt(np.pi) * RING_SMOOTHING * self.independent
        spread = 1 / np.sqrt(self.count * (self.count - 1) * np.maximum(averaged, 1))
        clear = power > RING_SIGNIFICANCE * spread
        power = np.where(clear, power - spread**2 / np.where(clear, power, 1), 0)
        return self._likelihood_weight(power[self.ring] * self.band)

    def _likelihood_weight(self, power: NDArray[Any]) -> NDArray[np.float32]:
        noise = np.maximum(1 - power, 0.05)
        weight = power / (noise * (noise + self.count * power))
        return np.asarray(weight, dtype=np.float32)


@dataclass(frozen=True)
class Motion:
    """A maximum of the posterior: places and their standard errors in Å."""

    places: NDArray[np.float64]
    uncertainty: NDArray[np.float64]
    significance: float
    roughness: float


def climb(
    movie: Movie, weight: NDArray[np.float32], places: NDArray[np.float64], roughness: float
) -> Motion:
    """Maximise the posterior by Fisher scoring from `places` [Å]."""
    n = movie.count
    bends = np.diff(np.eye(n), 2, axis=0)
    pairs = n * np.eye(n) - 1
    for _ in range(MAX_STEPS):
        gradient, information, significance = _derivatives(movie, weight, places)
        prior = bends.T @ bends / roughness**2 + np.eye(n) / MAX_DISPLACEMENT**2
        covariance = np.linalg.inv(np.kron(pairs, information) + np.kron(prior, np.eye(2)))
        step = (covariance @ (gradient - prior @ places).ravel()).reshape(n, 2)
        places = places + step * min(1.0, LONGEST_STEP / max(float(np.abs(step).max()), 1e-9))
        places = places - places.mean(axis=0)
        per_frame = covariance.reshape(n, 2, n, 2).trace(axis1=1, axis2=3) / 2
        if n > 3:  # expectation-maximisation of the prior's width
            bent = ((bends @ places) ** 2).mean() + (bends @ per_frame @ bends.T).diagonal().mean()
            roughness = float(np.clip(np.sqrt(bent), *ROUGHNESS_RANGE))
        if np.abs(step).max() < TOLERANCE:
            break
    centred = np.eye(n) - 1 / n
    variance = (centred @ per_frame @ centred).diagonal()
    return Motion(places, np.sqrt(variance), significance, roughness)


def _derivatives(
    movie: Movie, weight: NDArray[np.float32], places: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return gradient (n, 2), Fisher information (2, 2) of one pair, and the significance."""
    n, like = movie.count, movie.spectra[0]
    xp = namespace(like)
    ky, kx = (to_host(k).astype(np.float64) for k in frequencies(movie.shape, like))
    ky, kx = 2 * np.pi * ky[:, 0] / movie.pixel[0], 2 * np.pi * kx[0] / movie.pixel[1]
    scale = asarray_like(weight * np.float32(movie.independent), like)
    aligned = movie.aligned(places)
    total = sum(aligned)
    conjugate = xp.conj(total) * scale
    gradient = np.empty((n, 2))
    for g, spectrum in enumerate(aligned):
        slope = xp.imag(spectrum * conjugate)
        gradient[g] = (
            -2 * (to_host(xp.sum(slope, axis=1)) @ ky),
            -2 * (to_host(xp.sum(slope, axis=0)) @ kx),
        )
    cross = scale * (abs(total) ** 2 - sum(abs(f) ** 2 for f in aligned)) / (n * (n - 1))
    rows, columns = to_host(xp.sum(cross, axis=1)), to_host(xp.sum(cross, axis=0))
    mixed = ky @ to_host(cross @ asarray_like(kx.astype(np.float32), like))
    information = 2 * np.array([[rows @ ky**2, mixed], [mixed, columns @ kx**2]])
    values, axes = np.linalg.eigh(information)
    information = (axes * np.maximum(values, 0)) @ axes.T
    noise = float(np.sqrt((weight.astype(np.float64) ** 2).sum() * movie.independent))
    power = float(rows.sum()) * np.sqrt(n * (n - 1))
    return gradient, information, power / noise if noise else 0.0


def steady_drift(
    movie: Movie, weight: NDArray[np.float32], max_drift: float
) -> NDArray[np.float64]:
    """Return the places [Å] of the steady drift that fits all pairs of frames best."""
    n = movie.count
    size = -(-n // 10)
    groups = [sum(movie.spectra[i : i + size]) for i in range(0, n, size)]
    steps = np.arange(-max_drift, max_drift + DRIFT_STEP / 2, DRIFT_STEP)
    y, x = np.meshgrid(steps, steps, indexing="ij")
    score = np.zeros_like(y)
    scale = asarray_like(weight, movie.spectra[0])
    for lag in range(1, len(groups)):
        pairs = zip(groups[lag:], groups[:-lag], strict=True)
        products = [later * namespace(later).conj(earlier) for later, earlier in pairs]
        correlation = to_host(irfft2(sum(products) * scale, movie.shape))
        part = lag * size / (n - 1)
        where = [part * y / movie.pixel[0], part * x / movie.pixel[1]]
        score += map_coordinates(correlation, where, order=1, mode="grid-wrap")
    best = np.unravel_index(int(score.argmax()), score.shape)
    return np.outer(np.linspace(-0.5, 0.5, n), steps[list(best)])


def _without_spikes(frame: Array) -> Array:
    """Return `frame` with hot pixels, which stay in place, and X-rays at its mean."""
    xp = namespace(frame)
    mean = xp.mean(frame)
    return xp.where(frame - mean > SPIKE * xp.std(frame), mean, frame)


def _even(shape: Shape, factor: float) -> Shape:
    """Return `shape` divided by `factor`, rounded to even numbers."""
    return 2 * round(shape[0] / factor / 2), 2 * round(shape[1] / factor / 2)


def _ring_mean(
    values: NDArray[Any], ring: NDArray[np.intp], mask: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Average over rings on the host: the array API has no bincount."""
    if mask is not None:
        values, chosen = values[mask], ring[mask]
    else:
        values, chosen = values.ravel(), ring.ravel()
    size = int(ring.max()) + 1
    total = np.bincount(chosen, weights=values, minlength=size)
    return total / np.maximum(np.bincount(chosen, minlength=size), 1)
