"""The contrast transfer function of the microscope: the one place that decides its sign and axes.

CTF = −sin(χ + asin A), negative at low frequency, so that matter is dark. Underfocus is positive.
The astigmatism angle runs counter-clockwise from image +x, y pointing up (row index).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Array, namespace

PLANCK_TIMES_LIGHT_SPEED = 12398.419843320026  # eV Å, CODATA 2018 (exact)
ELECTRON_REST_ENERGY = 510998.95  # eV, CODATA 2018


@dataclass(frozen=True)
class Ctf:
    """What determines the contrast transfer function of one image.

    Attributes
    ----------
    defocus_u, defocus_v
        Defocus along the astigmatism angle and across it, in Å, underfocus positive.
    astigmatism_angle
        Direction of `defocus_u`, in degrees counter-clockwise from image +x (y up).
    voltage
        Of the electrons, in kV.
    cs
        Spherical aberration, in mm.
    amplitude_contrast
        Fraction of the contrast that is amplitude contrast, 0 to 1.
    phase_shift
        Of a phase plate, in degrees.

    Raises
    ------
    ValueError
        If a value is not finite, the voltage not positive, or the amplitude contrast not in [0, 1].
    """

    defocus_u: float
    defocus_v: float
    astigmatism_angle: float = 0.0
    voltage: float = 300.0
    cs: float = 2.7
    amplitude_contrast: float = 0.07
    phase_shift: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}, expected a finite number")
        if self.voltage <= 0:
            raise ValueError(f"voltage is {self.voltage} kV, expected more than 0")
        if not 0 <= self.amplitude_contrast <= 1:
            raise ValueError(f"amplitude contrast is {self.amplitude_contrast}, expected 0 to 1")

    @property
    def defocus(self) -> float:
        """The mean defocus, in Å."""
        return 0.5 * (self.defocus_u + self.defocus_v)

    @property
    def astigmatism(self) -> float:
        """The difference ``defocus_u - defocus_v``, in Å."""
        return self.defocus_u - self.defocus_v

    def defocus_along(self, angle: float) -> float:
        """Return the defocus [Å] in the direction `angle`, degrees counter-clockwise from +x."""
        turn = math.radians(2 * (angle - self.astigmatism_angle))
        return self.defocus + 0.5 * self.astigmatism * math.cos(turn)

    def turned(self, angle: float) -> Ctf:
        """Return the CTF of the image turned by `angle`, degrees counter-clockwise."""
        return replace(self, astigmatism_angle=self.astigmatism_angle + angle)

    def transposed(self) -> Ctf:
        """Return the CTF of the image whose x and y are exchanged."""
        return replace(self, astigmatism_angle=90.0 - self.astigmatism_angle)

    def with_offset(self, offset: float) -> Ctf:
        """Return the CTF at a point whose defocus is `offset` Å larger, astigmatism kept."""
        return replace(self, defocus_u=self.defocus_u + offset, defocus_v=self.defocus_v + offset)


def wavelength(voltage: float) -> float:
    """Return the relativistic wavelength [Å] of electrons accelerated by `voltage` [kV].

    Raises
    ------
    ValueError
        If `voltage` is not positive.
    """
    if not voltage > 0:
        raise ValueError(f"voltage is {voltage} kV, expected more than 0")
    energy = 1000 * voltage
    return PLANCK_TIMES_LIGHT_SPEED / math.sqrt(energy * (energy + 2 * ELECTRON_REST_ENERGY))


def coefficients(ctf: Ctf) -> tuple[float, float, float]:
    """Return a, b, c of the whole phase χ + asin A = a·Δf·k² + b·k⁴ + c, for Å and 1/Å.

    They are Python floats, exact enough for hundreds of zeros, whatever the dtype of k.
    """
    length = wavelength(ctf.voltage)
    return (
        math.pi * length,
        -0.5 * math.pi * ctf.cs * 1e7 * length**3,
        math.radians(ctf.phase_shift) + math.asin(ctf.amplitude_contrast),
    )


def phase_aberration(k: Array, ctf: Ctf) -> Array:
    """Return χ(k) = πλΔf k² − ½πCsλ³k⁴ + phase shift at the mean defocus, in radians.

    Parameters
    ----------
    k : Array, any shape, float
        Spatial frequency in 1/Å.
    ctf : Ctf
    """
    a, b, _ = coefficients(ctf)
    k2 = k * k
    return k2 * (a * ctf.defocus + b * k2) + math.radians(ctf.phase_shift)


def ctf_1d(k: Array, ctf: Ctf) -> Array:
    """Return −sin(χ + asin A) at the mean defocus.

    Parameters
    ----------
    k : Array, any shape, float
        Spatial frequency in 1/Å.
    ctf : Ctf

    Returns
    -------
    Array, shape and dtype of `k`, where `k` lives
    """
    xp = namespace(k)
    return -xp.sin(phase_aberration(k, ctf) + math.asin(ctf.amplitude_contrast))


def ctf_2d(ky: Array, kx: Array, ctf: Ctf) -> Array:
    """Return −sin(χ + asin A) on a grid, Δf(α) = ½[U + V + (U − V) cos 2(α − angle)].

    Parameters
    ----------
    ky, kx : Array (ny, 1) and (1, nx), float
        Spatial frequencies in 1/Å, as of ``fourier.frequencies``; ky counts upward (row index).
    ctf : Ctf

    Returns
    -------
    Array (ny, nx), dtype of `kx`, where `kx` lives

    References
    ----------
    .. [1] A. Rohou and N. Grigorieff, J. Struct. Biol. 192:216 (2015), equations 2 to 4.
    """
    xp = namespace(ky, kx)
    a, b, c = coefficients(ctf)
    turn = math.radians(2 * ctf.astigmatism_angle)
    along = 0.5 * a * ctf.astigmatism * math.cos(turn)
    across = a * ctf.astigmatism * math.sin(turn)
    ky2, kx2 = ky * ky, kx * kx
    k2 = ky2 + kx2
    # k² cos 2(α − angle) written in kx and ky: no arctangent, no pole at k = 0.
    phase = k2 * (a * ctf.defocus + b * k2) + along * (kx2 - ky2) + across * ky * kx + c
    return -xp.sin(phase)


def zeros(ctf: Ctf, k_max: float) -> NDArray[np.float64]:
    """Return the frequencies [1/Å] in (0, k_max] where the CTF at the mean defocus is zero.

    Parameters
    ----------
    ctf : Ctf
    k_max
        In 1/Å.

    Returns
    -------
    (n,) float64, ascending
    """
    a, b, c = coefficients(ctf)
    slope, square = a * ctf.defocus / math.pi, -2 * b / math.pi
    ends = [0.0, k_max**2]
    if square and 0 < slope / square < k_max**2:
        ends.append(slope / square)  # spherical aberration turns the phase round here
    phases = [s * (slope - 0.5 * square * s) + c / math.pi for s in ends]
    order = np.arange(math.ceil(min(phases)), math.floor(max(phases)) + 1) - c / math.pi
    # Roots s = k² of ½·square·s² − slope·s + order = 0, in the form that loses no digits.
    discriminant = slope**2 - 2 * square * order
    order = order[discriminant >= 0]
    sum_ = slope + math.copysign(1.0, slope) * np.sqrt(discriminant[discriminant >= 0])
    far = sum_ / square if square else np.zeros(0)
    near = np.divide(2 * order, sum_, out=np.zeros_like(order), where=sum_ != 0)
    roots = np.unique(np.concatenate([near, far]))
    return np.sqrt(roots[(roots > 0) & (roots <= k_max**2)])
