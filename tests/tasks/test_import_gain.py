"""The orientation of the gain, as the movies show it at import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_files import line

from kernels.detector import orient_reference
from kernels.simulate import gain_reference
from tasks.discover import find_sources
from tasks.errors import UnusableData
from tasks.formats.mrc import write_stack
from tasks.import_gain import check_orientation, with_orientation
from tasks.ingest import read_series
from tasks.parameters import Execution, ImportParameters
from tasks.record import TiltSeries

THREADS = Execution(cluster="threads", workers=2)


@pytest.fixture(scope="module")
def flat_series(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Return movies taken through a gain of ±10 % structure, and the gain."""
    folder = tmp_path_factory.mktemp("flat")
    rng = np.random.default_rng(3)
    gain = gain_reference((128, 160), rng)
    for i, tilt in enumerate(range(0, 48, 3)):
        counts = rng.poisson(3 / gain, (4, 128, 160)).astype(np.uint8)
        write_stack(folder / f"TS_01_{i:03d}_{tilt}.0.mrc", counts, 1.35)
    write_stack(folder / "turned.mrc", np.flip(gain, axis=0)[None], 1.35)
    write_stack(folder / "quarter.mrc", orient_reference(gain, 1)[None], 1.35)
    write_stack(folder / "flat.mrc", np.ones_like(gain)[None], 1.35)
    return folder, gain


def with_gain(folder: Path, **given: Any) -> TiltSeries:
    user = ImportParameters(
        pattern=str(folder / "{TS}_{TO}_{TA}.mrc"), voltage=300, dose=3, tilt_axis=85, **given
    )
    (source,) = find_sources(user).sources
    record = read_series.fn(source, user)
    return with_orientation(record, check_orientation.fn([record], THREADS), user)


def test_a_gain_that_lies_otherwise_is_warned_about(flat_series: tuple[Path, np.ndarray]) -> None:
    folder, _ = flat_series
    wrong = with_gain(folder, gain=str(folder / "turned.mrc"))
    assert "fits the movies better" in str(line(wrong, "gain orientation").conflict)
    right = with_gain(folder, gain=str(folder / "turned.mrc"), gain_flip="up-down")
    assert line(right, "gain orientation").conflict is None


@pytest.mark.parametrize(("file", "rotation"), [("turned.mrc", None), ("quarter.mrc", 3)])
def test_auto_takes_the_orientation_that_the_movies_show(
    flat_series: tuple[Path, np.ndarray], file: str, rotation: int | None
) -> None:
    folder, gain = flat_series
    record = with_gain(folder, gain=str(folder / file), gain_orientation="auto")
    about = record.acquisition
    from tasks.formats.mrc import read_image

    turned = orient_reference(read_image(folder / file), about.gain_rotation, about.gain_flip)
    np.testing.assert_array_equal(turned, gain)
    assert rotation in (None, about.gain_rotation)


def test_auto_without_structure_asks_the_user(flat_series: tuple[Path, np.ndarray]) -> None:
    folder, _ = flat_series
    flat = str(folder / "flat.mrc")
    with pytest.raises(UnusableData, match=r"cannot tell.*--gain-rotate"):
        with_gain(folder, gain=flat, gain_orientation="auto")
    assert "cannot tell" in str(line(with_gain(folder, gain=flat), "gain orientation").conflict)
