"""What other programs are given of a series: IMOD's and AreTomo's files, and what they mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kernels.align_coarse import aligned_shape
from kernels.deformation import Deformation, seen_displacements
from kernels.geometry import View, tilt_rotation
from kernels.geometry import project as project_points
from tasks.alignment import DEFORMATION, deformation_of, dose_times, stored
from tasks.errors import NotThere, WrongParameter
from tasks.export import export_series
from tasks.formats.aretomo import read_aln
from tasks.formats.ctffind import read_ctffind
from tasks.formats.imod import read_command, read_excluded, read_tilts, read_xf
from tasks.formats.imod_defocus import read_defocus
from tasks.formats.mrc import open_frames, read_header, read_volume
from tasks.import_alignment import imported_deformation, imported_geometry
from tasks.parameters import MotionParameters, Pipeline, ReconstructParameters

EVERYTHING = {
    "TS_01.st",
    "TS_01.rawtlt",
    "TS_01.tlt",
    "TS_01.xf",
    "TS_01.defocus",
    "TS_01_ctffind.txt",
    "TS_01_ctffind_avrot.txt",
    "TS_01_ctf.star",
    "TS_01_rec.mrc",
    "newst.com",
    "tilt.com",
    "motion.csv",
    *(f"motion/TS_01_{i}.star" for i in range(1, 8)),
}


def relative(paths: list[Path], folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in paths}


# -- IMOD's equations, in plain NumPy, from the files alone ------------------------------------


def newstack(raw, raw_size, matrix, shift, com):  # type: ignore[no-untyped-def]
    """Map raw 0-based x, y to those of the aligned stack; bins with the antialias filter."""
    b = int(com["BinByFactor"])
    assert b == 1 or "AntialiasFilter" in com
    out = np.array([int(n) for n in com["SizeToOutputInXandY"].split(",")])
    read = np.array([n // b for n in raw_size])
    edge = (np.array(raw_size) - read * b) / 2  # what is left over goes on both sides
    centred = (raw + 0.5 - edge) / b - read / 2  # pixel i covers [i, i + 1)
    return centred @ matrix.T + shift / b + out / 2 - 0.5


def aligned_to_volume(seen, theta, alpha, z, size, com):  # type: ignore[no-untyped-def]
    """Return 0-based x, y in the -rx volume, at height z, whose ray meets `seen`."""
    b = int(com["IMAGEBINNED"])
    thickness, width = int(com["THICKNESS"]) // b, int(com["WIDTH"]) // b
    full = [(int(n) + b - 1) // b for n in com["FULLIMAGE"].split()]
    assert tuple(full) == size  # newstack's output is what tilt believes to get
    shift_x, shift_z = (float(value) / b for value in com["SHIFT"].split())
    theta = theta + np.radians(float(com["OFFSET"].split()[0]))
    assert com["XAXISTILT"] == "0"
    first = (int(com["SLICE"].split()[0]) + b) // b  # 1-based
    zz = (thickness - z) - (thickness // 2 + 0.5 + shift_z)
    sb, cb, sa, ca = -np.sin(theta), np.cos(theta), -np.sin(alpha), np.cos(alpha)
    yy = (seen[:, 1] + 1 - (full[1] / 2 + 0.5) + zz * sa) / ca
    j = (seen[:, 0] + 1 - (full[0] / 2 + 0.5) - yy * sa * sb - zz * ca * sb) / cb
    j = j + width // 2 + 0.5 + shift_x
    return np.stack([j - 1, yy + full[1] / 2 + 0.5 - first], axis=1)


def turn(tilt: float, x_tilt: float):  # type: ignore[no-untyped-def]
    return tilt_rotation(View(tilt, 0.0, x_tilt=x_tilt))


@pytest.mark.parametrize("binning", [1, 2, 4])
@pytest.mark.parametrize("size", [(400, 380), (401, 383), (399, 382)])
@pytest.mark.parametrize(
    ("motion_binning", "x_tilt", "turned"),
    [(1.0, 0.0, (0.0, 0.0)), (2.0, 4.0, (0.0, 0.0)), (1.0, 4.0, (5.0, -2.5))],
)
def test_imod_puts_beads_of_the_exported_stack_into_our_voxels(
    fake_run, tmp_path: Path, binning: int, size, motion_binning: float, x_tilt: float, turned
) -> None:  # type: ignore[no-untyped-def]
    pipeline = Pipeline(
        motion=MotionParameters(binning=motion_binning),
        reconstruct=ReconstructParameters(binning=binning, z_shift=37.0),
    )
    run = fake_run(shape=size, pipeline=pipeline)
    run.up_to_alignment(x_tilt)
    images = tuple(int(n // motion_binning) for n in size)
    rows, columns = (n // binning for n in aligned_shape(images, 85.3))
    place = {"angle_offset": turned[0], "x_tilt": turned[1]}
    run.reconstruct((21 + binning, rows, columns), binning, place=place)
    folder = tmp_path / "out" / "TS_01"
    files = export_series(run.series.project.url, "TS_01", "main", "imod", tmp_path / "out")
    assert relative(files, folder) == EVERYTHING | ({"TS_01.xtilt"} if x_tilt else set())

    stack, volume = read_header(folder / "TS_01.st"), read_header(folder / "TS_01_rec.mrc")
    newst, tilt = read_command(folder / "newst.com"), read_command(folder / "tilt.com")
    assert (tilt["TILTFILE"], newst["TransformFile"]) == ("TS_01.tlt", "TS_01.xf")
    tilts = read_tilts(folder / "TS_01.tlt")
    x_tilts = read_tilts(folder / tilt["XTILTFILE"]) if "XTILTFILE" in tilt else 0 * tilts
    out = tuple(int(n) for n in newst["SizeToOutputInXandY"].split(","))
    record = run.series.record("main")
    beads = np.random.default_rng(5).uniform(-100, 100, (30, 3)) * [1, 1, 0.3]  # X, Y, Z in Å
    centre = np.array([0, 0, 37.0])
    # Where the tomogram has them: the specimen is turned before it is tilted.
    moved = beads @ (turn(0, x_tilt).T @ turn(turned[0], x_tilt + turned[1]))
    voxels = (moved - centre) / volume.pixel_size + [n // 2 for n in volume.shape[::-1]]
    worst = 0.0
    for i, (matrix, shift) in enumerate(zip(*read_xf(folder / "TS_01.xf"), strict=True)):
        if i + 1 in read_excluded(folder / "tilt.com"):
            continue
        raw = project_points(beads, record.geometry(i)) / stack.pixel_size
        raw += [n // 2 for n in stack.shape[:0:-1]]
        seen = newstack(raw, stack.shape[:0:-1], matrix, shift, newst)
        angles = np.radians([tilts[i], x_tilts[i]])
        found = aligned_to_volume(seen, *angles, voxels[:, 2], out, tilt)
        worst = max(worst, np.abs(found - voxels[:, :2]).max())
    assert worst < 0.01


# -- what the files hold -----------------------------------------------------------------------


def test_an_imod_export_holds_what_the_branch_has(fake_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.up_to_alignment()
    tomogram = run.reconstruct((11, 24, 20), 4)
    motion, record = run.begin("motion"), run.series.record("main")
    said: list[str] = []
    export_series(run.series.project.url, "TS_01", "main", "imod", tmp_path, said.append)
    folder = tmp_path / "TS_01"
    assert said == []
    assert [path.name for path in tmp_path.glob(".*")] == []

    stack = open_frames(folder / "TS_01.st")
    assert stack.header.pixel_size == pytest.approx(1.35)
    for i in range(7):
        np.testing.assert_array_equal(stack.frame(i), motion.array("images")[i])
    np.testing.assert_array_equal(read_volume(folder / "TS_01_rec.mrc"), tomogram.array("0")[:])
    assert read_header(folder / "TS_01_rec.mrc").pixel_size == pytest.approx(5.4)
    np.testing.assert_allclose(
        read_tilts(folder / "TS_01.rawtlt"), [view.tilt_angle for view in record.views]
    )
    np.testing.assert_allclose(
        read_tilts(folder / "TS_01.tlt")[:6], [view.geometry.tilt for view in record.views[:6]]
    )
    assert read_excluded(folder / "tilt.com") == (7,)
    assert not (folder / "TS_01.xtilt").exists()

    defoci, table = (
        read_defocus(folder / "TS_01.defocus"),
        read_ctffind(folder / "TS_01_ctffind.txt"),
    )
    assert (defoci.version, [row.first for row in defoci.rows]) == (3, [1, 2, 3, 4, 5, 6])
    for i, (row, line) in enumerate(zip(defoci.rows, table, strict=True)):
        assert row.defocus_u == pytest.approx(30000 + 100 * i)
        assert (row.defocus_v, row.astigmatism_angle) == (28000, 10 + i)
        assert row.low_tilt == pytest.approx(record.views[i].geometry.tilt)
        assert (line.view, line.defocus_u, line.fit_resolution) == (i + 1, 30000 + 100 * i, 6 + i)


def test_what_is_missing_is_left_out_and_said(fake_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.motion()
    said: list[str] = []
    files = export_series(run.series.project.url, "TS_01", "main", "imod", tmp_path, said.append)
    names = {path.name for path in files if path.parent.name == "TS_01"}
    assert names == {"TS_01.st", "TS_01.rawtlt", "motion.csv"}
    for what in ("TS_01.defocus", "newst.com", "TS_01_rec.mrc"):
        assert sum(what in line for line in said) == 1


def test_without_a_tomogram_the_commands_are_those_of_the_default_one(
    fake_run, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.up_to_alignment()
    export_series(run.series.project.url, "TS_01", "main", "imod", tmp_path)
    tilt = read_command(tmp_path / "TS_01" / "tilt.com")
    assert tilt["IMAGEBINNED"] == "4"  # 5.4 Å
    assert int(tilt["THICKNESS"]) == 4 * round(2400 / 5.4)
    assert tilt["FULLIMAGE"] == "80 96"  # the axis lies along x: sides are swapped


@pytest.mark.parametrize(
    ("parameters", "written", "told"),
    [
        ({"weighting": "hamming", "radial_cutoff": 0.2}, {"HammingLikeFilter": "0.2"}, []),
        ({"weighting": "exact"}, {"ExactFilterSize": "44", "RADIAL": None}, []),
        ({"weighting": "exact", "sirt_like_iterations": 5}, {"FakeSIRTiterations": None}, ["exac"]),
        ({"sirt_like_iterations": 5}, {"FakeSIRTiterations": "5", "LOG": None}, []),
        ({"logarithm": True}, {"LOG": "0.0"}, []),
        (
            {"method": "sirt", "sirt_like_iterations": 5, "weighting": "hamming"},
            {"FakeSIRTiterations": None, "HammingLikeFilter": None},
            ["our tomogram is of sirt, 15 iterations"],
        ),
    ],
)
def test_what_imod_knows_of_a_tomogram_is_written_and_the_rest_is_said(
    fake_run, tmp_path: Path, parameters: dict, written: dict, told: list
) -> None:  # type: ignore[no-untyped-def]
    made = ReconstructParameters.model_validate(parameters)
    run = fake_run(pipeline=Pipeline(reconstruct=made))
    run.up_to_alignment()
    run.reconstruct((11, 24, 20), 4)
    said: list[str] = []
    export_series(run.series.project.url, "TS_01", "main", "imod", tmp_path, said.append)
    tilt = read_command(tmp_path / "TS_01" / "tilt.com")
    for name, value in written.items():
        if name == "RADIAL":
            assert name in tilt  # the exact filter is cut off as the ramp is
        else:
            assert tilt.get(name) == value
    assert ("RADIAL" in tilt) == ("HammingLikeFilter" not in tilt)
    assert len(said) == len(told)
    assert all(part in line for part, line in zip(told, said, strict=True))


def test_a_local_deformation_that_imod_does_not_undo_is_said_first(
    fake_run, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    run = fake_run(pipeline=Pipeline(reconstruct=ReconstructParameters(method="sart")))
    run.up_to_alignment(x_tilt=0.5)
    field = Deformation(np.full((3, 5, 1), 20.0), 60.0)
    result = run.series.current("main", "markerfree")
    result.group().update_attributes({DEFORMATION: stored(field, np.linspace(0, 1, 7))})
    run.reconstruct((11, 24, 20), 4)
    said: list[str] = []
    export_series(run.series.project.url, "TS_01", "main", "imod", tmp_path / "i", said.append)
    assert len(said) == 2
    assert said[0].startswith("TS_01: tilt.com does not undo the local deformation")
    assert "sart" in said[1]
    export_series(run.series.project.url, "TS_01", "main", "aretomo", tmp_path / "a", said.append)
    assert said[2] == ("TS_01: rotation about x of up to 0.5°: TS_01.aln has no place for it")


def test_a_branch_without_results_is_an_error_that_names_the_others(
    fake_run, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.motion()
    with pytest.raises(NotThere, match=r"nothing to export on branch 'other' .*main"):
        export_series(run.series.project.url, "TS_01", "other", "imod", tmp_path / "out")
    with pytest.raises(WrongParameter, match="--to relion9: there are imod, aretomo, novactf, mrc"):
        export_series(run.series.project.url, "TS_01", "main", "relion9", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_geometry_is_that_of_the_tomogram_when_the_alignment_is_newer(
    fake_run, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.up_to_alignment()
    run.reconstruct((11, 24, 20), 4)
    url = run.series.project.url
    export_series(url, "TS_01", "main", "imod", tmp_path / "before")
    run.pipeline = Pipeline.model_validate({"markerfree": {"rounds": 9}})
    run.align("markerfree", seed=8)
    said: list[str] = []
    export_series(url, "TS_01", "main", "imod", tmp_path / "after", said.append)
    before, after = (
        (tmp_path / when / "TS_01" / "TS_01.xf").read_text() for when in ("before", "after")
    )
    assert before == after
    assert any("another markerfree alignment" in line for line in said)


def test_a_tomogram_of_the_coarse_alignment_comes_with_the_coarse_geometry(
    fake_run, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    run = fake_run(pipeline=Pipeline(reconstruct=ReconstructParameters(alignment="coarse")))
    run.up_to_alignment()
    run.reconstruct((11, 24, 20), 4)
    export_series(run.series.project.url, "TS_01", "main", "imod", tmp_path)
    matrices, _ = read_xf(tmp_path / "TS_01" / "TS_01.xf")
    axis = np.degrees(np.arctan2(matrices[2, 0, 1], matrices[2, 0, 0]))
    assert axis == pytest.approx(85.3, abs=1e-4)  # 85.4 in the marker-free one


def test_a_failed_export_leaves_the_old_files_and_no_traces(fake_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    motion = run.motion()
    url, folder = run.series.project.url, tmp_path / "out"
    export_series(url, "TS_01", "main", "imod", folder)
    (folder / "TS_01" / "mine.txt").write_text("notes")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    broken = np.asarray(motion.array("images")[5])
    broken[0, 0] = np.nan
    motion.array("images")[5] = broken
    motion.array("images")[0] = np.ones_like(broken)
    with pytest.raises(ValueError, match="slice 5"):
        export_series(url, "TS_01", "main", "imod", folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("bent", [False, True])
def test_aretomos_files_hold_the_alignment(fake_run, tmp_path: Path, bent: bool) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.up_to_alignment()
    result = run.series.current("main", "markerfree")
    if bent:
        field = Deformation(np.full((3, 5, 1), 20.0), 60.0)
        times = dose_times(run.series.record("main"))
        result.group().update_attributes({DEFORMATION: stored(field, times)})
    export_series(run.series.project.url, "TS_01", "main", "aretomo", tmp_path)
    folder = tmp_path / "TS_01"
    found = read_aln(folder / "TS_01.aln")
    record = run.series.record("main")
    assert found.size == (96, 80, 7)
    assert found.dark == ((6, record.views[6].tilt_angle),)
    again = imported_geometry(folder / "TS_01.aln", record, (80, 96), 1.35).views
    for i in record.included:
        expected = record.geometry(i)
        assert again[i].tilt == pytest.approx(expected.tilt, abs=0.006)
        assert again[i].axis == pytest.approx(expected.axis, abs=1e-4)
        assert again[i].shift_x == pytest.approx(expected.shift_x, abs=0.002)
        assert again[i].shift_y == pytest.approx(expected.shift_y, abs=0.002)
    assert len(found.local) == (6 * 25 if bent else 0)
    if bent:
        assert max(abs(s.shift_x) for s in found.local if s.view == 5) > 1
        listed = dose_times(record).tolist()
        _, read = imported_deformation(folder / "TS_01.aln", again, listed, (80, 96), 1.35)
        assert read is not None
        assert read.residual < 0.01  # two digits of a pixel are written
        held = deformation_of(result)
        assert held is not None
        points = np.random.default_rng(3).uniform(-40, 40, (9, 3))
        for i in record.included:
            ours = seen_displacements(held[0], points, held[1][i], record.geometry(i))
            theirs = seen_displacements(read.deformation, points, listed[i], again[i])
            assert theirs == pytest.approx(ours, abs=0.1)
    assert len((folder / "TS_01_TLT.txt").read_text().splitlines()) == 7
