import itertools
import threading

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import arrays, geometry
from kernels.backproject import (
    Projection,
    aligned_projection,
    backproject,
    cuda_launch,
    reference_backproject,
)
from kernels.geometry import View

TILTS = np.arange(-60, 61, 7.5)


def tilt_views(tilts=TILTS):
    return [View(float(tilt), 0) for tilt in tilts]


def random_views(n_views, ny, columns):
    return np.random.default_rng(n_views).standard_normal((n_views, ny, columns), dtype=np.float32)


def planted(points, tilts, size, pixel_size, width=1.5):
    """Views (n, size, size) with a Gaussian spot wherever geometry.project puts a point [Å]."""
    grid = np.arange(size) - size // 2
    views = np.zeros((len(tilts), size, size))
    for image, view in zip(views, tilt_views(tilts), strict=True):
        for x, y in geometry.project(points, view) / pixel_size:
            spot = (grid[:, None] - y) ** 2 + (grid - x) ** 2
            image += np.exp(-0.5 * spot / width**2)
    return views.astype(np.float32)


def centroid(volume, point, radius=3):
    """Centre of mass (z, y, x) of the brightest half of what surrounds an index `point`."""
    start = np.rint(point).astype(int) - radius
    window = tuple(slice(s, s + 2 * radius + 1) for s in start)
    mass = np.maximum(volume[window] - 0.5 * volume[window].max(), 0)
    grids = np.meshgrid(*[np.arange(s, s + 2 * radius + 1) for s in start], indexing="ij")
    return np.array([np.sum(mass * grid) for grid in grids]) / mass.sum()


SHAPES = [(1, 1, 2, 1), (7, 33, 47, 13), (41, 16, 20, 9), (60, 5, 31, 33), (3, 1030, 18, 2)]


@pytest.mark.parametrize(("n_views", "ny", "columns", "nz"), SHAPES)
@pytest.mark.parametrize("add", [False, True])
def test_the_fast_body_agrees_with_the_reference(on, n_views, ny, columns, nz, add):
    views = random_views(n_views, ny, columns)
    shape = (nz, ny, columns + 5)  # some voxels are seen in no view
    projection = aligned_projection(tilt_views(np.linspace(-65, 60, n_views)), shape, columns)
    options = {"weights": np.linspace(0.5, 1.5, n_views), "z_start": 0}
    start = random_views(nz, ny, columns + 5) if add else None
    expected = reference_backproject(
        views, projection, shape, out=start.copy() if add else None, **options
    )
    volume = backproject(
        on(views), projection, shape, out=on(start.copy()) if add else None, **options
    )
    assert volume.dtype == arrays.namespace(volume).float32
    assert volume.shape == shape
    scale = np.abs(expected).max()
    np.testing.assert_allclose(arrays.to_host(volume), expected, atol=1e-5 * scale)


@pytest.mark.parametrize(("n_views", "ny", "columns", "nz"), SHAPES)
def test_the_cuda_source_agrees_with_the_reference(cuda_on_cpu, n_views, ny, columns, nz):
    views, shape = random_views(n_views, ny, columns), (nz, ny, columns + 5)
    projection = aligned_projection(tilt_views(np.linspace(-65, 60, n_views)), shape, columns)
    weights, start = np.linspace(0.5, 1.5, n_views), random_views(nz, ny, columns + 5)
    expected = reference_backproject(
        views, projection, shape, z_start=3, weights=weights, out=start.copy()
    )
    volume = start.copy()
    launch = cuda_launch(views, projection, weights, volume, 3)
    cuda_on_cpu("backproject")("backproject", launch)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(volume, expected, atol=2e-5 * scale)


def test_the_reference_is_linear_interpolation_done_by_hand():
    views = np.array([[[0, 10, 40, 90]], [[1, 2, 3, 4]]], dtype=np.float32)
    projection = Projection(np.array([1.0, 0]), np.array([0.25, 0]), np.array([0.5, 1.0]))
    volume = reference_backproject(views, projection, (1, 1, 4), z_start=1, weights=[1, 100])
    # Columns 0.75, 1.75, 2.75 and 3.75: the last is outside; and column 1 of the second view.
    np.testing.assert_allclose(volume[0, 0], [207.5, 232.5, 277.5, 200])


@pytest.mark.parametrize("body", [backproject, reference_backproject])
def test_slabs_equal_the_whole_volume_exactly(body):
    views, shape = random_views(11, 21, 40), (37, 21, 43)
    projection = aligned_projection(tilt_views(np.linspace(-60, 60, 11)), shape, 40)
    whole = body(views, projection, shape)
    ends = [0, 1, 9, 24, 37]
    slabs = [
        body(views, projection, (end - start, 21, 43), z_start=start)
        for start, end in itertools.pairwise(ends)
    ]
    np.testing.assert_array_equal(np.concatenate(slabs), whole)


