"""Views of dots in a plane, for the tests of coarse alignment."""

from __future__ import annotations

import numpy as np

from kernels.geometry import View, project

PIXEL = 10.0
SHAPE = (120, 128)
AXIS = 85.3
TILTS = tuple(float(t) for t in range(-60, 61, 6))


def dots(
    points: np.ndarray,
    view: View,
    rng: np.random.Generator,
    noise: float,
    shape: tuple[int, int] = SHAPE,
) -> np.ndarray:
    """Dark dots of 30 Å radius where `view` sees `points`, in white noise."""
    ny, nx = shape
    image = noise * rng.normal(size=shape)
    rows, columns = np.indices(shape)
    for x, y in project(points, view) / PIXEL + (nx // 2, ny // 2):
        if -10 < x < nx + 10 and -10 < y < ny + 10:
            near = np.s_[max(0, int(y) - 12) : int(y) + 13, max(0, int(x) - 12) : int(x) + 13]
            image[near] -= np.exp(-((rows[near] - y) ** 2 + (columns[near] - x) ** 2) / 18)
    return image.astype(np.float32)


def flat_views(views: list[View], seed: int, noise: float = 0.3) -> np.ndarray:
    """What `views` see of dots everywhere in the plane Z = 0."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-3000, 3000, (1500, 3)) * (1, 1, 0)
    return np.stack([dots(points, view, rng, noise) for view in views])


def errors(found: list[View], truth: list[View], axis: float = AXIS) -> np.ndarray:
    """Differences of shift [Å], a common translation of the specimen taken out."""
    tilts = np.radians([view.tilt for view in truth])
    c, s = np.cos(np.radians(axis)), np.sin(np.radians(axis))
    raw = np.array(
        [(f.shift_x - t.shift_x, f.shift_y - t.shift_y) for f, t in zip(found, truth, strict=True)]
    )
    aligned = raw @ np.array([[c, s], [-s, c]]).T
    along = np.stack([np.cos(tilts), np.sin(tilts)], axis=1)
    x = aligned[:, 0] - along @ np.linalg.lstsq(along, aligned[:, 0], rcond=None)[0]
    return np.hypot(x, aligned[:, 1] - aligned[:, 1].mean())
