"""Deformation undone while resampling: points land where they would be without it."""

from dataclasses import replace

import numpy as np
import pytest

from kernels.backproject import aligned_projection, backproject
from kernels.deformation import Deformation, depth_alike, displacements, field_of_view
from kernels.geometry import View, project, tilted, turned_frame
from kernels.resample import resample_view, row_matrix

PIXEL, SIZE = 4.0, 128
# X, Y, Z each have a share of all six powers of X and Y, and of t and t².
DOMING = Deformation(np.random.default_rng(1).normal(0, 12, (3, 5, 2)), SIZE / 2 * PIXEL)


def spots(places, size=SIZE, width=1.0):
    """An image with a Gaussian spot at each x, y from the centre pixel [pixels]."""
    grid = np.arange(size) - size // 2
    image = np.zeros((size, size))
    for x, y in places:
        image += np.exp(-0.5 * ((grid[:, None] - y) ** 2 + (grid - x) ** 2) / width**2)
    return image.astype(np.float32)


def centroid(image, place, radius=7):
    """Centre x, y of the spot around a place, both from the centre pixel [pixels]."""
    x0, y0 = (int(np.rint(p)) + SIZE // 2 - radius for p in place)
    window = image[y0 : y0 + 2 * radius + 1, x0 : x0 + 2 * radius + 1]
    y, x = np.indices(window.shape)
    mass = window / window.sum()
    return np.array([(mass * x).sum() + x0, (mass * y).sum() + y0]) - SIZE // 2


@pytest.mark.parametrize(
    "view",
    [
        View(0.0, 85.3, 21.0, -34.0, 1.002),
        View(-57.0, -94.7, 11.0, 8.0, 0.99),
        View(40.0, 3.0, x_tilt=4.0),
        View(-20.0, 0.0, 5.0, 2.0, x_tilt=-3.0, stretch=1.02, skew=0.5),
    ],
)
@pytest.mark.parametrize("rows", [False, True])
def test_deformed_points_land_where_undeformed_ones_would(view, rows):
    time = 0.7
    points = np.array([[60.0, -90, 0], [-100, 45, 0], [20, 70, 0], [-50, -110, 0]])
    moved = points + displacements(DOMING, points, time)
    raw = spots(project(moved, view) / PIXEL)
    field = field_of_view(DOMING, view, time, (SIZE, SIZE), PIXEL, 2, rows=rows)
    plain, undone = (
        resample_view(raw, view, PIXEL, (SIZE, SIZE), fill=0.0, rows=rows, field=f)
        for f in (None, field)
    )
    to_rows = np.linalg.inv(row_matrix(view)) if rows else np.eye(2)
    expected = tilted(points, view)[:, :2] @ to_rows.T / PIXEL
    errors = [
        [np.hypot(*(centroid(image, place) - place)) for place in expected]
        for image in (plain, undone)
    ]
    assert max(errors[1]) < 0.05
    assert np.mean(errors[0]) > 0.5


@pytest.mark.parametrize("midplane", [0.0, 90.0])
@pytest.mark.parametrize("x_tilt", [0.0, 2.0])
def test_a_specimen_turned_since_has_its_points_undone_as_the_alignment_saw_them(x_tilt, midplane):
    time, offset, more = 0.7, 5.0, 3.0
    solved = View(35.0, 85.3, 21.0, -34.0, 1.002, x_tilt=x_tilt)
    view = replace(solved, tilt=solved.tilt + offset, x_tilt=x_tilt + more)
    level = np.array([[60.0, -90, midplane], [-100, 45, midplane], [20, 70, midplane]])
    points = level @ turned_frame(x_tilt, offset, more)  # as the alignment has them
    np.testing.assert_allclose(project(points, solved), project(level, view))
    moved = points + displacements(DOMING, points, time)
    raw = spots(project(moved, solved) / PIXEL)
    given = {"rows": True, "midplane": midplane}
    field = field_of_view(DOMING, view, time, (SIZE, SIZE), PIXEL, 2, **given, solved=solved)
    undone = resample_view(raw, view, PIXEL, (SIZE, SIZE), fill=0.0, rows=True, field=field)
    expected = tilted(level, view)[:, :2] @ np.linalg.inv(row_matrix(view)).T / PIXEL
    errors = [np.hypot(*(centroid(undone, place) - place)) for place in expected]
    assert max(errors) < 0.05


@pytest.mark.parametrize(("part", "atol"), [(0.0, [0.051, 0.04, 0.04]), (0.25, [0.15, 0.05, 0.05])])
def test_with_x_axis_tilt_and_deformation_points_come_back_where_they_were(part, atol):
    views = [View(float(t), 12.0, 5.0, -9.0, x_tilt=3.5) for t in np.arange(-60, 61, 6)]
    points = np.array([[70.3, -151.7, 43.1], [-60.2, 133.4, 38.8], [41.0, 77.7, -43.3]])
    # Rays cross several X off the mid-plane, so the deformation is as gentle as real ones.
    gentle = Deformation(DOMING.coefficients * part, DOMING.half_width)
    shape = (48, SIZE, SIZE)
    aligned = []
    for i, view in enumerate(views):
        time = i / (len(views) - 1)
        moved = points + displacements(gentle, points, time)
        field = field_of_view(gentle, view, time, (SIZE, SIZE), PIXEL, 2, rows=True)
        raw = spots(project(moved, view) / PIXEL, width=1.5)
        aligned.append(
            resample_view(raw, view, PIXEL, (SIZE, SIZE), fill=0.0, rows=True, field=field)
        )
    projection = aligned_projection(views, shape, SIZE, PIXEL, rows=SIZE)
    volume = backproject(np.array(aligned), projection, shape) / len(views)
    for point in points:
        index = point[::-1] / PIXEL + np.array(shape) // 2
        start = np.rint(index).astype(int) - 3
        window = volume[tuple(slice(s, s + 7) for s in start)]
        mass = np.maximum(window - 0.5 * window.max(), 0)
        found = [np.sum(mass * g) / mass.sum() for g in np.indices(mass.shape)] + start
        assert (np.abs(found - index) < atol).all()
        assert window.max() > 0.6


def test_planes_within_the_depth_that_is_alike_are_displaced_by_the_error_that_was_asked() -> None:
    coefficients = np.zeros((3, 2, 1))
    coefficients[0, 0, 0] = 60.0  # along X, in proportion to X
    field, views = Deformation(coefficients, 1000.0), [View(t, 84.0) for t in (-60.0, 0.0, 45.0)]
    depth = depth_alike(field, views, 2.0)
    rng = np.random.default_rng(2)
    x, z = rng.uniform(-1000, 1000, 4000), rng.uniform(-depth / 2, depth / 2, 4000)
    errors = []
    for view in views:
        # What is seen where the mid-plane's point X′ is seen, in place of X.
        beside = x + z * np.tan(np.radians(view.tilt))
        ends = [
            displacements(field, np.column_stack([at, 0 * at, 0 * at]), 1.0) for at in (x, beside)
        ]
        errors.append(np.square(ends[0] - ends[1]).sum(axis=1).mean())
    assert np.sqrt(np.mean(errors)) == pytest.approx(2.0, rel=0.03)
