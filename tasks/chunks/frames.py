"""Frames of a view: from the movie's file to what an even and flawless detector would count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import detector
from kernels.arrays import Array, device, namespace
from tasks.chunks.device import on_device
from tasks.errors import UnusableData
from tasks.formats.defects import read_defect_mask
from tasks.formats.gain_files import match_reference, read_reference
from tasks.formats.movies import Movie, open_movie
from tasks.identity import checked_path
from tasks.record import Acquisition, FileIdentity, View

KEPT = 1  # sets of references: at 16k × 16k one takes 2 GB
MOST_BAD = 0.5  # of the pixels of a gain: what has more is no gain reference

Mask = NDArray[np.bool_]

_loading = Lock()  # threads that start together read the references once


@dataclass(frozen=True)
class References:
    """What the frames are corrected by, turned as they lie and of their sampling.

    Attributes
    ----------
    gain : (ny, nx), optional
        Multiplied; 1 at bad pixels.
    dark : (ny, nx), optional
        Counts of each frame without beam.
    bad : (ny, nx) bool, optional
        Pixels to be replaced; in host memory.
    """

    gain: Array | None
    dark: Array | None
    bad: NDArray[np.bool_] | None


def open_view(view: View, acquisition: Acquisition) -> Movie:
    """Open the file that holds the frames of a view; the view may begin within it.

    Raises
    ------
    UnusableData
        If the file is not the imported one.
    FormatError
        If it cannot be read.
    """
    return open_movie(
        checked_path(view.movie),
        eer_fractions=view.grouping,
        eer_sampling=acquisition.eer_sampling,
    )


def corrected_frames(
    view: View,
    acquisition: Acquisition,
    shape: tuple[int, int],
    first: int,
    last: int,
    also_bad: Mask | None = None,
) -> Iterator[Array]:
    """Yield frames of a view, one at a time, corrected for dark reference, gain and defects.

    Parameters
    ----------
    view : View
    acquisition : Acquisition
    shape : (ny, nx)
        Of the frames.
    first, last : int
        The frames from `first` to before `last`, counted from 0 within the view.
    also_bad : (ny, nx) bool, optional
        Further bad pixels.

    Yields
    ------
    (ny, nx) float32
        (raw − dark) · gain, where this worker computes. Pixels that the defects or the gain (0,
        negative, not finite) call bad are copies of good ones nearby, others in every frame.

    Raises
    ------
    UnusableData, FormatError
        If a file is not the imported one, cannot be read, or does not fit the frames.
    """
    movie, before = _opened(view, acquisition, shape, last)
    references = load_references(acquisition, shape)
    if also_bad is not None:
        known = references.bad
        bad = also_bad if known is None else known | also_bad
        references = replace(references, bad=bad if bad.any() else None)
    for i in range(first, last):
        yield _corrected(movie, before + i, references, seed=i)


def summed_frames(
    view: View, acquisition: Acquisition, shape: tuple[int, int], first: int, last: int
) -> Array:
    """Return the sum of `corrected_frames` as they lie, corrected only once."""
    movie, before = _opened(view, acquisition, shape, last)
    references = load_references(acquisition, shape)
    total: Array = None
    for i in range(before + first, before + last):
        frame = on_device(movie.frame(i))
        xp = namespace(frame)
        if total is None:
            total = xp.zeros(shape, dtype=xp.float32, device=device(frame))
        total += frame
    dark = None if references.dark is None else references.dark * float(last - first)
    return _even(total, references.gain, dark, references.bad, seed=first)


def _opened(
    view: View, acquisition: Acquisition, shape: tuple[int, int], last: int
) -> tuple[Movie, int]:
    """Return the movie of a view, and how many frames lie before it in the file."""
    movie = open_view(view, acquisition)
    before = view.first_frame - 1
    if before + last > movie.n_frames or (movie.ny, movie.nx) != shape:
        raise UnusableData(
            f"{movie.path}: has {movie.n_frames} frames of {movie.ny}×{movie.nx} pixels, frame "
            f"{before + last} of {shape[0]}×{shape[1]} was imported: import again"
        )
    return movie, before


def _corrected(movie: Movie, i: int, references: References, seed: int) -> Array:
    raw = on_device(movie.frame(i))
    return _even(raw, references.gain, references.dark, references.bad, seed)


def _even(raw: Array, gain: Array | None, dark: Array | None, bad: Mask | None, seed: int) -> Array:
    frame = detector.correct_frame(raw, gain, dark)
    return (
        frame if bad is None else detector.replace_pixels(frame, bad, np.random.default_rng(seed))
    )


def load_references(acquisition: Acquisition, shape: tuple[int, int]) -> References:
    """Return the references for frames of (ny, nx) pixels, from this worker's memory if there.

    Raises
    ------
    UnusableData, FormatError
        If a file is not the imported one, cannot be read, does not fit the frames, or is no gain.
    """
    a = acquisition
    with _loading:
        return _loaded(
            a.gain, a.dark, a.defects, a.gain_rotation, a.gain_flip, a.gain_inverted, shape
        )


@lru_cache(maxsize=KEPT)
def _loaded(
    gain_file: FileIdentity | None,
    dark_file: FileIdentity | None,
    defects_file: FileIdentity | None,
    rotation: int,
    flip: detector.Flip,
    inverted: bool,
    shape: tuple[int, int],
) -> References:
    gain = dark = bad = None
    if defects_file is not None:
        bad = read_defect_mask(checked_path(defects_file), shape)
    if gain_file is not None:
        turned = _turned(gain_file, rotation, flip)
        gain, dead = _matched_gain(gain_file.path, turned, inverted, shape)
        bad = dead if bad is None else bad | dead
        gain = on_device(gain)
    if dark_file is not None:
        turned = _turned(dark_file, rotation, flip)
        dark = match_reference(dark_file.path, turned, shape, counts=True)
        dark = on_device(np.ascontiguousarray(dark, dtype=np.float32))
    if bad is not None and bad.all():
        raise UnusableData(
            f"{(defects_file or gain_file).path}: leaves no pixel that is good: "  # type: ignore[union-attr]
            "correct the defects, or give another gain"
        )
    return References(gain, dark, bad if bad is not None and bad.any() else None)


def _turned(file: FileIdentity, rotation: int, flip: detector.Flip) -> NDArray[Any]:
    return detector.orient_reference(read_reference(checked_path(file)), rotation, flip)


def _matched_gain(
    path: str, gain: NDArray[Any], inverted: bool, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return what multiplies the frames, and which of their pixels the gain calls dead."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        values = gain.astype(np.float32)
        dead = ~(np.isfinite(values) & (values > 0) & np.isfinite(1 / values))
    share = float(dead.mean())
    if share > MOST_BAD:
        raise UnusableData(
            f"{path}: {share:.0%} of its values are 0, negative or no numbers: give a gain "
            "reference, with a mean near 1"
        )
    values = np.where(dead, np.float32(1), values)
    if dead.shape == shape:
        return np.ascontiguousarray(1 / values if inverted else values), dead
    # Pixels binned together add their counts: what is averaged is their sensitivity, 1/gain.
    sensitivity = values if inverted else 1 / values
    matched = 1 / match_reference(path, sensitivity, shape)
    dead = match_reference(path, dead.astype(np.float32), shape) > 0
    return matched.astype(np.float32, copy=False), dead


def memory_of_frames(shape: tuple[int, int], acquisition: Acquisition | None = None) -> int:
    """Return the most memory that `corrected_frames` takes [bytes], references included.

    Parameters
    ----------
    shape : (ny, nx)
        Of the frames.
    acquisition : Acquisition, optional
        Without it, everything that it may name.

    Notes
    -----
    Of each pixel: 4 bytes of counts as decoded, of sampled EER 2 (raw EER frames are decoded one
    at a time, straight into them); the frame in one stage of the correction, two if pixels are
    replaced, three with a dark reference; the frame before, which the caller still holds; and the
    references. Those of another series are dropped only when these are complete.
    """
    a = acquisition
    gain, dark, bad = (
        (True, True, True)
        if a is None
        else (a.gain is not None, a.dark is not None, a.gain is not None or a.defects is not None)
    )
    references = 4 * gain + 4 * dark + bad
    raw = 2 if a is not None and a.eer_sampling > 1 else 4
    correcting = 4 + raw + (12 if dark else 8 if bad else 4)
    loading = references + (12 if gain and raw == 4 else 4 * (gain or dark))
    return shape[0] * shape[1] * (max(correcting, loading) + references)
