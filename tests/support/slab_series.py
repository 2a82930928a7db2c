"""Views of a slab of small balls, drawn from the geometry alone: no simulator of ours."""

from __future__ import annotations

from dataclasses import dataclass
from math import radians, sqrt, tan

import numpy as np
from numpy.typing import NDArray

from kernels.geometry import View, project

Floats = NDArray[np.float64]
PATH = 3000.0  # Å: mean free path of what the slab takes away


@dataclass(frozen=True)
class Slab:
    """Thickness and height of the middle [Å], pitch and rise [degrees], radius of the balls [Å]."""

    thickness: float = 1200.0
    centre: float = 0.0
    pitch: float = 0.0
    rise: float = 0.0
    radius: float = 50.0

    def points(self, rng: np.random.Generator, count: int, half: tuple[float, float]) -> Floats:
        """Return centres (count, 3) of balls inside the slab, over ± `half` of the field [Å]."""
        x, y, depth = rng.uniform(-1, 1, (3, count))
        x, y = x * half[0], y * half[1]
        slopes = tan(radians(self.pitch)), tan(radians(self.rise))
        reach = (self.thickness / 2 - self.radius) * sqrt(1 + slopes[0] ** 2 + slopes[1] ** 2)
        return np.column_stack([x, y, self.centre - x * slopes[0] + y * slopes[1] + depth * reach])


def draw_views(
    rng: np.random.Generator,
    slab: Slab,
    views: list[View],
    size: int,
    pixel: float,
    *,
    count: int = 4000,
    electrons: float = 400.0,
    contrast: float = 0.3,
    beads: Floats | None = None,
) -> NDArray[np.float32]:
    """Return counts (n_views, size, size) of balls under a CTF of 3 µm, darker as the tilt grows.

    Parameters
    ----------
    electrons : float
        Per pixel, without the slab.
    contrast : float
        Of one ball, over its cross-section.
    beads : (n, 3), optional
        Centres of gold, black discs of 50 Å radius [Å].
    """
    half = size * pixel / 2
    points = slab.points(rng, count, (2.6 * half, 1.1 * half))
    wide = 2 * size  # what is beyond the field wraps around outside of it
    k = np.hypot(np.fft.fftfreq(wide, pixel)[:, None], np.fft.rfftfreq(wide, pixel))
    q = 2 * np.pi * np.maximum(k, 1e-9) * slab.radius
    ball = 3 * (np.sin(q) - q * np.cos(q)) / q**3 * -np.sin(np.pi * 0.0197 * 30000 * k**2 + 0.08)
    strength = contrast * np.pi * (slab.radius / pixel) ** 2
    place = (np.arange(size) - size // 2) * pixel
    images = []
    for view in views:
        xy = project(points, view) / pixel + wide // 2
        inside = np.all((xy > 0) & (xy < wide - 1), axis=1)
        density = np.zeros((wide, wide))
        low = np.floor(xy[inside]).astype(int)
        part = xy[inside] - low
        for i in (0, 1):
            for j in (0, 1):
                weight = np.abs(1 - i - part[:, 0]) * np.abs(1 - j - part[:, 1])
                np.add.at(density, (low[:, 1] + j, low[:, 0] + i), weight)
        seen = np.fft.irfft2(np.fft.rfft2(density) * ball * strength, (wide, wide))
        edge = (wide - size) // 2
        image = 1 + seen[edge : edge + size, edge : edge + size]
        for x, y in project(beads, view) if beads is not None else ():
            image[np.hypot(place[:, None] - y, place - x) < 50] *= 0.2
        path = slab.thickness / np.cos(np.radians(view.tilt + slab.pitch))
        dose = electrons * np.exp(-path / PATH)
        images.append(rng.poisson(np.clip(image, 0, None) * dose))
    return np.array(images, dtype=np.float32)
