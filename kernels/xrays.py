"""X-ray hits of a view: small bright spots that no specimen makes.

A hit is a cluster of pixels that is as far above its surroundings as noise hardly ever is, of
small extent, with an abrupt border (the criteria of IMOD's ccderaser). How far noise gets is
told by the image: of few electrons it gets further. Gold beads are dark and large, bright halos
wide and soft: neither is touched. What the other views say is in `kernels.xray_votes`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kernels.arrays import Array, to_host
from kernels.xray_clusters import HIT, WEAK, confirm, judge, link
from kernels.xray_fill import fill
from kernels.xray_scan import (
    Flags,
    Floats,
    Grid,
    Image,
    Integers,
    around,
    limits,
    limits_at,
    measure,
    normal_chance,
    scan,
    tile_grid,
)
from kernels.xray_spots import Spots, clustered, highest, joined

GROW = 4.0  # standard deviations of normal noise, or what is as rare, to which hits grow
UNCERTAIN = 2.0  # standard deviations by which noise beneath a hit may lower it
FALSE_HITS = 0.005  # of noise alone, expected in a view
PAIRED = 30.0  # times that chance, for the peak of two pixels that both stand out
MOST_WEAK = 2000  # spots told to the other views, the highest
DARK_RADIUS = 2.2  # pixels, of the largest dead spot: the smallest beads are larger
MAX_PASSES = 10


@dataclass(frozen=True)
class Found:
    """What a search has found in a view.

    Attributes
    ----------
    spots : Spots
        Hits in the order in which they were found, then weak ones by position.
    clean : (ny, nx) float32
        The view with all hits filled.
    before, after : (float, float)
        Minimum and maximum of the view, and of it with all hits filled.
    """

    spots: Spots
    clean: Image
    before: tuple[float, float]
    after: tuple[float, float]


def find_spots(
    image: Array,
    *,
    peak: float = 8.0,
    difference: float = 5.0,
    max_radius: float = 4.2,
    big_difference: float = 19.0,
    patch: int = 100,
    out: Image | None = None,
) -> Found:
    """Find what stands out in a view.

    The search is repeated in the view with its hits filled until it finds nothing more, so
    searching the result again finds nothing. It runs on the host whatever the namespace: beside
    one pass through the image it looks at few pixels.

    Parameters
    ----------
    image : (ny, nx) float32
        Matter dark.
    peak : float
        Hits that rise so many standard deviations over their surroundings are found, unless noise
        alone comes as far in one of 200 views. Noise beneath a hit may lower it by two.
    difference : float
        Height over the brighter half of the surroundings, at least [standard deviations].
    max_radius : float
        Largest distance of a hit's pixels from its centre [pixels]; twice as much where they are
        as few as in half of such a circle.
    big_difference : float
        Hits whose brightest quarter is on average this high over the surroundings may also be
        twice as wide [standard deviations].
    patch : int
        Size of the areas for mean and deviation [pixels].
    out : (ny, nx) float32, optional
        Where the view with its hits filled is written; it may be the image itself, which saves
        more than half of the traffic.

    Returns
    -------
    Found
        In host memory.

    Raises
    ------
    ValueError
        If `peak` is so low that hits would be what noise is, or `patch` is below 10.
    """
    if not peak - UNCERTAIN > GROW:
        raise ValueError(
            f"peak criterion is {peak}, it must be above {GROW + UNCERTAIN} standard deviations"
        )
    if patch < 10:
        raise ValueError(f"patch is {patch} pixels, at least 10 are needed for its statistics")
    source = np.ascontiguousarray(to_host(image), dtype=np.float32)
    clean = np.empty_like(source) if out is None else out
    search = _Search(tile_grid(source.shape, patch), FALSE_HITS / source.size)
    criteria = (peak - UNCERTAIN, difference, max_radius, big_difference, DARK_RADIUS)
    rounds: list[Spots] = []
    before = 0.0, 0.0
    for number in range(MAX_PASSES):
        spots = search.look(source if number == 0 else clean, clean, criteria)
        before = before if number else search.extremes()
        spots = replace(spots, round=np.full(len(spots), number))
        hits = spots.chosen(spots.hit)
        if len(hits):
            rounds.append(hits)
            _fill_round(clean, hits, hits)
            search.note_change(hits.pixels)
        if not len(hits) or number == MAX_PASSES - 1:
            rounds.append(highest(spots.chosen(~spots.hit), MOST_WEAK))
            break
    return Found(joined(rounds), clean, before, search.extremes())


def fill_spots(image: Array, found: Spots, keep: Flags, defects: Integers) -> Image:
    """Return a view with the hits found in it filled, and then the defects.

    Parameters
    ----------
    image : (ny, nx) float32
    found : Spots
        Of this view.
    keep : (spots,) bool
        Hits that stay.
    defects : (n,) int64
        Flat indices of bad pixels, sorted.
    """
    clean = np.array(to_host(image), dtype=np.float32)
    for number in np.unique(found.round[found.hit]):
        hits = found.hit & (found.round == number)
        _fill_round(clean, found.chosen(hits), found.chosen(hits & ~keep))
    fill_pixels(clean, defects)
    return clean


def fill_pixels(image: Image, defects: Integers) -> None:
    """Fill pixels, given by sorted flat indices, in place."""
    if len(defects):
        bad = clustered(defects, image.shape[1])
        _fill_round(image, bad, bad)


def _fill_round(image: Image, hits: Spots, wanted: Spots) -> None:
    avoid = np.zeros(image.shape, dtype=np.bool_)
    avoid.reshape(-1)[hits.pixels] = True
    for spot in range(len(wanted)):
        fill(image, wanted.of(spot), avoid)


class _Search:
    """A search that, repeated, looks again only where the image has changed."""

    def __init__(self, grid: Grid, chance: float) -> None:
        self.grid = grid
        self.means, self.spreads, self.events = np.zeros((3, *grid.shape))
        self.changed = np.ones(grid.shape, dtype=np.bool_)
        self.lowest, self.highest = np.zeros((2, *grid.shape), dtype=np.float32)
        self.event = -1.0
        self.found, self.sign = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int8)
        grow = normal_chance(GROW)
        self.grow = limits(grow), limits(grow, low=True)
        self.tables = (limits(chance), *self.grow, limits(PAIRED * chance))

    def note_change(self, pixels: Integers) -> None:
        """Take down that pixels, given by flat indices, are no longer what they were."""
        self.changed[self._tiles(pixels)] = True

    def extremes(self) -> tuple[float, float]:
        """Return minimum and maximum of the image as it was looked at last."""
        return float(self.lowest.min()), float(self.highest.max())

    def look(self, image: Image, out: Image, criteria: tuple[float, ...]) -> Spots:
        """Return the spots of an image, and copy it to `out` unless that is the same."""
        grid = self.grid
        measure(image, *grid.edges, self.changed, self.means, self.spreads, self.events)
        # Of the structure in a tile the third moment tells, too: the median tile has little.
        event = float(f"{max(0.0, float(np.median(self.events))):.2g}")
        todo = around(self.changed, np.maximum)
        if event != self.event:
            todo[:] = True
        self.event, self.changed = event, np.zeros_like(self.changed)
        high, low = self._levels()
        tight = around(high, np.minimum), around(low, np.maximum)
        extremes = self.lowest, self.highest
        found = scan(image, out, image is not out, *grid.edges, todo, *tight, *extremes)
        found, sign = confirm(image, found, high, low, grid.before, grid.share)
        stays = ~todo[self._tiles(self.found)]
        found = np.concatenate([self.found[stays], found])
        order = np.argsort(found)
        self.found = found[order]
        self.sign = np.concatenate([self.sign[stays], sign])[order]
        return self._judged(image, criteria)

    def _tiles(self, pixels: Integers) -> tuple[Integers, ...]:
        """Return the rows and columns of the tiles in which flat indices lie."""
        y, x = np.divmod(pixels, self.grid.edges[1][-1])
        return tuple(
            np.searchsorted(edges, place, side="right") - 1
            for edges, place in zip(self.grid.edges, (y, x), strict=True)
        )

    def _levels(self) -> tuple[Floats, Floats]:
        """Return for each tile the values to which hits grow, up and down."""
        spreads = np.where(self.spreads > 0, self.spreads, np.inf)
        with np.errstate(divide="ignore"):
            events = (
                (spreads / self.event) ** 2 if self.event > 0 else np.full_like(spreads, np.inf)
            )
        up, down = (limits_at(table, events) for table in self.grow)
        flat = ~np.isfinite(spreads)
        # Finite, for the interpolation: far beyond any pixel where nothing may be found.
        far = float(np.finfo(np.float32).max) / 1e6
        high = np.where(flat, far, self.means + up * np.where(flat, 0, spreads))
        low = np.where(flat | ~np.isfinite(down), -far, self.means - down * spreads)
        return high, low

    def _judged(self, image: Image, criteria: tuple[float, ...]) -> Spots:
        cluster = link(self.found, self.sign, image.shape[1])
        order = np.argsort(cluster, kind="stable")
        pixels = self.found[order]
        _, start = np.unique(cluster[order], return_index=True)
        stop = np.append(start[1:], len(pixels)) if len(start) else start
        sign = self.sign[order][start]
        kind, height, peak = judge(
            image,
            pixels,
            *(start, stop, sign, self.means, self.spreads, self.event),
            *(self.grid.before, self.grid.share, self.tables, criteria),
        )
        spots = Spots(
            pixels,
            np.append(start, len(pixels)),
            peak,
            height.astype(np.float32),
            kind == HIT,
            sign > 0,
            np.zeros(len(start), dtype=np.int64),
        )
        return spots.chosen(kind >= WEAK)
