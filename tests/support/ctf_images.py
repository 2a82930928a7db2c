"""Images of random structure under a known CTF, flat or tilted, for tests of CTF fits.

Written from the formulas of design section 4, not with the kernels that are tested.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.ctf import Ctf
from kernels.ctf_fit import CtfSearch, ViewFit
from kernels.ctf_rings import Optics
from kernels.geometry import View, aligned_from_raw, defocus_gradient
from kernels.spectra import polar_spectra, tile_box

Floats = NDArray[np.float64]
Image = NDArray[np.float32]

WAVELENGTH = 0.0196875  # Å, at 300 kV
CS = 2.7e7  # Å
AMPLITUDE_CONTRAST = 0.07
SEARCH, FLAT, OPTICS = CtfSearch(), View(0.0, 0.0), Optics()
STRIP = 400.0  # Å of defocus between the planes between which a tilted image is blended


def phase_of(ctf: Ctf, k2: Any, k2_cos: Any, k2_sin: Any) -> Any:
    """Return the phase χ + asin A of a CTF [radians]; k², k² cos 2α, k² sin 2α in 1/Å²."""
    turn = math.radians(2 * ctf.astigmatism_angle)
    along = ctf.defocus * k2 + 0.5 * ctf.astigmatism * (
        math.cos(turn) * k2_cos + math.sin(turn) * k2_sin
    )
    aberration = 0.5 * math.pi * CS * WAVELENGTH**3 * k2**2
    known = math.radians(ctf.phase_shift) + math.asin(AMPLITUDE_CONTRAST)
    return math.pi * WAVELENGTH * along - aberration + known


def squares(size: int, pixel: float) -> tuple[Floats, Floats, Floats]:
    """Return k², k² cos 2α, k² sin 2α of a half spectrum [1/Å²]."""
    ky = np.fft.fftfreq(size, pixel)[:, None]
    kx = np.fft.rfftfreq(size, pixel)[None, :]
    return kx**2 + ky**2, kx**2 - ky**2, 2 * kx * ky


def field(
    size: int,
    pixel: float,
    ctf: Ctf,
    *,
    seed: int,
    signal: float = 0.5,
    damping: float = 100.0,
    gradient: tuple[float, float] = (0.0, 0.0),
) -> Image:
    """Return Gaussian noise whose power is 1 + S CTF², S = `signal` · exp(−`damping` k² / 2).

    Its defocus changes by `gradient` per Å of x and y in the image, from the centre pixel on.
    """
    rng = np.random.default_rng(seed)
    k2, k2_cos, k2_sin = squares(size, pixel)
    structure = np.fft.rfft2(rng.normal(size=(size, size)))
    structure *= np.sqrt(signal * np.exp(-0.5 * damping * k2))
    y, x = (np.mgrid[:size, :size] - size // 2) * pixel
    offset = gradient[0] * x + gradient[1] * y
    image = rng.normal(size=(size, size))
    planes = np.linspace(offset.min(), offset.max(), 2 + int(np.ptp(offset) / STRIP))
    if not offset.any():
        planes = np.zeros(1)
    for plane in planes:
        share = 1.0
        if len(planes) > 1:
            share = np.clip(1 - np.abs(offset - plane) / (planes[1] - planes[0]), 0, 1)
        transfer = -np.sin(phase_of(ctf.with_offset(plane), k2, k2_cos, k2_sin))
        image += share * np.fft.irfft2(structure * transfer, (size, size))
    return image.astype(np.float32)


def tilted_gradient(tilt: float, axis: float, hand: int) -> tuple[float, float]:
    """Return the gradient of a flat specimen over x and y of the image, as design section 4 has it.

    x′ = x cos φ + y sin φ; the defocus is that of the centre plus hand · x′ tan θ.
    """
    slope = hand * math.tan(math.radians(tilt))
    angle = math.radians(axis)
    return slope * math.cos(angle), slope * math.sin(angle)


def view_fit(
    image: Any,
    pixel: float,
    search: CtfSearch = SEARCH,
    view: View = FLAT,
    hand: int = 1,
    optics: Optics = OPTICS,
    box: int | None = None,
) -> ViewFit:
    """Return the spectra of an image, ready to be fitted as those of a view."""
    polar, centres = polar_spectra(
        image, box or tile_box(image.shape, pixel), highest=pixel / search.max_resolution
    )
    places = aligned_from_raw(centres * pixel, view)
    return ViewFit(polar, places, defocus_gradient(view, hand), pixel, search, optics)


def angle_between(one: float, other: float) -> float:
    """Return how far two astigmatism angles are apart [degrees]."""
    return abs((one - other + 90) % 180 - 90)
