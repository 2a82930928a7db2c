"""Estimate on paper what 3-D CTF correction costs: operations, bytes, transfers, on 1 to 8 GPUs.

    python benchmarks/estimate.py --size 3838 3710 --thickness 1400 --voxel 1.35

The numbers of images and columns are those of the step's own layout; the rates of the machine are
data-sheet figures times an assumed share, which the table states. Nothing is measured here.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from rich.console import Console
from rich.table import Table

from kernels.ctf import wavelength
from kernels.ctf_planes import lay_planes
from kernels.geometry import View
from kernels.plane_images import lay_out, padded_shape
from tasks.box import Box

VOLTAGE, DEFOCUS = 300.0, 30_000.0  # kV, Å


@dataclass(frozen=True)
class Machine:
    """Rates of one GPU and of what it hangs on [per second]."""

    memory: float = 3.35e12 * 0.7  # bytes of HBM3 (H100 SXM), of which FFTs reach 70 %
    cache: float = 132 * 128 * 1.7e9 * 0.3  # bytes of L1, of which interpolation reaches 30 %
    bus: float = 50e9  # bytes between host and GPU (PCIe 5)
    network: float = 2e9  # bytes between two workers (TCP on one host)
    disk: float = 4e9  # bytes to storage that all workers share


@dataclass(frozen=True)
class Cost:
    """Of one tomogram: images, operations, and bytes by where they move."""

    images: int
    columns: int
    flops: float
    spectra: float
    updates: float
    held: float
    volume: float


def cost(size: tuple[int, int], thickness: int, voxel: float, step: float, n_views: int) -> Cost:
    """Count what `n_views` views of ±60° over planes `step` Å apart take."""
    rows, columns = size
    views = tuple(View(float(tilt), 0.0) for tilt in np.linspace(-60, 60, n_views))
    shape = (thickness, rows, columns)
    box = Box(voxel, 1, size, shape, 0, (0.0, 0.0, 0.0))
    planes = lay_planes(views, shape, voxel, box.centre, step=step)
    projection = box.projection(views, False)
    layout = lay_out(projection, planes, (thickness, columns), columns, (0, rows - 1.0))
    margin = max(32, min(ceil(DEFOCUS * wavelength(VOLTAGE) / voxel**2), max(size) // 2))
    wide, high = padded_shape(rows, columns, margin)
    half = wide * (high // 2 + 1)
    images = int((layout.count > 0).sum())
    across = images * 5 * half * log2(wide)
    along = layout.columns * 2.5 * high * log2(high)
    # Spectrum and phase are read; the transform across is written, read, written; then the columns
    # that are kept are read and written.
    spectra = images * half * (8 + 4 + 3 * 8) + layout.columns * high * (4 + 4)
    return Cost(
        images,
        layout.columns,
        across + along,
        spectra,
        2.0 * n_views * np.prod(shape, dtype=float),  # blended: two planes a voxel and view
        4.0 * layout.columns * rows,
        4.0 * np.prod(shape, dtype=float) * 8 / 7,  # with its pyramid
    )


def seconds(c: Cost, gpus: int, machine: Machine) -> dict[str, float]:
    """Return the time of each part on so many GPUs, one worker each."""
    moved = c.held * (gpus - 1) / gpus
    return {
        "planes": c.spectra / machine.memory / gpus,
        "back-projection": 8 * c.updates / machine.cache / gpus,
        "host and GPU": (2 * c.held + c.volume) / machine.bus / gpus,
        "between workers": moved / machine.network / gpus,
        "disk": c.volume / machine.disk,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(3838, 3710), help="rows, columns")
    parser.add_argument("--thickness", type=int, default=1400, help="voxels")
    parser.add_argument("--voxel", type=float, default=1.35, help="Å")
    parser.add_argument("--defocus-step", type=float, default=150.0, help="Å")
    parser.add_argument("--views", type=int, default=41)
    given = parser.parse_args()
    c = cost(tuple(given.size), given.thickness, given.voxel, given.defocus_step, given.views)
    console = Console()
    console.print(
        f"{c.images} images at planes, {c.columns} columns kept; {c.flops * 1e-12:.2f} Tflop of "
        f"transforms over {c.spectra * 1e-9:.0f} GB; {c.updates * 1e-12:.2f} T voxel·images; "
        f"{c.held * 1e-9:.1f} GB held between the steps; {c.volume * 1e-9:.1f} GB written"
    )
    table = Table(title="seconds, each part alone")
    table.add_column("GPUs")
    parts = [(n, seconds(c, n, Machine())) for n in (1, 2, 4, 8)]
    for name in (*parts[0][1], "sum"):
        table.add_column(name, justify="right")
    for n, found in parts:
        values = (*found.values(), sum(found.values()))
        table.add_row(str(n), *(f"{value:.2f}" for value in values))
    console.print(table)


if __name__ == "__main__":
    main()
