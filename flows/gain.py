"""Gain references: one made from the movies themselves, and the orientation of a given one."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated

from prefect import flow

from flows.arguments import shown
from tasks import cluster
from tasks.errors import UnusableData
from tasks.gain import GainCheck, Orientation, check
from tasks.gain_estimate import GainEstimated, estimate
from tasks.parameters import Execution, GainFlip, GainRotation

Movies = Annotated[str, shown("movies (MRC, TIFF, EER), with wildcards: '/data/frames/*.mrc'")]
Dark = Annotated[str | None, shown("dark reference: counts of each frame without beam")]


@flow(name="gain", persist_result=False)
def make_gain(
    movies: Movies,
    output: Annotated[str, shown("file of the new gain reference, e.g. /data/gain.mrc")],
    dark: Dark = None,
    execution: Execution = Execution(),
) -> GainEstimated:
    """Make a gain reference, and a list of bad pixels, from many movies."""
    paths = [str(path) for path in _found(movies)]
    with cluster.opened(execution) as running:
        return estimate(paths, output, running, dark=dark)


@flow(name="check-gain", persist_result=False)
def check_gain(
    movies: Movies,
    gain: Annotated[str, shown("file of the gain reference")],
    rotation: GainRotation = 0,
    flip: GainFlip = "none",
    inverted: Annotated[bool, shown("the gain divides the counts")] = False,
    dark: Dark = None,
    execution: Execution = Execution(),
) -> GainCheck:
    """Judge by the movies whether a gain reference lies as it is said to lie."""
    paths = _found(movies)
    lies = Orientation(rotation=rotation, flip=flip, inverted=inverted)
    with cluster.opened(execution) as running:
        return check(paths, gain, lies, running, dark)


def _found(pattern: str) -> list[Path]:
    paths = sorted(Path(name) for name in glob.glob(str(Path(pattern).expanduser())))
    if not paths:
        raise UnusableData(f"{pattern}: no such movies: check the path, and quote the wildcards")
    return paths
