"""Beads joined with patches: taken where they help, left where they do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kernels.deformation import Deformation, displacements, seen_displacements
from kernels.geometry import View, project, raw_from_aligned, tilted
from kernels.hybrid import join_beads
from kernels.tracks import Tracks

TILTS = np.arange(-57.0, 58.0, 6.0)
TIMES = np.abs(TILTS) / 57.0
HALF = 1000.0


def dome() -> Deformation:
    coefficients = np.zeros((3, 5, 1))
    coefficients[2, :, 0] = 40 * np.array([0, 0, 1, 0.2, 0.8])
    return Deformation(coefficients, HALF)


def tracked(
    rng: np.random.Generator,
    views: list[View],
    count: int,
    noise: float,
    deformation: Deformation | None = None,
) -> Tracks:
    points = rng.uniform(-1, 1, (count, 3)) * (HALF, HALF, 300)
    rows = []
    for i, view in enumerate(views):
        aligned = tilted(points, view)[:, :2]
        if deformation is not None:
            aligned = aligned + seen_displacements(deformation, points, TIMES[i], view)
        raw = raw_from_aligned(aligned, view) + noise * rng.normal(size=(count, 2))
        rows += [(i, j, *xy) for j, xy in enumerate(raw)]
    table = np.array(rows)
    return Tracks(
        table[:, 0].astype(int),
        table[:, 1].astype(int),
        table[:, 2:],
        np.full(len(table), 1.0),  # the stated errors are wrong for either kind
        len(views),
        count,
    )


def apart(found: tuple[View, ...], truth: list[View]) -> float:
    """Root mean square distance [Å] between where two alignments put points, the origin fitted."""
    points = np.random.default_rng(9).uniform(-1, 1, (40, 3)) * (HALF, HALF, 300)
    seen = [project(points, a) - project(points, b) for a, b in zip(found, truth, strict=True)]
    moves = np.array([part.mean(axis=0) for part in seen])
    rows = np.concatenate([project(np.eye(3), v) - project(np.zeros((3, 3)), v) for v in truth])
    matrix = rows.reshape(len(truth), 3, 2).transpose(0, 2, 1).reshape(-1, 3)
    origin = np.linalg.lstsq(matrix, moves.ravel(), rcond=None)[0]
    left = np.array(seen) - (matrix @ origin).reshape(len(truth), 1, 2)
    return float(np.sqrt((left**2).sum(axis=2).mean()))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(21)


@pytest.fixture
def truth(rng: np.random.Generator) -> list[View]:
    return [View(float(t), 84.0, *rng.uniform(-40, 40, 2)) for t in TILTS]


@pytest.mark.parametrize("bent", [False, True])
def test_sharp_beads_improve_blunt_patches(
    rng: np.random.Generator, truth: list[View], bent: bool
) -> None:
    planted = dome() if bent else None
    patches, beads = (tracked(rng, truth, n, e, planted) for n, e in ((9, 8.0), (4, 0.5)))
    start = [replace(v, shift_x=v.shift_x + 4 * rng.normal(), axis=84.1) for v in truth]
    # A field that is known to be there but not how large it is.
    known = Deformation(0.5 * dome().coefficients, HALF) if bent else None
    found = join_beads(start, known, patches, beads, TIMES.tolist())
    assert found.taken
    assert found.beads == 4
    assert found.together < 0.5 * found.alone
    assert apart(found.views, truth) < 0.3 * apart(tuple(start), truth)
    assert (found.deformation is None) == (not bent)
    if found.deformation is not None:
        places = rng.uniform(-HALF, HALF, (50, 2))
        error = displacements(found.deformation, places, 1) - displacements(dome(), places, 1)
        error -= error.mean(axis=0)
        assert np.sqrt((error**2).sum(axis=1).mean()) < 8  # it began with 18


def test_beads_that_contradict_are_left_out(rng: np.random.Generator, truth: list[View]) -> None:
    patches, beads = tracked(rng, truth, 16, 0.5), tracked(rng, truth, 3, 40.0)
    found = join_beads(truth, None, patches, beads, TIMES.tolist())
    assert not found.taken
    assert found.views == tuple(truth)
    assert found.together > 0


def test_one_bead_says_nothing(rng: np.random.Generator, truth: list[View]) -> None:
    patches, beads = tracked(rng, truth, 9, 2.0), tracked(rng, truth, 1, 0.5)
    found = join_beads(truth, None, patches, beads, TIMES.tolist())
    assert (found.taken, found.beads) == (False, 1)
    assert np.isnan(found.alone)
