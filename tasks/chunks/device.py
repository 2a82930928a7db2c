"""Whether this worker computes on its GPU."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from numpy.typing import NDArray

from kernels import arrays

POOL = 0.9  # share of the device's memory that CuPy's pool may take


@dataclass(frozen=True)
class Device:
    """What a worker computes on.

    Attributes
    ----------
    asked : bool
        Whether the cluster gave it a GPU (environment TILTFLOW_DEVICE=cuda).
    usable : bool
        Whether that GPU computes.
    why : str
        Why it does not.
    memory : int
        Of the GPU that this worker may take [bytes].
    """

    asked: bool
    usable: bool
    why: str = ""
    memory: int = 0


@cache
def device() -> Device:
    """Return what this worker computes on; its GPU is tried out at the first call."""
    if os.environ.get("TILTFLOW_DEVICE") != "cuda":
        return Device(False, False)
    try:
        return Device(True, True, memory=arrays.open_gpu(POOL))
    except Exception as error:  # CUDA has its own for each way to fail
        why = " ".join(f"{type(error).__name__}: {error}".split())
        logging.getLogger(__name__).warning("computes on the CPU: its GPU is unusable: %s", why)
        return Device(True, False, why)


def uses_gpu() -> bool:
    """Tell whether this worker computes on a GPU: on the CPU where its GPU is unusable."""
    return device().usable


def on_device(array: NDArray[Any]) -> arrays.Array:
    """Move a host array to where this worker computes."""
    return arrays.to_device(array, gpu=uses_gpu())
