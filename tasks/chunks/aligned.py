"""Views brought into the aligned frame as relative contrast, in one interpolation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels import wbp
from kernels.arrays import Array
from kernels.fourier import bin_images
from kernels.geometry import View
from kernels.resample import Field, resample_view
from tasks.alignment import Gold
from tasks.chunks.device import on_device
from tasks.chunks.dose import Weighting
from tasks.errors import UnusableData
from tasks.result import Result

# Voxels hold thousandths of the beam's relative contrast per voxel: numbers near 1, so that
# float16 keeps its eleven bits.
SCALE = 1000.0
BASE_BYTES = 350_000_000  # of a worker: the interpreter, the libraries


@dataclass(frozen=True)
class OneView:
    """One view of a series: which, how it looks at the specimen, what is undone and taken out.

    `field` is that of the mid-plane, `layers` those of the layers of a box made in layers.
    """

    index: int
    view: View
    field: Field | None = None
    gold: Gold | None = None
    layers: tuple[Field, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where views come from, and how they are brought into the aligned frame.

    Attributes
    ----------
    images : Result
        With images (view, y, x).
    halves : Result or None
        With the arrays odd and even, whose halves of the tomogram are asked for.
    erased : Result or None
        Of the step `erase`: what it changed is taken out of the halves, too.
    pixel_size : float
        Of the images [Å].
    binning : int
    frame : (rows, columns)
    weighting : Weighting or None
        By dose, unless what is read has it.
    logarithm, invert : bool
    turned : bool
        Whether rows are those of a specimen with x-axis tilt.
    """

    images: Result
    halves: Result | None
    erased: Result | None
    pixel_size: float
    binning: int
    frame: tuple[int, int]
    weighting: Weighting | None
    logarithm: bool = False
    invert: bool = False
    turned: bool = False

    def aligned(self, one: OneView) -> list[Array]:
        """Return a view (rows, columns) of the aligned frame: one, or its two halves."""
        return [self._resampled(image, one, one.field) for image in self._contrasts(one)]

    def layers(self, one: OneView) -> list[list[Array]]:
        """Return the view, or its two halves, as each layer of the box is to be made of it."""
        fields = one.layers or (one.field,)
        contrasts = self._contrasts(one)
        return [[self._resampled(image, one, field) for field in fields] for image in contrasts]

    def _contrasts(self, one: OneView) -> list[Array]:
        return [self._contrast(image, one) for image in self._read(one)]

    def _resampled(self, contrast: Array, one: OneView, field: Field | None) -> Array:
        voxel, weights = self.pixel_size * self.binning, None
        if self.weighting is not None:
            weights = self.weighting.factor(contrast, one.index, voxel)
        return resample_view(
            *(contrast, one.view, voxel, self.frame),
            fill=0.0,
            rows=self.turned,
            field=field,
            weights=weights,
        )

    def _read(self, one: OneView) -> list[NDArray[np.float32]]:
        if self.halves is None:
            images = [np.asarray(self.images.images()[one.index])]
        else:
            whole = np.asarray(self.halves.images()[one.index])
            images = [np.asarray(self.halves.array(name)[one.index]) for name in ("odd", "even")]
            if self.erased is not None:
                clean = np.asarray(self.erased.images()[one.index])
                changed, mean = clean != whole, float(clean.mean())
                for image in images:
                    image[changed] = clean[changed] * (float(image.mean()) / mean)
        return [image if one.gold is None else one.gold.without(image) for image in images]

    def _contrast(self, image: NDArray[np.float32], one: OneView) -> Array:
        mean = float(image.mean())
        if not mean > 0:
            raise UnusableData(
                f"{self.images.series.name}: view {one.index + 1} has a mean of {mean:g}: contrast "
                "needs a positive one: exclude the view, or import movies whose background is "
                "not subtracted"
            )
        factor = np.float32(-SCALE if self.invert else SCALE)
        relative = on_device(image / np.float32(mean))
        contrast = (wbp.log_intensity(relative) if self.logarithm else relative - 1) * factor
        return bin_images(contrast, self.binning)

    def memory(self, layers: int = 1) -> int:
        """Return the most memory that `layers` takes for one view [bytes]."""
        rows, columns = self.images.images().shape[1:]
        halves = 1 if self.halves is None else 4
        frames = 9 + (layers - 1) * min(halves, 2)
        return BASE_BYTES + 4 * (
            (5 + halves) * rows * columns + frames * self.frame[0] * self.frame[1]
        )


def rows_between(view: NDArray[np.float32], first: int, last: int) -> NDArray[np.float32]:
    """Return rows [first, last) of a view or of several (…, rows, columns), as far as it has."""
    return view[..., max(first, 0) : max(last, 0), :]
