"""What a worker measures of one view, by which views are judged."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.arrays import to_host
from kernels.fourier import bin_images
from kernels.view_quality import block_means, measure_detail
from tasks.chunks.alignment import REDUCED
from tasks.chunks.device import on_device
from tasks.result import Result


def measure_view(
    source: Result, target: Result, index: int, pixel_size: float, binning: int
) -> dict[str, Any]:
    """Measure one view, of a pixel of so many Å, and write it reduced into `REDUCED`.

    Returns
    -------
    dict
        "blocks": means in parts of the image, row by row; "ratios", "errors" and "noise" of
        `kernels.view_quality.Detail`.
    """
    image = on_device(np.asarray(source.images()[index]))
    target.array(REDUCED)[index] = to_host(bin_images(image, binning))
    detail = measure_detail(image, pixel_size)
    return {
        "blocks": [_rounded(row) for row in block_means(image)],
        "ratios": _rounded(detail.ratios),
        "errors": _rounded(detail.errors),
        "noise": detail.noise,
    }


def _rounded(values: np.ndarray[Any, Any]) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]
