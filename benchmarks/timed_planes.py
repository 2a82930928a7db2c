"""The kernels of 3-D CTF correction that are timed."""

from __future__ import annotations

from math import log2

import numpy as np

from benchmarks.work import Work, images
from kernels.backproject import Projection
from kernels.backproject_planes import backproject_planes
from kernels.ctf import Ctf
from kernels.ctf_correct import Correction
from kernels.ctf_planes import Planes, lay_planes
from kernels.geometry import View
from kernels.halving import halved, measured
from kernels.plane_images import (
    Layout,
    corrected_columns,
    lay_out,
    padded_shape,
    view_phases,
    view_spectrum,
)
from tasks.box import Box

VOXEL, STEP = 5.4, 150.0  # Å


def correction_at_a_plane(size: int = 1024) -> Work:
    view, margin, ctf = images(size, size), max(8, size // 16), Ctf(30000.0, 29000.0, 30.0)
    spectrum = view_spectrum(view, margin)
    phases = view_phases(view.shape, margin, ctf, VOXEL, spectrum)
    wide, high = padded_shape(size, size, margin)
    count = size * 2 // 5  # columns that are kept of the average image
    half = wide * (high // 2 + 1)
    return Work(
        f"{size}², {count} columns kept",
        lambda: corrected_columns(
            *(spectrum, phases, (size, size), margin, ctf, STEP, (size // 4, count), VOXEL),
            Correction("multiply"),
        ),
        # Spectrum and phase are read, lines written and read, columns written.
        traffic=12.0 * half + 2 * 8.0 * count * (high // 2 + 1) + 4.0 * count * size,
        flops=5 * half * log2(wide) + 2.5 * count * high * log2(high) + 24 * half,
        note=lambda seconds: f"{1 / seconds:.0f} images/s",
    )


def back_projection_of_planes(n_views: int = 41, size: int = 1024, planes: int = 300) -> Work:
    shape = (planes, 128, size)
    projection, levels, layout = _geometry(n_views, size, planes)
    kept = [images(layout.columns_of_plane(int(level)), 128) for level in layout.levels]
    updates = n_views * float(np.prod(shape))
    return Work(
        f"{layout.columns} columns of {len(layout.images)} images → {planes} × 128 × {size}",
        lambda: backproject_planes(kept, layout, size, projection, levels, shape, y_middle=63.5),
        traffic=2 * 4.0 * layout.columns * 128 + 4.0 * np.prod(shape),
        flops=8 * updates,  # the two planes around each voxel
        note=lambda seconds: f"{updates / seconds * 1e-9:.1f} G voxel·views/s",
    )


def _geometry(n_views: int, size: int, planes: int) -> tuple[Projection, Planes, Layout]:
    views = tuple(View(float(tilt), 0.0) for tilt in np.linspace(-60, 60, n_views))
    box = Box(VOXEL, 1, (size, size), (planes, size, size), 0, (0.0, 0.0, 0.0))
    levels = lay_planes(views, box.shape, VOXEL, box.centre, step=STEP)
    projection = box.projection(views, False)
    return projection, levels, lay_out(projection, levels, (planes, size), size, (0.0, size - 1.0))


def coarser_level(size: int = 1024, planes: int = 64) -> Work:
    volume = images(planes, size // 2, size)

    def run() -> object:
        return halved(volume), measured(volume)

    return Work(
        f"{planes} × {size // 2} × {size}, with its statistics",
        run,
        traffic=2 * volume.nbytes + volume.nbytes / 8,
        flops=5.0 * volume.size,
    )
