import numpy as np
import pytest

from kernels import arrays
from kernels.backproject import aligned_projection, backproject
from kernels.backproject_planes import (
    backproject_planes,
    cuda_launch,
    pack,
    reference_backproject_planes,
    unpack,
)
from kernels.ctf_planes import lay_planes
from kernels.fine_rows import REACH, fine_rows
from kernels.geometry import View, defocus_offset
from kernels.plane_images import lay_out

TILTS = (-60.0, -31.0, 0.0, 17.0, 60.0)
SHAPE, COLUMNS, PIXEL, CENTRE = (23, 37, 41), 45, 5.0, (30.0, 0.0, -40.0)


def set_up(blend, x_tilt=0.0, step=60.0, views=None):
    views = [View(tilt, 0.0, x_tilt=x_tilt) for tilt in TILTS] if views is None else views
    rows = SHAPE[1] if x_tilt else None
    projection = aligned_projection(views, SHAPE, COLUMNS, PIXEL, (CENTRE[0], CENTRE[2]), rows=rows)
    return views, projection, lay_planes(views, SHAPE, PIXEL, CENTRE, step=step, blend=blend)


def back(images, projection, planes, shape, *, y_middle, on=lambda x: x, **options):
    """Back-project whole images by the fast body, from the columns that it needs."""
    box = (SHAPE[0], SHAPE[2])
    layout = lay_out(projection, planes, box, COLUMNS, (y_middle, y_middle))
    packed = [on(np.ascontiguousarray(part)) for part in pack(images, layout)]
    return backproject_planes(
        packed, layout, COLUMNS, projection, planes, shape, y_middle=y_middle, **options
    )


def random_images(planes, rows=SHAPE[1]):
    shape = (int(planes.count.sum()), rows, COLUMNS)
    return np.random.default_rng(7).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("blend", [False, True])
@pytest.mark.parametrize("x_tilt", [0.0, 2.5])
def test_the_fast_body_agrees_with_the_reference(on, blend, x_tilt):
    _, projection, planes = set_up(blend, x_tilt)
    images, weights = random_images(planes), np.linspace(0.5, 1.5, len(TILTS))
    options = {"y_middle": 18.0, "weights": weights}
    expected = reference_backproject_planes(images, projection, planes, SHAPE, **options)
    found = back(images, projection, planes, SHAPE, on=on, **options)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(arrays.to_host(found), expected, atol=1e-5 * scale)


@pytest.mark.parametrize("blend", [False, True])
def test_columns_kept_are_sampled_twice_as_finely_as_whole_images_are(on, blend):
    _, projection, planes = set_up(blend)
    images, box = random_images(planes), (SHAPE[0], SHAPE[2])
    layout = lay_out(projection, planes, box, COLUMNS, (18.0, 18.0), REACH)
    packed = [on(np.ascontiguousarray(part)) for part in pack(images, layout)]
    options = {"y_middle": 18.0}
    found = backproject_planes(
        packed, layout, COLUMNS, projection, planes, SHAPE, fine=True, **options
    )
    expected = reference_backproject_planes(
        fine_rows(images), projection.fine(), planes, SHAPE, **options
    )
    scale = np.abs(expected).max()
    np.testing.assert_allclose(arrays.to_host(found), expected, atol=1e-5 * scale)


