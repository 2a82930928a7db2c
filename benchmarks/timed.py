"""The kernels that are timed, each on data of a typical size."""

from __future__ import annotations

from collections.abc import Callable
from math import log2

import numpy as np
from numpy.typing import NDArray

from benchmarks.timed_planes import (
    back_projection_of_planes,
    coarser_level,
    correction_at_a_plane,
)
from benchmarks.work import Work, images
from kernels import bad_pixels, dose, fourier, tiles, warp, wbp, xrays
from kernels.align_coarse import measure_pair, prepare_view
from kernels.backproject import Projection, aligned_projection, backproject
from kernels.bead_centre import NOISE_BOXES, ROUNDS, SAMPLES, box_size, centre_beads
from kernels.bead_find import find_beads
from kernels.bundle import solve
from kernels.bundle_model import Model
from kernels.ctf_fit import CtfSearch, ViewFit
from kernels.ctf_rings import Optics
from kernels.geometry import View
from kernels.geometry import project as project_points
from kernels.iterative import reconstruct
from kernels.motion_local import estimate_motion
from kernels.motion_sum import sum_frames
from kernels.normalise import measure_levels, normalise, scale_to
from kernels.project import project
from kernels.reduce import reduce_image
from kernels.resample import resample_view
from kernels.spectra import polar_spectra, tile_box, tile_spectra
from kernels.tracks import Tracks


def back_projection(
    n_views: int = 41, size: int = 1024, planes: int = 300, x_tilt: float = 0.0
) -> Work:
    views, shape = images(n_views, size, size), (planes, size, size)
    projection = _tilts(n_views, shape, x_tilt)
    updates = n_views * planes * size**2
    return Work(
        f"{n_views} × {size}² → {planes} × {size}²",
        lambda: backproject(views, projection, shape),
        traffic=views.nbytes + 4 * planes * size**2,
        flops=4 * updates,
        note=lambda seconds: f"{updates / seconds * 1e-9:.1f} G voxel·views/s",
    )


def back_projection_x_tilted(n_views: int = 41, size: int = 1024, planes: int = 128) -> Work:
    return back_projection(n_views, size, planes, x_tilt=3.0)


def _tilts(n_views: int, shape: tuple[int, int, int], x_tilt: float = 0.0) -> Projection:
    tilts = np.linspace(-60, 60, n_views)
    views = [View(float(tilt), 0, x_tilt=x_tilt) for tilt in tilts]
    return aligned_projection(views, shape, shape[2], rows=shape[1])


def projection(n_views: int = 41, size: int = 1024, planes: int = 128) -> Work:
    volume = images(planes, size, size)
    geometry = _tilts(n_views, volume.shape)
    updates = n_views * volume.size
    return Work(
        f"{planes} × {size}² → {n_views} × {size}²",
        lambda: project(volume, geometry, (size, size)),
        traffic=volume.nbytes + 4 * n_views * size**2,
        flops=4 * updates,
        note=lambda seconds: f"{updates / seconds * 1e-9:.1f} G voxel·views/s",
    )


def sirt(n_views: int = 41, size: int = 512, planes: int = 128) -> Work:
    views, shape = images(n_views, size, size), (planes, size, size)
    geometry = _tilts(n_views, shape)
    updates = n_views * planes * size**2
    return Work(
        f"{n_views} × {size}² → {planes} × {size}², one iteration",
        lambda: reconstruct(views, geometry, shape, 1),
        traffic=2 * views.nbytes + 3 * 4 * planes * size**2,
        flops=8 * updates,
        note=lambda seconds: f"{1 / seconds:.2f} iterations/s",
    )


def row_filter(n_views: int = 41, size: int = 1024) -> Work:
    views, n = images(n_views, size, size), wbp.padded_width(size)
    ramp = wbp.ramp(n)
    return Work(
        f"{n_views} × {size}², rows padded to {n}",
        lambda: wbp.filter_views(views, ramp),
        traffic=2 * views.nbytes,
        flops=n_views * size * 5 * n * log2(n),
        note=lambda seconds: f"{n_views / seconds:.0f} views/s",
    )


def rfft2(n_views: int = 41, size: int = 1024) -> Work:
    noise = images(n_views, size, size)
    return Work(
        f"{n_views} × {size}²",
        lambda: fourier.rfft2(noise),
        traffic=2 * noise.nbytes,
        flops=2.5 * noise.size * log2(size * size),
        note=lambda seconds: f"{n_views / seconds:.0f} images/s",
    )


def fourier_flops(pixels: int, transforms: float) -> float:
    """Return the operations of real transforms of images of so many pixels."""
    return transforms * 2.5 * pixels * log2(pixels)


