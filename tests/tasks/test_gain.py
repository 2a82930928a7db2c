"""Movies on disk tell how the gain lies, and make one where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kernels.detector import Flip, orient_reference
from kernels.gain import ORIENTATIONS
from kernels.simulate import gain_reference
from tasks import cluster
from tasks.errors import UnusableData, WrongParameter
from tasks.formats.defects import read_defects
from tasks.formats.errors import FormatError
from tasks.formats.mrc import open_frames, read_header, read_image, write_stack
from tasks.gain import check_gain
from tasks.gain_estimate import estimate
from tasks.movie_sums import mean_of_movies, spread_choice
from tasks.parameters import Execution

THREADS = Execution(cluster="threads", workers=2)
FRAMES, SHAPE = 4, (128, 160)
DARK = 3


def write_movies(folder: Path, gain: np.ndarray, count: int = 12, electrons: float = 20) -> None:
    """Write movies of which one is dark, with a specimen that differs in each."""
    rng = np.random.default_rng(1)
    y, x = np.linspace(-1, 1, gain.shape[0])[:, None], np.linspace(-1, 1, gain.shape[1])[None, :]
    for i in range(count):
        specimen = 1 + 0.2 * np.sin(rng.uniform(2, 9) * x + rng.uniform(2, 9) * y + i)
        beam = np.exp(-0.3 * (x - 0.4) ** 2) * (0.01 if i == DARK else 1)
        expected = np.broadcast_to(electrons * beam * specimen / gain / FRAMES, gain.shape)
        movie = rng.poisson(expected, (FRAMES, *gain.shape)).astype(np.uint8)
        write_stack(folder / f"movie_{i:02d}.mrc", movie, 1.35)


@pytest.fixture(scope="module")
def gain() -> np.ndarray:
    return gain_reference(SHAPE, np.random.default_rng(0))


@pytest.fixture(scope="module")
def movies(gain: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("movies")
    write_movies(folder, gain)
    return sorted(folder.glob("*.mrc"))


@pytest.fixture(scope="module")
def mean(movies: list[Path]) -> np.ndarray:
    return mean_of_movies(movies, THREADS)


@pytest.fixture(scope="module")
def workers() -> Iterator[Execution]:
    with cluster.opened(Execution(cluster="local", workers=2)) as running:
        yield running


def all_frames(movies: list[Path]) -> np.ndarray:
    files = [open_frames(path) for path in movies]
    return np.stack([file.frame(i) for file in files for i in range(file.n_frames)])


@pytest.mark.parametrize("on", ["threads", "dask"])
def test_the_mean_is_that_of_all_frames(
    movies: list[Path], on: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    execution = THREADS if on == "threads" else request.getfixturevalue("workers")
    expected = all_frames(movies).mean(axis=0, dtype=np.float64)
    found = mean_of_movies(movies, execution, tmp_path)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert list(tmp_path.iterdir()) == []


def test_movies_of_unequal_length_count_by_their_frames(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.mrc", np.full((1, 8, 8), 10, np.int16), 1.0)
    write_stack(tmp_path / "b.mrc", np.full((3, 8, 8), 2, np.int16), 1.0)
    found = mean_of_movies([tmp_path / "a.mrc", str(tmp_path / "b.mrc")], THREADS)
    np.testing.assert_array_equal(found, 4)


@pytest.mark.parametrize(("rotation", "flip"), ORIENTATIONS)
def test_the_right_orientation_is_called_right_and_every_other_wrong(
    mean: np.ndarray, gain: np.ndarray, rotation: int, flip: Flip
) -> None:
    back = orient_reference(gain, 0, flip)
    filed = np.ascontiguousarray(orient_reference(back, -rotation % 4))
    for other_rotation, other_flip in ORIENTATIONS:
        check = check_gain(mean, filed, other_rotation, other_flip)
        right = (other_rotation, other_flip) == (rotation, flip)
        assert check.verdict == ("right" if right else "another is better")
        assert (check.best.rotation, check.best.flip, check.best.inverted) == (
            rotation,
            flip,
            False,
        )
        assert check.clear
        assert (check.behind == 0) == right
        assert check.behind == 0 or check.behind >= 5


def test_the_same_orientation_by_other_words_is_right_too(
    mean: np.ndarray, gain: np.ndarray
) -> None:
    filed = np.ascontiguousarray(gain[::-1])
    for rotation, flip in ((0, "up-down"), (2, "left-right")):
        check = check_gain(mean, filed, rotation, flip)  # type: ignore[arg-type]
        assert check.verdict == "right"
        assert "σ ahead of every other orientation" in check.message


def test_a_gain_to_be_divided_by_is_reported_as_inverted(
    mean: np.ndarray, gain: np.ndarray
) -> None:
    check = check_gain(mean, 1 / gain)
    assert check.verdict == "another is better"
    assert check.best.inverted
    assert "rotation 0, flip none, inverted fits the movies better" in check.message
    assert check_gain(mean, 1 / gain, inverted=True).verdict == "right"
    assert check_gain(mean, gain, inverted=True).verdict == "another is better"


@pytest.mark.parametrize("case", ["no structure", "another gain", "corrected movies"])
def test_where_nothing_shows_it_cannot_tell(mean: np.ndarray, gain: np.ndarray, case: str) -> None:
    given = gain
    if case == "no structure":
        given = np.ones_like(gain)
    elif case == "another gain":
        given = gain_reference(SHAPE, np.random.default_rng(5))
    else:
        mean = np.random.default_rng(6).poisson(900, SHAPE).astype(np.float32)
    for rotation, flip in ORIENTATIONS[:1] + ORIENTATIONS[4:6]:
        check = check_gain(mean, given, rotation, flip)
        assert check.verdict == "cannot tell"
        assert not check.clear
        assert "cannot tell the orientation" in check.message


def test_a_gain_of_another_size_is_refused(mean: np.ndarray) -> None:
    told = (
        r"gain\.dm4: the gain is 64×96 pixels, the frames 128×160 .* give raw movies and the gain"
    )
    with pytest.raises(UnusableData, match=told):
        check_gain(mean, np.ones((64, 96)), path="gain.dm4")


def test_the_gain_of_the_simulated_microscope_is_right(tiny_data: Path) -> None:
    mean = mean_of_movies(sorted((tiny_data / "frames").glob("*.mrc")), THREADS)
    gain = read_image(tiny_data / "gain.mrc")
    assert check_gain(mean, gain).verdict == "right"
    assert check_gain(mean, gain, 2, "none").verdict == "another is better"


def test_a_choice_of_movies_is_spread_over_all() -> None:
    movies = [Path(f"{i}.mrc") for i in range(410)]
    chosen = spread_choice(movies, 41)
    assert chosen == movies[::10]
    assert spread_choice(movies[:7], 41) == movies[:7]
    assert len(set(spread_choice(movies, 300))) == 300


def test_a_gain_is_made_from_movies_of_much_dose(tmp_path: Path, gain: np.ndarray) -> None:
    (tmp_path / "movies").mkdir()
    write_movies(tmp_path / "movies", gain, count=16, electrons=300)
    y, x = np.linspace(-1, 1, SHAPE[0])[:, None], np.linspace(-1, 1, SHAPE[1])[None, :]
    movies = sorted(str(path) for path in (tmp_path / "movies").iterdir())
    made = estimate.fn(movies, str(tmp_path / "gain.mrc"), THREADS)
    found = read_image(tmp_path / "gain.mrc")
    beam = np.exp(-0.3 * (x - 0.4) ** 2) + 0 * y
    ratio = found * beam / gain
    fine = ratio / np.median(ratio) - 1
    assert made.noise is not None
    assert np.std(fine[:-1] - fine[1:]) / np.sqrt(2) < 1.3 / np.sqrt(made.electrons)
    assert found.mean() == pytest.approx(1, abs=1e-4)
    assert read_header(tmp_path / "gain.mrc").pixel_size == pytest.approx(1.35)
    assert (made.movies, made.frames, made.bad_pixels) == (16, 64, 0)
    assert made.defects is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gain.mrc", "movies"]
    mean = mean_of_movies(movies, THREADS)
    assert check_gain(mean, found).verdict == "right"


def test_the_number_of_workers_does_not_change_the_gain(
    movies: list[Path], workers: Execution, tmp_path: Path
) -> None:
    names = [str(path) for path in movies]
    made = []
    for i, execution in enumerate((Execution(cluster="threads", workers=9), THREADS, workers)):
        estimate.fn(names, str(tmp_path / f"{i}.mrc"), execution)
        made.append(read_image(tmp_path / f"{i}.mrc"))
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])


def test_bad_pixels_are_written_as_defects(movies: list[Path], tmp_path: Path) -> None:
    for path in movies:
        frames = all_frames([path])
        frames[:, 20, 30:33] = 200
        frames[:, :, 100] = 0
        write_stack(tmp_path / path.name, frames, 1.35)
    spoiled = [str(tmp_path / path.name) for path in movies]
    made = estimate.fn(spoiled, str(tmp_path / "gain.mrc"), THREADS)
    assert made.bad_pixels == 3 + SHAPE[0]
    assert made.defects == str(tmp_path / "gain.defects.txt")
    assert read_defects(made.defects) == [(100, 0, 1, SHAPE[0]), (30, 20, 3, 1)]
    with pytest.raises(WrongParameter, match=r"gain\.mrc: exists already: give another output"):
        estimate.fn(spoiled, str(tmp_path / "gain.mrc"), THREADS)
    estimate.fn(spoiled, str(tmp_path / "again.mrc"), THREADS, str(tmp_path / "own.txt"))
    assert read_defects(tmp_path / "own.txt") == read_defects(made.defects)


def test_too_few_electrons_are_told(movies: list[Path], tmp_path: Path) -> None:
    made = estimate.fn([str(path) for path in movies[:2]], str(tmp_path / "gain.mrc"), THREADS)
    assert made.noise is not None
    assert made.noise > made.structure
    assert "more noise than structure" in made.message
    one = estimate.fn([str(movies[0])], str(tmp_path / "one.mrc"), THREADS)
    assert one.noise is None
    assert "at least two movies" in one.message


def test_what_cannot_be_used_is_named(movies: list[Path], tmp_path: Path) -> None:
    other, nan, dark = tmp_path / "other.mrc", tmp_path / "nan.mrc", tmp_path / "dark.mrc"
    write_stack(other, np.ones((2, 64, 64), np.uint8), 1.35)
    write_stack(nan, np.ones((2, *SHAPE), np.float32), 1.35)
    write_stack(dark, np.zeros((2, *SHAPE), np.uint8), 1.35)
    with nan.open("r+b") as file:
        file.seek(1024 + 4 * 77)
        file.write(np.float32("nan").tobytes())
    with pytest.raises(UnusableData, match=r"other\.mrc: frames of 64×64 .* have 128×160"):
        mean_of_movies([*movies[:2], other], THREADS)
    with pytest.raises(UnusableData, match=r"nan\.mrc: holds values that are not numbers"):
        mean_of_movies([nan], THREADS)
    with pytest.raises((FormatError, OSError), match=r"absent\.mrc"):
        mean_of_movies([tmp_path / "absent.mrc"], THREADS)
    with pytest.raises(UnusableData, match="no movies were given"):
        mean_of_movies([], THREADS)
    with pytest.raises(UnusableData, match=r"dark\.mrc: no counts in any of 1 movies"):
        estimate.fn([str(dark)], str(tmp_path / "gain.mrc"), THREADS)
    with pytest.raises(WrongParameter, match="no such folder"):
        estimate.fn([str(movies[0])], str(tmp_path / "no" / "gain.mrc"), THREADS)
    assert not (tmp_path / "gain.mrc").exists()


def test_a_failure_leaves_nothing_behind(movies: list[Path], tmp_path: Path) -> None:
    with pytest.raises((FormatError, OSError)):
        mean_of_movies([*movies[:3], Path("/absent.mrc")], THREADS, tmp_path)
    assert list(tmp_path.iterdir()) == []
