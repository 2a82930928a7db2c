"""What a movie keeps for the estimation of its motion: small whitened spectra of its frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from math import pi
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

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

FINE_PIXEL = 5.0  # Å: finer detail adds nothing that could be measured at 0.4 e/Å² a frame
WORKING_SIZE = 1024  # pixels: larger images have signal to spare
BOX_MARGIN = 1.45  # by how much averaged blocks of pixels stay finer than the working pixel
SPIKE = 10.0  # standard deviations
TAPER = 0.03  # of the shorter side
HIGH_PASS = 500.0  # Å: illumination and its gradients stay with the camera
DRIFT_STEP = 2.5  # Å
MOST_GROUPS = 10  # of frames among which a drift is looked for
SETTLING = 0.35  # of the movie: the time in which a burst of motion falls to 1/e


@dataclass(frozen=True)
class Samples:
    """Fourier coefficients of every frame in one or more patches, of unit power.

    Attributes
    ----------
    spectra : list of (patches, m) complex64
        One for each frame.
    waves : (2, m) float32
        Their wave vectors (y, x) [rad/Å].
    ring : (m,) int
        Ring of each coefficient.
    scale : (patches,)
        Share of a patch's coefficients that are independent.
    """

    spectra: list[Array]
    waves: NDArray[np.float32]
    ring: NDArray[np.intp]
    scale: NDArray[np.float64]

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.spectra)

    @property
    def frequency(self) -> NDArray[np.float64]:
        """Spatial frequency of the coefficients [1/Å]."""
        ky, kx = self.waves.astype(np.float64)
        return np.asarray(np.hypot(ky, kx) / (2 * pi))

    def kept(self, chosen: NDArray[np.bool_]) -> Samples:
        """Return the coefficients marked in `chosen` (m,)."""
        if chosen.all():
            return self
        index = np.nonzero(chosen)[0]
        place = asarray_like(index, self.spectra[0])
        spectra = [namespace(f).take(f, place, axis=1) for f in self.spectra]
        return Samples(spectra, self.waves[:, index], self.ring[index], self.scale)


@dataclass(frozen=True)
class Movie:
    """Whitened half spectra of the frames, and the frequencies that may count.

    Attributes
    ----------
    spectra : list of (ny, nx // 2 + 1) complex64
    shape : (ny, nx)
        Of the reduced frames.
    pixel : (float, float)
        Of the reduced frames, along y and x [Å].
    origin, step : (float, float)
        Place of reduced pixel 0 and distance of neighbours, in units of the frame.
    band : (ny, nx // 2 + 1) float32
        0 where the frame's edges or the illumination dominate.
    independent : float
        Share of the coefficients that the taper leaves independent.
    """

    spectra: list[Array]
    shape: Shape
    pixel: tuple[float, float]
    origin: tuple[float, float]
    step: tuple[float, float]
    band: NDArray[np.float32]
    independent: float

    @classmethod
    def read(cls, frames: Iterable[Array], pixel_size: float, group: int = 1) -> Movie:
        """Sum `group` frames at a time, reduce and whiten them; each is read once."""
        spectra: list[Array] = []
        grid: _Grid | None = None
        for frame in _summed(frames, group):
            grid = grid or _Grid.of((frame.shape[0], frame.shape[1]), pixel_size)
            small = _without_spikes(_averaged(frame, grid))
            small = irfft2(crop_spectra(rfft2(small), grid.boxed, grid.shape), grid.shape)
            window = edge_window(grid.shape, int(TAPER * min(grid.shape)), small)
            spectra.append(rfft2((small - namespace(small).mean(small)) * window))
        if grid is None:
            raise ValueError("the movie has no frames, at least one is needed")
        squared = to_host(window).astype(np.float64) ** 2
        independent = squared.mean() ** 2 / (squared**2).mean()
        raw = cls._of(spectra, grid.shape, grid.pixel, grid.origin, grid.step, independent)
        power = to_host(sum(abs(f) ** 2 for f in spectra)) / len(spectra)
        ring = raw.rings(min(raw.shape))
        profile = ring_mean(power.ravel(), ring.ravel())[ring]
        root = np.sqrt(np.where(profile > 0, profile, np.inf)).astype(np.float32)
        whitening = asarray_like(1 / root, spectra[0])
        return replace(raw, spectra=[f * whitening for f in spectra])

    @classmethod
    def _of(cls, spectra: list[Array], shape: Shape, pixel: Any, *rest: Any) -> Movie:
        ky, kx = (to_host(k) for k in frequencies(shape, spectra[0]))
        frequency = np.hypot(ky / pixel[0], kx / pixel[1])
        band = (1 - np.exp(-((frequency * HIGH_PASS) ** 2))) * (np.hypot(ky, kx) < 0.5)
        # Edges, and rows and columns of unequal gain, live on the axes and do not move.
        band = band * (np.abs(ky) * shape[0] > 1.5) * (kx * shape[1] > 1.5)
        origin, step, independent = rest
        return cls(spectra, shape, pixel, origin, step, band.astype(np.float32), independent)

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.spectra)

    def rings(self, size: int) -> NDArray[np.intp]:
        """Return the ring, 1 / (size · pixel) wide, of every coefficient."""
        ky, kx = (to_host(k) for k in frequencies(self.shape, self.spectra[0]))
        return np.asarray(np.rint(np.hypot(ky, kx) * size), dtype=np.intp)

    def grouped(self, group: int) -> Movie:
        """Return the movie with each `group` of frames summed."""
        if group == 1:
            return self
        starts = range(0, self.count, group)
        root = np.float32(1 / np.sqrt(group))
        return replace(self, spectra=[sum(self.spectra[i : i + group]) * root for i in starts])

    def part(self, first: int, end: int) -> Movie:
        """Return the frames from `first` to before `end`."""
        return replace(self, spectra=self.spectra[first:end])

    def reduced(self, pixel_size: float) -> Movie:
        """Return the movie at a coarser pixel."""
        factor = max(1.0, pixel_size / max(self.pixel))
        shape = _even(self.shape, factor)
        ratio = [a / b for a, b in zip(self.shape, shape, strict=True)]
        scale = ratio[0] * ratio[1]
        spectra = [crop_spectra(f, self.shape, shape) * scale for f in self.spectra]
        pixel = (self.pixel[0] * ratio[0], self.pixel[1] * ratio[1])
        return self._of(spectra, shape, pixel, self.origin, self.step, self.independent)

    def aligned(self, places: NDArray[np.float64]) -> list[Array]:
        """Return the spectra moved back by `places` [Å]."""
        return [
            f * shift_phases(self.shape, -dy / self.pixel[0], -dx / self.pixel[1], f)
            for f, (dy, dx) in zip(self.spectra, places, strict=True)
        ]

    def samples(self) -> Samples:
        """Return the coefficients within the band, all frames as one patch."""
        chosen = self.band.ravel() > 0
        place = asarray_like(np.nonzero(chosen)[0], self.spectra[0])
        ky, kx = (to_host(k) for k in frequencies(self.shape, self.spectra[0]))
        waves = [
            np.broadcast_to(2 * pi * k / pixel, self.band.shape).ravel()[chosen]
            for k, pixel in zip((ky, kx), self.pixel, strict=True)
        ]
        xp = namespace(self.spectra[0])
        return Samples(
            [xp.take(xp.reshape(f, (-1,)), place)[None, :] for f in self.spectra],
            np.stack(waves).astype(np.float32),
            self.rings(min(self.shape)).ravel()[chosen],
            np.array([self.independent]),
        )

    def drifts(self, weight: NDArray[np.float32], max_drift: float) -> list[NDArray[np.float64]]:
        """Return the places [Å] of drifts that fit all pairs of frames best, one for each course.

        The courses are a steady one and one that settles. `weight` counts the coefficients of
        `samples`; drifts up to `max_drift` [Å] are tried.
        """
        n = self.count
        size = -(-n // MOST_GROUPS)
        groups = [sum(self.spectra[i : i + size]) for i in range(0, n, size)]
        steps = np.arange(-max_drift, max_drift + DRIFT_STEP / 2, DRIFT_STEP)
        y, x = np.meshgrid(steps, steps, indexing="ij")
        time = np.linspace(0, 1, n)
        courses = [time, -np.expm1(-time / SETTLING) / -np.expm1(-1 / SETTLING)]
        scores = [np.zeros_like(y) for _ in courses]
        grid = np.zeros(self.band.shape, np.float32)
        grid[self.band > 0] = weight
        scale = asarray_like(grid, self.spectra[0])
        for i, j in combinations(range(len(groups)), 2):
            product = groups[j] * namespace(groups[i]).conj(groups[i]) * scale
            correlation = to_host(irfft2(product, self.shape))
            for course, score in zip(courses, scores, strict=True):
                later, earlier = (course[k * size : (k + 1) * size].mean() for k in (j, i))
                part = later - earlier
                where = [part * y / self.pixel[0], part * x / self.pixel[1]]
                score += map_coordinates(correlation, where, order=1, mode="grid-wrap")
        found = []
        for course, score in zip(courses, scores, strict=True):
            best = np.unravel_index(int(score.argmax()), score.shape)
            found.append(np.outer(course - course.mean(), steps[list(best)]))
        return found


@dataclass(frozen=True)
class _Grid:
    """How frames become small: blocks of pixels averaged, then a Fourier crop."""

    frame: Shape
    block: int
    boxed: Shape
    shape: Shape
    pixel: tuple[float, float]
    origin: tuple[float, float]
    step: tuple[float, float]

    @classmethod
    def of(cls, frame: Shape, pixel_size: float) -> _Grid:
        factor = max(1.0, FINE_PIXEL / pixel_size, max(frame) / WORKING_SIZE)
        block = max(1, int(factor / BOX_MARGIN))
        boxed = (frame[0] // block, frame[1] // block)
        shape = _even(boxed, max(1.0, factor / block))
        origin, step, pixel = [], [], []
        for n, b, m in zip(frame, boxed, shape, strict=True):
            # The Fourier crop keeps the centre pixel b // 2 of the blocks at m // 2.
            pitch = block * b / m
            centre = (n - b * block) // 2 + block * (b // 2) + (block - 1) / 2
            origin.append((centre - pitch * (m // 2) - n // 2) / n)
            step.append(pitch / n)
            pixel.append(pixel_size * pitch)
        ends = [(pair[0], pair[1]) for pair in (pixel, origin, step)]
        return cls(frame, block, boxed, shape, ends[0], ends[1], ends[2])


def _summed(frames: Iterable[Array], group: int) -> Iterator[Array]:
    """Yield the mean of each `group` of frames; the last may be of fewer."""
    total: Array = None
    shape: tuple[int, ...] = ()
    held = 0
    for frame in frames:
        shape = shape or tuple(frame.shape)
        if tuple(frame.shape) != shape:
            raise ValueError(f"a frame is {tuple(frame.shape)}, the first one is {shape}")
        total = frame if held == 0 else total + frame
        held += 1
        if held == group:
            yield total
            held = 0
    if held:
        yield total


def _averaged(frame: Array, grid: _Grid) -> Array:
    """Return the means of blocks of pixels, the rest trimmed evenly at the edges."""
    b = grid.block
    if b == 1:
        return frame
    y, x = ((n - m * b) // 2 for n, m in zip(grid.frame, grid.boxed, strict=True))
    frame = frame[y : y + grid.boxed[0] * b, x : x + grid.boxed[1] * b]
    rows = sum(frame[i::b, :] for i in range(b))
    return sum(rows[:, i::b] for i in range(b)) / b**2


def _without_spikes(frame: Array) -> Array:
    """Return `frame` with hot pixels, which stay in place, and X-rays at its mean."""
    xp = namespace(frame)
    mean = xp.mean(frame)
    return xp.where(frame - mean > SPIKE * xp.std(frame), mean, frame)


def _even(shape: Shape, factor: float) -> Shape:
    """Return `shape` divided by `factor`, rounded to even numbers."""
    return 2 * round(shape[0] / factor / 2), 2 * round(shape[1] / factor / 2)


def ring_mean(values: NDArray[Any], ring: NDArray[np.intp]) -> NDArray[np.float64]:
    """Average over rings on the host: the array API has no bincount."""
    size = int(ring.max()) + 1
    total = np.bincount(ring.ravel(), weights=values.ravel(), minlength=size)
    return total / np.maximum(np.bincount(ring.ravel(), minlength=size), 1)