def test_cuda_slabs_equal_the_whole_volume_exactly(cuda_on_cpu):
    views, shape = random_views(11, 9, 40), (20, 9, 43)
    projection = aligned_projection(tilt_views(np.linspace(-60, 60, 11)), shape, 40)
    whole, slab = np.zeros(shape, np.float32), np.zeros((6, 9, 43), np.float32)
    run = cuda_on_cpu("backproject")
    run("backproject", cuda_launch(views, projection, np.ones(11), whole, 0))
    run("backproject", cuda_launch(views, projection, np.ones(11), slab, 13))
    np.testing.assert_array_equal(slab, whole[13:19])


def test_rows_may_be_split_among_workers():
    views, shape = random_views(11, 21, 40), (12, 21, 43)
    projection = aligned_projection(tilt_views(np.linspace(-60, 60, 11)), shape, 40)
    whole = backproject(views, projection, shape)
    part = backproject(views[:, 5:12], projection, (12, 7, 43))
    np.testing.assert_array_equal(part, whole[:, 5:12])


def x_tilted(n_views, shape, columns, rows, varied=False):
    """Projection and number of views with x-axis tilt: that of all, or two alternating ones."""
    views = [
        View(float(tilt), 0, x_tilt=-2.5 if varied and i % 2 else 3.5)
        for i, tilt in enumerate(np.linspace(-65, 60, n_views))
    ]
    return aligned_projection(views, shape, columns, centre=(1.5, -3.25), rows=rows)


X_TILTED = [(7, 40, 31, 47, 13, False), (9, 300, 290, 20, 37, False), (8, 150, 140, 19, 9, True)]


@pytest.mark.parametrize(("n_views", "ny", "rows", "columns", "nz", "varied"), X_TILTED)
@pytest.mark.parametrize("add", [False, True])
def test_moving_rows_agree_with_the_reference(
    on, cuda_on_cpu, n_views, ny, rows, columns, nz, varied, add
):
    views, shape = random_views(n_views, rows, columns), (nz, ny, columns + 5)
    projection = x_tilted(n_views, shape, columns, rows, varied)
    options = {"weights": np.linspace(0.5, 1.5, n_views), "z_start": 2}
    start = random_views(nz, ny, columns + 5) if add else np.zeros(shape, np.float32)
    expected = reference_backproject(views, projection, shape, out=start.copy(), **options)
    given = on(start.copy()) if add else None
    volume = backproject(on(views), projection, shape, out=given, **options)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(arrays.to_host(volume), expected, atol=1e-5 * scale)
    cuda = start.copy()
    launch = cuda_launch(views, projection, options["weights"], cuda, 2)
    cuda_on_cpu("backproject")("backproject", launch)
    np.testing.assert_allclose(cuda, expected, atol=2e-5 * scale)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_size_and_geometry_agrees_with_the_reference(data):
    def whole(low, high):
        return data.draw(st.integers(low, high))

    n_views, ny, columns = whole(1, 20), whole(1, 260), whole(2, 60)
    shape = (whole(1, 40), ny + whole(-ny + 1, 9), whole(1, 60))
    x_tilt = data.draw(st.sampled_from([0.0, 2.0, -7.5]))
    if x_tilt == 0:
        shape = (shape[0], ny, shape[2])
    tilts = data.draw(st.lists(st.floats(-90, 90), min_size=n_views, max_size=n_views))
    projection = aligned_projection(
        [View(tilt, 0, x_tilt=x_tilt) for tilt in tilts],
        shape,
        columns,
        centre=(data.draw(st.floats(-20, 20)), data.draw(st.floats(-20, 20))),
        rows=ny,
    )
    views, z_start = random_views(n_views, ny, columns), whole(0, 9)
    expected = reference_backproject(views, projection, shape, z_start=z_start)
    found = backproject(views, projection, shape, z_start=z_start)
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(np.abs(expected).max(), 1))


def test_moving_rows_may_be_split_along_y_and_z():
    views, shape = random_views(6, 300, 21), (20, 300, 24)
    projection = x_tilted(6, shape, 21, 300)
    whole = backproject(views, projection, shape)
    for start, stop in [(0, 90), (90, 217), (217, 300)]:
        for z, end in [(0, 7), (7, 20)]:
            first, last = projection.rows_needed(start, stop, np.arange(z, end))
            first, last = max(first, 0), min(last, 300)
            part = backproject(
                views[:, first:last],
                projection.of_rows(start, first),
                (end - z, stop - start, 24),
                z_start=z,
            )
            np.testing.assert_array_equal(part, whole[z:end, start:stop])


