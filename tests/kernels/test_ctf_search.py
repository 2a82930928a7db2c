"""The first search: its curve, its peaks, and where astigmatism begins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ctf_images import field, tilted_gradient, view_fit

from kernels.ctf import Ctf
from kernels.ctf_fit import ViewFit
from kernels.ctf_rings import Optics
from kernels.ctf_search import APART, PEAKS, Search, best_astigmatism, highest_peaks, search_rings
from kernels.geometry import View

SIZE, PIXEL = 512, 3.6
DEFOCUS = np.arange(5000.0, 60001.0, 200.0)
FREE = np.zeros(1)


def view(defocus: float, seed: int = 1, tilt: float = 0.0, hand: int = 1, **more: float) -> ViewFit:
    gradient = tilted_gradient(tilt, 25.0, 1) if tilt else (0.0, 0.0)
    ctf = Ctf(defocus, defocus)
    image = field(SIZE, PIXEL, ctf, seed=seed, gradient=gradient, **{"signal": 1.0, **more})
    return view_fit(image, PIXEL, view=View(tilt, 25.0), hand=hand)


def search(one: ViewFit, phases: np.ndarray = FREE) -> Search:
    return search_rings(one.rings, one.gradient, Optics(), DEFOCUS, phases)


@pytest.mark.parametrize("defocus", [8000.0, 21300.0, 52500.0])
def test_evidence_is_highest_at_the_defocus(defocus: float) -> None:
    found = search(view(defocus))
    assert found.evidence.shape == (len(DEFOCUS), 1)
    assert abs(DEFOCUS[found.evidence[:, 0].argmax()] - defocus) <= 200
    assert (found.evidence >= 0).all()


@pytest.mark.parametrize("tilt", [60.0, -60.0])
def test_tilted_view_has_less_evidence_with_the_wrong_hand(tilt: float) -> None:
    right, wrong = (search(view(30000.0, tilt=tilt, hand=hand)).evidence for hand in (1, -1))
    assert abs(DEFOCUS[right[:, 0].argmax()] - 30000) <= 400
    assert right.max() > 2 * wrong.max()


def test_evidence_in_noise_is_that_of_a_search_without_rings() -> None:
    highest = [search(view(20000.0, seed, signal=0.0)).evidence.max() for seed in range(8)]
    assert np.median(highest) < 10
    assert max(highest) < 16


def test_evidence_grows_with_the_area_that_was_seen() -> None:
    """Twice the samples are twice the log likelihood, whatever the tiles overlap."""
    small, large = (
        search(view_fit(field(size, PIXEL, Ctf(2e4, 2e4), seed=3, signal=1.0), PIXEL, box=256))
        for size in (512, 724)
    )
    assert large.evidence.max() / small.evidence.max() == pytest.approx(2.2, abs=0.5)


def test_phase_shift_is_told_from_defocus() -> None:
    ctf = Ctf(15000.0, 15000.0, phase_shift=60.0)
    image = field(SIZE, PIXEL, ctf, seed=2, signal=3.0)
    phases = np.radians(np.arange(0.0, 180.0, 15.0))
    found = search(view_fit(image, PIXEL), phases)
    defocus, phase = highest_peaks(found)[0]
    assert abs(defocus - 15000) <= 600
    assert abs(math.degrees(phase) - 60) <= 15
    blind = search(view_fit(image, PIXEL))
    assert found.evidence.max() > blind.evidence.max()


def curve(*peaks: tuple[float, float]) -> Search:
    values = sum(h * np.exp(-(((DEFOCUS - d) / 300) ** 2)) for d, h in peaks)
    return Search(DEFOCUS, FREE, np.asarray(values)[:, None])


def test_peaks_are_distinct_and_the_best_is_first() -> None:
    found = highest_peaks(curve((20000, 100), (20400, 90), (35000, 80), (50000, 30)))
    assert [defocus for defocus, _ in found] == pytest.approx([20000, 35000], abs=400)
    assert len(highest_peaks(curve(*((1e4 * n, 100.0) for n in range(1, 6))))) == PEAKS
    places = [d for d, _ in highest_peaks(curve((20000, 100)))]
    assert min(np.diff(sorted(places)), default=APART) >= APART


def test_a_prior_turns_the_choice_of_peaks() -> None:
    found = curve((20000, 100), (35000, 80))
    prior = -0.5 * ((DEFOCUS - 35000) / 1500) ** 2
    assert highest_peaks(found, prior[:, None])[0][0] == pytest.approx(35000, abs=200)


@pytest.mark.parametrize("angle", [0.0, 45.0, -60.0])
def test_astigmatism_begins_on_the_right_side(angle: float) -> None:
    image = field(SIZE, PIXEL, Ctf(25600.0, 24400.0, angle), seed=3, signal=3.0)
    one = view_fit(image, PIXEL)
    reach = np.asarray([-1200.0, -600.0, 0.0, 600.0, 1200.0])
    defocus, p, q = best_astigmatism(
        one.rings, one.gradient, Optics(), (25000.0, 0.0), 200.0, (0.0, 0.0), reach
    )
    turn = math.radians(2 * angle)
    assert abs(p - 1200 * math.cos(turn)) <= 600
    assert abs(q - 1200 * math.sin(turn)) <= 600
    assert abs(defocus - 25000) <= 200
