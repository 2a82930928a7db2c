"""Sums over the frames of many movies, each read once, by all workers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.detector import Flip, orient_reference
from tasks import cluster
from tasks.chunks.gain import Piece, sum_movies
from tasks.errors import UnusableData
from tasks.formats.files import StrPath
from tasks.formats.gain_files import match_reference, read_reference
from tasks.formats.movies import file_kind
from tasks.formats.mrc import open_frames
from tasks.parameters import Execution
from tasks.scatter import Unit, scatter

GROUPS = 8  # sums among which outliers are looked for; each is a whole image in memory

Image = NDArray[np.float32]
Item = TypeVar("Item")


def pieces_of(movies: Sequence[StrPath]) -> list[Piece]:
    """Return whole movies as pieces."""
    return [Piece(Path(movie).expanduser().absolute()) for movie in movies]


def spread_choice(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many of the movies, spread evenly over all of them."""
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def mean_of_movies(
    movies: Sequence[StrPath] | Sequence[Piece],
    execution: Execution,
    scratch: StrPath | None = None,
) -> Image:
    """Return the mean (ny, nx) of all frames of all movies, read by all workers.

    Parameters
    ----------
    movies
        Paths, or pieces; all of one size, EER in pixels of the detector. Dark ones add nothing
        and do no harm.
    execution
        A cluster that is not running is started for this.
    scratch
        Folder that all workers share, for partial sums; see `summed`.

    Raises
    ------
    UnusableData
        If there are none, sizes differ, or values are not numbers.
    """
    total: Any = 0.0
    count = 0
    for _, part, frames in summed(movies, execution, scratch):
        total = total + part.astype(np.float64)
        count += frames
    return np.asarray(total / count, dtype=np.float32)


def summed(
    movies: Sequence[StrPath] | Sequence[Piece],
    execution: Execution,
    scratch: StrPath | None = None,
) -> Iterator[tuple[int, Image, int]]:
    """Yield group (0 to GROUPS − 1), summed counts (ny, nx) and frames of parts of the movies.

    Which movies make a group does not depend on the workers, so neither do sums of a group.
    Workers leave the sums in files, for arrays do not travel between processes: in `scratch`, by
    default the system's folder for such or, with workers on other machines, the current one.

    Raises
    ------
    UnusableData
        If there are no movies, sizes differ, or values are not numbers.
    """
    pieces = [one if isinstance(one, Piece) else pieces_of([one])[0] for one in movies]
    if not pieces:
        raise UnusableData("no movies were given: give at least one, better 40 or more")
    first = pieces[0].opened()
    shape = (first.ny, first.nx)
    with cluster.opened(execution) as running:
        if scratch is None and "://" in running.cluster and "127.0.0.1" not in running.cluster:
            scratch = Path.cwd()
        with tempfile.TemporaryDirectory(prefix=".gain-", dir=scratch) as folder:
            per_group = ceil(2 * cluster.worker_count(running) / GROUPS)
            units: list[Unit] = []
            group_of: dict[Path, int] = {}
            for group, members in enumerate(_shared_out(pieces, GROUPS)):
                for part in _shared_out(members, per_group):
                    file = Path(folder) / f"{len(units)}.mrc"
                    units.append(Unit(f"movies of {part[0].path.name}", (part, shape, file)))
                    group_of[file] = group
            for unit, report in scatter(sum_movies, units, running):
                file = unit.arguments[2]
                total = open_frames(file).frame(0)
                file.unlink()
                yield group_of[file], total, report["frames"]


def dark_frame(path: Path, rotation: int, flip: Flip, shape: tuple[int, ...]) -> Image:
    """Return the counts of a frame without beam, turned and of the sampling of frames (ny, nx)."""
    turned = orient_reference(read_reference(path), rotation, flip)
    matched = match_reference(path, turned, (shape[0], shape[1]), counts=True)
    return matched.astype(np.float32, copy=False)


def refuse_dark_of_counts(pieces: Sequence[Piece], dark: str | None) -> None:
    """Raise UnusableData when a dark reference is given for movies that count electrons."""
    if dark is not None and pieces and file_kind(pieces[0].path) == "eer":
        raise UnusableData(
            f"{dark}: a dark reference, but {pieces[0].path.name} counts electrons (EER): "
            "leave out --dark"
        )


def _shared_out(items: Sequence[Item], most: int) -> list[list[Item]]:
    """Cut a sequence into so many parts, or fewer where it is shorter; none is empty."""
    parts = min(most, len(items))
    edges = [i * len(items) // parts for i in range(parts + 1)]
    return [list(items[a:b]) for a, b in pairwise(edges)]
