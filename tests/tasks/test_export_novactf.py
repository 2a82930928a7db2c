"""novaCTF's defocus files against its own equations, written down from its source."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, floor, radians, sin
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.ctf_slope import ctf_in_aligned
from kernels.geometry import View, defocus_offset
from tasks.ctf_views import ctf_of_views
from tasks.errors import NotThere
from tasks.export import export_series
from tasks.export_novactf import plane_offsets
from tasks.formats.imod import read_command, read_xf
from tasks.formats.imod_geometry import xf_rotation
from tasks.parameters import Ctf3dParameters, Pipeline, ReconstructParameters

SHAPE = (60, 80, 96)
VOXEL = 1.35


@pytest.fixture
def run(fake_run: Callable[..., Any]) -> Any:
    """Return a series with a tomogram, the middle of whose box is at Z = 0."""
    given = ReconstructParameters(alignment="coarse")
    made = fake_run(pipeline=Pipeline(reconstruct=given))
    made.up_to_alignment()
    made.reconstruct(SHAPE)
    return made


def exported(run: Any, out: Path) -> list[NDArray[np.float64]]:
    """Return the numbers of each file, by its k."""
    url = run.series.project.url
    files = [p for p in export_series(url, "TS_01", "main", "novactf", out) if "_file_" in p.name]
    by_number = sorted(files, key=lambda path: int(path.name.rpartition("_")[2]))
    assert [path.name for path in by_number] == [f"defocus_file_{k}" for k in range(len(files))]
    return [np.loadtxt(path) for path in by_number]


def planes_of_novactf(tilts: list[float], step: float) -> tuple[int, float]:
    """Return `computeNumberOfParts`, and the stripes' width in Å, of VolumeThickness MAXIMAL."""
    nz, _, nx = SHAPE
    corners = [(x, z) for x in (-nx / 2, nx / 2) for z in (-nz / 2, nz / 2)]
    extents = []
    for tilt in map(radians, tilts):
        depth = [x * sin(tilt) + z * cos(tilt) for x, z in corners]
        extents.append(max(depth) - min(depth))
    number = max(1, floor(max(extents) * VOXEL / step))
    number -= number % 2 == 0
    return number, max(extents) * VOXEL / number


