"""The slab of dense matter of an aligned series."""

from __future__ import annotations

from collections.abc import Sequence

from kernels.arrays import Array
from kernels.fourier import rfft2
from kernels.geometry import View
from kernels.matching_reference import feature_of, lay_bench, prepare_on, smear_all
from kernels.specimen_plane import Slab, count_depths, fit_slab

# Share of the field that every view covers.
FIELD = 0.9


def slab_of_series(
    images: Array,
    views: Sequence[View],
    pixel_size: float,
    used: Sequence[bool],
    thickness: float,
) -> Slab | None:
    """Return how the dense matter lies; parameters as of `align_matching.align_series`.

    The volume is deeper by a third of its width, so that a tilted slab fits in.
    """
    deeper = thickness + 0.3 * min(images.shape[1:]) * pixel_size
    bench = lay_bench(images, views, pixel_size, used, deeper)
    features = {
        i: feature_of(rfft2(prepare_on(images[i, ...], views[i], bench).image), bench)
        for i in bench.used
    }
    volume = smear_all(features, views, bench)
    ny, nx = bench.shape
    return fit_slab(count_depths(volume, pixel_size, (round(FIELD * nx), round(FIELD * ny))))
