"""Tilt series of gold beads in noise, drawn from the geometry alone: no simulator of ours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kernels.geometry import View, project

Floats = NDArray[np.float64]


def bead_points(rng: np.random.Generator, count: int, half: float, thickness: float) -> Floats:
    """Return beads (n, 3) [Å] near both surfaces, none within 200 Å of another in the plane."""
    points: list[Floats] = []
    while len(points) < count:
        x, y = rng.uniform(-half, half, 2)
        if all(np.hypot(x - p[0], y - p[1]) > 200 for p in points):
            side = 1 if len(points) % 2 else -1
            points.append(np.array([x, y, side * (thickness / 2 - rng.uniform(40, 80))]))
    return np.array(points)


def tilted_views(
    rng: np.random.Generator, tilts: Floats, axis: float = 85.3, shift: float = 60.0
) -> list[View]:
    """Return views with small errors of axis and magnification, and random shifts [Å]."""
    return [
        View(
            float(tilt + rng.normal(0, 0.05)),
            float(axis + rng.normal(0, 0.03)),
            *rng.normal(0, shift, 2).tolist(),
            magnification=float(1 + rng.normal(0, 1e-3)),
        )
        for tilt in tilts
    ]


def draw(
    rng: np.random.Generator,
    points: Floats,
    view: View,
    size: int,
    pixel_size: float,
    *,
    diameter: float = 100.0,
    electrons: float = 60.0,
    fringe: float = 0.25,
    texture: float = 0.04,
) -> NDArray[np.float32]:
    """Return an image of beads with a bright fringe, textured background and Poisson noise."""
    image = np.ones((size, size))
    ky, kx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    smooth = np.exp(-((np.hypot(ky, kx) / 0.08) ** 2))
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(size, size))) * smooth, (size, size))
    image += texture * noise / noise.std()
    place = np.arange(size) - size // 2
    radius = diameter / 2 / pixel_size
    for x, y in project(points, view) / pixel_size:
        rows, columns = np.abs(place - y) < 3 * radius, np.abs(place - x) < 3 * radius
        r = np.hypot(place[rows, None] - y, place[None, columns] - x) / radius
        path = np.sqrt(np.clip(1 - r**2, 0, None))
        ring = fringe * np.exp(-(((r - 1.25) / 0.12) ** 2))
        image[np.ix_(rows, columns)] *= np.exp(-1.4 * path) + ring
    return rng.poisson(np.clip(image, 0, None) * electrons).astype(np.float32)


def displaced(rng: np.random.Generator, views: list[View], error: float) -> list[View]:
    """Return nominal views whose shifts are wrong by so many Å rms, as coarse ones are."""
    return [
        replace(
            view,
            axis=85.3,
            magnification=1.0,
            shift_x=view.shift_x + float(rng.normal(0, error)),
            shift_y=view.shift_y + float(rng.normal(0, error)),
        )
        for view in views
    ]