@pytest.mark.parametrize("blend", [False, True])
def test_columns_that_are_not_kept_are_not_read(blend):
    _, projection, planes = set_up(blend)
    images = random_images(planes)
    layout = lay_out(projection, planes, (SHAPE[0], SHAPE[2]), COLUMNS, (18.0, 18.0))
    kept = unpack(pack(images, layout), layout, COLUMNS)
    assert np.array_equal(kept[kept != 0], images[kept != 0])
    assert 0.2 < (kept != 0).mean() < 0.9
    found, expected = (
        reference_backproject_planes(each, projection, planes, SHAPE, y_middle=18.0)
        for each in (kept, images)
    )
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("blend", [False, True])
@pytest.mark.parametrize("x_tilt", [0.0, 2.5])
def test_the_cuda_source_agrees_with_the_reference(cuda_on_cpu, blend, x_tilt):
    _, projection, planes = set_up(blend, x_tilt)
    images, weights = random_images(planes), np.linspace(0.5, 1.5, len(TILTS))
    shape = (9, *SHAPE[1:])
    options = {"y_middle": 18.0, "weights": weights, "z_start": 5}
    expected = reference_backproject_planes(images, projection, planes, shape, **options)
    volume = np.zeros(shape, np.float32)
    layout = lay_out(projection, planes, (SHAPE[0], SHAPE[2]), COLUMNS, (18.0, 18.0))
    every = np.ascontiguousarray(np.concatenate(pack(images, layout)).T)
    launch = cuda_launch(every, layout, COLUMNS, projection, planes, weights, volume, 18.0, 5)
    cuda_on_cpu("backproject_planes")("backproject_planes", launch)
    np.testing.assert_allclose(volume, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("blend", [False, True])
def test_images_that_do_not_differ_give_the_plain_sum(blend):
    _, projection, planes = set_up(blend)
    each = random_images(planes)[: len(TILTS)]
    images = np.repeat(each, planes.count, axis=0)
    found = back(images, projection, planes, SHAPE, y_middle=18.0)
    expected = backproject(each, projection, SHAPE)
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


def test_planes_of_constant_value_show_every_voxel_its_own_defocus():
    # Blended linearly, the planes' defocus comes out as that of kernels.geometry, exactly.
    views = [View(-47.0, 20.0, shift_x=310.0, shift_y=-90.0)]
    _, projection, planes = set_up(True, views=views)
    offsets = planes.defocus_offsets(0)
    images = np.broadcast_to(
        offsets.astype(np.float32)[:, None, None], (len(offsets), SHAPE[1], COLUMNS)
    )
    found = back(images, projection, planes, SHAPE, y_middle=18.0)
    z, y, x = np.indices(SHAPE)
    points = np.stack([x - SHAPE[2] // 2, y - SHAPE[1] // 2, z - SHAPE[0] // 2], -1) * PIXEL
    points = points.reshape(-1, 3) + CENTRE
    column = projection.x[0] * x + projection.z[0] * z + projection.offset[0]
    inside = (column >= 0) & (column <= COLUMNS - 1)
    expected = defocus_offset(points, views[0]).reshape(SHAPE)
    np.testing.assert_allclose(found[inside], expected[inside], atol=0.01)
    assert not found[~inside].any()


def test_the_nearest_plane_errs_by_half_a_step_at_most():
    views = [View(33.0, 20.0, shift_x=310.0)]
    _, projection, planes = set_up(False, views=views, step=100.0)
    offsets = planes.defocus_offsets(0)
    images = np.broadcast_to(
        offsets.astype(np.float32)[:, None, None], (len(offsets), SHAPE[1], COLUMNS)
    )
    found = back(images, projection, planes, SHAPE, y_middle=9.0)
    z, y, x = np.indices(SHAPE)
    points = np.stack([x - SHAPE[2] // 2, y - SHAPE[1] // 2, z - SHAPE[0] // 2], -1) * PIXEL
    expected = defocus_offset(points.reshape(-1, 3) + CENTRE, views[0]).reshape(SHAPE)
    column = projection.x[0] * x + projection.z[0] * z + projection.offset[0]
    error = np.abs(found - expected)[(column >= 0) & (column <= COLUMNS - 1)]
    assert 45 < error.max() < 50.01


def test_wrong_numbers_of_images_are_refused():
    _, projection, planes = set_up(True)
    layout = lay_out(projection, planes, (SHAPE[0], SHAPE[2]), COLUMNS, (0.0, 0.0))
    packed = pack(random_images(planes), layout)
    with pytest.raises(ValueError, match="columns are"):
        backproject_planes(packed[1:], layout, COLUMNS, projection, planes, SHAPE, y_middle=0)
    with pytest.raises(ValueError, match="slab has"):
        back(random_images(planes, SHAPE[1] + 1), projection, planes, SHAPE, y_middle=0.0)
