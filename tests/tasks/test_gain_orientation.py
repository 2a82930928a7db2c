"""Movies of every format tell how their gain lies: those of records, or any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from eer_files import encoded, write_eer

from kernels.detector import orient_reference
from kernels.gain import ORIENTATIONS
from kernels.simulate import gain_reference
from tasks import cluster
from tasks.errors import UnusableData
from tasks.formats.errors import FormatError
from tasks.formats.mrc import read_image, write_stack
from tasks.gain import AS_FILED, Orientation, check, orientation_shown
from tasks.gain_estimate import estimate
from tasks.identity import identify
from tasks.parameters import Execution
from tasks.record import Acquisition, TiltSeries, View

THREADS = Execution(cluster="threads", workers=2)
FRAMES, SHAPE = 3, (128, 160)
MOVIES, ELECTRONS = 20, 20
GAIN = gain_reference(SHAPE, np.random.default_rng(0))
DARK = np.random.default_rng(1).uniform(0, 8, SHAPE).astype(np.float32)


def counts(seed: int, gain: np.ndarray, electrons: float = ELECTRONS) -> np.ndarray:
    """Return raw frames (FRAMES, ny, nx) with a specimen and an uneven beam."""
    rng = np.random.default_rng(seed)
    y, x = (np.linspace(-1, 1, n) for n in gain.shape)
    specimen = 1 + 0.2 * np.sin(rng.uniform(2, 9) * x + rng.uniform(2, 9) * y[:, None] + seed)
    beam = np.exp(-0.3 * (x - 0.4) ** 2)
    return rng.poisson(electrons / FRAMES * beam * specimen / gain, (FRAMES, *gain.shape))


def write_movies(
    folder: Path, gain: np.ndarray = GAIN, change: Callable[[np.ndarray], Any] = np.uint8
) -> list[Path]:
    folder.mkdir(parents=True)
    paths = [folder / f"{i:02d}.mrc" for i in range(MOVIES)]
    for i, path in enumerate(paths):
        write_stack(path, change(counts(i, gain)), 1.35)
    return paths


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_movies(tmp_path_factory.mktemp("raw") / "frames")


@pytest.fixture(scope="module")
def workers() -> Iterator[Execution]:
    with cluster.opened(Execution(cluster="local", workers=2)) as running:
        yield running


def filed(path: Path, gain: np.ndarray, rotation: int = 0, flip: Any = "none") -> Path:
    """Write what must lie in the file for `rotation` and `flip` to make it `gain`."""
    back = orient_reference(orient_reference(gain, 0, flip), -rotation % 4)
    write_stack(path, np.ascontiguousarray(back)[None], 1.0)
    return path


def series(movies: list[Path], gain: Path, **given: Any) -> list[TiltSeries]:
    """Return two series that share the movies and the gain."""
    of_view = given.pop("of_view", {})
    excluded = given.pop("excluded", ())
    about = Acquisition(voltage=300, pixel_size=1, tilt_axis=0, gain=identify(gain), **given)
    views = [
        View(
            tilt_angle=i,
            order=i + 1,
            prior_dose=0,
            dose=3,
            movie=identify(path),
            excluded="dark" if i in excluded else None,
            **{"frames": FRAMES, **of_view},
        )
        for i, path in enumerate(movies)
    ]
    half = len(views) // 2
    return [
        TiltSeries(name=f"TS_{k}", acquisition=about, shape=SHAPE, views=tuple(part))
        for k, part in enumerate((views[:half], views[half:]))
    ]


@pytest.mark.parametrize(("rotation", "flip"), ORIENTATIONS)
def test_records_with_the_right_orientation_are_right(
    movies: list[Path], tmp_path: Path, rotation: int, flip: Any
) -> None:
    gain = filed(tmp_path / "gain.mrc", GAIN, rotation, flip)
    found = orientation_shown(series(movies, gain, gain_rotation=rotation, gain_flip=flip), THREADS)
    assert (found.verdict, found.clear) == ("right", True)
    assert found.share == pytest.approx(1, abs=0.15)
    assert found.margin > 10


def test_records_with_another_are_told_the_best(movies: list[Path], tmp_path: Path) -> None:
    gain = filed(tmp_path / "gain.mrc", 1 / GAIN, 1, "up-down")
    found = orientation_shown(series(movies, gain, gain_rotation=3), THREADS)
    assert found.verdict == "another is better"
    assert found.clear
    assert found.best == Orientation(rotation=1, flip="up-down", inverted=True)
    right = series(movies, gain, gain_rotation=1, gain_flip="up-down", gain_inverted=True)
    assert orientation_shown(right, THREADS).verdict == "right"


def test_workers_of_a_cluster_and_threads_agree(
    movies: list[Path], tmp_path: Path, workers: Execution
) -> None:
    records = series(movies, filed(tmp_path / "gain.mrc", GAIN))
    found = orientation_shown(records, workers)
    assert found == orientation_shown(records, THREADS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gain.mrc"]


def test_excluded_views_are_not_read_and_the_others_evenly(
    movies: list[Path], tmp_path: Path
) -> None:
    copies = [tmp_path / path.name for path in movies]
    for i, copy in enumerate(copies):
        write_stack(copy, counts(i, GAIN).astype(np.uint8), 1.35)
    records = series(copies, filed(tmp_path / "gain.mrc", GAIN), excluded={4, 7})
    copies[4].unlink()
    copies[7].unlink()
    assert orientation_shown(records, THREADS, most=99).verdict == "right"
    # Three of 18 views are those at 0, 6 and 12: the others may be missing.
    for i in set(range(MOVIES)) - {0, 4, 7, 8, 14}:
        copies[i].unlink()
    assert orientation_shown(records, THREADS, most=3).best == AS_FILED
    with pytest.raises(UnusableData, match="missing since the import"):
        orientation_shown(records, THREADS, most=4)


def test_only_the_frames_of_a_view_count(movies: list[Path], tmp_path: Path) -> None:
    spoiled = tmp_path / "stack.mrc"
    good = np.concatenate([counts(i, GAIN) for i in range(MOVIES)])
    wrong = np.concatenate([counts(i, GAIN[:, ::-1]) for i in range(2 * MOVIES)])
    write_stack(spoiled, np.concatenate([wrong, good, wrong]).astype(np.uint8), 1.35)
    view = {"first_frame": len(wrong) + 1, "frames": len(good)}
    gain = filed(tmp_path / "gain.mrc", GAIN)
    assert orientation_shown(series([spoiled], gain, of_view=view)[1:], THREADS).verdict == "right"


@pytest.mark.parametrize("noise", [0, 0.01, 0.02])
def test_corrected_movies_tell_nothing_even_if_the_gain_left_its_noise_in_them(
    tmp_path: Path, noise: float
) -> None:
    rng = np.random.default_rng(3)
    used = (GAIN * (1 + noise * rng.standard_normal(SHAPE))).astype(np.float32)
    corrected = write_movies(tmp_path / "frames", GAIN, lambda raw: (raw * used).astype(np.float32))
    for lies in (AS_FILED, Orientation(flip="up-down"), Orientation(inverted=True)):
        gain = filed(tmp_path / "gain.mrc", used)
        about = {"gain_flip": lies.flip, "gain_inverted": lies.inverted}
        found = orientation_shown(series(corrected, gain, **about), THREADS, MOVIES)
        assert found.verdict == "cannot tell"
        assert not found.clear
        assert "corrected already" in found.message
    if noise == 0.02:
        assert found.margin > 5  # seemingly a gain that divides
        assert "the movies show" in found.message


def test_a_noisy_gain_of_raw_movies_is_right(movies: list[Path], tmp_path: Path) -> None:
    noisy = GAIN * (1 + 0.02 * np.random.default_rng(4).standard_normal(SHAPE))
    gain = filed(tmp_path / "gain.mrc", noisy.astype(np.float32))
    assert orientation_shown(series(movies, gain), THREADS).verdict == "right"


def test_a_dark_reference_is_subtracted_before_the_gain_is_compared(tmp_path: Path) -> None:
    movies = write_movies(
        tmp_path / "frames", GAIN, lambda raw: (raw + 5 * DARK).astype(np.float32)
    )
    for rotation, flip in ((0, "none"), (1, "left-right")):
        gain = filed(tmp_path / "gain.mrc", GAIN, rotation, flip)
        dark = filed(tmp_path / "dark.mrc", 5 * DARK, rotation, flip)
        about = {"dark": identify(dark)}
        right = series(movies, gain, gain_rotation=rotation, gain_flip=flip, **about)
        found = orientation_shown(right, THREADS)
        assert found.verdict == "right"
        assert found.share == pytest.approx(1, abs=0.15)
        lies = Orientation(rotation=rotation, flip=flip)
        assert check.fn(movies, str(gain), lies, THREADS, str(dark)).verdict == "right"
        # Turned as is wrongly said, the dark reference would hide what the gain leaves.
        found = orientation_shown(series(movies, gain, gain_flip="up-down", **about), THREADS)
        assert (found.verdict, found.best) == ("another is better", lies)
        assert found.share == pytest.approx(1, abs=0.15)
    assert check.fn(movies, str(gain), lies, THREADS).margin < found.margin


@pytest.mark.parametrize("finer", ["movies", "gain"])
@pytest.mark.parametrize("factor", [2, 4])
def test_gain_and_movies_of_different_sampling_are_compared_at_the_coarser(
    tmp_path: Path, finer: str, factor: int
) -> None:
    wide = np.kron(GAIN, np.ones((factor, factor))).astype(np.float32)
    if finer == "movies":
        movies = [tmp_path / f"{i}.mrc" for i in range(6)]
        for i, path in enumerate(movies):
            write_stack(path, counts(i, wide, ELECTRONS / factor).astype(np.uint8), 1.35)
        gain = filed(tmp_path / "gain.mrc", GAIN, 3, "up-down")
    else:
        movies = write_movies(tmp_path / "frames")
        wide[5, 7] = 0
        gain = filed(tmp_path / "gain.mrc", wide, 3, "up-down")
    right = Orientation(rotation=3, flip="up-down")
    assert check.fn(movies, str(gain), right, THREADS).verdict == "right"
    found = check.fn(movies, str(gain), AS_FILED, THREADS)
    assert (found.verdict, found.best) == ("another is better", right.canonical())


def test_tiff_movies_and_a_gain_file_of_the_camera_are_read(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i:02d}.tif" for i in range(MOVIES)]
    for i, path in enumerate(paths):
        frames = counts(i, GAIN)[:, ::-1].astype(np.uint8)
        tifffile.imwrite(path, frames, compression="zlib", photometric="minisblack")
    tifffile.imwrite(tmp_path / "a.gain", GAIN[::-1])
    assert check.fn(paths, str(tmp_path / "a.gain"), AS_FILED, THREADS).verdict == "right"
    made = estimate.fn([str(path) for path in paths], str(tmp_path / "gain.mrc"), THREADS)
    assert (made.movies, made.frames) == (MOVIES, MOVIES * FRAMES)
    assert check.fn(paths, str(tmp_path / "gain.mrc"), AS_FILED, THREADS).best == AS_FILED


@pytest.fixture(scope="module")
def eer(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], np.ndarray]:
    """Return EER movies of 20 raw frames, and their gain as read."""
    shape = (64, 96)
    rng = np.random.default_rng(5)
    gain = gain_reference(shape, rng)
    folder = tmp_path_factory.mktemp("eer")
    paths = [folder / f"{i}.eer" for i in range(12)]
    for path in paths:
        frames = []
        for _ in range(20):
            hit = np.argwhere(rng.random(shape) < 0.3 / gain[::-1])  # the scan begins at the top
            frames.append(encoded([(int(y), int(x), 1, 1) for y, x in hit], shape=shape))
        write_eer(path, frames, shape=shape)
    return paths, gain


@pytest.mark.parametrize("sampling", [1, 4])
def test_eer_movies_are_compared_in_pixels_of_the_detector(
    eer: tuple[list[Path], np.ndarray], tmp_path: Path, sampling: int
) -> None:
    movies, gain = eer
    path = filed(tmp_path / "gain.mrc", gain, 0, "up-down")  # as RELION has it
    about = {"eer_sampling": sampling, "of_view": {"frames": 2, "grouping": 10}}
    right = series(movies, path, gain_flip="up-down", **about)
    assert orientation_shown(right, THREADS).verdict == "right"
    found = orientation_shown(series(movies, path, **about), THREADS)
    assert (found.verdict, found.best.flip) == ("another is better", "up-down")
    assert check.fn(movies, str(path), Orientation(flip="up-down"), THREADS).verdict == "right"


def test_a_gain_is_made_of_eer_movies_and_has_the_pixels_of_the_detector(
    eer: tuple[list[Path], np.ndarray], tmp_path: Path
) -> None:
    movies, gain = eer
    made = estimate.fn([str(path) for path in movies], str(tmp_path / "gain.mrc"), THREADS)
    assert made.electrons == pytest.approx(12 * 20 * 0.3, rel=0.05)
    found = read_image(tmp_path / "gain.mrc")
    assert found.shape == gain.shape
    assert np.corrcoef(found.ravel(), gain.ravel())[0, 1] > 0.3
    assert np.corrcoef(found.ravel(), gain[::-1].ravel())[0, 1] < 0.25


def test_a_gain_made_from_movies_with_dark_counts_is_that_of_the_electrons(tmp_path: Path) -> None:
    movies = write_movies(tmp_path / "frames", GAIN, lambda raw: (raw + DARK).astype(np.float32))
    dark = filed(tmp_path / "dark.mrc", DARK)
    names = [str(path) for path in movies]
    plain = write_movies(tmp_path / "plain")
    estimate.fn([str(path) for path in plain], str(tmp_path / "plain.mrc"), THREADS)
    estimate.fn(names, str(tmp_path / "gain.mrc"), THREADS, dark=str(dark))
    np.testing.assert_allclose(
        read_image(tmp_path / "gain.mrc"), read_image(tmp_path / "plain.mrc"), rtol=1e-3
    )


def test_what_cannot_be_used_is_told_with_its_file(
    movies: list[Path], eer: tuple[list[Path], np.ndarray], tmp_path: Path
) -> None:
    small = filed(tmp_path / "small.mrc", np.ones((50, 60), np.float32))
    with pytest.raises(UnusableData, match=r"small\.mrc: the gain is 50×60 pixels, the frames 128"):
        check.fn(movies, str(small), AS_FILED, THREADS)
    dark = filed(tmp_path / "dark.mrc", DARK[:100])
    gain = filed(tmp_path / "gain.mrc", GAIN)
    with pytest.raises(FormatError, match=r"dark\.mrc: .* the movies have 128×160; give the ref"):
        check.fn(movies, str(gain), AS_FILED, THREADS, str(dark))
    with pytest.raises(UnusableData, match=r"dark\.mrc: .* 0\.eer counts electrons .* --dark"):
        estimate.fn([str(eer[0][0])], str(tmp_path / "new.mrc"), THREADS, dark=str(dark))
    with pytest.raises(FormatError, match=r"00\.mrc: 3 sections; give a file of one image"):
        check.fn(movies, str(movies[0]), AS_FILED, THREADS)
    records = series(movies, gain, excluded=set(range(MOVIES)))
    with pytest.raises(UnusableData, match="TS_0: no view is left"):
        orientation_shown(records, THREADS)
