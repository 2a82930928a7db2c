"""Whether this worker computes on its GPU."""

from __future__ import annotations

import os
from typing import Any

from numpy.typing import NDArray

from kernels import arrays


def uses_gpu() -> bool:
    """Tell whether the cluster gave this worker a GPU (environment TILTFLOW_DEVICE=cuda)."""
    return os.environ.get("TILTFLOW_DEVICE") == "cuda"


def on_device(array: NDArray[Any]) -> arrays.Array:
    """Move a host array to where this worker computes."""
    return arrays.to_device(array, gpu=uses_gpu())
