"""The plan of an unbinned tomogram, 3710 × 3838 × 1400 of 41 views, in a worker of 8 GB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tasks.chunks.reconstruct import Reconstruction
from tasks.ctf3d import _correcting
from tasks.ctf3d_planes import Plan, planned, spectrum_bytes
from tasks.errors import WrongParameter
from tasks.parameters import Ctf3dParameters, Execution, Pipeline, ReconstructParameters
from tasks.reconstruct import slab_memory
from tasks.tomogram import FILLED, Job, passes, prepare, slabs_of
from tasks.work import begin

MEMORY = 8_000_000_000
SIZE, HEIGHT, VIEWS = (3838, 3710), 1400, 41
PLACE: dict[str, Any] = {"z_shift": 0.0, "angle_offset": 0.0, "x_tilt": 0.0}


def prepared(
    make: Callable[..., Any],
    size: tuple[int, int],
    memory: str,
    step: str = "reconstruct",
    workers: int = 1,
    **given: Any,
) -> Job:
    model: Any = {"reconstruct": ReconstructParameters, "ctf3d": Ctf3dParameters}[step]
    parameters = model(alignment="coarse", binning=1, **PLACE, **given)
    run = make(shape=size, pipeline=Pipeline(**{step: parameters}))
    images = run.begin("motion")
    images.create_array("images", (7, *size), (1, *size))  # nothing is written
    run.finish("motion", means=[1.0] * 7)
    run.exclude()
    run.ctf()
    run.finish("erase")
    run.finish("dose", images_in=images.path)
    run.align("coarse")
    execution = Execution(cluster="threads", workers=workers, memory=memory)
    work = begin(step, run.series.project.url, "TS_01", parameters, "main", execution)
    job = prepare(work, parameters)
    place = replace(job.place, depths=(job.place.depths * 7)[:VIEWS])
    views, each, used = ((v * 7)[:VIEWS] for v in (job.views, job.each, job.used))
    return replace(job, place=place, views=views, each=each, used=used)  # type: ignore[arg-type]


def test_an_unbinned_tomogram_is_made_in_8_gb(fake_run: Callable[..., Any]) -> None:
    job = prepared(fake_run, SIZE, "8GB", thickness=f"{HEIGHT}px")
    nz, ny, nx = job.box.shape
    assert (nz, {ny, nx}, job.place.sources["thickness"]) == (1400, {3710, 3838}, "given")
    how = Reconstruction(job.views, job.box, job.turned, job.parameters, job.layers)
    memory = partial(slab_memory, job, how)
    slabs = slabs_of(job, memory, 1)
    assert [slab[0] for slab in slabs] == [0] + [stop for _, stop in slabs[:-1]]
    assert slabs[-1][1] == ny
    # No two slabs share a brick of level 0 or 1, both of which begin every 128 rows of level 0.
    assert [array.chunks[1] for array in map(job.work.result.array, "01")] == [128, 64]
    assert all(start % 128 == 0 for start, _ in slabs)
    most = memory(max(stop - start for start, stop in slabs))
    assert 2.5e9 < most < FILLED * MEMORY  # at least the slab itself: 128 × 1400 × 3710 × 4
    held_row = 4 * VIEWS * job.box.frame[1]
    together = list(passes(job, slabs, held_row, most))
    assert [slab for one in together for slab in one] == slabs
    for one in together:
        held = held_row * (one[-1][1] - one[0][0])
        assert held + most < FILLED * MEMORY
    assert len(together) <= 2  # every pass brings all views into the aligned frame again
    assert job.source.memory() < 0.5 * MEMORY
    # Four times the memory: fewer, larger slabs, all rows at once.
    larger = Execution(cluster="threads", workers=1, memory="32GB")
    roomy = replace(job, work=replace(job.work, execution=larger))
    assert len(slabs_of(roomy, memory, 1)) < len(slabs)
    assert len(list(passes(roomy, slabs_of(roomy, memory, 1), held_row, most))) == 1


def correction(job: Job) -> tuple[Plan, int]:
    """Return how 3-D CTF correction is split, and what the spectra of all views take [bytes]."""
    how = _correcting(job, job.parameters, 1)  # type: ignore[arg-type]
    layers = [(how, how.layout())]
    return planned(job, layers), VIEWS * spectrum_bytes(how, 1)


@pytest.mark.parametrize(("memory", "workers"), [("8GB", 1), ("8GB", 4), ("16GB", 2), ("64GB", 1)])
def test_spectra_of_an_unbinned_series_are_counted(
    fake_run: Callable[..., Any], memory: str, workers: int
) -> None:
    job = prepared(fake_run, SIZE, memory, "ctf3d", workers, thickness="400px")
    plan, spectra = correction(job)
    assert spectra > 4.0e9
    held = spectra * plan.group / VIEWS
    limit = FILLED * 1e9 * int(memory[:-2])
    for together in passes(job, plan.slabs, plan.row, plan.beside):
        rows = plan.row * (together[-1][1] - together[0][0]) / workers
        assert plan.plane >= held + spectra / VIEWS
        assert plan.slab >= held + 4 * job.box.shape[0] * job.box.shape[2] * 128
        assert plan.beside + rows < limit
    assert (plan.group < VIEWS) == (memory != "64GB")


def test_a_worker_with_too_little_memory_is_told_how_much_is_needed(
    fake_run: Callable[..., Any],
) -> None:
    job = prepared(fake_run, SIZE, "2GB", "ctf3d", thickness="400px")
    with pytest.raises(WrongParameter, match=r"ctf3d takes (\d\.\d+ GiB) on each worker") as found:
        correction(job)
    needed = str(found.value).split("takes ")[1].split(" GiB")[0]
    enough = Execution(cluster="threads", workers=1, memory=f"{float(needed) + 0.01}GiB")
    plan, _ = correction(replace(job, work=replace(job.work, execution=enough)))
    assert plan.group < VIEWS
