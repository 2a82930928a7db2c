from __future__ import annotations

import inspect
import sys
from functools import partial

import numba
import pytest

from benchmarks import run, whole
from benchmarks.timed import KERNELS
from tasks.parameters import Execution

TINY = {"n_views": 3, "size": 384, "planes": 8, "frames": 3}


@pytest.mark.parametrize("name", KERNELS)
def test_every_benchmark_runs_and_counts_its_work(name: str) -> None:
    given = inspect.signature(KERNELS[name]).parameters
    parameters = [p for p in given if p in TINY]
    assert all(given[p].default is not inspect.Parameter.empty for p in set(given) - set(TINY))
    tiny, large = (KERNELS[name](**{p: scale * TINY[p] for p in parameters}) for scale in (1, 2))
    tiny.run()
    assert 0 < tiny.traffic < large.traffic
    assert 0 < tiny.flops < large.flops
    assert "384" in tiny.size
    assert isinstance(tiny.note(0.5), str)


def test_the_fastest_run_counts_and_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 5.0, 5.0, 6.0, 6.0, 8.0])
    monkeypatch.setattr(run, "perf_counter", lambda: next(times))
    runs: list[int] = []
    assert run.fastest(lambda: runs.append(1), seconds=1.0) == 1.0
    assert len(runs) == 4


def test_the_table_has_a_line_for_each_kernel_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = {"rfft2": partial(KERNELS["rfft2"], n_views=2, size=64)}
    monkeypatch.setattr(run, "KERNELS", tiny)
    monkeypatch.setattr(run, "bandwidth", lambda: 20e9)
    monkeypatch.setattr(run, "peak_flops", lambda threads: 100e9)
    monkeypatch.setattr(run, "fastest", lambda work: 1e-3)
    monkeypatch.setattr(sys, "argv", ["run.py", "--threads", "1", "rfft2"])
    threads = numba.get_num_threads()
    try:
        run.main()
    finally:
        numba.set_num_threads(threads)
    shown = capsys.readouterr().out
    assert "1 threads: memory 20.0 GB/s (triad), peak 100 Gflop/s" in shown
    assert "rfft2" in shown
    assert "1.0" in shown

    monkeypatch.setattr(sys, "argv", ["run.py", "nonsense"])
    with pytest.raises(SystemExit):
        run.main()
    assert "unknown kernels ['nonsense'], there are rfft2" in capsys.readouterr().err


def test_whole_steps_are_timed_beside_their_parts() -> None:
    size = whole.Size(3, 128, 16)
    threads = Execution(cluster="threads", workers=1)
    with whole.ready(size) as series:
        taken, written = whole.step_time(series, "reconstruct", size, threads, 1)
        planes, _ = whole.step_time(series, "ctf3d", size, threads, 1)
    assert 0 < taken < 60
    assert 0 < planes < 60
    voxels = size.planes * size.side**2
    assert 4 * voxels <= written < 4 * voxels * 1.6  # small bricks have large pyramids
    assert set(whole.parts(size, 1)) == {"back-projection", "filter", "plain Zarr write"}
