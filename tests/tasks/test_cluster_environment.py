"""A cluster of local processes leaves Numba's threads of this process alone."""

from __future__ import annotations

import os

import numba
import numpy as np

from tasks.cluster import client_of, opened
from tasks.parameters import Execution


def sum_in_parallel() -> float:
    """Compile and run a parallel function, for which Numba reads the environment again."""

    @numba.njit(parallel=True)
    def total(values: np.ndarray) -> float:
        result = 0.0
        for i in numba.prange(values.size):
            result += values[i]
        return result

    return total(np.ones(10))


def test_a_cluster_leaves_numba_in_this_process_as_it_was() -> None:
    assert sum_in_parallel() == 10
    before = os.environ.get("NUMBA_NUM_THREADS")
    with opened(Execution(cluster="local", workers=1)) as running:
        there = client_of(running).run(os.environ.get, "NUMBA_NUM_THREADS")
        assert set(there.values()) != {None}
    assert os.environ.get("NUMBA_NUM_THREADS") == before
    assert sum_in_parallel() == 10
