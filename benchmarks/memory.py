"""What slabs of an unbinned tomogram take in a worker of 8 GB, beside what the task states.

python benchmarks/memory.py                  # three slabs of 3710 × 3838 × 1400 from 41 views
python benchmarks/memory.py --views 11 --height 300 --storage int16
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from functools import wraps
from pathlib import Path
from typing import Any

os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="tiltflow-prefect-"))

import psutil

from benchmarks.series import series_of_noise
from tasks import cluster
from tasks.parameters import Execution, ReconstructParameters
from tasks.reconstruct import reconstruct
from tasks.work import Work

SIZE, PIXEL = (3838, 3710), 1.35
SLABS, ROWS = 3, 128


class Peaks(threading.Thread):
    """Watches the memory of the worker, ten times a second, and what each kind of unit stated."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest: dict[str, int] = {}
        self.stated: dict[str, int] = {}
        self.now, self.stop = "", False

    def run(self) -> None:
        """Watch until told to stop."""
        while not self.stop:
            for child in psutil.Process().children(recursive=True):
                try:
                    used = child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
                self.highest[self.now] = max(self.highest.get(self.now, 0), used)
            time.sleep(0.1)

    def watched(self, whole: Any) -> Any:
        """Return `Work.scatter` or `Work.hold`, which notes what runs and what it stated."""

        @wraps(whole)
        def watched(work: Any, function: Any, units: Any, memory: int) -> Any:
            self.now = function.__name__
            self.stated[self.now] = memory
            return whole(work, function, units, memory)

        return watched


def main() -> None:
    """Reconstruct three slabs; print the peak of the worker's memory and what was stated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", type=int, default=41)
    parser.add_argument("--height", type=int, default=1400, help="voxels")
    parser.add_argument("--storage", default="float32")
    parser.add_argument("--memory", default="8GB", help="of the worker")
    parser.add_argument("--folder", type=Path, default=None, help="where 10 GB fit")
    given = parser.parse_args()
    parameters = ReconstructParameters(
        alignment="coarse",
        binning=1,
        thickness=f"{given.height}px",
        length=f"{SLABS * ROWS}px",
        z_shift=0.0,
        angle_offset=0.0,
        x_tilt=0.0,
        storage=given.storage,
    )
    peaks = Peaks()
    for name in ("scatter", "hold"):
        setattr(Work, name, peaks.watched(getattr(Work, name)))
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        series = series_of_noise(folder, given.views, SIZE, PIXEL)
        execution = Execution(cluster="local", workers=1, memory=given.memory)
        with cluster.opened(execution) as running:
            peaks.start()
            outcome = reconstruct.fn(series.project.url, "S", parameters, "main", running)
            peaks.stop = True
            peaks.join()
    print(f"{outcome.message}, {outcome.seconds:.0f} s")
    held = 4 * given.views * max(SIZE) * SLABS * ROWS
    for name in ("filter_view", "back_project_slab"):  # later ones have what these leave
        stated, peak = peaks.stated[name], peaks.highest.get(name, 0)
        print(
            f"{name}: peak {peak / 1e9:.2f} GB; stated {stated / 1e9:.2f} GB, rows held "
            f"{held / 1e9:.2f} GB: {100 * peak / (stated + held):.0f} %"
        )


if __name__ == "__main__":
    main()
