"""Deconvolution of some rows of a tomogram, to be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.arrays import to_host
from kernels.ctf import Ctf
from kernels.deconvolve import deconvolve
from tasks.chunks.device import on_device
from tasks.result import Result

DECONVOLVED = "deconvolved"  # array (z, y, x) beside the levels
HALO = 600.0  # Å of further rows at both sides: twice the period where the high-pass ends


@dataclass(frozen=True)
class Deconvolving:
    """How a tomogram is deconvolved: its voxel [Å], and as of `kernels.deconvolve`.

    `left` is the power of the CTF's magnitude that a correction has left, None without one.
    """

    voxel: float
    ctf: Ctf
    strength: float
    falloff: float
    left: float | None

    @property
    def halo(self) -> int:
        """Rows at both sides that are read and dropped."""
        return int(np.ceil(HALO / self.voxel))


def deconvolve_rows(
    target: Result, how: Deconvolving, start: int, stop: int, step: float | None
) -> dict[str, Any]:
    """Write rows [start, stop) of `DECONVOLVED` from those of level 0.

    `step` is what 1 of a stored integer means.
    """
    volume = target.array("0")
    low, high = max(start - how.halo, 0), min(stop + how.halo, volume.shape[1])
    part = np.asarray(volume[:, low:high], dtype=np.float32) * np.float32(step or 1.0)
    found = deconvolve(
        on_device(part),
        how.voxel,
        how.ctf,
        strength=how.strength,
        falloff=how.falloff,
        left=how.left,
    )
    written = target.array(DECONVOLVED)
    written[:, start:stop] = to_host(found[:, start - low : stop - low]).astype(written.dtype)
    return {}


def memory_of_rows(how: Deconvolving, shape: tuple[int, int, int], rows: int) -> int:
    """Return the most memory that `deconvolve_rows` takes [bytes]."""
    nz, ny, nx = shape
    padded = (nz + 40) * (min(rows + 2 * how.halo, ny) + 40) * (nx + 40)
    return 100_000_000 + 4 * 6 * padded
