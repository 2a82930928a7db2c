"""A simulated data set says what it holds, and holds it again from the same seed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from kernels.geometry import project
from tasks.formats.mdoc import read_mdoc
from tasks.parameters import Execution
from tasks.simulate import simulate_dataset, tilt_scheme
from tasks.truth import SimulationParameters, read_truth

SMALL = SimulationParameters(
    seed=7, series=2, size=128, pixel_size=10.8, frames=4, max_tilt=60, tilt_step=15
)


def _digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("simulated")
    simulate_dataset(directory, SMALL)
    return directory


def test_the_default_is_two_dose_symmetric_series_of_41_views():
    angles = tilt_scheme(60, 3)
    assert angles[:7] == [0, 3, -3, -6, 6, 9, -9]
    assert angles[-2:] == [-60, 60]
    assert sorted(angles) == list(range(-60, 61, 3))
    assert SimulationParameters().series == 2


def test_the_layout_is_that_of_empiar_10164(directory):
    names = set(_digests(directory))
    assert {"gain.mrc", "truth.json", "TS_01.mrc.mdoc", "TS_02.mrc.mdoc"} <= names
    assert {"frames/TS_01_000_0.0.mrc", "frames/TS_02_002_-15.0.mrc"} <= names
    assert len(names) == 4 + 2 * 9
    with mrcfile.open(directory / "frames" / "TS_01_000_0.0.mrc") as movie:
        assert movie.data.shape == (4, 128, 128)
        assert movie.data.dtype == np.int16
        assert movie.voxel_size.x == pytest.approx(10.8)
    gain = mrcfile.read(directory / "gain.mrc")
    assert gain.dtype == np.float32
    assert gain.squeeze().shape == (128, 128)


def test_the_same_seed_gives_the_same_bytes(directory, tmp_path):
    simulate_dataset(tmp_path, SMALL)
    assert _digests(tmp_path) == _digests(directory)


def test_workers_do_not_change_the_bytes(directory, tmp_path):
    simulate_dataset(tmp_path, SMALL, Execution(cluster="threads", workers=2))
    assert _digests(tmp_path) == _digests(directory)


def test_another_seed_changes_every_file(directory, tmp_path):
    simulate_dataset(tmp_path, SMALL.model_copy(update={"seed": 8}))
    before, after = _digests(directory), _digests(tmp_path)
    assert set(before) == set(after)
    assert not [name for name in before if before[name] == after[name]]


def test_a_finished_data_set_is_left_alone_and_a_missing_movie_is_made_again(tmp_path):
    few = SMALL.model_copy(update={"series": 1, "tilt_step": 60.0})
    simulate_dataset(tmp_path, few)
    digests, movie = _digests(tmp_path), tmp_path / "frames" / "TS_01_000_0.0.mrc"
    written = movie.stat().st_mtime_ns
    simulate_dataset(tmp_path, few)
    assert movie.stat().st_mtime_ns == written
    movie.unlink()
    simulate_dataset(tmp_path, few)
    assert _digests(tmp_path) == digests


def test_the_mdoc_says_what_the_truth_says(directory):
    truth = read_truth(directory)
    for series in truth.series:
        mdoc = read_mdoc(directory / f"{series.name}.mrc.mdoc")
        assert mdoc.tilt_axis == pytest.approx(85.3)
        assert mdoc.voltage == 300
        assert mdoc.pixel_spacing == 10.8
        views = sorted(series.views, key=lambda view: view.order)
        assert [section.number for section in mdoc.views_by_time] == list(range(9))
        for section, view in zip(mdoc.views_by_time, views, strict=True):
            assert section.tilt_angle == view.tilt_angle
            assert section.movie_name == view.movie
            assert section.num_sub_frames == 4
            assert section.exposure_dose == 3
            assert section.rotation_angle == pytest.approx(175.3)
            assert view.prior_dose == pytest.approx(3 * (view.order - 1))
            assert section.min_max_mean == pytest.approx(view.min_max_mean, rel=1e-5)


def test_the_movies_hold_the_electrons_that_the_truth_says(directory):
    gain = mrcfile.read(directory / "gain.mrc").squeeze()
    for series in read_truth(directory).series:
        for view in series.views:
            image = mrcfile.read(directory / "frames" / view.movie).sum(axis=0) * gain
            assert image.mean() == pytest.approx(view.min_max_mean[2], rel=1e-5)
            expected = 3 * 10.8**2 * view.transmitted
            # Matter takes up to a tenth away from what bare ice lets through.
            assert 0.88 * expected < image.mean() < 1.02 * expected


def test_a_grid_bar_leaves_less_than_a_hundredth_of_the_expected_electrons(directory):
    for series in read_truth(directory).series:
        dark = [view for view in series.views if view.dark]
        assert [view.tilt_angle for view in dark] == [-60]
        opposite = series.views[-1]
        assert dark[0].min_max_mean[2] < 0.01 * opposite.min_max_mean[2]


def test_the_planted_beads_are_dark_in_the_movies(directory):
    truth = read_truth(directory)
    gain = mrcfile.read(directory / "gain.mrc").squeeze()
    for series in truth.series:
        for view in series.views:
            if view.dark or abs(view.tilt_angle) > 45:
                continue
            frames = mrcfile.read(directory / "frames" / view.movie) * gain
            image = sum(
                np.roll(frame, [-round(dy / 10.8), -round(dx / 10.8)], (0, 1))
                for frame, (dx, dy) in zip(frames, view.frame_shifts, strict=True)
            )
            places = np.rint(project(series.beads, view.geometry.view()) / 10.8).astype(int) + 64
            inside = np.all((places > 15) & (places < 113), axis=1)
            centres = [image[y - 1 : y + 2, x - 1 : x + 2].mean() for x, y in places[inside]]
            assert len(centres) >= 2
            assert np.mean(centres) < 0.72 * image.mean()


def test_what_is_planted_varies_as_the_microscope_does(directory):
    views = [view for series in read_truth(directory).series for view in series.views]
    off = np.array([view.geometry.tilt - view.tilt_angle for view in views])
    assert 0 < np.sqrt(np.mean(off**2)) < 0.1
    assert all(abs(view.geometry.magnification - 1) < 0.001 for view in views)
    assert all(abs(view.geometry.axis - 85.3) < 1 for view in views)
    assert all(20000 * 0.95 < (view.defocus_u + view.defocus_v) / 2 < 42000 for view in views)
    assert all(100 < view.defocus_u - view.defocus_v < 700 for view in views)
    field = 128 * 10.8
    places = np.array([[view.geometry.shift_x, view.geometry.shift_y] for view in views])
    assert 0.01 * field < np.std(places) < 0.1 * field
    for view in views:
        shifts = np.array(view.frame_shifts) / 10.8
        np.testing.assert_allclose(shifts.mean(axis=0), 0, atol=1e-9)
        assert 0.5 < np.linalg.norm(shifts[-1] - shifts[0]) < 9