def motion_estimate(frames: int = 8, size: int = 1024) -> Work:
    movie = [image + 10 for image in images(frames, size, size)]
    pixels = size * size
    return Work(
        f"{frames} × {size}², 2.7 Å",
        lambda: estimate_motion(movie, 2.7),
        traffic=frames * pixels * 4,
        # Two transforms a frame to reduce, three of its patches; and some 40 evaluations of the
        # gradient, each with a phase ramp, a sum and a product per frame, at 5 Å.
        flops=fourier_flops(pixels, 5 * frames) + 40 * frames * 30 * pixels * (2.7 / 5) ** 2,
        note=lambda seconds: f"{1 / seconds:.1f} movies/s",
    )


def movie_sum(frames: int = 8, size: int = 4096) -> Work:
    return _sum(frames, size, None)


def _sum(frames: int, size: int, grid: NDArray[np.float64] | None) -> Work:
    image = images(size, size)  # the same one again and again: a movie is not held in memory
    shifts = np.linspace(0, 3, 2 * frames).reshape(frames, 2)
    field = None if grid is None else warp.grid_field(grid)
    pixels = size * size
    # Rows are transformed whole, of the columns half. Of a field, the sums only; to interpolate
    # takes two passes of six pixels with their weights, three pairs of polynomials of 5 terms.
    transforms = fourier_flops(pixels, 0.75 * (frames if grid is None else 2))
    passes = 0 if grid is None else 2 * frames * pixels * (3 * (2 * 8 + 1 + 3) + 2 * 6)
    return Work(
        f"{frames} × {size}² → {size // 2}²",
        lambda: sum_frames(iter([image] * frames), shifts, 2.0, field=field),
        traffic=frames * pixels * 4 + 3 * pixels,
        flops=transforms + fourier_flops(pixels // 4, 2) + passes,
        note=lambda seconds: f"{frames / seconds:.1f} frames/s",
    )


def movie_sum_local(frames: int = 8, size: int = 4096) -> Work:
    y, x = np.meshgrid(*[np.linspace(-2, 2, 9)] * 2, indexing="ij")
    course = np.linspace(0, 1, frames)[:, None, None, None]
    return _sum(frames, size, course * np.stack([y * y - x, x * y], axis=-1))


def bad_pixel_search(size: int = 4096) -> Work:
    image = np.random.default_rng(0).poisson(1.4, (size, size)).astype(np.float32)
    return Work(
        f"{size}²",
        lambda: bad_pixels.find_bad_pixels(image),
        traffic=image.nbytes,
        flops=8 * image.size,
        note=lambda seconds: f"{1 / seconds:.1f} movies/s",
    )


def spike_search(size: int = 4096) -> Work:
    image = np.random.default_rng(0).poisson(0.17, (size, size)).astype(np.float32)
    usual = tiles.measure_tiles(image)
    return Work(
        f"{size}²",
        lambda: bad_pixels.find_spikes(image, usual),
        traffic=image.nbytes,
        flops=image.size,
        note=lambda seconds: f"{1 / seconds:.1f} frames/s",
    )


def ctf_fit(size: int = 1024) -> Work:
    pixel_size = 2.7
    image, box = images(size, size), tile_box((size, size), pixel_size)
    tiles = len(tile_spectra(image, box)[1])
    padded = fourier.fast_size(1.5 * box)

    def run() -> object:
        polar, centres = polar_spectra(image, box)
        places = centres * pixel_size
        return ViewFit(polar, places, (0.0, 0.0), pixel_size, CtfSearch(), Optics()).fit({})

    return Work(
        f"{size}², {tiles} tiles of {box}² padded to {padded}²",
        run,
        traffic=image.nbytes,
        flops=fourier_flops(padded * padded, tiles),
        note=lambda seconds: f"{1 / seconds:.1f} views/s",
    )


def xray_erasing(size: int = 4096) -> Work:
    image = np.random.default_rng(0).poisson(5.5, (size, size)).astype(np.float32)
    return Work(
        f"{size}², in place, no hits",
        lambda: xrays.find_spots(image, out=image),
        traffic=image.nbytes,
        flops=4 * image.size,
        note=lambda seconds: f"{1 / seconds:.1f} views/s",
    )


def dose_weighting(size: int = 1024) -> Work:
    image = images(size, size)
    return Work(
        f"{size}²",
        lambda: dose.weight_image(image, 60.0, 2.7, 300.0),
        traffic=2 * image.nbytes,
        flops=fourier_flops(image.size, 2),
        note=lambda seconds: f"{1 / seconds:.0f} views/s",
    )


def resampling(size: int = 1024) -> Work:
    image = images(size, size)
    view = View(30.0, 85.3, 40.0, -25.0)
    return Work(
        f"{size}², quintic splines",
        lambda: resample_view(image, view, 2.7, (size, size)),
        traffic=2 * image.nbytes,
        flops=fourier_flops(image.size, 2) + 36 * 2 * image.size,
        note=lambda seconds: f"{1 / seconds:.0f} views/s",
    )


def reduction(size: int = 4096, factor: float = 4.0) -> Work:
    image = images(size, size)
    pixels = image.size / factor
    return Work(
        f"{size}² / {factor:g}, Fourier",
        lambda: reduce_image(image, factor),
        traffic=image.nbytes * (1 + 1 / factor**2),
        # Rows, then the columns of what is left of them, there and back.
        flops=2.5 * log2(size) * (image.size + 2 * pixels + pixels / factor),
        note=lambda seconds: f"{1 / seconds:.0f} views/s",
    )


def reduction_by_kernel(size: int = 4096, factor: float = 4.0) -> Work:
    image = images(size, size)
    return Work(
        f"{size}² / {factor:g}, Lanczos 3",
        lambda: reduce_image(image, factor, "lanczos3"),
        traffic=image.nbytes * (1 + 1 / factor**2),
        flops=12 * image.size * (1 + 1 / factor),
        note=lambda seconds: f"{1 / seconds:.0f} views/s",
    )


def normalisation(size: int = 1024) -> Work:
    image = images(size, size)

    def run() -> object:
        levels = measure_levels(image)
        return normalise(image, levels, 0.0, scale_to(levels, 1.0))

    return Work(
        f"{size}²",
        run,
        traffic=2 * image.nbytes,
        flops=7 * image.size,
        note=lambda seconds: f"{1 / seconds:.0f} views/s",
    )


def pair_correlation(size: int = 256) -> Work:
    views = [
        prepare_view(image, View(tilt, 85.3), 10.8, (size, size))
        for image, tilt in zip(images(2, size, size), (0.0, 3.0), strict=True)
    ]
    return Work(
        f"2 × {size}²",
        lambda: measure_pair(*views),
        traffic=8 * size * size,
        flops=fourier_flops(size * size, 3 * 1.25**2) + 72 * size * size,
        note=lambda seconds: f"{1 / seconds:.0f} pairs/s",
    )


def bead_search(size: int = 1024) -> Work:
    image = images(size, size) + 20
    return Work(
        f"{size}×{size}",
        lambda: find_beads(image, 2.7, 100.0),
        traffic=4.0 * size**2,
        flops=fourier_flops(size**2, 1),  # the rest is done on a tenth of the pixels
    )


def bead_centres(size: int = 1024) -> Work:
    image, pixel, diameter = images(size, size) + 20, 2.7, 100.0
    half = size * pixel / 2 - 200
    places = np.random.default_rng(1).uniform(-half, half, (25, 2))
    box = box_size(SAMPLES)
    # Two transforms of each box a round, and those of the boxes that tell the noise.
    boxes = ROUNDS * 2 * len(places) + NOISE_BOXES**2
    return Work(
        f"{size}×{size}, {len(places)} beads",
        lambda: centre_beads(image, pixel, diameter, places, 15.0),
        traffic=4.0 * size**2,
        flops=fourier_flops(size**2, 1) + 2 * fourier_flops(box**2, boxes),
    )


def bundle_step(n_views: int = 41, size: int = 1024) -> Work:
    beads = max(8, size // 34)
    rng = np.random.default_rng(2)
    views = [View(float(tilt), 85.0) for tilt in np.linspace(-60, 60, n_views)]
    points = rng.uniform(-1, 1, (beads, 3)) * (1300, 1300, 600)
    view, point = (i.ravel() for i in np.indices((n_views, beads)))
    xy = np.concatenate([project_points(points, v) for v in views]) + rng.normal(
        0, 1, (view.size, 2)
    )
    tracks = Tracks(view, point, xy, np.ones(view.size), n_views, beads)
    free = 5 * n_views
    # Sums over the observations, the Schur complement, and the solution, of one step.
    flops = 2.0 * view.size * 2 * (8 * 9 + 8 * 3 + 9) + 2.0 * free**2 * 3 * beads + free**3 / 1.5
    return Work(
        f"{n_views} views, {beads} beads of {size}",
        lambda: solve(tracks, views, Model("all", "all", "all"), rounds=1, with_errors=False),
        traffic=8.0 * view.size * 2 * (8 + 3 + 1),
        flops=flops,
    )


KERNELS: dict[str, Callable[[], Work]] = {
    work.__name__: work
    for work in (
        back_projection,
        back_projection_x_tilted,
        back_projection_of_planes,
        correction_at_a_plane,
        coarser_level,
        projection,
        sirt,
        row_filter,
        rfft2,
        motion_estimate,
        movie_sum,
        movie_sum_local,
        bad_pixel_search,
        spike_search,
        ctf_fit,
        xray_erasing,
        dose_weighting,
        resampling,
        reduction,
        reduction_by_kernel,
        normalisation,
        pair_correlation,
        bead_search,
        bead_centres,
        bundle_step,
    )
}
