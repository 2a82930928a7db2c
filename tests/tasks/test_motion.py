from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eer_files import NX, NY, encoded, write_eer

from tasks.chunks.motion import memory_of_movie
from tasks.discover import find_sources, mdoc_source
from tasks.errors import UnusableData
from tasks.formats.errors import FormatError
from tasks.formats.mrc import open_frames, read_image, write_stack
from tasks.ingest import read_series, store_series
from tasks.motion import motion
from tasks.parameters import Execution, ImportParameters, MotionParameters
from tasks.result import Result
from tasks.store import parse_project
from tasks.truth import read_truth

THREADS = Execution(cluster="threads", workers=2)
VIEWS, FRAMES, SIZE = 7, 4, 128


def corrected(project: str, **given: Any) -> Result:
    outcome = motion.fn(project, "TS_01", MotionParameters(**given), "main", THREADS)
    return parse_project(project).series("TS_01").result("motion", outcome.key)


@pytest.fixture
def own_data(tiny_data: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny data that a test may spoil."""
    return shutil.copytree(tiny_data, tmp_path / "data")


def import_own(data: Path, **given: Any) -> str:
    project = str(data.parent / "own.zarr")
    source = mdoc_source(data / "TS_01.mrc.mdoc")
    store_series.fn(project, read_series.fn(source, ImportParameters(mdoc="x", **given)))
    return project


def test_images_are_one_view_a_chunk_and_finite(finished_project: str) -> None:
    result = parse_project(finished_project).series("TS_01").current("main", "motion")
    for name in ("images", "odd", "even"):
        array = result.array(name)
        assert array.shape == (VIEWS, SIZE, SIZE)
        assert array.chunks == (1, SIZE, SIZE)
        assert array.dtype == np.float32
        assert np.isfinite(array[:]).all()
    assert result.array("shifts").shape == (VIEWS, FRAMES, 2)
    assert result.array("shifts").chunks == (1, FRAMES, 2)


def test_odd_and_even_frames_sum_to_all_of_them(finished_project: str) -> None:
    result = parse_project(finished_project).series("TS_01").current("main", "motion")
    halves = result.array("odd")[:] + result.array("even")[:]
    np.testing.assert_allclose(halves, result.array("images")[:], atol=2e-4)
    assert np.abs(result.array("odd")[:] - result.array("even")[:]).max() > 1


def test_without_alignment_the_image_is_the_sum_of_the_frames_times_the_gain(
    tiny_project: str, tiny_data: Path
) -> None:
    result = corrected(tiny_project, align=False, first_frame=2, last_frame=3)
    record = parse_project(tiny_project).series("TS_01").imported()
    frames = open_frames(record.views[3].movie.path)
    expected = (frames.frame(1) + frames.frame(2).astype(np.float32)) * read_image(
        tiny_data / "gain.mrc"
    )
    np.testing.assert_allclose(result.array("images")[3], expected, rtol=1e-4, atol=1e-4)
    shifts = result.array("shifts")[:]
    assert np.isnan(shifts[:, [0, 3]]).all()
    assert (shifts[:, 1:3] == 0).all()


def test_the_planted_motion_is_found(finished_project: str, tiny_data: Path) -> None:
    series = parse_project(finished_project).series("TS_01")
    shifts, record = series.current("main", "motion").array("shifts")[:], series.record("main")
    (truth, _) = read_truth(tiny_data).series
    errors = []
    for found, planted, view in zip(shifts, truth.views, record.views, strict=True):
        true = np.asarray(planted.frame_shifts)[:, ::-1] / 5.4  # x, y in Å to y, x in pixels
        if view.motion is not None and view.motion.reliable:
            np.testing.assert_allclose(found[0], 0, atol=1e-9)
            errors.append(np.sqrt(np.mean((found - (true - true[0])) ** 2)))
            length = np.hypot(*np.diff(found, axis=0).T).sum() * 5.4
            assert view.motion.total == pytest.approx(length)
            assert view.motion.early + view.motion.late == pytest.approx(length)
    assert len(errors) >= 5
    assert np.median(errors) < 0.5
    assert record.views[0].motion is not None
    assert not record.views[0].motion.reliable  # the dark one


def test_binning_crops_the_images_and_keeps_their_mean(
    finished_project: str, tiny_project: str
) -> None:
    full = parse_project(finished_project).series("TS_01").current("main", "motion")
    binned = corrected(tiny_project, binning=2.0)
    images = binned.array("images")[:]
    assert images.shape == (VIEWS, SIZE // 2, SIZE // 2)
    np.testing.assert_allclose(
        images.mean(axis=(1, 2)), full.array("images")[:].mean(axis=(1, 2)), rtol=1e-3
    )


@pytest.mark.parametrize(("rotation", "flip"), [(1, "none"), (0, "up-down"), (3, "left-right")])
def test_the_gain_is_turned_as_the_user_says(
    own_data: Path, tmp_path: Path, rotation: int, flip: str
) -> None:
    right = import_own(own_data, gain=str(own_data / "gain.mrc"))
    expected = corrected(right, align=False).array("images")[3]
    gain = read_image(own_data / "gain.mrc")
    unflipped = {"none": gain, "up-down": gain[::-1], "left-right": gain[:, ::-1]}[flip]
    # Rows run upward, so that np.rot90 turns clockwise: the user turns it back.
    turned = np.rot90(unflipped, rotation)
    write_stack(tmp_path / "turned.mrc", np.ascontiguousarray(turned)[None], 5.4)
    project = import_own(
        own_data, gain=str(tmp_path / "turned.mrc"), gain_rotate=rotation, gain_flip=flip
    )
    image = corrected(project, align=False).array("images")[3]
    np.testing.assert_allclose(image, expected, rtol=1e-4, atol=1e-4)


def test_the_dark_reference_is_subtracted_before_the_gain(own_data: Path) -> None:
    dark = np.full((1, SIZE, SIZE), 0.25, dtype=np.float32)
    write_stack(own_data / "dark.mrc", dark, 5.4)
    gain = str(own_data / "gain.mrc")
    without = corrected(import_own(own_data, gain=gain), align=False).array("images")[3]
    with_dark = import_own(own_data, gain=gain, dark=str(own_data / "dark.mrc"))
    image = corrected(with_dark, align=False).array("images")[3]
    expected = without - FRAMES * 0.25 * read_image(gain)
    np.testing.assert_allclose(image, expected, rtol=1e-4, atol=1e-4)


def test_defects_are_replaced_from_their_surroundings(own_data: Path) -> None:
    record = parse_project(import_own(own_data)).series("TS_01").imported()
    movie = Path(record.views[3].movie.path)
    spoiled = np.stack([open_frames(movie).frame(i) for i in range(FRAMES)])
    spoiled[:, 40:43, 10:14] = 5000
    write_stack(movie, spoiled, 5.4)
    (own_data / "defects.txt").write_text("10 40 4 3\n")
    project = import_own(own_data, defects=str(own_data / "defects.txt"))
    image = corrected(project, align=False).array("images")[3]
    assert image[40:43, 10:14].max() < image.max() + 1 < 300


def test_a_reference_of_another_size_is_refused(own_data: Path) -> None:
    write_stack(own_data / "small.mrc", np.ones((1, 64, 128), dtype=np.float32), 5.4)
    with pytest.raises(UnusableData, match=r"small\.mrc: 64×128 pixels as rotated, the movies"):
        import_own(own_data, gain=str(own_data / "small.mrc"))


def test_a_movie_of_nan_is_named(own_data: Path) -> None:
    record = parse_project(import_own(own_data)).series("TS_01").imported()
    movie = Path(record.views[2].movie.path)
    write_stack(movie, np.zeros((FRAMES, SIZE, SIZE), np.float32), 5.4)
    with movie.open("r+b") as file:
        file.seek(1024 + 4 * 777)
        file.write(np.float32("nan").tobytes())
    project = import_own(own_data)
    with pytest.raises(UnusableData, match=rf"{movie.name}: holds values that are not numbers"):
        corrected(project)
    assert parse_project(project).series("TS_01").pointer("main", "motion") is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"first_frame": 9}, "has 4 frames, none from 9 to 4: choose other --first-frame"),
        ({"first_frame": 3, "last_frame": 2}, "last frame 2 before first frame 3"),
    ],
)
def test_frames_that_are_not_there_are_refused(
    tiny_project: str, given: dict[str, int], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        corrected(tiny_project, **given)


def test_a_movie_truncated_after_the_import_is_named(own_data: Path) -> None:
    project = import_own(own_data)
    record = parse_project(project).series("TS_01").imported()
    movie = Path(record.views[5].movie.path)
    movie.write_bytes(movie.read_bytes()[:-100])
    with pytest.raises((UnusableData, FormatError), match=rf"{movie.name}: has \d+ bytes"):
        corrected(project)


def test_movies_are_read_where_they_are_and_never_written(
    own_data: Path, finished_project: str
) -> None:
    before = {p: p.stat().st_mtime_ns for p in own_data.rglob("*") if p.is_file()}
    corrected(import_own(own_data), align=False)
    assert {p: p.stat().st_mtime_ns for p in own_data.rglob("*") if p.is_file()} == before


def test_a_hot_pixel_and_an_x_ray_are_found_and_replaced(own_data: Path) -> None:
    record = parse_project(import_own(own_data)).series("TS_01").imported()
    movie = Path(record.views[3].movie.path)
    spoiled = np.stack([open_frames(movie).frame(i) for i in range(FRAMES)])
    spoiled[:, 40, 10] += 40
    spoiled[1, 70, 90] += 200
    write_stack(movie, spoiled, 5.4)
    gain = str(own_data / "gain.mrc")
    found = corrected(import_own(own_data, gain=gain), align=False)
    left = corrected(import_own(own_data, gain=gain), align=False, find_bad_pixels=False)
    image, as_it_is = found.array("images")[3], left.array("images")[3]
    for place in ((40, 10), (70, 90)):
        assert as_it_is[place] > 150
        assert image[place] < image.mean() + 6 * image.std()
    changed = np.abs(image - as_it_is) > 1e-3
    assert changed.sum() < 10
    table = found.attributes()["table"]
    assert table[3]["bad pixels"] == 2  # an X-ray stands out in the sum, too
    assert table[3]["model"] == "sum"


def test_cropped_frames_keep_their_centre(tiny_project: str) -> None:
    whole = corrected(tiny_project, align=False, find_bad_pixels=False).array("images")[:]
    part = corrected(tiny_project, align=False, find_bad_pixels=False, crop=(64, 100))
    assert part.array("images").shape == (VIEWS, 64, 100)
    np.testing.assert_allclose(part.array("images")[:], whole[:, 32:96, 14:114], atol=2e-4)


def test_the_dose_weighted_sum_is_written_when_asked_for(tiny_project: str) -> None:
    result = corrected(tiny_project, align=False, dose_weighted=True)
    weighted, images = result.array("weighted")[:], result.array("images")[:]
    assert weighted.shape == images.shape
    np.testing.assert_allclose(weighted.mean(axis=(1, 2)), images.mean(axis=(1, 2)), rtol=1e-3)
    # Fine detail is damped in later frames, noise is restored: neither equal nor far apart.
    spread = (weighted - images).std(axis=(1, 2)) / images.std(axis=(1, 2))
    assert (spread[1:] > 1e-4).all()
    assert (spread[1:] < 0.5).all()


def test_a_reference_frame_that_is_not_used_is_refused(tiny_project: str) -> None:
    with pytest.raises(UnusableData, match="2 frames are used, none is the 3th"):
        corrected(tiny_project, first_frame=3, reference_frame=3)
    with pytest.raises(UnusableData, match=r"4 frames are used, no two groups of 4: choose"):
        corrected(tiny_project, group=4)
    with pytest.raises(ValueError, match="crop 8×90 leaves less than 16 pixels at binning 1"):
        corrected(tiny_project, crop=(8, 90))


def test_the_reference_frame_has_no_shift(tiny_project: str) -> None:
    shifts = corrected(tiny_project, reference_frame=3).array("shifts")[:]
    assert np.abs(shifts[:, 2]).max() == 0
    assert np.abs(shifts[1:, 0]).max() > 0.05


def test_a_stack_without_movies_has_its_sections_as_images(tmp_path: Path) -> None:
    images = np.random.default_rng(0).poisson(30, (5, 64, 80)).astype(np.int16)
    write_stack(tmp_path / "TS_01.st", images, 5.4)
    user = ImportParameters(
        stack=str(tmp_path / "TS_01.st"),
        angles="6,-6,-3",
        voltage=300,
        dose=3,
        tilt_axis=85,
    )
    (source,) = find_sources(user).sources
    project = str(tmp_path / "p.zarr")
    store_series.fn(project, read_series.fn(source, user))
    result = corrected(project)
    np.testing.assert_allclose(result.array("images")[:], images[::-1], rtol=1e-5, atol=1e-4)
    assert "odd" not in result.group()
    assert "summed as they are" in result.attributes()["message"]


@pytest.mark.parametrize("sampling", [1, 2])
def test_eer_movies_are_summed_at_the_sampling_asked_for(tmp_path: Path, sampling: int) -> None:
    rng = np.random.default_rng(0)
    total = np.zeros((NY * sampling, NX * sampling))
    for i, tilt in enumerate((0.0, 3.0, -3.0)):
        frames = []
        for _ in range(8):
            places = sorted({(int(r), int(c)) for r, c in rng.integers(0, (NY, NX), (300, 2))})
            frames.append(encoded([(r, c, 0, 3) for r, c in places]))
            if i == 0:
                for r, c in places:
                    total[r * sampling, c * sampling + (3 * sampling // 4)] += 1
        write_eer(tmp_path / f"P_{i:03d}_{tilt}.eer", frames)
    user = ImportParameters(
        pattern=str(tmp_path / "{TS}_{TO}_{TA}.eer"),
        voltage=300,
        dose=2,
        tilt_axis=85,
        eer_sampling=sampling,
    )
    (source,) = find_sources(user).sources
    project = str(tmp_path / "p.zarr")
    record = store_series.fn(project, read_series.fn(source, user))
    assert {(view.frames, view.grouping) for view in record.views} == {(4, 2)}
    outcome = motion.fn(
        project, "P", MotionParameters(align=False, find_bad_pixels=False), "main", THREADS
    )
    images = parse_project(project).series("P").result("motion", outcome.key).array("images")
    np.testing.assert_allclose(images[1], total[::-1], atol=1e-4)


def test_the_memory_stated_covers_the_spectra_of_all_frames(tiny_project: str) -> None:
    # Peaks measured with 2048² movies of 2.5 Å, reduced to 1024²: 1.54 GB with 40 frames,
    # 3.64 GB with 100.
    given = parse_project(tiny_project).series("TS_01").imported().acquisition
    coarse = given.model_copy(update={"pixel_size": 2.5, "gain": None, "dark": None})

    def stated(frames: int, **chosen: Any) -> int:
        return memory_of_movie((2048, 2048), coarse, MotionParameters(**chosen), frames)

    assert 1.54e9 < stated(40) < 2 * 1.54e9
    assert 3.64e9 < stated(100) < 2 * 3.64e9
    assert stated(100, group=10, group_local=10) < stated(100) / 3
    assert stated(100, align=False) < stated(100) / 3
