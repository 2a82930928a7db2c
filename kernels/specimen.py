"""A made-up vitrified specimen with known truth: ice, protein, virus-like particles, gold beads.

Everything but the gold is Gaussian blobs, each with its phase integrated over its projection
[rad Å²] = interaction constant × integrated potential, so that a projection at any angle is
exact. Magnitudes at 300 kV (interaction constant 6.53e-4 rad/(V Å)):

* protein exceeds vitreous ice by about 3 V at 1.21 Å³/Da: 2.4 rad Å² per kDa;
* a lipid leaflet by 2 V over 15 Å: 0.02 rad per leaflet seen face on;
* gold exceeds ice by about 25 V and removes electrons with a mean free path of 150 Å;
* ice and what is dissolved in it: white density fluctuations whose contrast has the power
  2.5e-4 Å² per Å of thickness: 0.7e-4 of pure water (0.033 molecules/Å³ of 0.094 rad Å²,
  structure factor 0.06), the rest of the atoms of a solution with 9 % protein (0.08 atoms/Å³ of
  0.078 rad Å² in protein). They make the Thon rings that reach beyond 20 Å.

With the dose, protein blurs and water walks about, gold stays; see `BLUR` and `WALK`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray

PHASE_PER_KDA = 2.4  # rad Å² / kDa
GOLD_PHASE = 0.0163  # rad / Å
GOLD_LOSS = 1 / 300  # amplitude / Å: half of the intensity's 1 / 150
# Variance gained by protein per dose [Å² / (e/Å²)]: at 60 e/Å² the amplitude is left with 0.12 at
# 10 Å and 0.59 at 20 Å (Grant & Grigorieff, eLife 4:e06980, 2015: 0.12 and 0.46).
BLUR = 0.18
# Rms displacement of water after 1 e/Å² [Å], growing with the root of the dose
# (McMullan, Vinothkumar & Henderson, Ultramicroscopy 158:26, 2015).
WALK = 1.0
ICE_POWER = 2.5e-4  # Å² of squared contrast per Å of thickness
ICE_DENSITY = 3.3e-6  # blobs / Å³: more of them change nothing but the time
ICE_SIGMA = 3.0  # Å

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Blobs:
    """Gaussian blobs.

    Attributes
    ----------
    positions : (n, 3)
        X, Y, Z [Å].
    sigmas : (n,)
        Standard deviations [Å].
    phases : (n,)
        Phase integrated over the projection [rad Å²].
    """

    positions: Floats
    sigmas: Floats
    phases: Floats


@dataclass(frozen=True)
class Specimen:
    """A slab of ice and what is in it, in the specimen frame of `kernels.geometry`.

    Attributes
    ----------
    thickness : float
        Of the slab along Z [Å].
    midplane : float
        Z of the slab's middle at X = Y = 0 [Å].
    slope_x, slope_y : float
        Rise of the slab's middle along X and Y, without unit.
    beads : (n, 3)
        Centres X, Y, Z of the gold beads [Å].
    bead_radii : (n,)
        In Å.
    matter : Blobs
        Protein and lipid, which the beam damages.
    ice : Blobs
        Texture of the ice.
    ice_steps : (n, 3)
        Displacement of each ice blob after 1 e/Å², growing with the root of the dose [Å].
    """

    thickness: float
    midplane: float
    slope_x: float
    slope_y: float
    beads: Floats
    bead_radii: Floats
    matter: Blobs
    ice: Blobs
    ice_steps: Floats


def blobs_at_dose(specimen: Specimen, dose: float) -> Blobs:
    """Return all blobs as they are after `dose` e/Å²: protein blurred, water displaced."""
    matter, ice = specimen.matter, specimen.ice
    return Blobs(
        np.concatenate([matter.positions, ice.positions + sqrt(dose) * specimen.ice_steps]),
        np.concatenate([np.sqrt(matter.sigmas**2 + BLUR * dose), ice.sigmas]),
        np.concatenate([matter.phases, ice.phases]),
    )


def make_specimen(
    rng: np.random.Generator,
    half_width: tuple[float, float],
    thickness: float = 1500.0,
    midplane: float = 0.0,
    slope_x: float = 0.0,
    slope_y: float = 0.0,
    bead_radius: float = 50.0,
    bead_density: float = 2.9e-6,
    protein_density: float = 2.4e-7,
    complex_density: float = 1.2e-6,
    virus_density: float = 2.8e-7,
) -> Specimen:
    """Fill a slab at random.

    Parameters
    ----------
    rng : numpy.random.Generator
    half_width : (x, y)
        The slab spans |X| ≤ x, |Y| ≤ y [Å].
    thickness, midplane, slope_x, slope_y : float
        See `Specimen`.
    bead_radius : float
        Mean radius [Å]; single beads differ by 4 % rms.
    bead_density, complex_density, virus_density : float
        Objects per Å² of slab: gold beads near both surfaces, right-handed complexes of
        2.5 MDa, virus-like particles (shells up to 1200 Å across).
    protein_density : float
        Proteins of about 100 kDa per Å³.

    Raises
    ------
    ValueError
        If the slab is thinner than two beads.
    """
    if thickness < 4 * bead_radius:
        raise ValueError(f"thickness is {thickness} Å, expected at least {4 * bead_radius} Å")
    wide, high = half_width
    area = 4 * wide * high
    half = thickness / 2

    def scatter(count: int, inset: float = 0.0) -> Floats:
        reach = np.array([wide, high, max(half - inset, 0.0)])
        return rng.uniform(-1, 1, (count, 3)) * reach

    def apart(density: float, inset: float, distance: float, others: Floats) -> Floats:
        # Dart throwing: what would lie within `distance` in the plane is thrown again.
        placed = others
        for candidate in scatter(20 * round(density * area), inset):
            if len(placed) - len(others) >= round(density * area):
                break
            if np.all(np.sum((placed[:, :2] - candidate[:2]) ** 2, axis=1) > distance**2):
                placed = np.vstack([placed, candidate])
        return placed[len(others) :]

    none = np.zeros((0, 3))
    beads = apart(bead_density, 0.0, 4.5 * bead_radius, none)
    beads[:, 2] = np.sign(beads[:, 2]) * (half - bead_radius - rng.uniform(5, 80, len(beads)))
    radii = bead_radius * (1 + 0.04 * rng.standard_normal(len(beads)))

    largest = min(600.0, half - 40.0)
    shells = apart(virus_density, largest, 2.1 * largest, none) if largest > 200 else none
    shell_radii = rng.uniform(0.75, 1.0, len(shells)) * largest
    complexes = _outside(scatter(round(complex_density * area), 140.0), shells, shell_radii + 150)
    proteins = scatter(round(protein_density * area * thickness), 30.0)
    proteins = _outside(proteins, shells, shell_radii + 40)
    matter = _join(
        *(_virus(rng, c, r) for c, r in zip(shells, shell_radii, strict=True)),
        *(_complex(rng, c) for c in complexes),
        _proteins(rng, proteins),
    )

    count = round(ICE_DENSITY * area * thickness)
    strength = sqrt(ICE_POWER / (4 * ICE_DENSITY))
    ice = Blobs(
        scatter(count).astype(np.float32),
        np.full(count, ICE_SIGMA, np.float32),
        (strength * rng.standard_normal(count)).astype(np.float32),
    )
    for positions in (beads, matter.positions, ice.positions):
        positions[:, 2] += midplane + slope_x * positions[:, 0] + slope_y * positions[:, 1]
    steps = rng.standard_normal((count, 3), np.float32) * np.float32(WALK / sqrt(3))
    return Specimen(thickness, midplane, slope_x, slope_y, beads, radii, matter, ice, steps)


def _outside(points: Floats, centres: Floats, radii: Floats) -> Floats:
    distances = np.linalg.norm(points[:, None, :] - centres[None, :, :], axis=-1)
    return points[np.all(distances > radii, axis=1)]


def _join(*parts: Blobs) -> Blobs:
    return Blobs(
        np.concatenate([p.positions for p in parts]).astype(np.float32),
        np.concatenate([p.sigmas for p in parts]).astype(np.float32),
        np.concatenate([p.phases for p in parts]).astype(np.float32),
    )


def _sphere(count: int) -> Floats:
    """Return `count` unit vectors spread evenly (golden spiral)."""
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    around = pi * (1 + sqrt(5)) * index
    flat = np.sqrt(1 - z**2)
    return np.column_stack([flat * np.cos(around), flat * np.sin(around), z])


def _rotations(rng: np.random.Generator, count: int) -> Floats:
    """Return `count` random rotation matrices (count, 3, 3)."""
    q, r = np.linalg.qr(rng.standard_normal((count, 3, 3)))
    q = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    return q * np.linalg.det(q)[:, None, None]


def _virus(rng: np.random.Generator, centre: Floats, radius: float) -> Blobs:
    """Return a bilayer and, 90 Å below, a protein lattice of 80 Å, as in an immature virus."""
    turn = _rotations(rng, 1)[0]
    leaflets = []
    for r in (radius, radius - 40.0):
        unit = _sphere(round(4 * pi * r**2 / 900.0))  # one blob per 30 Å × 30 Å
        leaflets.append(r * unit + 8.0 * rng.standard_normal(unit.shape))
    lipid = np.concatenate(leaflets)
    r = radius - 90.0
    axes = _sphere(round(4 * pi * r**2 / 5540.0))  # one hexamer per cell of an 80 Å lattice
    axes += 6.0 / r * rng.standard_normal(axes.shape)
    east = np.cross(axes, [0.3, 0.5, 0.81])
    east /= np.linalg.norm(east, axis=1, keepdims=True)
    north = np.cross(axes, east)
    rings = []
    # Two rings of six, the inner one turned to the right: the lattice has a hand.
    for drop, turned in ((0.0, 0.0), (35.0, 0.35)):
        for k in range(6):
            angle = turned + k * pi / 3
            around = np.cos(angle) * east + np.sin(angle) * north
            rings.append((r - drop) * axes + 26.0 * around)
    protein = np.concatenate(rings)
    return Blobs(
        np.concatenate([lipid, protein]) @ turn.T + centre,
        np.concatenate([np.full(len(lipid), 11.0), np.full(len(protein), 7.0)]),
        np.concatenate([np.full(len(lipid), 18.0), np.full(len(protein), 13 * PHASE_PER_KDA)]),
    )


def _complex(rng: np.random.Generator, centre: Floats) -> Blobs:
    """Return a right-handed spring of 2.5 MDa, 250 Å across: its mirror image differs."""
    t = np.linspace(0, 4 * pi, 60)
    spring = np.column_stack([80 * np.cos(t), 80 * np.sin(t), 110 * (t / (2 * pi) - 1)])
    positions = spring @ _rotations(rng, 1)[0].T + centre
    return Blobs(positions, np.full(60, 10.5), np.full(60, 2500 / 60 * PHASE_PER_KDA))


def _proteins(rng: np.random.Generator, centres: Floats) -> Blobs:
    """Return proteins of six blobs each, 100 kDa on average."""
    positions = centres[:, None, :] + 17.0 * rng.standard_normal((len(centres), 6, 3))
    mass = 100 * np.exp(0.4 * rng.standard_normal(len(centres)) - 0.08)
    count = 6 * len(centres)
    return Blobs(
        positions.reshape(-1, 3), np.full(count, 7.5), np.repeat(mass / 6 * PHASE_PER_KDA, 6)
    )
