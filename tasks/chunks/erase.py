"""Steps of erasing: hits of one view, what its neighbours say of them, and the last word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np

from kernels import xray_votes, xrays
from kernels.xray_spots import Spots
from tasks.parameters import EraseParameters
from tasks.result import Result

KINDS = {"height": np.float32, "hit": np.bool_, "bright": np.bool_}  # others are int64


def view_unit(index: int) -> str:
    """Return the name of the unit that looks for the hits of a view."""
    return f"view-{index:03d}"


def erase_view(
    source: Result, target: Result, index: int, parameters: EraseParameters | None
) -> dict[str, Any]:
    """Erase the X-ray hits of one view, judged alone, or copy it; report all spots."""
    image = np.require(source.images()[index], np.float32, ["C", "W"])
    if parameters is None:
        target.array("images")[index] = image
        extremes = float(image.min()), float(image.max())
        return _row(extremes, extremes)
    found = xrays.find_spots(
        image,
        out=image,
        peak=parameters.peak,
        difference=parameters.difference,
        max_radius=parameters.max_radius,
        big_difference=parameters.big_difference,
    )
    target.array("images")[index] = found.clean
    hits = found.spots.chosen(found.spots.hit)
    row = _row(found.before, found.after, len(hits), len(hits.pixels))
    return {**row, "spots": listed(found.spots)}


def match_hits(
    target: Result,
    index: int,
    hits: Sequence[int],
    neighbours: Mapping[int, int],
    defects: Sequence[int],
) -> dict[str, dict[str, tuple[list[int], float]]]:
    """Return for doubtful hits of a view the spots of its neighbours that may be the same.

    With the chance of some to be there; `neighbours` tells for each how many views apart it is.
    """
    images = target.images()
    spots = spots_of(target.unit(view_unit(index)))
    bad = np.array(defects, dtype=np.int64)

    @cache
    def reduced(view: int) -> tuple[xray_votes.Image, float]:
        image = np.array(images[view])
        xrays.fill_pixels(image, bad)
        return xray_votes.reduce_view(image)

    here, factor = reduced(index)
    found: dict[str, dict[str, tuple[list[int], float]]] = {}
    for j, apart in neighbours.items():
        other = spots_of(target.unit(view_unit(j)))
        pair = (here, reduced(j)[0])
        whole = xray_votes.displacement(pair)
        for k in hits:
            same = xray_votes.match(
                spots, k, other, pair, whole, apart, bad, images.shape[2], factor
            )
            found.setdefault(str(k), {})[str(j)] = same
    return found


def erase_again(
    source: Result, target: Result, index: int, kept: Sequence[int], defects: Sequence[int]
) -> dict[str, Any]:
    """Erase the hits of a view but those `kept`, and defects of the detector."""
    image = np.asarray(source.images()[index])
    spots = spots_of(target.unit(view_unit(index)))
    keep = np.zeros(len(spots), dtype=np.bool_)
    keep[list(kept)] = True
    bad = np.array(defects, dtype=np.int64)
    clean = xrays.fill_spots(image, spots, keep, bad)
    target.array("images")[index] = clean
    erased = spots.hit & ~keep
    pixels = np.union1d(spots.chosen(erased).pixels, bad)
    alone = int((erased & ~xray_votes.touched(spots, bad)).sum())
    before, after = ((float(part.min()), float(part.max())) for part in (image, clean))
    return _row(before, after, alone, len(pixels), len(kept), len(bad))


def listed(spots: Spots) -> dict[str, list[Any]]:
    """Return spots as JSON has them."""
    return {field.name: getattr(spots, field.name).tolist() for field in fields(Spots)}


def spots_of(report: Mapping[str, Any] | None) -> Spots:
    """Return the spots that the unit of a view has reported."""
    told = (report or {})["spots"]
    return Spots(**{name: np.array(told[name], KINDS.get(name, np.int64)) for name in told})


def _row(
    before: tuple[float, float],
    after: tuple[float, float],
    hits: int = 0,
    pixels: int = 0,
    kept: int = 0,
    defects: int = 0,
) -> dict[str, Any]:
    return {
        "hits": hits,
        "pixels": pixels,
        "kept": kept,
        "defects": defects,
        "minimum before": before[0],
        "maximum before": before[1],
        "minimum after": after[0],
        "maximum after": after[1],
    }
