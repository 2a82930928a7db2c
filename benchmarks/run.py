"""Time the kernels on this machine and say how near its roof they come.

``python benchmarks/run.py [--threads N] [NAME …]`` prints one table. To add a kernel, see
`benchmarks.timed`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numba
import numpy as np
import scipy.fft
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that it also runs as a plain script

from benchmarks.timed import KERNELS

SECONDS = 2.0  # spent on each kernel, but at least three runs: the fastest one counts
STEPS = 16  # multiply-adds on a value between reading and writing it


@numba.njit(parallel=True, fastmath={"contract"})
def _triad(a, b, c):  # type: ignore[no-untyped-def]
    for i in numba.prange(a.size):
        a[i] = b[i] + np.float32(0.5) * c[i]


@numba.njit(parallel=True, fastmath={"contract"})
def _multiply_add(values, factor, repeats):  # type: ignore[no-untyped-def]
    for part in numba.prange(values.shape[0]):
        row = values[part]
        for _ in range(repeats):
            for i in range(row.size):
                x = row[i]
                for _ in range(STEPS):
                    x = x * factor + factor
                row[i] = x


def fastest(run: Callable[[], object], seconds: float = SECONDS) -> float:
    """Return the time of the fastest run, the first one (compilation, page faults) not counted."""
    run()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
    return min(times)


def bandwidth() -> float:
    """Measure the memory bandwidth [B/s]: a = b + c/2 on arrays that fit in no cache."""
    a, b, c = (np.ones(1 << 27, dtype=np.float32) for _ in range(3))
    return 3 * a.nbytes / fastest(lambda: _triad(a, b, c))


def peak_flops(threads: int) -> float:
    """Measure the peak [flop/s] of single-precision multiply-adds in registers."""
    values, repeats = np.ones((threads, 1024), dtype=np.float32), 20000
    operations = 2 * values.size * STEPS * repeats
    return operations / fastest(lambda: _multiply_add(values, np.float32(0.5), repeats))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=cores, help="default: all cores")
    parser.add_argument("kernels", nargs="*", metavar="NAME", help=", ".join(KERNELS))
    options = parser.parse_args()
    unknown = set(options.kernels) - set(KERNELS)
    if unknown:
        parser.error(f"unknown kernels {sorted(unknown)}, there are {', '.join(KERNELS)}")
    numba.set_num_threads(options.threads)

    memory, peak = bandwidth(), peak_flops(options.threads)
    table = Table(
        title=f"{options.threads} threads: memory {memory * 1e-9:.1f} GB/s (triad), "
        f"peak {peak * 1e-9:.0f} Gflop/s (multiply-add)"
    )
    table.add_column("kernel")
    table.add_column("size")
    for heading in ("ms", "GB/s", "% of memory", "Gflop/s", "% of peak", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    with scipy.fft.set_workers(options.threads):
        for name in options.kernels or KERNELS:
            work = KERNELS[name]()
            seconds = fastest(work.run)
            rates = work.traffic / seconds, work.flops / seconds
            table.add_row(
                *(name, work.size, f"{seconds * 1e3:.1f}"),
                *(f"{rates[0] * 1e-9:.1f}", f"{100 * rates[0] / memory:.0f}"),
                *(f"{rates[1] * 1e-9:.1f}", f"{100 * rates[1] / peak:.0f}"),
                work.note(seconds),
            )
    Console(width=max(Console().width, 140)).print(table)


if __name__ == "__main__":
    main()
