"""One run at a time on a GPU: a second would find its memory taken, and fail or crawl."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pynvml

from tasks.parameters import Execution

LOOK = 0.5  # s: how often who waits looks


def devices_of(execution: Execution) -> list[str]:
    """Return the names, the same for every process, of the GPUs that a run's workers take."""
    visible = execution.gpus or os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        pynvml.nvmlInit()
        every = range(pynvml.nvmlDeviceGetCount())
        chosen = visible.split(",") if visible else [str(i) for i in every]
        return sorted({_name(device.strip()) for device in chosen})
    except pynvml.NVMLError:  # no driver: starting the workers tells better what is wrong
        return []


def _name(device: str) -> str:
    if not device.isdecimal():
        return device  # a UUID already
    uuid = pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(int(device)))
    return uuid.decode() if isinstance(uuid, bytes) else str(uuid)


@contextmanager
def alone_on(devices: list[str], say: Callable[[str], object]) -> Iterator[None]:
    """Hold the GPUs for this process; wait, and say so once, while another of this machine does.

    The system frees them with the process, however it ends.

    Parameters
    ----------
    devices : list of str
        From `devices_of`: taken in this order, so that two runs never wait for each other.
    say : callable
        Is told what is waited for.
    """
    with ExitStack() as stack:
        for device in devices:
            descriptor = _opened(device)
            stack.callback(os.close, descriptor)
            _take(descriptor, partial(say, f"GPU {device} is another run's: waiting"))
        yield


def _opened(device: str) -> int:
    path = Path(tempfile.gettempdir()) / f"tiltflow-gpu-{re.sub('[^A-Za-z0-9-]', '_', device)}"
    try:  # not both at once: in a shared folder Linux refuses to "create" another user's file
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _take(descriptor: int, tell: Callable[[], object]) -> None:
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not told:
                tell()
            told = True
            time.sleep(LOOK)
