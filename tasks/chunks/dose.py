"""Dose weighting of single views: written out, or while a later step reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from kernels import dose
from kernels.arrays import Array, to_host
from tasks.chunks.device import on_device
from tasks.result import Result


@dataclass(frozen=True)
class Weighting:
    """How the views of a series are weighted.

    Attributes
    ----------
    exposures : tuple of float
        Of each view [e/Å²].
    voltage : float
        [kV]
    ratio : float or None
        Of the critical dose to that at 300 kV.
    others : tuple of float
        Exposures whose noise the weights keep; empty: they do not.
    """

    exposures: tuple[float, ...]
    voltage: float
    ratio: float | None = None
    others: tuple[float, ...] = ()

    @classmethod
    def of(cls, result: Result) -> Self | None:
        """Return how images of a result are still to be weighted, None if they are not."""
        return None if result.attributes().get("dose_weighted") else cls.of_frames(result)

    @classmethod
    def of_frames(cls, result: Result) -> Self | None:
        """Return how sums of frames, which never have their weights, are to be weighted."""
        told: Mapping[str, Any] | None = result.attributes().get("weighting")
        if told is None:
            return None
        return cls(tuple(told["exposures"]), told["voltage"], told["ratio"], tuple(told["others"]))

    def weighted(self, image: Array, index: int, pixel_size: float) -> Array:
        """Return view `index` (ny, nx), of a pixel of so many Å, weighted."""
        return dose.weight_image(
            image,
            self.exposures[index],
            pixel_size,
            self.voltage,
            ratio=self.ratio,
            others=self.others,
        )

    def factor(self, image: Array, index: int, pixel_size: float) -> Array:
        """Return what the half spectrum of view `index` (ny, nx) is to be multiplied by."""
        return dose.view_weights(
            (image.shape[-2], image.shape[-1]),
            pixel_size,
            self.exposures[index],
            self.voltage,
            image,
            ratio=self.ratio,
            others=self.others,
        )


def weight_view(
    source: Result, target: Result, index: int, pixel_size: float, weighting: Weighting
) -> dict[str, Any]:
    """Write one view weighted."""
    image = on_device(np.asarray(source.images()[index]))
    target.array("images")[index] = to_host(weighting.weighted(image, index, pixel_size))
    return {}
