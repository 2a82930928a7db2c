"""Whether a gain reference lies as the user says: the movies tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from kernels.detector import Flip
from kernels.gain import (
    CLEAR,
    ORIENTATIONS,
    at_one_sampling,
    canonical,
    lead,
    rank_orientations,
)
from tasks.chunks.gain import Piece
from tasks.errors import UnusableData
from tasks.formats.errors import FormatError
from tasks.formats.files import StrPath
from tasks.formats.gain_files import read_reference
from tasks.identity import checked_path
from tasks.movie_sums import (
    dark_frame,
    mean_of_movies,
    pieces_of,
    refuse_dark_of_counts,
    spread_choice,
)
from tasks.parameters import Execution
from tasks.record import Record, TiltSeries

CHECKED = 48  # movies that a check reads: a gain of 1 % structure then stands out by 18 σ
CHECKED_AT_IMPORT = 16
LEAST_SHARE = 0.5  # of the gain's pattern that raw movies show: more than its noise does harm
LARGEST = 6144  # pixels along a side: finer than those of a detector, nothing more is learnt

Image = NDArray[np.float32]


class Orientation(Record):
    """How a gain reference is to be turned and used."""

    rotation: Literal[0, 1, 2, 3] = Field(0, description="× 90° counter-clockwise, first")
    flip: Flip = Field("none", description="then this flip")
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


AS_FILED = Orientation()


class GainCheck(Record):
    """What the pattern of the movies says of the orientation of a gain reference."""

    given: Orientation
    best: Orientation
    score: float = Field(description="correlation of the best with the pattern of the movies")
    margin: float = Field(description="how far the best is ahead of the next [σ]")
    behind: float = Field(description="how far the given one is behind the best [σ]")
    share: float = Field(description="how much of the best's pattern the movies show, 1 if raw")
    verdict: Literal["right", "another is better", "cannot tell"]

    @property
    def clear(self) -> bool:
        """Whether the best may be taken without asking."""
        return self.margin >= CLEAR and self.share >= LEAST_SHARE

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
        if self.margin >= CLEAR:
            return (
                f"cannot tell the orientation: the movies show {max(self.share, 0):.0%} of its "
                "pattern (movies corrected already, or a gain with more noise than structure)"
            )
        return (
            f"cannot tell the orientation: {self.best} is only {self.margin:.1f} σ ahead "
            "(movies corrected already, a gain of another detector, or one that looks alike turned)"
        )


def check_gain(
    mean: Image,
    gain: NDArray[Any],
    rotation: int = 0,
    flip: Flip = "none",
    inverted: bool = False,
    *,
    path: StrPath = "gain",
) -> GainCheck:
    """Judge the orientation that the user gave to a gain reference.

    Parameters
    ----------
    mean : (ny, nx)
        Of the raw frames of many movies, less the dark reference: from `mean_of_movies`.
    gain : (ny, nx) or (nx, ny)
        As it lies in its file; or of 2 or 4 times as many pixels along each side, or as few.
    rotation, flip
        As given, see `kernels.detector.orient_reference`.
    inverted
        Whether the gain is said to divide the counts.
    path
        Of the gain, for messages.

    Raises
    ------
    UnusableData
        If the gain fits the frames in no orientation, or either is empty.
    """
    try:
        ranking = rank_orientations(*at_one_sampling(mean, gain, LARGEST))
        orientation = {"rotation": rotation, "flip": flip, "inverted": inverted}
        given = Orientation.model_validate(orientation)
    except ValueError as error:
        raise UnusableData(f"{path}: {error}: give raw movies and the gain of them") from error
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
    if ranking[0].share < LEAST_SHARE:
        pass  # what a gain's own noise left in corrected movies looks like the gain inverted
    elif behind >= CLEAR:
        verdict = "another is better"
    elif given.canonical() == best and margin >= CLEAR:
        verdict = "right"
    return GainCheck(
        given=given,
        best=best,
        score=ranking[0].score,
        margin=margin,
        behind=behind,
        share=ranking[0].share,
        verdict=verdict,
    )


def orientation_shown(
    records: Sequence[TiltSeries],
    execution: Execution,
    most: int = CHECKED_AT_IMPORT,
    scratch: StrPath | None = None,
) -> GainCheck:
    """Judge by movies of tilt series whether their gain lies as their records say.

    Parameters
    ----------
    records
        Of one gain, said to lie in one way, and one size of movies.
    execution
        A cluster that is not running is started for this.
    most
        So many movies are read, once, spread over all views that are not excluded.
    scratch
        Folder that all workers share, see `movie_sums.summed`.

    Raises
    ------
    UnusableData
        If there is no gain or no movie, the gain fits the movies in no orientation, or a file
        is not the imported one.
    FormatError
        If a file cannot be read.
    """
    acquisition = records[0].acquisition
    views = [view for record in records for view in record.views if view.excluded is None]
    if acquisition.gain is None or not views:
        raise UnusableData(
            f"{records[0].name}: {'no view is left' if acquisition.gain else 'has no gain'}: "
            "there is no orientation to check"
        )
    mean = mean_of_movies(
        [
            Piece(checked_path(view.movie), view.first_frame - 1, view.frames, view.grouping)
            for view in spread_choice(views, most)
        ],
        execution,
        scratch,
    )
    lies = Orientation(
        rotation=acquisition.gain_rotation,
        flip=acquisition.gain_flip,
        inverted=acquisition.gain_inverted,
    )
    dark = None if acquisition.dark is None else checked_path(acquisition.dark)
    return _judged(mean, checked_path(acquisition.gain), lies, dark)


@task(name="check gain", task_run_name="check {gain}", cache_policy=NO_CACHE, persist_result=False)
def check(
    movies: Sequence[Path],
    gain: str,
    lies: Orientation = AS_FILED,
    execution: Execution = Execution(),
    dark: str | None = None,
) -> GainCheck:
    """Judge by at most 48 movies, spread over all, whether a gain lies as the user says.

    A dark reference is taken as it leaves the movies most even.

    Raises
    ------
    UnusableData, FormatError
        If the gain fits the movies in no orientation, or a file cannot be used.
    """
    path = Path(gain).expanduser()
    read_reference(path)  # a wrong file costs no time
    pieces = pieces_of(spread_choice(movies, CHECKED))
    refuse_dark_of_counts(pieces, dark)
    mean = mean_of_movies(pieces, execution)
    return _judged(mean, path, lies, None if dark is None else Path(dark).expanduser())


def _judged(mean: Image, gain: Path, lies: Orientation, dark: Path | None) -> GainCheck:
    """Judge by the mean of raw frames how a gain lies."""
    if dark is not None:
        mean = mean - _background(mean, dark, lies)
    reference = read_reference(gain)
    return check_gain(mean, reference, lies.rotation, lies.flip, lies.inverted, path=gain)


def _background(mean: Image, dark: Path, lies: Orientation) -> Image:
    """Return the dark reference as it lies on the frames, which it then leaves most even.

    What is said is not relied upon: turned wrongly, it would hide the pattern of the gain.
    """
    found: Image | None = None
    least = np.inf
    for rotation, flip in ((lies.rotation, lies.flip), *ORIENTATIONS):
        try:
            turned = dark_frame(dark, rotation, flip, mean.shape)
        except FormatError:  # of oblong frames: the other side up, or not theirs at all
            continue
        spread = float(np.var(mean - turned, dtype=np.float64))
        if spread < least:
            found, least = turned, spread
    if found is None:
        return dark_frame(dark, lies.rotation, lies.flip, mean.shape)
    return found
