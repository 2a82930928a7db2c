"""How many threads kernels on the CPU use."""

from __future__ import annotations

import os

import numba

VARIABLE = "TILTFLOW_THREADS"


def thread_count() -> int:
    """Return what the environment says, else ``numba.get_num_threads()``.

    Workers are told by a variable of their own: Numba refuses to compile where NUMBA_NUM_THREADS
    was set after its import, as in workers that import a user's script when they start.
    """
    return int(os.environ.get(VARIABLE, "0")) or int(numba.get_num_threads())
