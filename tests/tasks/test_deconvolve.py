"""The deconvolved copy: by rows as of the whole, by the CTF that a correction has left."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.deconvolve import deconvolve
from tasks.chunks.deconvolve import DECONVOLVED
from tasks.ctf3d import ctf3d
from tasks.ctf_views import ctf_of_views
from tasks.export import export_series
from tasks.formats.mrc import read_header, read_volume
from tasks.parameters import Ctf3dParameters, Execution, ReconstructParameters
from tasks.reconstruct import reconstruct
from tasks.result import Result
from tasks.store import Series, parse_project

THREADS = Execution(cluster="threads", workers=2)
SMALL: dict[str, Any] = {"thickness": 200.0, "alignment": "coarse", "deconvolve": True}


@pytest.fixture
def copy(tmp_path: Path, finished_project: str) -> Series:
    project = shutil.copytree(finished_project, tmp_path / "p.zarr")
    return parse_project(str(project)).series("TS_01")


def expected_of(series: Series, result: Result, left: float | None) -> np.ndarray[Any, Any]:
    record = series.record("main")
    flattest = min(record.included, key=lambda i: abs(record.views[i].tilt_angle))
    ctf, about = ctf_of_views(record)[flattest].ctf, result.attributes()
    volume = result.array("0")[:].astype(np.float32) * np.float32(about.get("integer_step", 1))
    return np.asarray(deconvolve(volume, about["pixel_size"], ctf, left=left))


@pytest.mark.parametrize("storage", ["float32", "int16"])
def test_parts_make_the_whole_whatever_is_stored(
    copy: Series, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    monkeypatch.setattr("tasks.tomogram.BRICK", 32)
    parameters = ReconstructParameters(**SMALL, storage=storage)
    reconstruct.fn(copy.project.url, copy.name, parameters, "main", THREADS)
    result = copy.current("main", "reconstruct")
    assert "ctf" in result.attributes()["inputs"]
    assert result.array(DECONVOLVED).dtype == np.float32
    found, expected = result.array(DECONVOLVED)[:], expected_of(copy, result, None)
    # Rows farther than the halo do not count but where the high-pass rings on.
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
    out = Path(copy.project.url).parent / "out"
    export_series(copy.project.url, copy.name, "main", "mrc", out)
    np.testing.assert_array_equal(read_volume(out / "TS_01_rec_deconv.mrc"), found)
    assert read_header(out / "TS_01_rec_deconv.mrc").mode == 2


def test_a_corrected_tomogram_has_only_magnitudes_left(copy: Series) -> None:
    parameters = Ctf3dParameters(**SMALL, check_hand=False)
    ctf3d.fn(copy.project.url, copy.name, parameters, "main", THREADS)
    result = copy.current("main", "ctf3d")
    found = result.array(DECONVOLVED)[:]
    right, wrong = (expected_of(copy, result, left) for left in (1.0, None))
    assert np.abs(found - right).max() < 1e-3 * np.abs(right).max()  # the halo holds all rows
    assert np.abs(found - wrong).max() > 0.01 * np.abs(right).max()


def test_only_who_asks_for_it_gets_a_copy(copy: Series) -> None:
    assert DECONVOLVED not in copy.current("main", "reconstruct").group()
