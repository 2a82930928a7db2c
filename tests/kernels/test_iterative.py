"""Iterative reconstruction: convergence on planted volumes, and what options promise."""

import numpy as np
import pytest

from kernels import arrays
from kernels.backproject import aligned_projection
from kernels.geometry import View
from kernels.iterative import interleaved, reconstruct
from kernels.project import project

SHAPE, COLUMNS = (16, 6, 32), 32
TILTS = np.arange(-60, 61, 5.0)


def geometry(tilts=TILTS, **view):
    rows = SHAPE[1] if view else None
    return aligned_projection([View(float(t), 0, **view) for t in tilts], SHAPE, COLUMNS, rows=rows)


def phantom():
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    ball = ((z - 7) ** 2 + (x - 12) ** 2 < 16) * (1 + 0.2 * y)
    other = ((z - 10) ** 2 + (x - 23) ** 2 < 6) * 2.0
    return (ball + other).astype(np.float32)


def misfit(volume, views, projection):
    return np.linalg.norm(views - project(volume, projection, views.shape[1:]))


@pytest.mark.parametrize("subsets", [1, 5, 25])
@pytest.mark.parametrize("x_tilt", [0.0, 3.0])
def test_projections_come_ever_nearer_to_the_views(subsets, x_tilt):
    projection = geometry(x_tilt=x_tilt) if x_tilt else geometry()
    views = project(phantom(), projection, (SHAPE[1], COLUMNS))
    misfits = [np.linalg.norm(views)]

    def note(iteration, volume):
        assert iteration == len(misfits)
        misfits.append(misfit(volume, views, projection))

    volume = reconstruct(views, projection, SHAPE, 12, subsets=subsets, callback=note)
    assert (np.diff(misfits) < 0).all()
    assert misfits[-1] < {1: 0.2, 5: 0.1, 25: 0.1}[subsets] * misfits[0]
    agreement = np.corrcoef(volume.ravel(), phantom().ravel())[0, 1]
    assert agreement > 0.7  # of a missing wedge, and of rows that leave the views


def test_nothing_of_the_start_stays_outside_of_the_mask(on):
    projection = geometry()
    views = project(phantom(), projection, (SHAPE[1], COLUMNS))
    inside = np.zeros((SHAPE[0], 1, 1), np.float32)
    inside[4:13] = 1
    start = np.full(SHAPE, 3, np.float32)
    given = {"mask": on(inside), "start": on(start)}
    for iterations in (0, 2):
        found = arrays.to_host(reconstruct(on(views), projection, SHAPE, iterations, **given))
        assert not found[:4].any()
        assert not found[13:].any()
        assert found[4:13].any()
    assert (arrays.to_host(given["start"]) == 3).all()


@pytest.mark.parametrize("subsets", [1, 5])
def test_every_kind_of_array_gives_the_same(on, subsets):
    projection = geometry(x_tilt=3.0)
    views = project(phantom(), projection, (SHAPE[1], COLUMNS))
    expected = reconstruct(views, projection, SHAPE, 2, subsets=subsets)
    found = arrays.to_host(reconstruct(on(views), projection, SHAPE, 2, subsets=subsets))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("subsets", [1, 2])
def test_iterations_are_those_of_the_formula(subsets):
    shape, tilts = (4, 1, 7), [-50.0, -20.0, 15.0, 40.0]
    projection = aligned_projection([View(t, 0) for t in tilts], shape, 9)
    unit = np.eye(28, dtype=np.float32).reshape(28, *shape)
    matrix = np.stack([project(u, projection, (1, 9)) for u in unit], axis=-1).astype(float)
    views = np.random.default_rng(0).normal(size=(4, 1, 9)).astype(np.float32)
    found = reconstruct(views, projection, shape, 30, subsets=subsets, relaxation=1.3)
    volume = np.zeros(28)
    for chosen in interleaved(projection, subsets) * 30:
        a, p = matrix[chosen].reshape(-1, 28), views[chosen].ravel()
        length, rays = a.sum(1), a.sum(0)
        per_ray = np.where(length > 0.05 * length.max(), 1 / np.maximum(length, 1e-9), 0)
        per_voxel = np.where(rays > 0.05 * rays.max(), 1 / np.maximum(rays, 1e-9), 0)
        volume += 1.3 * per_voxel * (a.T @ (per_ray * (p - a @ volume)))
    np.testing.assert_allclose(found.ravel(), volume, atol=2e-5)


def test_subsets_are_faster_than_sirt():
    projection = geometry()
    views = project(phantom(), projection, (SHAPE[1], COLUMNS))
    sirt, sart = (
        misfit(reconstruct(views, projection, SHAPE, 3, subsets=n), views, projection)
        for n in (1, 5)
    )
    assert sart < 0.5 * sirt


def test_a_warm_start_goes_on_where_it_was_left():
    projection = geometry()
    views = project(phantom(), projection, (SHAPE[1], COLUMNS))
    whole = reconstruct(views, projection, SHAPE, 6, subsets=5)
    half = reconstruct(views, projection, SHAPE, 3, subsets=5)
    before = half.copy()
    resumed = reconstruct(views, projection, SHAPE, 3, subsets=5, start=half)
    np.testing.assert_array_equal(resumed, whole)
    np.testing.assert_array_equal(half, before)


def test_rows_may_be_reconstructed_apart():
    projection = geometry()
    views = project(phantom(), projection, (SHAPE[1], COLUMNS))
    whole = reconstruct(views, projection, SHAPE, 4)
    part = reconstruct(views[:, 2:5], projection, (SHAPE[0], 3, SHAPE[2]), 4)
    np.testing.assert_array_equal(part, whole[:, 2:5])


def test_voxels_stay_positive_and_within_the_mask(on):
    projection = geometry()
    views = project(phantom(), projection, (SHAPE[1], COLUMNS))
    views = views + np.random.default_rng(0).normal(0, 2, views.shape).astype(np.float32)
    mask = np.zeros((SHAPE[0], 1, SHAPE[2]), np.float32)
    mask[2:14, :, 4:28] = 1
    volume = arrays.to_host(
        reconstruct(on(views), projection, SHAPE, 5, positive=True, mask=on(mask))
    )
    assert volume.min() == 0
    assert volume.max() > 0.5
    assert not volume[np.broadcast_to(mask == 0, SHAPE)].any()


def test_neighbouring_subsets_are_far_apart():
    projection = geometry()
    parts = interleaved(projection, 5)
    assert sorted(np.concatenate(parts)) == list(range(len(TILTS)))
    firsts = [part[0] for part in parts]
    assert (np.abs(np.diff(firsts)) > 1).all()
    np.testing.assert_array_equal(interleaved(projection, 1)[0], np.arange(len(TILTS)))


def test_errors_say_what_was_wrong():
    views, projection = np.zeros((25, 6, 32), np.float32), geometry()
    with pytest.raises(ValueError, match="of 26 subsets of 25 views"):
        reconstruct(views, projection, SHAPE, 1, subsets=26)
    with pytest.raises(ValueError, match=r"relaxation 2\.0"):
        reconstruct(views, projection, SHAPE, 1, relaxation=2.0)
    with pytest.raises(ValueError, match=r"start is \(3, 3, 3\)"):
        reconstruct(views, projection, SHAPE, 1, start=np.zeros((3, 3, 3), np.float32))