def test_the_files_are_those_of_its_own_algorithm(run: Any, tmp_path: Path) -> None:
    files = exported(run, tmp_path)
    record = run.series.record("main")
    views = [record.geometry(i) for i in range(7)]
    number, width = planes_of_novactf([views[i].tilt for i in record.included], 150.0)
    assert len(files) == number == 1
    # With planes closer by: file N − 1 − i has the i-th grid centre from below.
    made = {**run.series.current("main", "reconstruct").attributes()}
    made["parameters"] = {"defocus_step": 10.0}
    number, width = planes_of_novactf([views[i].tilt for i in record.included], 10.0)
    assert number > 5
    centres = [i * width for i in range(-(number // 2), number // 2 + 1)]
    middle = -0.5 * VOXEL  # the box's middle is between its voxels
    found = plane_offsets(record, made, 1)
    np.testing.assert_allclose(found[::-1], np.array(centres) - middle, atol=1e-9)


def test_a_line_is_the_ctf_of_a_view_in_the_aligned_stack(run: Any, tmp_path: Path) -> None:
    (file,) = exported(run, tmp_path)
    record = run.series.record("main")
    assert file.shape == (7, 7)  # the excluded view, too, for it is in the stack
    np.testing.assert_array_equal(file[:, 0], np.arange(1, 8))
    for i, row in enumerate(file):
        ctf = ctf_in_aligned(ctf_of_views(record)[i].ctf, record.geometry(i))
        expected = (ctf.defocus_u + 0.5 * VOXEL, ctf.defocus_v + 0.5 * VOXEL)
        assert row[1:3] == pytest.approx(expected, abs=0.0051)
        assert row[3] == pytest.approx(ctf.astigmatism_angle, abs=1e-6)
        assert row[4] == pytest.approx(radians(ctf.phase_shift), abs=1e-6)
    line = (tmp_path / "TS_01" / "defocus_file_0").read_text().splitlines()[0].split("\t")
    assert [len(word.partition(".")[2]) for word in line] == [6, 2, 2, 6, 6, 6, 6]


@pytest.mark.parametrize("hand", [1, -1])
def test_a_voxel_gets_the_defocus_that_it_has(run: Any, hand: int) -> None:
    record = run.series.record("main")
    made = {**run.series.current("main", "reconstruct").attributes()}
    made["parameters"] = {"defocus_step": 10.0}
    made["centre"] = [0.0, 0.0, 0.5 * VOXEL]  # the middle of the box at Z = 0
    made["place"] = {"middle_A": 0.0}
    offsets = plane_offsets(record, made, hand)
    number, width = planes_of_novactf([record.geometry(i).tilt for i in record.included], 10.0)
    nz, _, nx = SHAPE
    rng = np.random.default_rng(3)
    for tilt in (-47.0, 0.0, 30.0, 47.0):
        theta = radians(tilt)
        for x, z in rng.uniform((-nx / 2, -nz / 2), (nx / 2, nz / 2), (50, 2)) * VOXEL:
            # novaCTF's ray is (−sin θ, −cos θ) in its x and z, which is up: our Z turned round.
            along = x * -sin(theta) + -z * -cos(theta)
            stack = min(number - 1, max(0, floor(along / width + number / 2)))  # getDefocusID
            depth = -x * sin(theta) + z * cos(theta)  # design §4
            assert abs(offsets[stack] - -hand * depth) <= 0.5001 * width


def test_a_higher_box_is_nearer_to_focus(run: Any) -> None:
    record = run.series.record("main")
    made = {**run.series.current("main", "reconstruct").attributes()}
    made["place"] = {"middle_A": 0.0}
    low = plane_offsets(record, made, 1)
    made["centre"] = [0.0, 0.0, 100.0]
    assert np.subtract(plane_offsets(record, made, 1), low) == pytest.approx([-100.0] * len(low))
    assert np.subtract(plane_offsets(record, made, -1), low)[0] > 0


@pytest.mark.parametrize("place", [{}, {"middle_A": 405.0}])
def test_defoci_belong_to_the_specimens_middle_wherever_the_box_is(
    run: Any, place: dict[str, float]
) -> None:
    record = run.series.record("main")
    made = {**run.series.current("main", "reconstruct").attributes()}
    at_zero = plane_offsets(record, made, 1)
    made |= {"centre": [0.0, 0.0, 405.0], "place": place}  # the tutorial's, unmeasured or measured
    assert plane_offsets(record, made, 1) == pytest.approx(at_zero)
    # As ctf3d has it: a point at the middle's height has the view's own defocus.
    assert defocus_offset([[0.0, 0.0, 405.0]], View(0.0, 0.0), 1, 405.0) == pytest.approx([0.0])


def test_planes_are_as_many_as_at_the_angles_of_tilt_com(
    fake_run: Callable[..., Any], tmp_path: Path
) -> None:
    offset = -12.0
    given = ReconstructParameters(alignment="coarse", angle_offset=offset)
    made = fake_run(pipeline=Pipeline(reconstruct=given))
    made.up_to_alignment()
    made.reconstruct(SHAPE, place={"angle_offset": offset, "x_tilt": 0.0, "middle_A": 0.0})
    record = made.series.record("main")
    about = {**made.series.current("main", "reconstruct").attributes()}
    about["parameters"] = {"defocus_step": 10.0}
    tilts = [record.geometry(i).tilt for i in record.included]
    number, width = planes_of_novactf([tilt + offset for tilt in tilts], 10.0)
    assert planes_of_novactf(tilts, 10.0)[1] != pytest.approx(width)
    found = plane_offsets(record, about, 1, offset)
    assert len(found) == number
    assert found[0] - found[1] == pytest.approx(width)
    exported(made, tmp_path)
    assert read_command(tmp_path / "TS_01" / "tilt.com")["OFFSET"].split()[0] == "-12.0000"


def test_one_box_is_that_of_all_files(fake_run: Callable[..., Any], tmp_path: Path) -> None:
    given = ReconstructParameters(alignment="coarse")
    box = Ctf3dParameters(alignment="coarse", defocus_step=20.0)
    made = fake_run(pipeline=Pipeline(reconstruct=given, ctf3d=box))
    made.up_to_alignment()
    made.reconstruct(SHAPE)
    corrected = made.begin("ctf3d")
    volume = np.zeros((40, 60, 70), np.float32)
    corrected.create_array("0", volume.shape, volume.shape)[:] = volume
    place = {"angle_offset": 3.0, "x_tilt": 0.0, "middle_A": 20.0}
    made.finish(
        "ctf3d",
        pixel_size=2 * VOXEL,
        binning=2,
        centre=[0.0, 0.0, 27.0],
        shape=list(volume.shape),
        place=place,
        ctf_corrected={"by": "ctf3d", "mode": "flip", "step_A": 20.0, "hand": 1},
    )
    files = exported(made, tmp_path)
    command = read_command(tmp_path / "TS_01" / "tilt.com")
    assert command["THICKNESS"] == "80"  # 40 voxels of ctf3d's, in unbinned pixels
    assert command["WIDTH"] == "140"
    assert command["OFFSET"].split()[0] == "3.0000"
    newst = read_command(tmp_path / "TS_01" / "newst.com")
    assert newst["BinByFactor"] == "2"
    attributes = made.series.current("main", "ctf3d").attributes()
    offsets = plane_offsets(made.series.record("main"), attributes, 1, 3.0)
    assert len(files) == len(offsets) > 1
    for file, one in zip(files, offsets, strict=True):
        assert file[0, 1] - files[0][0, 1] == pytest.approx(one - offsets[0], abs=0.011)
    # The middle of the planes: Z of the box's middle over that of the specimen.
    assert offsets[len(offsets) // 2] == pytest.approx(-(27.0 - VOXEL - 20.0))


def test_all_files_have_the_alignment_of_the_corrected_tomogram(
    fake_run: Callable[..., Any], tmp_path: Path
) -> None:
    box = Ctf3dParameters(alignment="markerfree", thickness=100.0, z_shift=0.0)
    box = box.model_copy(update={"angle_offset": 0.0, "x_tilt": 0.0})
    given = ReconstructParameters(alignment="coarse")
    made = fake_run(pipeline=Pipeline(reconstruct=given, ctf3d=box))
    made.up_to_alignment()
    made.reconstruct(SHAPE)
    volume = np.zeros(SHAPE, np.float32)
    made.begin("ctf3d").create_array("0", SHAPE, SHAPE)[:] = volume
    made.finish(
        "ctf3d", pixel_size=VOXEL, binning=1, centre=[0.0, 0.0, 0.0], shape=list(SHAPE),
    )  # fmt: skip
    said: list[str] = []
    series = made.series
    export_series(series.project.url, "TS_01", "main", "novactf", tmp_path, said.append)
    assert any("TS_01_rec.mrc does not belong to the other files" in line for line in said)
    axes = {
        step: series.record_of({step: series.pointer("main", step) or ""}).geometry(0).axis
        for step in ("coarse", "markerfree")
    }
    matrices, _ = read_xf(tmp_path / "TS_01" / "TS_01.xf")
    assert xf_rotation(matrices[0]) == pytest.approx(axes["markerfree"], abs=1e-4)
    assert axes["markerfree"] != pytest.approx(axes["coarse"], abs=0.05)


def test_without_a_tomogram_there_are_no_planes(
    fake_run: Callable[..., Any], tmp_path: Path
) -> None:
    run = fake_run()
    run.up_to_alignment()
    with pytest.raises(NotThere, match=r"TS_01: no tomogram on branch main, in whose box novaCTF"):
        export_series(run.series.project.url, "TS_01", "main", "novactf", tmp_path)