def test_an_untilted_row_moves_by_the_tangent_of_the_x_axis_tilt():
    # At θ = 0 a point at height Z is seen at y′ = Y cos α − Z sin α = v cos α.
    view, shape = View(0.0, 0.0, x_tilt=5.0), (9, 32, 4)
    row = np.arange(32, dtype=np.float32)
    views = np.repeat(row[:, None], 4, axis=1)[None].copy()
    volume = backproject(views, aligned_projection([view], shape, 4, rows=32), shape)
    z = np.arange(9) - 4
    expected = row[2:-2] - np.tan(np.radians(5)) * z[:, None]
    np.testing.assert_allclose(volume[:, 2:-2, 1], expected, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_bytes_do_not_depend_on_the_number_of_threads(threads):
    views, shape = random_views(15, 150, 70), (40, 150, 75)
    projection = aligned_projection(tilt_views(np.linspace(-60, 60, 15)), shape, 70)
    expected = backproject(views, projection, shape)
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    try:
        np.testing.assert_array_equal(backproject(views, projection, shape), expected)
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize("centre", [(0.0, 0.0), (50.0, -20.0)])
def test_planted_points_come_back_where_they_were(on, centre):
    # Ten pixels off in X, Y and Z: with the sign of any of them flipped no spot is there.
    pixel_size, size, shape = 4.0, 96, (64, 96, 96)
    points = np.array([[70.3, -51.7, 63.1], [-60.2, 33.4, 48.8], [41.0, 77.7, -83.3]])
    views = planted(points, TILTS, size, pixel_size)
    projection = aligned_projection(tilt_views(), shape, size, pixel_size, centre)
    volume = arrays.to_host(backproject(on(views), projection, shape)) / len(TILTS)
    middle = np.array(shape) // 2
    for X, Y, Z in points:
        index = np.array([Z - centre[1], Y, X - centre[0]]) / pixel_size + middle
        np.testing.assert_allclose(centroid(volume, index), index, atol=0.05)
        peak = tuple(np.rint(index).astype(int))
        assert volume[peak] > 0.7


def test_a_chiral_phantom_keeps_its_hand():
    # Four beads along a right-handed screw: the mirror image in any axis has the other hand.
    turn = np.radians([0, 80, 160, 240])
    points = np.stack([60 * np.cos(turn), 60 * np.sin(turn), np.linspace(-60, 60, 4)], axis=1)
    views = planted(points, TILTS, 64, 4.0)
    shape = (48, 64, 64)
    volume = backproject(views, aligned_projection(tilt_views(), shape, 64, 4.0), shape)
    index = points[:, ::-1] / 4.0 + np.array(shape) // 2
    found = np.array([centroid(volume, point) for point in index])[:, ::-1]
    edges = np.diff(found, axis=0)
    assert np.linalg.det(edges) * 4.0**3 == pytest.approx(
        np.linalg.det(np.diff(points, axis=0)), rel=0.05
    )
    assert np.linalg.det(edges) > 0


def test_back_projection_is_linear():
    a, b = random_views(5, 8, 30), random_views(5, 8, 30)[::-1]
    shape = (10, 8, 30)
    projection = aligned_projection(tilt_views(TILTS[:5]), shape, 30)
    both = backproject(2 * a + b, projection, shape)
    apart = 2 * backproject(a, projection, shape) + backproject(b, projection, shape)
    np.testing.assert_allclose(both, apart, atol=1e-5 * np.abs(apart).max())


def test_an_untilted_view_is_copied_to_every_plane_edges_included():
    views, shape = random_views(1, 6, 9), (3, 6, 9)
    volume = backproject(views, aligned_projection([View(0, 0)], shape, 9), shape)
    np.testing.assert_array_equal(volume, np.broadcast_to(views, shape))


def test_inputs_are_left_alone_and_may_be_read_only():
    views = random_views(5, 8, 30)
    before = views.copy()
    views.flags.writeable = False
    shape = (4, 8, 30)
    backproject(views, aligned_projection(tilt_views(TILTS[:5]), shape, 30), shape)
    np.testing.assert_array_equal(views, before)


def test_several_threads_may_back_project_at_once():
    views, shape = random_views(9, 40, 50), (20, 40, 50)
    projection = aligned_projection(tilt_views(TILTS[:9]), shape, 50)
    expected = backproject(views, projection, shape)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(backproject(views, projection, shape)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_errors_say_what_was_wrong():
    views, shape = random_views(2, 8, 30), (4, 8, 30)
    projection = aligned_projection(tilt_views([0, 10]), shape, 30)
    with pytest.raises(ValueError, match="9 rows along y, the views have 8"):
        backproject(views, projection, (4, 9, 30))
    with pytest.raises(ValueError, match=r"lengths \[2, 2, 2, 3\] for 2 views"):
        backproject(views, projection, shape, weights=[1, 1, 1])
    with pytest.raises(ValueError, match="views are float64, not float32"):
        backproject(views.astype(np.float64), projection, shape)
    with pytest.raises(ValueError, match="1 column wide"):
        backproject(views[..., :1].copy(), projection, shape)
    with pytest.raises(ValueError, match=r"out is \(4, 8, 29\) float32"):
        backproject(views, projection, shape, out=np.zeros((4, 8, 29), np.float32))
    out = np.zeros((30, 8, 4), np.float32).T
    with pytest.raises(ValueError, match="out is not C-contiguous"):
        backproject(views, projection, shape, out=out)
    with pytest.raises(ValueError, match=r"x-axis tilt is -1\.5°"):
        aligned_projection([View(0, 0, x_tilt=-1.5)], shape, 30)
    with pytest.raises(ValueError, match="rows 3 … of the box come from the same"):
        projection.of_rows(3, 2)
