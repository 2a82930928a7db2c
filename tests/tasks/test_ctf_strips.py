"""What a worker reports of a view for the CTF by strips, and the spectrum it writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from kernels.ctf import Ctf, ctf_2d
from kernels.ctf_strip_fit import fit_strips
from kernels.fourier import frequencies, irfft2, rfft2
from kernels.geometry import View
from tasks.chunks.ctf_strips import measure_view, memory_of_view, search_of, wedges_from_report
from tasks.ctf import ctf
from tasks.errors import UnusableData
from tasks.parameters import CtfParameters, Execution
from tasks.record import Acquisition
from tasks.result import Result

SIZE, PIXEL, BOX = 512, 3.6, 256
ACQUISITION = Acquisition(voltage=300, pixel_size=PIXEL, tilt_axis=85.3)


class Stack:
    """Holds arrays as a result does."""

    def __init__(self, image: np.ndarray, box: int) -> None:
        self.image = image
        self.spectra = np.zeros((2, box, box // 2 + 1), np.float32)

    def images(self) -> np.ndarray:
        return self.image[None]

    def array(self, name: str) -> np.ndarray:
        assert name == "spectra"
        return self.spectra


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Return a view at 30000 Å of underfocus, with specks of gold."""
    white, rest = np.random.default_rng(5).normal(size=(2, SIZE, SIZE)).astype(np.float32)
    ky, kx = frequencies((SIZE, SIZE), white, PIXEL)
    structure = rfft2(white) * 1.4 * ctf_2d(ky, kx, Ctf(30000.0, 30000.0))
    view = irfft2(structure * np.exp(-75 * (ky**2 + kx**2)), (SIZE, SIZE)) + rest
    view[::64, ::64] -= 200
    return np.asarray(view, dtype=np.float32)


def measured(
    image: np.ndarray, expected: float | None, reduction: float = 1.0, **parameters: Any
) -> tuple[Any, Stack]:
    box, pixel = round(BOX / reduction), PIXEL * reduction
    stack = Stack(image, box)
    result = cast(Result, stack)
    report = measure_view(
        result, result, 0, View(0.0, 85.3), ACQUISITION, pixel, box, 1, expected,
        CtfParameters(**parameters), reduction,
    )  # fmt: skip
    return report, stack


@pytest.mark.parametrize("expected", [30000.0, 20000.0, None])
def test_reports_of_a_view_lead_to_its_defocus(image: np.ndarray, expected: float | None) -> None:
    report, stack = measured(image, expected)
    wedges = wedges_from_report(json.loads(json.dumps(report)))
    search = search_of(CtfParameters(angle_step=0), expected)
    found = fit_strips([wedges], [0.0], PIXEL, search)[0]
    assert found.ctf.defocus == pytest.approx(30000, abs=400)
    assert (stack.spectra[0] > 0).any()
    assert (stack.spectra[1] == 0).all()


def test_report_is_small_and_wedges_only_come_with_astigmatism(image: np.ndarray) -> None:
    plain, _ = measured(image, 30000.0)
    wedges, _ = measured(image, 30000.0, search_astigmatism=True)
    assert len(plain["power"]) == 1
    assert len(wedges["power"]) == 36
    assert len(json.dumps(wedges)) < 36 * BOX // 2 * 12
    assert wedges_from_report(wedges).power.shape == wedges_from_report(wedges).count.shape


def test_reduced_image_tells_the_same(image: np.ndarray) -> None:
    # At twice the pixel the rings end at 14 Å.
    report, stack = measured(image, 30000.0, 2.0)
    assert stack.spectra.shape[1] == BOX // 2
    wedges = wedges_from_report(report)
    found = fit_strips([wedges], [0.0], 2 * PIXEL, search_of(CtfParameters(), 30000.0))[0]
    assert found.ctf.defocus == pytest.approx(30000, abs=600)


def test_search_follows_the_parameters() -> None:
    parameters = CtfParameters(
        search_phase_shift=True, min_phase_shift=20, max_phase_shift=120, phase_shift_step=20,
        extra_zeros=3, angle_step=0, min_views=5, search_astigmatism=True,
    )  # fmt: skip
    search = search_of(parameters, None)
    assert search.phase_shifts == (20, 40, 60, 80, 100, 120)
    assert (search.extra_zeros, search.angle_step, search.min_views) == (3, 0, 5)
    assert search.search_astigmatism
    assert search.defocus_range == (5000, 60000)
    assert search_of(parameters, 20000.0).defocus_range == (5000, 35000)
    assert search_of(CtfParameters(), None).phase_shifts == ()


def test_memory_holds_a_few_images() -> None:
    large, small = memory_of_view((4096, 4096), 740), memory_of_view((1024, 1024), 740)
    assert large - small > 3 * 4 * (4096**2 - 1024**2)
    assert memory_of_view((3710, 3838), 750) < 1_000_000_000  # 0.42 GB in all were measured


def test_a_range_of_few_rings_is_refused_on_a_line(finished_project: str, tmp_path: Path) -> None:
    project = str(shutil.copytree(finished_project, tmp_path / "p.zarr"))
    parameters = CtfParameters(method="strips", min_resolution=20, max_resolution=18)
    with pytest.raises(UnusableData, match=r"^TS_01: \d rings between .* \(--box\), or a higher"):
        ctf.fn(project, "TS_01", parameters, "main", Execution(cluster="threads", workers=2))
