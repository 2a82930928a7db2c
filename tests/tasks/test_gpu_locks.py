"""One run at a time on a GPU: the second waits, and follows when the first is gone."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from tasks import gpu_locks
from tasks.gpu_locks import alone_on, devices_of
from tasks.parameters import Execution

HOLDER = """
import sys
from tasks.gpu_locks import alone_on
with alone_on(["GPU-a", "GPU-b"], print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(gpu_locks, "LOOK", 0.02)


def test_a_run_waits_for_the_gpus_of_one_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said: list[str] = []
        with alone_on(["GPU-c"], said.append):  # another device is free
            assert said == []
        killer = threading.Timer(0.3, holder.kill)
        killer.start()
        with alone_on(["GPU-b"], said.append):
            assert said == ["GPU GPU-b is another run's: waiting"]
            assert not killer.is_alive()


def test_gpus_are_free_after_an_error() -> None:
    with pytest.raises(ValueError, match="an error"), alone_on(["GPU-a"], print):
        raise ValueError("an error")
    said: list[str] = []
    with alone_on(["GPU-a"], said.append):
        assert said == []


def test_devices_are_named_by_what_all_processes_see(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = gpu_locks.pynvml
    monkeypatch.setattr(nvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", lambda: 3)
    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByIndex", lambda i: i)
    monkeypatch.setattr(nvml, "nvmlDeviceGetUUID", lambda i: f"GPU-{'zyx'[i]}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices_of(Execution()) == ["GPU-x", "GPU-y", "GPU-z"]
    assert devices_of(Execution(gpus="2, 0")) == ["GPU-x", "GPU-z"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-y")
    assert devices_of(Execution()) == ["GPU-y"]


def test_without_a_driver_there_is_nothing_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise gpu_locks.pynvml.NVMLError(gpu_locks.pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(gpu_locks.pynvml, "nvmlInit", none)
    assert devices_of(Execution()) == []
