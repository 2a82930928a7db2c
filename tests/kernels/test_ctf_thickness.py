"""The thickness that curves of evidence support together."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.ctf_thickness import fit_thickness
from kernels.geometry import View

PATHS = np.arange(0.0, 8001.0, 250.0)
TILTS = np.arange(-60.0, 61.0, 5.0)
VIEWS = [View(float(tilt), 0.0) for tilt in TILTS]


def curves(thickness: float, height: float, width: float, pretilt: float = 0.0) -> np.ndarray:
    """Return parabolas of evidence, each highest at the path of its view's beam."""
    path = thickness / np.cos(np.radians(TILTS + pretilt))
    away = (PATHS[None, :] - path[:, None]) / width
    return height * np.exp(-0.5 * away**2)


@pytest.mark.parametrize("thickness", [900.0, 1500.0, 2600.0])
def test_views_of_all_tilts_agree_on_the_thickness(thickness: float) -> None:
    found = fit_thickness(PATHS, curves(thickness, 2.0, 400.0), VIEWS)
    assert found is not None
    assert found.thickness == pytest.approx(thickness, abs=40)
    assert found.evidence > 8


def test_the_beams_path_counts_the_pretilt() -> None:
    told, untold = (
        fit_thickness(PATHS, curves(2000.0, 2.0, 300.0, 12.0), VIEWS, p) for p in (12.0, 0.0)
    )
    assert told is not None
    assert told.thickness == pytest.approx(2000, abs=40)
    assert untold is None or untold.evidence < told.evidence


def test_error_is_that_of_the_curvature() -> None:
    flat = [View(0.0, 0.0)] * 16
    parabolas = np.tile(-0.5 * ((PATHS - 3000) / 800) ** 2, (16, 1))
    found = fit_thickness(PATHS, parabolas, flat)
    assert found is not None
    assert found.error == pytest.approx(800 / 4, rel=0.1)


def test_too_little_evidence_or_a_maximum_at_an_end_tells_nothing() -> None:
    assert fit_thickness(PATHS, curves(1500.0, 0.2, 400.0), VIEWS) is None
    thin = np.tile(-PATHS / 100, (len(VIEWS), 1))
    assert fit_thickness(PATHS, thin, VIEWS) is None
    assert fit_thickness(PATHS, -thin, VIEWS) is None
