"""Gain references: one made from the movies themselves, and the orientation of a given one."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated

from prefect import flow

from flows.arguments import shown
from tasks import cluster
from tasks.errors import UnusableData
from tasks.gain import GainCheck, GainEstimated, check, estimate
from tasks.parameters import Execution, GainFlip, GainRotation

Movies = Annotated[str, shown("movies, with wildcards: '/data/frames/*.mrc'")]


@flow(name="gain", persist_result=False)
def make_gain(
    movies: Movies,
    output: Annotated[str, shown("file of the new gain reference, e.g. /data/gain.mrc")],
    execution: Execution = Execution(),
) -> GainEstimated:
    """Make a gain reference, and a list of bad pixels, from many movies."""
    paths = _found(movies)
    with cluster.opened(execution) as running:
        return estimate([str(path) for path in paths], output, running)


@flow(name="check-gain", persist_result=False)
def check_gain(
    movies: Movies,
    gain: Annotated[str, shown("file of the gain reference")],
    rotation: GainRotation = 0,
    flip: GainFlip = "none",
    execution: Execution = Execution(),
) -> GainCheck:
    """Judge by the movies whether a gain reference lies as it is said to lie."""
    paths = _found(movies)
    with cluster.opened(execution) as running:
        return check(paths, gain, rotation, flip, running)


def _found(pattern: str) -> list[Path]:
    paths = sorted(Path(name) for name in glob.glob(str(Path(pattern).expanduser())))
    if not paths:
        raise UnusableData(f"{pattern}: no such movies: check the path, and quote the wildcards")
    return paths
