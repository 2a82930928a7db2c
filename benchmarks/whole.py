"""Whole steps, from views to the tomogram with its pyramid, beside their parts and other programs.

python -m benchmarks.whole                                   # 41 × 1024² → 300 × 1024²
python -m benchmarks.whole --table                           # by views, voxels and workers
python -m benchmarks.whole --tilt TILT --astra PYTHON        # IMOD's program, ASTRA's Python
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="tiltflow-prefect-"))

import mrcfile
import numpy as np
import zarr

from benchmarks.series import series_of_noise
from kernels import wbp
from kernels.backproject import backproject
from kernels.geometry import View
from kernels.threads import VARIABLE as THREADS
from tasks import cluster
from tasks.box import Box
from tasks.ctf3d import ctf3d
from tasks.parameters import Ctf3dParameters, Execution, ReconstructParameters
from tasks.reconstruct import reconstruct
from tasks.store import Series

PIXEL = 5.4  # Å
# Of ASTRA, which works slice by slice: so many of the slices, and the time of all of them.
SLICES = 16
ASTRA = """
import astra, numpy, sys, time
views, size, planes, slices = map(int, sys.argv[1:])
volume = astra.create_vol_geom(planes, size)
angles = numpy.deg2rad(numpy.linspace(-60, 60, views))
rays = astra.create_proj_geom("parallel", 1.0, size, angles)
rows = numpy.random.default_rng(0).standard_normal((views, size), dtype=numpy.float32)
given = astra.astra_dict("FBP")
given["ProjectorId"] = astra.create_projector("linear", rays, volume)
given["ProjectionDataId"] = astra.data2d.create("-sino", rays, rows)
given["ReconstructionDataId"] = astra.data2d.create("-vol", volume)
algorithm = astra.algorithm.create(given)
astra.algorithm.run(algorithm)
began = time.perf_counter()
for _ in range(slices):
    astra.algorithm.run(algorithm)
print((time.perf_counter() - began) / slices * size)
"""


@dataclass(frozen=True)
class Size:
    """Of a series, and of its tomogram [pixels]."""

    views: int = 41
    side: int = 1024
    planes: int = 300

    @property
    def updates(self) -> float:
        """Voxels × views."""
        return float(self.views * self.planes * self.side**2)

    def __str__(self) -> str:
        return f"{self.views} × {self.side}² → {self.planes} × {self.side}²"


def fastest(work: Callable[[], object], times: int = 3) -> float:
    """Return the shortest of a few runs [s]."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


