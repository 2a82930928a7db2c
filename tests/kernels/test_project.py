"""The projector is the adjoint of back-projection, for every geometry and body."""

import numpy as np
import pytest

from kernels import arrays
from kernels.backproject import aligned_projection, backproject
from kernels.geometry import View
from kernels.project import cuda_launch, project, reference_project

# Views, rows, columns of the views; nz, ny, nx of the slab; x-axis tilts.
SHAPES = [
    ((1, 1, 2), (1, 1, 2), [0.0]),
    ((7, 33, 47), (13, 33, 52), [0.0]),
    ((41, 16, 20), (9, 16, 17), [0.0]),
    ((60, 5, 31), (33, 5, 31), [0.0]),
    ((3, 300, 18), (2, 300, 40), [0.0]),
    ((7, 31, 47), (13, 40, 52), [3.5]),
    ((9, 290, 20), (11, 300, 25), [-4.0]),
    ((8, 140, 19), (9, 150, 24), [3.5, -2.5]),
]


def randoms(*shape):
    return np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)


def geometry(views, slab, x_tilts, tilts=(-65, 130)):
    angles = np.linspace(*tilts, views[0])
    kinds = [View(float(t), 0, x_tilt=x_tilts[i % len(x_tilts)]) for i, t in enumerate(angles)]
    rows = views[1] if x_tilts != [0.0] else None
    return aligned_projection(kinds, slab, views[2], centre=(1.5, -3.25), rows=rows)


@pytest.mark.parametrize(("views", "slab", "x_tilts"), SHAPES)
def test_projection_is_the_adjoint_of_back_projection(on, views, slab, x_tilts):
    projection = geometry(views, slab, x_tilts)
    x, y = randoms(*slab), randoms(*views)
    options = {"z_start": 3, "weights": np.linspace(0.5, 1.5, views[0])}
    there = arrays.to_host(project(on(x), projection, views[1:], **options))
    back = arrays.to_host(backproject(on(y), projection, slab, **options))
    one, two = np.vdot(there.astype(float), y), np.vdot(x.astype(float), back)
    size = np.linalg.norm(there) * np.linalg.norm(y)
    assert abs(one - two) <= 1e-6 * size
    if max(views) > 3:
        assert np.linalg.norm(there) > 0


@pytest.mark.parametrize(("views", "slab", "x_tilts"), SHAPES)
@pytest.mark.parametrize("add", [False, True])
def test_the_bodies_agree_with_the_reference(cuda_on_cpu, views, slab, x_tilts, add):
    projection = geometry(views, slab, x_tilts)
    volume = randoms(*slab)
    options = {"z_start": 2, "weights": np.linspace(0.5, 1.5, views[0])}
    start = randoms(*views) if add else np.zeros(views, np.float32)
    expected = reference_project(volume, projection, views[1:], out=start.copy(), **options)
    given = start.copy() if add else None
    found = project(volume, projection, views[1:], out=given, **options)
    scale = max(np.abs(expected).max(), 1)
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale)
    cuda = start.copy()
    launch = cuda_launch(volume, projection, options["weights"], cuda, 2)
    cuda_on_cpu("project")("project", launch)
    np.testing.assert_allclose(cuda, expected, atol=2e-5 * scale)


def test_slabs_add_up_to_the_whole():
    views, slab = (11, 40, 30), (40, 40, 34)
    projection, volume = geometry(views, slab, [0.0]), randoms(*slab)
    whole = project(volume, projection, (40, 30))
    parts = np.zeros(views, np.float32)
    for z, stop in [(0, 7), (7, 30), (30, 40)]:
        project(volume[z:stop], projection, (40, 30), z_start=z, out=parts)
    np.testing.assert_allclose(parts, whole, atol=1e-5 * np.abs(whole).max())


def test_a_voxel_appears_where_geometry_says():
    view = View(35.0, 0.0)
    volume = np.zeros((21, 5, 41), np.float32)
    volume[10 + 6, 3, 20 - 7] = 1
    image = project(volume, aligned_projection([view], volume.shape, 41), (5, 41))[0]
    expected = 20 - 7 * np.cos(np.radians(35)) + 6 * np.sin(np.radians(35))
    assert (image[3] * np.arange(41)).sum() == pytest.approx(expected, abs=1e-5)
    assert image.sum() == pytest.approx(1)
    assert image[3].sum() == pytest.approx(1)


def test_errors_say_what_was_wrong():
    volume = randoms(4, 8, 20)
    projection = aligned_projection([View(0, 0), View(9, 0)], volume.shape, 20)
    with pytest.raises(ValueError, match="8 rows along y, the views have 9"):
        project(volume, projection, (9, 20))
    with pytest.raises(ValueError, match="3 weights for 2 views"):
        project(volume, projection, (8, 20), weights=[1, 1, 1])
    with pytest.raises(ValueError, match="volume is float64"):
        project(volume.astype(float), projection, (8, 20))
    with pytest.raises(ValueError, match="1 column wide"):
        project(volume, projection, (8, 1))
    with pytest.raises(ValueError, match=r"out is \(2, 8, 19\) float32"):
        project(volume, projection, (8, 20), out=np.zeros((2, 8, 19), np.float32))
    with pytest.raises(ValueError, match="not C-contiguous"):
        project(volume, projection, (8, 20), out=np.zeros((20, 8, 2), np.float32).T)
