"""Spots of a view: clusters of pixels that stand out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.xray_clusters import link
from kernels.xray_scan import Flags, Integers


@dataclass(frozen=True)
class Spots:
    """Spots of a view that stand out: hits, and weak ones that other views may confirm.

    Attributes
    ----------
    pixels : (n,) int64
        Flat indices, spot by spot.
    first : (spots + 1,) int64
        Where the pixels of each spot begin.
    peak : (spots,) int64
        Flat index of the pixel that is farthest out.
    height : (spots,) float32
        Of this pixel over the surroundings [standard deviations].
    hit : (spots,) bool
        Whether the spot is an X-ray as far as this view can tell; all of them are bright.
    bright : (spots,) bool
    round : (spots,) int64
        In which round of the search each hit was found; others are of the last one.
    """

    pixels: Integers
    first: Integers
    peak: Integers
    height: NDArray[np.float32]
    hit: Flags
    bright: Flags
    round: Integers

    def __len__(self) -> int:
        return len(self.peak)

    def of(self, spot: int) -> Integers:
        """Return the pixels of one spot."""
        return self.pixels[self.first[spot] : self.first[spot + 1]]

    def chosen(self, which: Flags) -> Spots:
        """Return some of the spots."""
        sizes = np.diff(self.first)
        return Spots(
            pixels=self.pixels[np.repeat(which, sizes)],
            first=np.concatenate([[0], np.cumsum(sizes[which])]).astype(np.int64),
            peak=self.peak[which],
            height=self.height[which],
            hit=self.hit[which],
            bright=self.bright[which],
            round=self.round[which],
        )


def clustered(pixels: Integers, width: int) -> Spots:
    """Return the clusters of pixels that touch each other, as spots of no height."""
    cluster = link(pixels, np.ones(len(pixels), dtype=np.int8), width)
    order = np.argsort(cluster, kind="stable")
    _, start = np.unique(cluster[order], return_index=True)
    none = np.zeros(len(start), dtype=np.bool_)
    return Spots(
        pixels[order],
        np.append(start, len(pixels)),
        pixels[order][start],
        none.astype(np.float32),
        none,
        none,
        none.astype(np.int64),
    )


def highest(spots: Spots, number: int) -> Spots:
    """Return so many of the spots, the highest, in the order in which they are."""
    rank = np.argsort(np.argsort(-spots.height, kind="stable"))
    return spots.chosen(rank < number)


def joined(parts: Sequence[Spots]) -> Spots:
    """Return all spots of several searches, one after the other."""
    sizes = np.concatenate([np.diff(part.first) for part in parts])
    return Spots(
        pixels=np.concatenate([part.pixels for part in parts]),
        first=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        peak=np.concatenate([part.peak for part in parts]),
        height=np.concatenate([part.height for part in parts]),
        hit=np.concatenate([part.hit for part in parts]),
        bright=np.concatenate([part.bright for part in parts]),
        round=np.concatenate([part.round for part in parts]),
    )
