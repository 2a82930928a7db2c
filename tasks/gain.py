"""The gain reference: whether it lies as the user says, and a new one from the movies."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from kernels.detector import Flip
from kernels.gain import CLEAR, canonical, lead, rank_orientations
from kernels.gain_estimate import estimate_gain, rectangles
from tasks import cluster
from tasks.chunks.gain import sum_movies
from tasks.errors import UnusableData, WrongParameter
from tasks.formats.files import StrPath, write_text
from tasks.formats.mrc import open_frames, read_image, write_stack
from tasks.parameters import Execution
from tasks.record import Record
from tasks.scatter import Unit, scatter

GROUPS = 8  # sums among which outliers are looked for; each is a whole image in memory
CHECKED = 48  # movies that a check reads: a gain of 1 % structure then stands out by 18 σ

Image = NDArray[np.float32]


class Orientation(Record):
    """How a gain reference is to be turned and used."""

    rotation: Literal[0, 1, 2, 3] = Field(description="× 90° counter-clockwise, first")
    flip: Flip = Field(description="then this flip")
    inverted: bool = Field(False, description="the gain divides the counts")

    def __str__(self) -> str:
        parts = [f"rotation {self.rotation}", f"flip {self.flip}"]
        return ", ".join(parts + ["inverted"] * self.inverted)

    def canonical(self) -> Orientation:
        """Return the same orientation as `kernels.gain.ORIENTATIONS` has it."""
        rotation, flip = canonical(self.rotation, self.flip)
        return Orientation.model_validate(
            {"rotation": rotation, "flip": flip, "inverted": self.inverted}
        )


class GainCheck(Record):
    """What the pattern of the movies says of the orientation of a gain reference."""

    given: Orientation
    best: Orientation
    score: float = Field(description="correlation of the best with the pattern of the movies")
    margin: float = Field(description="how far the best is ahead of the next [σ]")
    behind: float = Field(description="how far the given one is behind the best [σ]")
    verdict: Literal["right", "another is better", "cannot tell"]

    @property
    def clear(self) -> bool:
        """Whether the best may be taken without asking."""
        return self.margin >= CLEAR

    @property
    def message(self) -> str:
        """One line for people."""
        if self.verdict == "right":
            return f"as the movies have it: {self.margin:.0f} σ ahead of every other orientation"
        if self.verdict == "another is better":
            return (
                f"{self.best} fits the movies better than {self.given}, by {self.behind:.0f} σ"
                + ("" if self.clear else "; which other is best is not clear")
            )
        return (
            f"cannot tell the orientation: {self.best} is only {self.margin:.1f} σ ahead "
            "(movies corrected already, a gain of another detector, or one that looks alike turned)"
        )


class GainEstimated(Record):
    """A gain reference made from movies."""

    gain: str = Field(description="its file")
    defects: str | None = Field(description="file of the bad pixels, if there are any")
    movies: int
    frames: int
    electrons: float = Field(description="mean counts per pixel in all frames")
    bad_pixels: int
    noise: float | None = Field(description="relative standard error of a pixel; empty: unknown")
    structure: float = Field(description="relative standard deviation of the pattern itself")

    @property
    def message(self) -> str:
        """One line for people."""
        text = (
            f"{self.gain}: from {self.movies} movies, {self.electrons:.0f} counts per pixel, "
            f"structure {self.structure:.1%}, {self.bad_pixels} bad pixels"
        )
        if self.noise is None:
            return f"{text}; noise unknown: give at least two movies"
        text += f", noise {self.noise:.1%}"
        if self.noise < self.structure:
            return text
        more = self.electrons * (self.noise / max(self.structure, self.noise / 10)) ** 2
        return f"{text}: more noise than structure, use it only from {more:.0f} counts per pixel on"


def spread_choice(movies: Sequence[Path], most: int = CHECKED) -> list[Path]:
    """Return at most so many of the movies, spread evenly over all of them."""
    if len(movies) <= most:
        return list(movies)
    return [movies[i * len(movies) // most] for i in range(most)]


def mean_of_movies(
    movies: Sequence[StrPath], execution: Execution, scratch: StrPath | None = None
) -> Image:
    """Return the mean (ny, nx) of all frames of all movies, read by all workers.

    Parameters
    ----------
    movies
        Paths; all of one size. Dark ones add nothing and do no harm.
    execution
        A cluster that is not running is started for this.
    scratch
        Folder that all workers share, for partial sums; the system's by default.

    Raises
    ------
    UnusableData
        If there are none, sizes differ, or values are not numbers.
    """
    total: Any = 0.0
    count = 0
    for _, part, frames in _sums(movies, execution, scratch):
        total = total + part.astype(np.float64)
        count += frames
    return np.asarray(total / count, dtype=np.float32)


def check_gain(
    mean: Image, gain: NDArray[Any], rotation: int = 0, flip: Flip = "none", inverted: bool = False
) -> GainCheck:
    """Judge the orientation that the user gave to a gain reference.

    Parameters
    ----------
    mean : (ny, nx)
        Of the raw frames of many movies, from `mean_of_movies`.
    gain : (ny, nx) or (nx, ny)
        As it lies in its file.
    rotation, flip
        As given, see `kernels.detector.orient_reference`.
    inverted
        Whether the gain is said to divide the counts.

    Raises
    ------
    UnusableData
        If the gain fits the frames in no orientation, or either is empty.
    """
    try:
        ranking = rank_orientations(mean, gain)
        orientation = {"rotation": rotation, "flip": flip, "inverted": inverted}
        given = Orientation.model_validate(orientation)
    except ValueError as error:
        raise UnusableData(str(error)) from error
    by_orientation = {
        Orientation.model_validate(
            {"rotation": one.rotation, "flip": one.flip, "inverted": one.inverted}
        ): one
        for one in ranking
    }
    best = next(iter(by_orientation))
    found = by_orientation.get(given.canonical())
    # A gain that does not fit at all is as far behind as its worst fitting orientation.
    behind = ranking[-1].behind if found is None else found.behind
    margin = lead(ranking)
    verdict: Literal["right", "another is better", "cannot tell"] = "cannot tell"
    if behind >= CLEAR:
        verdict = "another is better"
    elif given.canonical() == best and margin >= CLEAR:
        verdict = "right"
    return GainCheck(
        given=given,
        best=best,
        score=ranking[0].score,
        margin=margin,
        behind=behind,
        verdict=verdict,
    )


@task(name="check gain", task_run_name="check {gain}", cache_policy=NO_CACHE, persist_result=False)
def check(
    movies: Sequence[Path],
    gain: str,
    rotation: Literal[0, 1, 2, 3] = 0,
    flip: Flip = "none",
    execution: Execution = Execution(),
) -> GainCheck:
    """Judge by at most 48 movies, spread over all, whether a gain lies as the user says.

    Raises
    ------
    UnusableData
        If the gain fits the movies in no orientation, or a file cannot be used.
    """
    reference = read_image(Path(gain).expanduser())
    return check_gain(mean_of_movies(spread_choice(movies), execution), reference, rotation, flip)


@task(name="gain", task_run_name="gain {output}", cache_policy=NO_CACHE, persist_result=False)
def estimate(
    movies: Sequence[str],
    output: str,
    execution: Execution = Execution(),
    defects: str | None = None,
) -> GainEstimated:
    """Make a gain reference from movies: image = counts · gain, even where the specimen is not.

    Movies that follow each other should show the same place: what stays in one eighth of them
    only is left out. The file `output` and, if pixels are bad, `defects` (by default
    ``gain.defects.txt`` for ``gain.mrc``) appear when complete.

    Raises
    ------
    UnusableData
        If there are no movies, sizes differ, or values are not numbers.
    """
    target = Path(output).expanduser()
    if not target.parent.is_dir():
        raise WrongParameter(f"{target.parent}: no such folder: make it, or give another output")
    sums: dict[int, Image] = {}
    count = 0
    for group, part, frames in _sums(movies, execution, target.parent):
        sums[group] = sums[group] + part if group in sums else part
        count += frames
    electrons = sum(float(np.mean(one, dtype=np.float64)) for one in sums.values())
    if not electrons > 0:
        raise UnusableData(f"{movies[0]}: no counts in any of {len(movies)} movies: give others")
    found = estimate_gain([sums[group] for group in sorted(sums)])
    pixel = open_frames(movies[0]).header.pixel_size
    bad = int(found.defects.sum())
    bad_file = Path(defects).expanduser() if defects else target.with_suffix(".defects.txt")
    if bad:
        lines = (" ".join(map(str, one)) for one in rectangles(found.defects))
        write_text(bad_file, "# x y width height\n" + "\n".join(lines) + "\n")
    write_stack(target, found.gain[None], pixel or 1.0)
    return GainEstimated(
        gain=str(target),
        defects=str(bad_file) if bad else None,
        movies=len(movies),
        frames=count,
        electrons=electrons,
        bad_pixels=bad,
        noise=found.noise if np.isfinite(found.noise) else None,
        structure=found.structure,
    )


def _sums(
    movies: Sequence[StrPath], execution: Execution, scratch: StrPath | None
) -> Iterator[tuple[int, Image, int]]:
    """Yield group (0 to GROUPS − 1), summed counts (ny, nx) and frames of parts of the movies.

    Which movies make a group does not depend on the workers, so neither does the gain. Workers
    leave the sums in files: arrays do not travel between processes.
    """
    paths = [Path(movie).expanduser().absolute() for movie in movies]
    if not paths:
        raise UnusableData("no movies were given: give at least one, better 40 or more")
    first = open_frames(paths[0])
    shape = (first.ny, first.nx)
    with (
        cluster.opened(execution) as running,
        tempfile.TemporaryDirectory(prefix=".gain-", dir=scratch) as folder,
    ):
        per_group = ceil(2 * cluster.worker_count(running) / GROUPS)
        units: list[Unit] = []
        group_of: dict[Path, int] = {}
        for group, members in enumerate(_shared_out(paths, GROUPS)):
            for piece in _shared_out(members, per_group):
                file = Path(folder) / f"{len(units)}.mrc"
                units.append(Unit(f"movies of {piece[0].name}", (piece, shape, file)))
                group_of[file] = group
        for unit, report in scatter(sum_movies, units, running):
            file = unit.arguments[2]
            total = open_frames(file).frame(0)
            file.unlink()
            yield group_of[file], total, report["frames"]


def _shared_out(items: Sequence[Path], most: int) -> list[list[Path]]:
    """Cut a sequence into so many parts, or fewer where it is shorter; none is empty."""
    parts = min(most, len(items))
    edges = [i * len(items) // parts for i in range(parts + 1)]
    return [list(items[a:b]) for a, b in pairwise(edges)]
