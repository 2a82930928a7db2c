"""The deconvolved copy of a tomogram: by which CTF, and in which parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.box import Box, blocks
from tasks.chunks.deconvolve import Deconvolving, deconvolve_rows, memory_of_rows
from tasks.ctf_views import ctf_of_views
from tasks.parameters.tomogram import TomogramParameters
from tasks.scatter import Unit
from tasks.work import Work

# What power of the CTF's magnitude is left in a tomogram that was corrected in some way.
LEFT = {"flip": 1.0, "multiply": 2.0, "wiener": 0.0}


def deconvolve(
    work: Work,
    parameters: TomogramParameters,
    box: Box,
    used: Sequence[int],
    brick: int,
    step: float | None,
    corrected: Mapping[str, Any] | None,
) -> None:
    """Write `DECONVOLVED` from level 0, by the CTF of the view that is tilted least.

    Parameters
    ----------
    work : Work
    parameters : TomogramParameters
    box : Box
    used : sequence of int
        Indices of the views.
    brick : int
        Voxels: side of a stored brick.
    step : float or None
        What 1 of a stored integer means.
    corrected : mapping or None
        How the views were corrected for the CTF.
    """
    record = work.record
    flattest = min(used, key=lambda i: abs(record.views[i].tilt_angle))
    how = Deconvolving(
        box.voxel,
        ctf_of_views(record)[flattest].ctf,
        parameters.deconvolve_strength,
        parameters.deconvolve_falloff,
        None if corrected is None else LEFT[str(corrected["mode"])],
    )
    work.scatter(
        deconvolve_rows,
        [
            Unit(f"deconvolved-{start:05d}", (work.result, how, start, stop, step))
            for start, stop in blocks(box.shape[1], brick)
        ],
        memory=memory_of_rows(how, box.shape, brick),
    )
