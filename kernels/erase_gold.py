"""Gold beads taken out of a view: their discs are filled with what is around them.

Each disc gets the plane that fits the ring around it, and on it the deviations of the ring's own
pixels from that plane, dealt out at random: level, slope and noise are those of the surroundings.
Other beads take no part in a ring.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

RING = 1.7  # outer radius of a ring, in radii of the disc
LEAST_PIXELS = 12  # of a ring that tells anything


def erase_discs(
    image: NDArray[np.float32], centres: ArrayLike, radius: float, seed: int = 0
) -> NDArray[np.float32]:
    """Return a copy of an image with discs filled from their surroundings.

    Parameters
    ----------
    image : (ny, nx) float32
        On the host.
    centres : (n, 2)
        x, y as 0-based pixel indices; discs may reach beyond the image, or lie outside of it.
    radius : float
        Of the discs [pixels].
    seed : int
        The same seed gives the same pixels.

    Returns
    -------
    (ny, nx) float32

    Raises
    ------
    ValueError
        If the radius is not positive.
    """
    if not radius > 0:
        raise ValueError(f"radius of the discs is {radius} pixels, expected more than 0")
    ny, nx = image.shape
    out, rng = image.copy(), np.random.default_rng(seed)
    places = np.asarray(centres, dtype=np.float64).reshape(-1, 2)
    places = places[np.isfinite(places).all(axis=1)]
    outer = RING * radius
    boxes = []
    gold = np.zeros(image.shape, dtype=bool)
    for x, y in places:
        rows = slice(max(0, int(y - outer)), max(0, min(ny, int(np.ceil(y + outer)) + 1)))
        columns = slice(max(0, int(x - outer)), max(0, min(nx, int(np.ceil(x + outer)) + 1)))
        dy = np.arange(rows.start, rows.stop)[:, None] - y
        dx = np.arange(columns.start, columns.stop)[None, :] - x
        squared = dy**2 + dx**2
        if squared.size:
            gold[rows, columns] |= squared <= radius**2
            boxes.append((rows, columns, dy, dx, squared))
    for rows, columns, dy, dx, squared in boxes:
        disc = squared <= radius**2
        ring = (squared <= outer**2) & ~gold[rows, columns]
        values = image[rows, columns]
        if ring.sum() < LEAST_PIXELS:  # beads all around: the image's own level
            level, deviations = np.full(disc.sum(), np.median(image[~gold])), np.zeros(1)
        else:
            terms = np.stack(np.broadcast_arrays(np.ones_like(squared), dy, dx), axis=-1)
            plane = np.linalg.lstsq(terms[ring], values[ring].astype(np.float64), rcond=None)[0]
            level, deviations = terms[disc] @ plane, values[ring] - terms[ring] @ plane
        filled = level + rng.choice(deviations, disc.sum())
        out[rows, columns][disc] = filled.astype(np.float32)
    return out
