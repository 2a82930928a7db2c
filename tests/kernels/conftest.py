"""Fixtures of the kernels' tests: CUDA sources executed on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cuda_on_cpu import COMPILER, Launch, build

from kernels import arrays


@pytest.fixture(scope="session")
def cuda_on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Launch]:
    """Return a function that builds ``kernels/cuda/<name>.cu`` with g++ and returns its launcher.

    ``cuda_on_cpu("backproject")("backproject", (grid, block, arguments))`` runs the kernel on
    NumPy arrays, given as they would be to CuPy: arrays, np.int32 and np.float32.
    """
    if COMPILER is None:
        pytest.skip("g++ is not installed: CUDA kernels are not executed")
    folder = tmp_path_factory.mktemp("cuda_on_cpu")
    return lambda name: build(arrays.cuda_source(name), name, folder)
