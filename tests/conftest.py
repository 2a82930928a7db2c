"""Fixtures every test may use: array namespaces and the reference data beside the checkout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest

from kernels import arrays

NO_GPU = arrays.cupy is None or not arrays.cupy.cuda.is_available()
SHARED = Path(__file__).parents[2] / "shared" / "data"


def _strict(values: Any) -> Any:
    """Put `values` on a device of array_api_strict that refuses implicit NumPy conversion."""
    return array_api_strict.asarray(
        np.asarray(values), device=array_api_strict.Device("device1"), copy=True
    )


@pytest.fixture(
    params=[
        "numpy",
        "strict",
        pytest.param(
            "cupy", marks=[pytest.mark.gpu, pytest.mark.skipif(NO_GPU, reason="no CUDA device")]
        ),
    ]
)
def on(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Return the function that moves a NumPy array to the namespace under test."""
    return {
        "numpy": np.asarray,
        "strict": _strict,
        "cupy": lambda values: arrays.cupy.asarray(values),
    }[request.param]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder with real files of other programs, or skip."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: the reference files lie beside the checkout")
    return SHARED
