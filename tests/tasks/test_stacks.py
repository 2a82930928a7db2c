"""The memory that a unit of work on a stack takes is the memory that is stated."""

from __future__ import annotations

import tracemalloc
from typing import Any, cast

import numpy as np
import pytest

from kernels.geometry import View
from kernels.reduce import reduced_shape
from kernels.resample import sampling
from tasks.chunks.dose import Weighting
from tasks.chunks.stacks import (
    BASE_BYTES,
    memory_of_preprocessing,
    memory_of_transform,
    preprocess_view,
    share_outside,
    transform_view,
)
from tasks.parameters import PreprocessParameters, TransformParameters
from tasks.result import Result

SHAPE = (700, 650)


class Images:
    """Stands for a result whose images lie in memory, and are copied as if they were read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def images(self) -> Images:
        return self

    def array(self, name: str) -> Images:
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __getitem__(self, index: int) -> np.ndarray:
        return np.array(self.values[index])

    def __setitem__(self, index: int, image: np.ndarray) -> None:
        self.values[index] = image


def result(values: np.ndarray) -> Result:
    return cast("Result", Images(values))


def peak_of(work: Any) -> int:
    work()  # compiles
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("binning", [1.0, 1.5, 4.0])
@pytest.mark.parametrize("kernel", ["fourier", "lanczos3"])
def test_a_unit_takes_no_more_memory_than_is_stated(binning: float, kernel: str) -> None:
    source = result(np.random.default_rng(0).normal(10, 1, (1, *SHAPE)).astype(np.float32))
    reduced = reduced_shape(SHAPE, binning)
    target = result(np.zeros((1, *reduced), np.float32))
    given = {"binning": binning, "filter": kernel, "taper": 9}
    first = PreprocessParameters.model_validate(given | {"normalise": "mean-sd"})
    peak = peak_of(lambda: preprocess_view(source, target, 0, 0, first, like=0))
    assert peak < memory_of_preprocessing(SHAPE, reduced) - BASE_BYTES / 2
    second = TransformParameters.model_validate(given)
    mapping = [v.tolist() for v in sampling(View(30, 8), 2.7, SHAPE, reduced, binning, reduced)]
    weighting = Weighting((60.0,), 300.0)
    peak = peak_of(
        lambda: transform_view(source, target, 0, 0, *mapping, 2.7 * binning, weighting, second)
    )
    assert peak < memory_of_transform(SHAPE, reduced, reduced) - BASE_BYTES / 2


def test_the_share_that_a_view_does_not_reach_is_told() -> None:
    quarter = share_outside((100, 100), [[1, 0], [0, 1]], [0, -25], (100, 100))
    assert quarter == pytest.approx(0.25, abs=0.02)
    assert share_outside((100, 100), [[1, 0], [0, 1]], [0, 0], (100, 100)) == 0
