"""Frames of a view come corrected for whatever the detector did, from wherever they lie."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from eer_files import NX, NY, encoded, write_eer

from kernels.detector import orient_reference
from kernels.gain import ORIENTATIONS
from tasks.chunks.frames import (
    corrected_frames,
    load_references,
    memory_of_frames,
    open_view,
    summed_frames,
)
from tasks.errors import UnusableData
from tasks.formats.errors import FormatError
from tasks.formats.mrc import write_stack
from tasks.identity import identify
from tasks.record import Acquisition, View

SHAPE = (24, 40)
RNG = np.random.default_rng(0)
RAW = RNG.poisson(20, (6, *SHAPE)).astype(np.uint8)
GAIN = RNG.normal(1, 0.1, SHAPE).astype(np.float32)
DARK = RNG.uniform(0, 3, SHAPE).astype(np.float32)


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    write_stack(tmp_path / "movie.mrc", RAW, 1.0)
    return tmp_path / "movie.mrc"


def view_of(path: Path, **given: Any) -> View:
    values = {"tilt_angle": 0, "order": 1, "prior_dose": 0, "dose": 3, "frames": 6, **given}
    return View(movie=identify(path), **values)


def reference(folder: Path, name: str, values: np.ndarray) -> Any:
    write_stack(folder / name, np.ascontiguousarray(values)[None], 1.0)
    return identify(folder / name)


def acquisition(**given: Any) -> Acquisition:
    return Acquisition(voltage=300, pixel_size=1, tilt_axis=0, **given)


def frames(path: Path, about: Acquisition, shape: tuple[int, int] = SHAPE, **given: Any) -> Any:
    view = view_of(path, **given)
    return np.stack(list(corrected_frames(view, about, shape, 0, view.frames)))


def as_filed(values: np.ndarray, rotation: int, flip: Any) -> np.ndarray:
    return orient_reference(orient_reference(values, 0, flip), -rotation % 4)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(("rotation", "flip"), ORIENTATIONS)
def test_gain_and_dark_are_turned_and_used_as_the_record_says(
    movie: Path, tmp_path: Path, rotation: int, flip: Any, inverted: bool
) -> None:
    filed = as_filed(1 / GAIN if inverted else GAIN, rotation, flip)
    about = acquisition(
        gain=reference(tmp_path, "gain.mrc", filed),
        dark=reference(tmp_path, "dark.mrc", as_filed(DARK, rotation, flip)),
        gain_rotation=rotation,
        gain_flip=flip,
        gain_inverted=inverted,
    )
    found = frames(movie, about)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (RAW - DARK) * GAIN, rtol=1e-5, atol=1e-5)


def test_series_that_differ_in_orientation_only_keep_their_own_gain(
    movie: Path, tmp_path: Path
) -> None:
    gain = reference(tmp_path, "gain.mrc", GAIN)
    both = [acquisition(gain=gain, gain_flip=flip) for flip in ("none", "up-down")]
    for _ in range(2):
        for about, expected in zip(both, (GAIN, GAIN[::-1]), strict=True):
            np.testing.assert_allclose(frames(movie, about), RAW * expected, rtol=1e-6)
    assert load_references(both[0], SHAPE) is load_references(both[0], SHAPE)


def test_a_view_may_begin_within_its_file(movie: Path) -> None:
    found = frames(movie, acquisition(), first_frame=3, frames=2)
    np.testing.assert_array_equal(found, RAW[2:4])
    view = view_of(movie, first_frame=3, frames=3)
    np.testing.assert_array_equal(
        np.stack(list(corrected_frames(view, acquisition(), SHAPE, 1, 3))), RAW[3:5]
    )


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
@pytest.mark.parametrize("inverted", [False, True])
def test_pixels_of_which_the_gain_says_nothing_are_defects(
    movie: Path, tmp_path: Path, value: float, inverted: bool
) -> None:
    spoiled = GAIN.copy()
    spoiled[3, 5:8] = value
    path = tmp_path / "gain.gain"
    tifffile.imwrite(path, spoiled[::-1])
    (tmp_path / "defects.txt").write_text("30 10 4 2\n")
    about = acquisition(
        gain=identify(path), gain_inverted=inverted, defects=identify(tmp_path / "defects.txt")
    )
    bad = np.zeros(SHAPE, bool)
    bad[3, 5:8] = bad[10:12, 30:34] = True
    np.testing.assert_array_equal(load_references(about, SHAPE).bad, bad)
    found = frames(movie, about)
    expected = RAW / GAIN if inverted else RAW * GAIN
    np.testing.assert_allclose(found[:, ~bad], expected[:, ~bad], rtol=1e-5)
    for frame, even in zip(found, expected, strict=True):
        # Copies of good pixels of the same frame, not always of the same ones.
        assert np.isin(np.round(frame[bad], 3), np.round(even[~bad].astype(np.float32), 3)).all()
    picked = found[:, bad] - found[0, bad]
    assert (picked != 0).any()


def test_further_bad_pixels_join_those_of_the_gain_and_the_sum_is_that_of_the_frames(
    movie: Path, tmp_path: Path
) -> None:
    spoiled = GAIN.copy()
    spoiled[3, 5] = 0
    about = acquisition(gain=reference(tmp_path, "gain.mrc", spoiled))
    bad = np.zeros(SHAPE, bool)
    bad[7, 8] = True
    expected = RAW * GAIN
    for given, others in ((bad, [(7, 8), (3, 5)]), (None, [(3, 5)])):
        found = np.stack(list(corrected_frames(view_of(movie), about, SHAPE, 0, 6, given)))
        differ = np.abs(found - expected).max(axis=0) > 1e-3
        assert sorted(map(tuple, np.argwhere(differ).tolist())) == sorted(others)
    total = summed_frames(view_of(movie), about, SHAPE, 1, 4)
    good = spoiled > 0
    np.testing.assert_allclose(total[good], expected[1:4].sum(axis=0)[good], rtol=1e-6)
    assert total[3, 5] in total[good]
    assert bad.sum() == 1


@pytest.mark.parametrize("factor", [2, 4])
def test_references_of_another_sampling_are_brought_to_the_frames(
    movie: Path, tmp_path: Path, factor: int
) -> None:
    coarse = GAIN[::factor, ::factor].copy()
    coarse[1, 2] = 0
    about = acquisition(
        gain=reference(tmp_path, "coarse.mrc", coarse),
        dark=reference(tmp_path, "coarse_dark.mrc", DARK[::factor, ::factor]),
    )
    found = load_references(about, SHAPE)
    wide = np.kron(coarse, np.ones((factor, factor)))
    np.testing.assert_array_equal(found.bad, wide == 0)
    np.testing.assert_allclose(found.gain[wide > 0], wide[wide > 0], rtol=1e-6)
    # What a pixel counts without beam is the sum of its parts.
    binned = np.asarray(found.dark).reshape(SHAPE[0] // factor, factor, -1, factor).sum((1, 3))
    np.testing.assert_allclose(binned, DARK[::factor, ::factor], rtol=1e-6)


def test_a_finer_gain_makes_even_frames_of_binned_pixels(tmp_path: Path) -> None:
    fine = RNG.normal(1, 0.1, (2 * SHAPE[0], 2 * SHAPE[1])).astype(np.float32)
    counts = (1000 / fine).reshape(SHAPE[0], 2, SHAPE[1], 2).sum((1, 3))
    fine[6, 8] = 0
    write_stack(tmp_path / "binned.mrc", counts[None].astype(np.float32), 1.0)
    about = acquisition(gain=reference(tmp_path, "fine.mrc", fine))
    found = load_references(about, SHAPE)
    assert np.argwhere(found.bad).tolist() == [[3, 4]]
    even = frames(tmp_path / "binned.mrc", about, frames=1)
    np.testing.assert_allclose(even, 4000, rtol=1e-5)


@pytest.mark.parametrize("sampling", [1, 2, 4])
def test_eer_frames_are_grouped_sampled_and_take_the_gain_of_the_detector(
    tmp_path: Path, sampling: int
) -> None:
    rng = np.random.default_rng(1)
    raw = [sorted({(int(y), int(x)) for y, x in rng.integers(0, (NY, NX), (400, 2))}) for _ in "ab"]
    codes = [encoded([(y, x, 1, 2) for y, x in electrons]) for electrons in raw * 3]
    path = write_eer(tmp_path / "a.eer", codes)
    gain = rng.normal(1, 0.05, (NY, NX)).astype(np.float32)
    gain[5, 7] = 0
    tifffile.imwrite(tmp_path / "a.gain", gain[::-1])
    shape = (NY * sampling, NX * sampling)
    about = acquisition(gain=identify(tmp_path / "a.gain"), eer_sampling=sampling)
    view = view_of(path, first_frame=2, frames=2, grouping=2)
    assert (open_view(view, about).n_frames, open_view(view, about).ny) == (3, shape[0])
    found = np.stack(list(corrected_frames(view, about, shape, 0, 2)))
    counts = np.zeros((NY, NX))
    for electrons in raw:
        for y, x in electrons:
            counts[NY - 1 - y, x] += 1
    by_pixel = found.reshape(2, NY, sampling, NX, sampling).sum((2, 4))
    good = gain > 0
    np.testing.assert_allclose(by_pixel[:, good], np.array(2 * [(counts * gain)[good]]), rtol=1e-5)


def test_what_does_not_fit_is_named(movie: Path, tmp_path: Path) -> None:
    about = acquisition(gain=reference(tmp_path, "turned.mrc", GAIN.T))
    with pytest.raises(FormatError, match=r"turned\.mrc: 40×24 pixels after rotation, the movies"):
        frames(movie, about)
    with pytest.raises(UnusableData, match=r"movie\.mrc: has 6 frames of 24×40 pixels, frame 7 of"):
        frames(movie, acquisition(), first_frame=2, frames=6)
    with pytest.raises(UnusableData, match="of 24×41 was imported: import again"):
        frames(movie, acquisition(), shape=(24, 41))
    about = acquisition(gain=reference(tmp_path, "zero.mrc", GAIN - 1.05))
    with pytest.raises(UnusableData, match=r"zero\.mrc: \d+% of its values are 0, negative or"):
        frames(movie, about)
    (tmp_path / "all.txt").write_text(f"0 0 {SHAPE[1]} {SHAPE[0]}\n")
    about = acquisition(defects=identify(tmp_path / "all.txt"))
    with pytest.raises(UnusableData, match=r"all\.txt: leaves no pixel that is good"):
        frames(movie, about)


@pytest.mark.parametrize("uses", ["", "gain", "dark", "defects", "gain dark defects", "eer gain"])
def test_the_memory_stated_is_that_taken(tmp_path: Path, uses: str) -> None:
    shape = (1024, 1024)
    (tmp_path / "defects").write_text("5 5 3 3\n")
    given = {name: identify(tmp_path / "defects") for name in ["defects"] if name in uses}
    for name in ("gain", "dark"):
        if name in uses:
            given[name] = reference(tmp_path, name, np.full(shape, 1.1, np.float32))
    if "eer" in uses:
        codes = encoded([(1, 1, 1, 1)], shape=(256, 256))
        path = write_eer(tmp_path / "m.eer", [codes] * 3, shape=(256, 256))
        given["gain"] = reference(tmp_path, "gain", np.full((256, 256), 1.1, np.float32))
        given["eer_sampling"] = 4
    else:
        path = tmp_path / "m.mrc"
        write_stack(path, np.ones((3, *shape), np.float32), 1.0)
    about = acquisition(**given)
    tracemalloc.start()
    # Those of a series before, of which one set is still kept.
    load_references(about.model_copy(update={"gain_rotation": 2}), shape)
    held = None
    for frame in corrected_frames(view_of(path, frames=3), about, shape, 0, 3):
        held = frame
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held is not None
    assert 0.72 * memory_of_frames(shape, about) < peak < 1.03 * memory_of_frames(shape, about)
    assert memory_of_frames(shape, about) <= memory_of_frames(shape)
