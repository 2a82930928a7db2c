"""Stacks, tomograms and pictures that are exported as MRC and PNG."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from tasks.errors import WrongParameter
from tasks.export import export_series
from tasks.export_pictures import pictures, write_pictures
from tasks.formats.imod import read_tilts
from tasks.formats.mrc import read_header, read_volume
from tasks.parameters import Pipeline, ReconstructParameters
from tasks.store import parse_project


def relative(paths: list[Path], folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in paths}


@pytest.mark.parametrize("mode", [None, 2, 12, 1, 0])
@pytest.mark.parametrize("stored", ["float32", "int16"])
def test_a_tomogram_is_written_in_every_mode_with_its_place(
    fake_run, tmp_path: Path, mode: int | None, stored: str
) -> None:  # type: ignore[no-untyped-def]
    pipeline = Pipeline(reconstruct=ReconstructParameters(z_shift=37.0))
    run = fake_run(pipeline=pipeline)
    run.up_to_alignment()
    result = run.reconstruct((11, 24, 20), 4)
    values = result.array("0")[:]
    if stored == "int16":
        rounded = np.rint(values / 0.002).astype(np.int16)
        result.create_array("0", rounded.shape, (11, 24, 20), stored, by_units=False)[:] = rounded
        result.group().update_attributes({"integer_step": 0.002})
        values = rounded * 0.002
    export_series(run.series.project.url, "TS_01", "main", "mrc", tmp_path, mode=mode)
    path = tmp_path / "TS_01_rec.mrc"
    header, found = read_header(path), read_volume(path).astype(float)
    assert header.mode == (mode if mode is not None else 2 if stored == "float32" else 1)
    assert header.pixel_size == pytest.approx(5.4)
    # Voxel n // 2 lies at (0, 0, 37) Å.
    assert header.origin == pytest.approx((-10 * 5.4, -12 * 5.4, 37 - 5 * 5.4), abs=1e-3)
    step = next((float(x.split()[-1]) for x in header.labels if "stands for" in x), 1.0)
    assert (step != 1) == (header.mode in (0, 1))
    tolerance = 0.51 * step if header.mode in (0, 1) else 2e-3 * np.abs(values).max()
    np.testing.assert_allclose(found * step, values, atol=tolerance)


@pytest.mark.parametrize("mode", [None, 1])
def test_halves_iterations_and_a_deconvolved_copy_are_written_each_in_its_own_scale(
    fake_run, tmp_path: Path, mode: int | None
) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.up_to_alignment()
    result = run.reconstruct((11, 24, 20), 4, statistics={"standard deviation": 1.0})
    volumes = {}
    endings = {"odd": "odd", "even": "even", "iteration-010": "iteration-010"}
    for scale, (name, ending) in enumerate({**endings, "deconvolved": "deconv"}.items(), 2):
        values = np.random.default_rng(scale).normal(0, 10.0**scale, (11, 24, 20))
        result.create_array(name, values.shape, values.shape, by_units=False)[:] = values
        volumes[ending] = values
    export_series(run.series.project.url, "TS_01", "main", "mrc", tmp_path, mode=mode)
    for ending, values in volumes.items():
        path = tmp_path / f"TS_01_rec_{ending}.mrc"
        labels, found = read_header(path).labels, read_volume(path).astype(float)
        step = next((float(x.split()[-1]) for x in labels if "stands for" in x), 1.0)
        assert np.abs(found * step - values).max() < 4e-3 * values.std()


def test_pictures_show_slices_and_projections(fake_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.up_to_alignment()
    result = run.reconstruct((30, 40, 50), 4)  # of 5.4 Å: 9 voxels are averaged for a slice
    volume = np.zeros((30, 40, 50), np.float32)
    volume[16, 3, 44] = 900  # in the middle along z alone
    result.array("0")[:] = volume
    found = pictures(result)
    assert {plane: image.shape for plane, (image, _) in found.items()} == {
        "xy": (40, 50),
        "xz": (30, 50),
        "yz": (30, 40),
    }
    for plane, place, axis in (("xy", (3, 44), 0), ("xz", (16, 44), 1), ("yz", (16, 3), 2)):
        image, projection = found[plane]
        assert np.unravel_index(projection.argmax(), projection.shape) == place
        assert projection.max() == pytest.approx(900 / volume.shape[axis], rel=1e-5)
        assert image.max() == pytest.approx(900 / 9 if plane == "xy" else 0, rel=1e-5)
    write_pictures(tmp_path, "a", result)
    shown = matplotlib.image.imread(tmp_path / "a_xy_projection.png")
    assert shown.shape[:2] == (40, 50)
    assert np.unravel_index(shown[..., 0].argmax(), (40, 50)) == (40 - 1 - 3, 44)  # y runs up


def test_an_unknown_mode_is_refused_before_anything_is_written(fake_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.motion()
    with pytest.raises(WrongParameter, match="--mode 6: there are 0, 1, 2, 12"):
        export_series(run.series.project.url, "TS_01", "main", "mrc", tmp_path, mode=6)


def test_an_mrc_export_has_the_stacks_that_were_asked_for_with_their_angles(
    finished_project: str, tmp_path: Path
) -> None:
    series = parse_project(finished_project).series("TS_01")
    files = export_series(finished_project, "TS_01", "main", "mrc", tmp_path)
    names = {
        "TS_01_ctfcorrected.mrc",
        "TS_01_ctfcorrected.rawtlt",
        "TS_01_preprocessed.mrc",
        "TS_01_preprocessed.rawtlt",
        "TS_01_ali.mrc",
        "TS_01_ali.tlt",
    }
    assert names <= relative(files, tmp_path)
    for step, name, angles, told in (
        (
            "ctf2d",
            "TS_01_ctfcorrected",
            ".rawtlt",
            ["binning 1, not weighted by dose, CTF-corrected (flip)"],
        ),
        ("preprocess", "TS_01_preprocessed", ".rawtlt", ["binning 4, not weighted by dose"]),
        ("transform", "TS_01_ali", ".tlt", ["binning 1, weighted by dose", "at x = 64, origin"]),
    ):
        result, header = series.current("main", step), read_header(tmp_path / f"{name}.mrc")
        about = result.attributes()
        images = read_volume(tmp_path / f"{name}.mrc")
        np.testing.assert_array_equal(images, result.images()[:])
        assert header.pixel_size == pytest.approx(about["pixel_size"], rel=1e-5)
        assert len(header.labels) == len(told)
        assert all(text in label for text, label in zip(told, header.labels, strict=True))
        np.testing.assert_allclose(
            read_tilts(tmp_path / f"{name}{angles}"), about["tilt_angles"], atol=1e-3
        )


def test_a_stack_of_an_older_alignment_is_told_of(finished_project: str, tmp_path: Path) -> None:
    project = str(shutil.copytree(finished_project, tmp_path / "p.zarr"))
    series, said = parse_project(project).series("TS_01"), list[str]()
    series.point("main", "markerfree", "0" * 12)
    export_series(project, "TS_01", "main", "mrc", tmp_path / "out", said.append)
    assert any("has another result of markerfree than TS_01_ali.mrc was" in line for line in said)


def test_an_mrc_export_has_the_stack_its_halves_and_the_tomogram(fake_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.up_to_alignment()
    run.reconstruct((11, 24, 20), 4)
    files = export_series(run.series.project.url, "TS_01", "main", "mrc", tmp_path / "out")
    assert relative(files, tmp_path / "out") == {
        "TS_01.st",
        "TS_01_odd.st",
        "TS_01_even.st",
        "TS_01_rec.mrc",
        *(f"TS_01_rec_{p}{kind}.png" for p in ("xy", "xz", "yz") for kind in ("", "_projection")),
        "TS_01_motion.csv",
        *(f"TS_01_motion/TS_01_{i}.star" for i in range(1, 8)),
    }
    for half in ("odd", "even"):
        np.testing.assert_array_equal(
            read_volume(tmp_path / "out" / f"TS_01_{half}.st"), run.begin("motion").array(half)[:]
        )
