"""What is timed: one kernel on given data, with the bytes and operations that it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Work:
    """One kernel on given data.

    Attributes
    ----------
    size : str
        Of the data, for the table.
    run : callable
        Does the work once.
    traffic : float
        Bytes that must be read and written at least.
    flops : float
        Floating-point operations that must be done at least.
    note : callable, optional
        Makes the kernel's customary figure of the seconds that it took.
    """

    size: str
    run: Callable[[], object]
    traffic: float
    flops: float
    note: Callable[[float], str] = lambda seconds: ""


def images(*shape: int) -> NDArray[np.float32]:
    """Return noise of standard deviation 1."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