@contextmanager
def ready(size: Size) -> Iterator[Series]:
    """Give a series in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield series_of_noise(folder, size.views, (size.side, size.side), PIXEL, axis=85.0)


def step_time(
    series: Series, step: str, size: Size, running: Execution, times: int
) -> tuple[float, int]:
    """Return the shortest time of a step without start-up [s], and the bytes it wrote."""
    common = {
        "alignment": "coarse",
        "binning": 1,
        "thickness": f"{size.planes}px",
        "angle_offset": 0.0,
        "x_tilt": 0.0,
    }
    taken, written = [], 0
    for i in range(times):  # results are never made twice: each differs by a fraction of a voxel
        placed = {**common, "z_shift": 0.01 * (i + 1)}
        began = time.perf_counter()
        if step == "ctf3d":
            of_planes = Ctf3dParameters.model_validate({**placed, "defocus_step": 150.0})
            outcome = ctf3d.fn(series.project.url, "S", of_planes, "main", running)
        else:
            plain = ReconstructParameters.model_validate(placed)
            outcome = reconstruct.fn(series.project.url, "S", plain, "main", running)
        taken.append(time.perf_counter() - began)
        made = Path(outcome.url.removeprefix("file://"))
        written = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
        shutil.rmtree(made)
    return min(taken), written


def parts(size: Size, threads: int) -> dict[str, float]:
    """Return what back-projection, filter and a plain Zarr write of the same bytes take [s]."""
    views = np.random.default_rng(0).standard_normal(
        (size.views, size.side, size.side), dtype=np.float32
    )
    shape = (size.planes, size.side, size.side)
    tilts = np.linspace(-60, 60, size.views)
    box = Box(PIXEL, 1, (size.side, size.side), shape, 0, (0.0, 0.0, 0.0))
    projection = box.projection(tuple(View(float(tilt), 0.0) for tilt in tilts), False)
    row_filter = wbp.ramp(wbp.padded_width(size.side), 0.35, 0.035)
    os.environ[THREADS] = str(threads)
    volume = backproject(views, projection, shape)
    with tempfile.TemporaryDirectory() as folder:
        target = zarr.create_array(
            f"{folder}/plain.zarr", shape=shape, chunks=(64, 128, 128), dtype="float32",
            compressors=None,
        )  # fmt: skip

        def write() -> None:
            target[:] = volume

        return {
            "back-projection": fastest(lambda: backproject(views, projection, shape)),
            "filter": fastest(lambda: wbp.filter_views(views, row_filter)) / threads,
            "plain Zarr write": fastest(write),
        }


def tilt_time(program: str, size: Size, threads: int) -> float:
    """Return what IMOD's `tilt` takes from an aligned stack in a file to the tomogram [s]."""
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        with mrcfile.new(f"{folder}/a.st") as file:
            file.set_data(rng.standard_normal((size.views, size.side, size.side), dtype=np.float32))
        np.savetxt(f"{folder}/a.tlt", np.linspace(-60, 60, size.views), fmt="%.2f")
        command = [program, "-InputProjections", "a.st", "-OutputFile", "a.rec"]
        command += ["-TILTFILE", "a.tlt", "-THICKNESS", str(size.planes), "-RADIAL", "0.35,0.035"]
        command += ["-MODE", "2", "-SCALE", "0.,1.", "-PERPENDICULAR"]
        command += ["-FULLIMAGE", f"{size.side},{size.side}", "-SHIFT", "0.,0."]
        own = {**os.environ, "OMP_NUM_THREADS": str(threads)}

        def run() -> None:
            subprocess.run(command, cwd=folder, env=own, check=True, stdout=subprocess.DEVNULL)

        return fastest(run, 2)


def beside(size: Size, workers: int, tilt: str | None, astra: str | None) -> None:
    """Print the whole steps beside their parts and other programs."""
    print(f"{size}, {workers} workers of one thread, figures in seconds")
    with ready(size) as series, cluster.opened(Execution(cluster="local", workers=workers)) as on:
        step_time(series, "reconstruct", size, on, 1)  # compiles and opens
        for step in ("reconstruct", "ctf3d"):
            taken, written = step_time(series, step, size, on, 3)
            of = written / (4 * size.planes * size.side**2)
            print(f"  {step:<18}{taken:7.2f}   {of:.2f} of the volume's bytes written")
    each = parts(size, workers)
    for name, taken in each.items():
        rate = f"   {size.updates / taken * 1e-9:.1f} G voxel·views/s" if "back" in name else ""
        print(f"  {name:<18}{taken:7.2f}{rate}")
    print(f"  {'their sum':<18}{sum(each.values()):7.2f}")
    if tilt:
        print(f"  {'IMOD tilt':<18}{tilt_time(tilt, size, workers):7.2f}   from aligned views")
    if astra:
        given = map(str, (size.views, size.side, size.planes, SLICES))
        said = subprocess.run([astra, "-c", ASTRA, *given], check=True, capture_output=True)
        print(f"  {'ASTRA, one thread':<18}{float(said.stdout):7.2f}   from {SLICES} slices")


def table(most_workers: int) -> None:
    """Print how the steps scale with views, voxels and workers."""
    print(f"{'':<32}workers   reconstruct   ctf3d [s]")
    for size in (Size(21), Size(), Size(81), Size(41, 512), Size(41, 1024, 150)):
        for workers in sorted({1, most_workers}) if size == Size() else (most_workers,):
            execution = Execution(cluster="local", workers=workers)
            with ready(size) as series, cluster.opened(execution) as on:
                step_time(series, "reconstruct", size, on, 1)
                plain, _ = step_time(series, "reconstruct", size, on, 2)
                planes, _ = step_time(series, "ctf3d", size, on, 2)
            print(f"{size!s:<32}{workers:7d}{plain:14.1f}{planes:8.1f}", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=cluster.core_count())
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--tilt", help="IMOD's program")
    parser.add_argument("--astra", help="the Python that has astra-toolbox")
    given = parser.parse_args()
    if given.table:
        table(given.workers)
    else:
        beside(Size(), given.workers, given.tilt, given.astra)


if __name__ == "__main__":
    main()
