"""What an electron microscope records of a specimen: one tilted view as a movie of counts.

The specimen is cut along the beam into slabs of equal defocus. In each slab the objects are
projected exactly; the electron wave is multiplied by the slab's exp(iφ − loss), carried on to
the next slab, and from the last one to the detector by the microscope's transfer function
(multislice). So each object is imaged at its own defocus, depth and tilt gradient included.
Each frame is the wave's intensity, displaced, recorded by a detector of uneven sensitivity, with
Poisson noise. For weak objects the image is ``1 + 2 Σ φ · CTF``.

How it differs from reality: no beam tilt, coma or partial coherence; inelastic electrons are
lost (a perfect energy filter); damage and motion of water stand still within a view; no local
(doming) motion, no defects, even illumination, no coincidence loss; a detector whose only
transfer function is that of a square pixel; gold is smooth spheres without crystal planes.

Host work (NumPy and Numba): there is no input array that could live elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, cos, erf, exp, floor, radians, sqrt, tan

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from kernels.ctf import Ctf, ctf_2d, wavelength
from kernels.fourier import Shape, fast_size, irfft2, rfft2, shift_phases, trim
from kernels.geometry import View, defocus_offset, project
from kernels.specimen import GOLD_LOSS, GOLD_PHASE, Specimen, blobs_at_dose

MEAN_FREE_PATH = 3000.0  # Å of vitreous ice at 300 kV; 2000 to 4000 are measured
SLAB = 500.0  # Å of defocus: errs by at most 0.13 rad at 11 Å
BEAD_SAMPLES = 6  # per pixel and axis

Image = NDArray[np.float32]


def transmission(thickness: float, tilt: float) -> float:
    """Return the fraction of electrons that a slab `thickness` Å thick lets through at `tilt`°."""
    return exp(-thickness / (MEAN_FREE_PATH * cos(radians(tilt))))


def gain_reference(shape: Shape, rng: np.random.Generator) -> Image:
    """Make a gain reference (ny, nx), mean 1, within about ±10 %: image = counts × gain.

    It has columns, blocks of rows, a smooth part without symmetry (so that its eight
    orientations differ) and single pixels.
    """
    ny, nx = shape
    y, x = np.linspace(-1, 1, ny)[:, None], np.linspace(-1, 1, nx)[None, :]
    columns = 0.02 * rng.standard_normal((1, nx))
    rows = np.repeat(0.015 * rng.standard_normal((1, -(-ny // 8))), 8)[:ny, None]
    a, b, c = rng.uniform(0.02, 0.04, 3) * rng.choice([-1, 1], 3)
    smooth = a * x + b * (y**2 - 1 / 3) + c * np.sin(2.5 * x + 1.7 * y + rng.uniform(0, 6.28))
    structure = columns + rows + smooth + 0.015 * rng.standard_normal(shape)
    gain = 1 + np.clip(structure - structure.mean(), -0.12, 0.12)
    return (gain / gain.mean()).astype(np.float32)


def expected_image(
    specimen: Specimen,
    view: View,
    ctf: Ctf,
    shape: Shape,
    pixel_size: float,
    dose: float = 0.0,
    hand: int = 1,
) -> Image:
    """Return the noise-free intensity, relative to that of bare ice.

    Parameters
    ----------
    specimen : Specimen
    view : View
    ctf : Ctf
        Of the mid-plane at the image's centre (design §4).
    shape : (ny, nx)
    pixel_size : float
        In Å.
    dose : float
        What the specimen has received before [e/Å²].
    hand : {+1, −1}
        See `kernels.geometry.defocus_offset`.

    Returns
    -------
    (ny, nx) float32
        Periodic: what leaves one edge comes in at the other, so give a margin and trim it.

    References
    ----------
    .. [1] E. J. Kirkland, Advanced Computing in Electron Microscopy, 2nd ed. (2010), chapter 5.
    .. [2] M. Vulović et al., J. Struct. Biol. 183:19 (2013).
    """
    blobs = blobs_at_dose(specimen, dose)
    points = np.concatenate([blobs.positions, specimen.beads])
    scale = view.magnification / pixel_size
    xy = project(points, view) / pixel_size + np.array([shape[1] // 2, shape[0] // 2])
    reach = np.concatenate([4 * blobs.sigmas, 1.2 * specimen.bead_radii])[:, None] * scale + 1
    visible = np.flatnonzero(np.all((xy > -reach) & (xy < np.array(shape[::-1]) + reach), axis=1))
    offsets = defocus_offset(points[visible], view, hand, specimen.midplane)
    slabs = np.rint(offsets / SLAB).astype(np.int64)
    order = np.argsort(slabs, kind="stable")
    visible, slabs = visible[order], slabs[order]

    ky = scipy.fft.fftfreq(shape[0], pixel_size).astype(np.float32)[:, None]
    kx = scipy.fft.fftfreq(shape[1], pixel_size).astype(np.float32)[None, :]
    step = _transfer(ky, kx, Ctf(-SLAB, -SLAB, voltage=ctf.voltage, cs=0.0))
    lowest, highest = (int(slabs[0]), int(slabs[-1])) if len(slabs) else (0, 0)
    wave = np.ones(shape, np.complex64)
    # Less underfocus is nearer to the electron source.
    for index in range(lowest, highest + 1):
        start, stop = np.searchsorted(slabs, (index, index + 1))
        here = visible[start:stop]
        soft, hard = here[here < len(blobs.phases)], here[here >= len(blobs.phases)]
        phase = np.zeros(shape, np.float32)
        _add_blobs(phase, xy[soft], blobs.sigmas[soft] * scale, blobs.phases[soft] * scale**2)
        loss = ctf.amplitude_contrast * phase
        phase *= sqrt(1 - ctf.amplitude_contrast**2)
        if len(hard):
            gold = np.zeros(shape, np.float32)
            _add_spheres(gold, xy[hard], specimen.bead_radii[hard - len(blobs.phases)] * scale)
            phase += np.float32(GOLD_PHASE / scale) * gold
            loss += np.float32(GOLD_LOSS / scale) * gold
        amplitude = np.exp(-loss)
        wave.real, wave.imag = (
            amplitude * (wave.real * np.cos(phase) - wave.imag * np.sin(phase)),
            amplitude * (wave.real * np.sin(phase) + wave.imag * np.cos(phase)),
        )
        carry = step if index < highest else _transfer(ky, kx, ctf.with_offset(highest * SLAB))
        wave = scipy.fft.ifft2(scipy.fft.fft2(wave) * carry)
    return wave.real**2 + wave.imag**2


def simulate_view(
    specimen: Specimen,
    view: View,
    ctf: Ctf,
    gain: Image,
    pixel_size: float,
    dose: float,
    prior_dose: float,
    transmitted: float,
    frame_shifts: NDArray[np.floating],
    hits: NDArray[np.integer],
    rng: np.random.Generator,
    hand: int = 1,
) -> NDArray[np.int16]:
    """Record one view as a movie of counted electrons.

    Parameters
    ----------
    specimen : Specimen
    view : View
    ctf : Ctf
        Of the mid-plane at the image's centre.
    gain : (ny, nx) float32
        Multiplicative reference: frames × gain have even sensitivity.
    pixel_size : float
        In Å.
    dose : float
        On the specimen during this view [e/Å²], spread evenly over its frames.
    prior_dose : float
        On the specimen before this view [e/Å²].
    transmitted : float
        Fraction of the electrons that reaches the detector (ice, grid bars).
    frame_shifts : (frames, 2)
        Displacement of the objects in each frame as x, y [Å].
    hits : (n, 4) int
        X-ray hits as frame, y, x, counts.
    rng : numpy.random.Generator
        Source of the counting noise.
    hand : {+1, −1}
        See `kernels.geometry.defocus_offset`.

    Returns
    -------
    (frames, ny, nx) int16

    Raises
    ------
    ValueError
        If `dose` or `transmitted` is negative, or a frame's counts would not fit 16 bits.
    """
    if dose < 0 or transmitted < 0:
        raise ValueError(f"dose {dose} and transmission {transmitted} must not be negative")
    shape = (gain.shape[0], gain.shape[1])
    # Electrons of the highest frequency travel sideways by λ·Δf·k.
    defocus = abs(ctf.defocus) + 0.9 * max(shape) * pixel_size * abs(tan(radians(view.tilt)))
    travel = wavelength(ctf.voltage) * defocus / (2 * pixel_size)
    drift = float(np.max(np.abs(frame_shifts), initial=0.0))
    margin = ceil((travel + drift) / pixel_size) + 8
    padded = (fast_size(shape[0] + 2 * margin), fast_size(shape[1] + 2 * margin))
    image = expected_image(specimen, view, ctf, padded, pixel_size, prior_dose + dose / 2, hand)
    spectrum = rfft2(image)
    electrons = np.float32(dose * transmitted * pixel_size**2 / len(frame_shifts)) / gain
    if image.max() * electrons.max() > 30000:
        most = float(image.max() * electrons.max())
        raise ValueError(f"{most:.0f} electrons per pixel and frame, expected at most 30000")
    movie = np.empty((len(frame_shifts), *shape), np.int16)
    for frame, (dx, dy) in zip(movie, frame_shifts / pixel_size, strict=True):
        moved = irfft2(spectrum * shift_phases(padded, dy, dx, spectrum), padded)
        frame[...] = _count(np.maximum(trim(moved, shape), 0) * electrons, rng)
    for index, y, x, counts in hits:
        movie[index, y, x] += counts
    return movie


def _transfer(ky: Image, kx: Image, ctf: Ctf) -> NDArray[np.complex64]:
    """Return exp(iχ), from the two contrast transfer functions a quarter period apart."""
    sine = ctf_2d(ky, kx, replace(ctf, amplitude_contrast=0.0))
    cosine = ctf_2d(ky, kx, replace(ctf, amplitude_contrast=1.0))
    return -(cosine + 1j * sine)


def _count(expected: Image, rng: np.random.Generator) -> NDArray[np.integer]:
    """Return Poisson counts of the `expected` number of electrons."""
    if expected.max() > 30:
        return rng.poisson(expected)
    return _invert(expected, rng.random(expected.shape))


@numba.njit(cache=True, nogil=True)
def _invert(expected, chances):  # type: ignore[no-untyped-def]
    """Find the count at which the cumulated Poisson probability exceeds each of `chances`."""
    counts = np.empty(expected.shape, np.int64)
    for y in range(expected.shape[0]):
        for x in range(expected.shape[1]):
            count, mean, left = 0, float(expected[y, x]), chances[y, x]
            probability = exp(-mean)
            while left >= probability and count < 400:
                left -= probability
                count += 1
                probability *= mean / count
            counts[y, x] = count
    return counts


@numba.njit(cache=True, nogil=True)
def _add_blobs(image, xy, sigmas, weights):  # type: ignore[no-untyped-def]
    """Add Gaussians, integrated over each pixel's square, to `image` in place (all in pixels)."""
    ny, nx = image.shape
    for i in range(len(sigmas)):
        x, y, width = xy[i, 0], xy[i, 1], sigmas[i] * sqrt(2.0)
        reach = 3.5 * sigmas[i] + 0.5
        left, right = max(0, ceil(x - reach)), min(nx - 1, floor(x + reach))
        low, high = max(0, ceil(y - reach)), min(ny - 1, floor(y + reach))
        if left > right or low > high:
            continue
        across = np.empty(right - left + 1, np.float32)
        before = erf((left - 0.5 - x) / width)
        for column in range(left, right + 1):
            after = erf((column + 0.5 - x) / width)
            across[column - left] = 0.25 * weights[i] * (after - before)
            before = after
        before = erf((low - 0.5 - y) / width)
        for row in range(low, high + 1):
            after = erf((row + 0.5 - y) / width)
            part = np.float32(after - before)
            before = after
            for column in range(left, right + 1):
                image[row, column] += part * across[column - left]


@numba.njit(cache=True, nogil=True)
def _add_spheres(image, xy, radii):  # type: ignore[no-untyped-def]
    """Add path lengths through spheres, averaged over each pixel, to `image` in place."""
    ny, nx = image.shape
    for i in range(len(radii)):
        x, y, r = xy[i, 0], xy[i, 1], radii[i]
        for row in range(max(0, floor(y - r - 1)), min(ny - 1, ceil(y + r + 1)) + 1):
            for column in range(max(0, floor(x - r - 1)), min(nx - 1, ceil(x + r + 1)) + 1):
                total = 0.0
                for a in range(BEAD_SAMPLES):
                    v = row + (a + 0.5) / BEAD_SAMPLES - 0.5 - y
                    for b in range(BEAD_SAMPLES):
                        u = column + (b + 0.5) / BEAD_SAMPLES - 0.5 - x
                        total += 2 * sqrt(max(0.0, r * r - u * u - v * v))
                image[row, column] += total / BEAD_SAMPLES**2
