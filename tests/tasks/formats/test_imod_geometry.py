"""IMOD's equations in plain NumPy against our projection: beads must land on the same spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kernels.geometry import View, image_matrix, project, view_parts
from tasks.formats.imod import read_command, read_xf, write_xf
from tasks.formats.imod_commands import write_newst, write_tilt
from tasks.formats.imod_geometry import (
    aligned_origin,
    binned_size,
    sampling_from_xf,
    tilt_volume,
    view_from_xf,
    xf_from_view,
)

PIXEL = 1.35
BEADS = np.random.default_rng(1).uniform(-120, 120, (20, 3)) * [1, 1, 0.4]  # X, Y, Z in Å


def newstack_read(n: int, b: int, antialias: bool) -> tuple[int, float]:
    """Return size and first raw pixel edge of an axis that newstack reads reduced by `b`."""
    if antialias and b > 1:
        return n // b, (n - n // b * b) / 2
    size, left = n // b, n % b
    if size % 2 == n % 2:
        size += 2 if left > 1 else 0
    else:
        size, left = size + 1, left + b
    return size, float(-(b - left // 2)) if left > 1 else 0.0


def newstack(raw, a, d, raw_size, newst, antialias):  # type: ignore[no-untyped-def]
    """Map raw 0-based indices (n, 2) to those in the aligned stack."""
    b = int(newst["BinByFactor"])
    out = np.array([int(n) for n in newst["SizeToOutputInXandY"].split(",")])
    read = [newstack_read(n, b, antialias) for n in raw_size]
    size, edge = (np.array(values) for values in zip(*read, strict=True))
    binned = (raw + 0.5 - edge) / b  # pixel i covers [i, i + 1)
    return (binned - size / 2) @ a.T + d / b + out / 2 - 0.5


def tilt(voxels, theta, alpha, aligned_size, com):  # type: ignore[no-untyped-def]
    """Map 0-based voxels x, y, z of the -rx volume to 0-based indices in the aligned stack."""
    b = int(com["IMAGEBINNED"])
    thickness, width = int(com["THICKNESS"]) // b, int(com["WIDTH"]) // b
    nxfull, nyfull = ((int(n) + b - 1) // b for n in com["FULLIMAGE"].split())
    shift_x, shift_z = (float(value) / b for value in com["SHIFT"].split())
    first = (int(com["SLICE"].split()[0]) + 1 + b - 1) // b
    j = voxels[:, 0] + 1
    i = thickness - voxels[:, 2]  # 1-based row; rotating about X turned it into z
    slice_y = first + voxels[:, 1]
    xcen_in, centre_slice = nxfull / 2 + 0.5, nyfull / 2 + 0.5
    xcen_out = width // 2 + 0.5 + shift_x - (aligned_size[0] // 2 - nxfull // 2)
    ycen_out = thickness // 2 + 0.5 + shift_z
    sb, cb, sa, ca = -np.sin(theta), np.cos(theta), -np.sin(alpha), np.cos(alpha)
    zz, yy = i - ycen_out, slice_y - centre_slice
    x = yy * sa * sb + zz * ca * sb + xcen_in + (j - xcen_out) * cb
    y = yy * ca - zz * sa + centre_slice
    return np.stack([x, y], axis=1) - 1


@pytest.mark.parametrize("binning", [1, 2, 4])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("raw_size", [(400, 380), (401, 383), (399, 382)])
@pytest.mark.parametrize("volume", [(64, 80, 90), (65, 81, 91), (64, 81, 90)])
def test_imod_projects_our_voxels_where_we_do(
    tmp_path: Path, binning: int, antialias: bool, raw_size, volume
) -> None:  # type: ignore[no-untyped-def]
    nx, ny = raw_size
    for stack, centre in [
        ((nx // binning, ny // binning), (0.0, 0.0, 0.0)),
        ((nx // binning - 1, ny // binning - 1), (3.3, -5.7, 40.25)),
    ]:
        box = tilt_volume(*stack, volume, binning, centre)
        write_newst(tmp_path / "newst.com", stack="a.st", aligned="a.ali", transforms="a.xf",
                    size=stack, binning=binning, antialias=antialias)  # fmt: skip
        write_tilt(tmp_path / "tilt.com", aligned="a.ali", output="a.rec", tilt_file="a.tlt",
                   volume=box)  # fmt: skip
        newst, com = read_command(tmp_path / "newst.com"), read_command(tmp_path / "tilt.com")
        assert ("AntialiasFilter" in newst) == (antialias and binning > 1)
        views = [
            View(theta, axis, sx, sy, m, x_tilt, stretch, skew)
            for theta, axis, sx, sy, m, x_tilt, stretch, skew in [
                (0, 85.3, 0, 0, 1, 0, 1, 0),
                (-60, 85.3, 12.3, -45.6, 1.01, 0, 1.02, -0.7),
                (47, -4, -9, 3, 0.99, 6, 1, 0),
                (-13, 175, 80, 33, 1, -4, 0.98, 0.4),
            ]
        ]
        lines = [
            xf_from_view(
                image_matrix(v), v.shift_x / PIXEL, v.shift_y / PIXEL, nx, ny,
                aligned_origin(v.tilt, v.x_tilt, box.origin_y), binning, antialias,
            )
            for v in views
        ]  # fmt: skip
        write_xf(tmp_path / "a.xf", [a for a, _ in lines], [d for _, d in lines])
        for view, a, d in zip(views, *read_xf(tmp_path / "a.xf"), strict=True):
            raw = project(BEADS, view) / PIXEL + [nx // 2, ny // 2]
            seen = newstack(raw, a, d, raw_size, newst, antialias and binning > 1)
            voxels = (BEADS / PIXEL - centre) / binning + [n // 2 for n in volume[::-1]]
            expected = tilt(voxels, np.radians(view.tilt), np.radians(view.x_tilt), stack, com)
            assert np.abs(seen - expected).max() < 0.002


def test_an_even_stack_and_volume_need_half_a_voxel_in_x_and_z() -> None:
    box = tilt_volume(928, 960, (340, 960, 928), 4)
    assert (box.shift_x, box.shift_z, box.origin_y) == (2, -2, 2)
    assert (box.width, box.thickness, box.slices) == (3712, 1360, (0, 3836))
    assert box.full_image == (3712, 3840)


def test_an_odd_stack_and_volume_need_half_a_voxel_for_integer_division_alone() -> None:
    box = tilt_volume(99, 101, (33, 101, 99))
    assert (box.shift_x, box.shift_z, box.origin_y) == (0.5, 0.5, 0)


def test_the_tutorial_axis_gives_imods_matrix() -> None:
    a, d = xf_from_view(image_matrix(View(0, 85.3)), 0, 0, 101, 101)
    expected = [[0.081939, 0.996637], [-0.996637, 0.081939]]
    np.testing.assert_allclose(a, expected, atol=1e-6)
    np.testing.assert_allclose(d, 0, atol=1e-12)


@pytest.mark.parametrize("size", [(100, 100), (101, 100), (101, 103)])
@pytest.mark.parametrize("binning", [1, 2, 3, 4])
@pytest.mark.parametrize("antialias", [True, False])
def test_views_come_back_from_transforms(size, binning: int, antialias: bool) -> None:  # type: ignore[no-untyped-def]
    for axis, m, x, y, stretch, skew in [
        (85.3, 1.02, 3, -4, 1, 0),
        (-170, 0.98, 0, 7.5, 1.03, 0.6),
        (0, 1, 0, 0, 0.97, -2),
    ]:
        image = image_matrix(View(0, axis, magnification=m, stretch=stretch, skew=skew))
        a, d = xf_from_view(image, x, y, *size, (0.3, -2.0), binning, antialias)
        back, *shift = view_from_xf(a, d, *size, (0.3, -2.0), binning, antialias)
        np.testing.assert_allclose(view_parts(back), (axis, m, stretch, skew), atol=1e-9)
        np.testing.assert_allclose(shift, (x, y), atol=1e-9)


def test_binned_sizes_follow_imods_rule() -> None:
    found = [binned_size(n, b) for n, b in [(3710, 4), (3838, 4), (7, 2), (5, 2), (10, 4), (9, 1)]]
    assert found == [928, 960, 3, 3, 4, 9]


def test_imods_solution_of_bba_projects_its_beads_in_our_frame(shared_data: Path) -> None:
    bba, n = shared_data / "imod_BBa", 512
    matrices, shifts = read_xf(bba / "BBa.tltxf")  # from the prealigned stack, as the residuals
    tilts = np.loadtxt(bba / "BBa.tlt")
    beads = np.array([line.split()[1:4] for line in (bba / "BBafid.xyz").open()], float)
    beads -= [n / 2, n / 2, 0]
    errors = []
    for x, y, view, *_ in np.loadtxt(bba / "BBa.resid", skiprows=1):
        i = int(view)
        image, sx, sy = view_from_xf(matrices[i], shifts[i], n, n)
        axis, m, stretch, skew = view_parts(image)
        seen = np.array([x, y]) - 0.5 - n // 2  # IMOD's edge coordinate → index → from our centre
        difference = project(beads, View(tilts[i], axis, sx, sy, m, 0, stretch, skew)) - seen
        errors.append(difference[np.linalg.norm(difference, axis=1).argmin()])
    assert len(errors) == 1403
    assert np.sqrt(np.mean(np.sum(np.square(errors), axis=1))) < 0.4  # IMOD's own fit: 0.38 px
    assert np.abs(np.mean(errors, axis=0)).max() < 0.01  # half a pixel would show


def test_unusable_geometry_is_refused() -> None:
    with pytest.raises(ValueError, match="is singular"):
        xf_from_view(np.zeros((2, 2)), 0, 0, 10, 10)
    with pytest.raises(ValueError, match="mirrors"):
        view_from_xf([[1, 0], [0, -1]], [0, 0], 10, 10)
    with pytest.raises(ValueError, match="rows -1 to 10 of a stack of 10 rows"):
        tilt_volume(10, 10, (4, 12, 10))


@pytest.mark.parametrize("binning", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(400, 380), (401, 383), (399, 382)])
@pytest.mark.parametrize("out", [(90, 101), (95, 88)])
def test_sampling_goes_back_to_where_newstack_took_a_pixel_from(
    shared_data: Path, binning: int, size: tuple[int, int], out: tuple[int, int]
) -> None:
    matrices, shifts = read_xf(shared_data / "imod_BBa" / "BBa.xf")
    newst = {"BinByFactor": f"{binning}", "SizeToOutputInXandY": f"{out[0]},{out[1]}"}
    raw = np.random.default_rng(3).uniform(50, 300, (20, 2))  # x, y
    reduced = tuple(n // binning for n in size)
    for a, d in zip(matrices[::15], shifts[::15], strict=True):
        seen = newstack(raw, a, d, size, newst, antialias=True)
        matrix, offset = sampling_from_xf(a, d, size[::-1], reduced[::-1], out[::-1], binning)
        back = seen[:, ::-1] @ matrix.T + offset
        ours = (raw - np.array(size) // 2) / binning + np.array(reduced) // 2
        np.testing.assert_allclose(back, ours[:, ::-1], atol=1e-9)


def test_a_transform_that_cannot_be_undone_is_refused() -> None:
    with pytest.raises(ValueError, match="is singular"):
        sampling_from_xf(np.zeros((2, 2)), (0, 0), (8, 8), (8, 8), (8, 8))
