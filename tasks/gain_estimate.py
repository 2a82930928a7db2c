"""A new gain reference from the movies themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from kernels.gain_estimate import estimate_gain, rectangles
from tasks.errors import UnusableData, WrongParameter
from tasks.formats.files import write_text
from tasks.formats.mrc import write_stack
from tasks.movie_sums import dark_frame, pieces_of, refuse_dark_of_counts, summed
from tasks.parameters import Execution
from tasks.record import Record

Image = NDArray[np.float32]


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


@task(name="gain", task_run_name="gain {output}", cache_policy=NO_CACHE, persist_result=False)
def estimate(
    movies: Sequence[str],
    output: str,
    execution: Execution = Execution(),
    defects: str | None = None,
    dark: str | None = None,
) -> GainEstimated:
    """Make a gain reference from movies: image = (counts − dark) · gain, even without specimen.

    Movies that follow each other should show the same place: what stays in one eighth of them
    only is left out. The file `output` and, if pixels are bad, `defects` (by default
    ``gain.defects.txt`` for ``gain.mrc``) appear when complete. The gain lies as the movies do,
    and so must the dark reference; of EER, it has the detector's pixels.

    Raises
    ------
    UnusableData, FormatError
        If there are no movies, sizes differ, values are not numbers, or a file cannot be read.
    """
    target = Path(output).expanduser()
    if not target.parent.is_dir():
        raise WrongParameter(f"{target.parent}: no such folder: make it, or give another output")
    if target.exists():
        raise WrongParameter(f"{target}: exists already: give another output, or remove it")
    pieces = pieces_of(movies)
    refuse_dark_of_counts(pieces, dark)
    sums: dict[int, Image] = {}
    count, background = 0, None
    for group, part, frames in summed(pieces, execution, target.parent):
        if dark is not None:
            if background is None:
                background = dark_frame(Path(dark).expanduser(), 0, "none", part.shape)
            part = part - background * np.float32(frames)
        sums[group] = sums[group] + part if group in sums else part
        count += frames
    electrons = sum(float(np.mean(one, dtype=np.float64)) for one in sums.values())
    if not electrons > 0:
        raise UnusableData(f"{movies[0]}: no counts in any of {len(movies)} movies: give others")
    found = estimate_gain([sums[group] for group in sorted(sums)])
    pixel = pieces[0].opened().pixel_size
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
