"""Comparison of two half tomograms, cube by cube."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.fsc import shell_products
from tasks.result import Result

SHELLS = 65


def shell_sums(target: Result, start: int, side: int) -> dict[str, Any]:
    """Return the sums of all cubes of rows `start` to start + side, in the middle of z."""
    odd, even = target.array("odd"), target.array("even")
    nz, _, nx = odd.shape
    deep = min(nz, side)
    low = (nz - deep) // 2
    total = np.zeros((3, SHELLS))
    for x in range(0, nx - side + 1, side):
        part = (slice(low, low + deep), slice(start, start + side), slice(x, x + side))
        one, other = (np.asarray(array[part], dtype=np.float32) for array in (odd, even))
        total += shell_products(one, other, SHELLS)
    return {"sums": total.ravel().tolist()}
