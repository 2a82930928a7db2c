from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import geometry
from kernels.geometry import View

angles = st.floats(-75, 75)
lengths = st.floats(-2000, 2000)
views = st.builds(
    View,
    tilt=angles,
    axis=st.floats(-180, 180),
    shift_x=lengths,
    shift_y=lengths,
    magnification=st.floats(0.9, 1.1),
    x_tilt=st.floats(-5, 5),
)


@pytest.mark.parametrize(
    ("point", "tilt", "expected"),
    [
        ((100, 0, 0), 30, (86.60254, 0)),  # the right side comes towards the axis
        ((0, 0, 100), 30, (50, 0)),  # what lies high moves to the right at positive tilt
        ((0, 0, 100), -30, (-50, 0)),
        ((0, 70, 0), 60, (0, 70)),  # along the axis nothing moves
    ],
)
def test_a_point_appears_where_design_says(point, tilt, expected):
    seen = geometry.project([point], View(tilt=tilt, axis=0))
    np.testing.assert_allclose(seen, [expected], atol=1e-4)


def test_the_tilt_axis_is_counter_clockwise_from_image_y():
    seen = geometry.project([(0, 100, 0)], View(tilt=20, axis=90))
    np.testing.assert_allclose(seen, [(-100, 0)], atol=1e-9)


def test_magnification_enlarges_the_raw_image_before_the_shift():
    view = View(tilt=0, axis=0, shift_x=7, shift_y=-3, magnification=2)
    np.testing.assert_allclose(geometry.project([(10, 20, 0)], view), [(27, 37)])


def test_x_axis_tilt_lifts_positive_y():
    assert geometry.depth([(0, 100, 0)], View(tilt=0, axis=0, x_tilt=10))[0] > 0


def test_the_right_side_is_more_underfocused_at_positive_tilt():
    view = View(tilt=60, axis=0)
    offset = geometry.defocus_offset([(1000, 0, 0), (-1000, 0, 0)], view)
    np.testing.assert_allclose(offset, [1000 * np.sin(np.pi / 3), -1000 * np.sin(np.pi / 3)])
    np.testing.assert_allclose(
        geometry.defocus_offset([(1000, 0, 0)], view, hand=-1), [-1000 * np.sin(np.pi / 3)]
    )


def test_the_gradient_along_the_plane_is_the_tangent_of_the_tilt():
    view = View(tilt=45, axis=0)
    point = geometry.midplane_points([(500, 0)], view)
    np.testing.assert_allclose(geometry.defocus_offset(point, view), [500.0])


def test_what_lies_higher_is_less_underfocused():
    assert geometry.defocus_offset([(0, 0, 100)], View(tilt=0, axis=0))[0] == pytest.approx(-100)


@given(view=views, x=lengths, y=lengths)
def test_aligned_and_raw_coordinates_invert_each_other(view, x, y):
    back = geometry.aligned_from_raw(geometry.raw_from_aligned([(x, y)], view), view)
    np.testing.assert_allclose(back, [(x, y)], atol=1e-6)


@given(view=views, midplane=st.floats(-500, 500))
def test_a_views_own_defocus_is_that_of_the_midplane_at_the_raw_centre(view, midplane):
    point = geometry.midplane_points([(0.0, 0.0)], view, midplane)
    assert point[0, 2] == pytest.approx(midplane, abs=1e-6)
    np.testing.assert_allclose(geometry.project(point, view), [(0, 0)], atol=1e-6)
    assert geometry.defocus_offset(point, view, 1, midplane)[0] == pytest.approx(0, abs=1e-6)


@given(view=views)
def test_the_reference_depth_equals_the_formula_of_the_design(view):
    flat = View(view.tilt, view.axis, view.shift_x, view.shift_y)
    theta, phi = np.radians(flat.tilt), np.radians(flat.axis)
    centre_x = -(np.cos(phi) * flat.shift_x + np.sin(phi) * flat.shift_y)
    expected = 120 / np.cos(theta) - centre_x * np.tan(theta)
    assert geometry.reference_depth(flat, 120) == pytest.approx(expected, abs=1e-6)


def test_points_are_recovered_from_their_tracks():
    rng = np.random.default_rng(0)
    truth = rng.normal(scale=800, size=(5, 3))
    series = [View(t, 85.3, *rng.normal(scale=50, size=2)) for t in range(-60, 61, 10)]
    raw = np.stack([geometry.project(truth, view) for view in series])
    seen = np.ones(raw.shape[:2], dtype=bool)
    seen[:, 4] = False
    found = geometry.fit_points(raw, seen, series)
    np.testing.assert_allclose(found[:4], truth[:4], atol=1e-6)
    assert np.isnan(found[4]).all()


def test_imods_own_solution_obeys_the_projection_equation(shared_data):
    """BBa: aligned = A (observed − c) + d must equal (X cos θ + Z sin θ, Y)."""
    folder = shared_data / "imod_BBa"
    transforms = np.loadtxt(folder / "BBa.tltxf")
    tilts = np.loadtxt(folder / "BBa.tlt")
    rows = np.loadtxt(folder / "BBa.resid", skiprows=1)
    beads = np.loadtxt(folder / "BBafid.xyz", usecols=range(6), comments="P")
    header = (folder / "BBafid.xyz").read_text().splitlines()[0]
    pixel, nx, ny = 1.0, 512, 512
    if "Dim:" in header:
        nx, ny = (int(v) for v in header.split("Dim:")[1].split()[:2])
    observed, views = rows[:, :2], rows[:, 2].astype(int)
    matrices = transforms[:, :4].reshape(-1, 2, 2)
    aligned = np.einsum("nij,nj->ni", matrices[views], observed - [nx / 2, ny / 2])
    aligned += transforms[views, 4:]
    contour = np.cumsum(np.r_[0, (np.diff(views) < 0).astype(int)])
    centred = beads[contour, 1:4] - [nx / 2, ny / 2, 0]
    expected = np.empty_like(aligned)
    for view in np.unique(views):
        at = views == view
        expected[at] = geometry.tilted(centred[at] * pixel, View(float(tilts[view]), 0))[:, :2]
    assert np.sqrt(np.mean((aligned - expected) ** 2)) < 0.5


@given(tilt=angles, x=lengths, z=lengths)
def test_across_is_the_first_row_of_the_projection(tilt, x, z):
    a, b = geometry.across(tilt)
    seen = geometry.project([(x, 0, z)], View(tilt, 0))[0, 0]
    assert a * x + b * z == pytest.approx(seen, abs=1e-6)


@given(view=views, x=lengths, y=lengths, z=lengths)
def test_a_moved_origin_changes_coordinates_but_not_where_things_appear(view, x, y, z):
    origin = np.array([30.0, -200.0, 150.0])
    moved = geometry.with_origin(view, origin)
    point = np.array([[x, y, z]])
    np.testing.assert_allclose(
        geometry.project(point - origin, moved), geometry.project(point, view), atol=1e-6
    )


hands = st.sampled_from([1, -1])


@given(view=views, hand=hands, midplane=st.floats(-500, 500))
def test_the_gradient_of_the_midplane_is_how_its_defocus_changes_over_the_aligned_image(
    view, hand, midplane
):
    gradient = geometry.defocus_gradient(view, hand)
    aligned = np.array([(0.0, 0.0), (50.0, 0.0), (0.0, 50.0)])
    points = geometry.midplane_points(geometry.raw_from_aligned(aligned, view), view, midplane)
    offset = geometry.defocus_offset(points, view, hand, midplane)
    np.testing.assert_allclose(gradient, (offset[1:] - offset[0]) / 50, atol=1e-6)


@given(view=views, hand=hands, about=st.floats(-12, 12), across=st.floats(-12, 12))
def test_the_gradient_of_a_lying_plane_is_how_the_depth_of_its_points_changes(
    view, hand, about, across
):
    x, y = np.array([(0.0, 0.0), (60.0, 0.0), (0.0, 60.0)]).T
    z = -x * np.tan(np.radians(about)) + y * np.tan(np.radians(across))
    points = np.column_stack([x, y, z])
    aligned = geometry.aligned_from_raw(geometry.project(points, view), view)
    depth = geometry.depth(points, view)
    gradient = geometry.defocus_gradient(view, hand, (about, across))
    found = (aligned[1:] - aligned[0]) @ np.array(gradient)
    np.testing.assert_allclose(found, -hand * (depth[1:] - depth[0]), atol=1e-6)


@given(tilt=angles, about=st.floats(-12, 12), hand=hands)
def test_pretilt_about_the_axis_adds_to_the_tilt_angle(tilt, about, hand):
    found = geometry.defocus_gradient(View(tilt, 85.3), hand, (about, 0.0))
    assert found == pytest.approx((hand * np.tan(np.radians(tilt + about)), 0), abs=1e-9)


def test_a_plane_along_the_beam_has_no_gradient():
    with pytest.raises(ValueError, match=r"tilt is 90\.0°: the beam runs along"):
        geometry.defocus_gradient(View(90.0, 0.0))
    with pytest.raises(ValueError, match="hand is 0, not"):
        geometry.defocus_gradient(View(30.0, 0.0), 0)


@given(views, st.floats(-10, 10), st.floats(-5, 5))
def test_points_of_the_turned_frame_appear_at_the_same_place(view, offset, more):
    points = np.random.default_rng(0).uniform(-2000, 2000, (5, 3))
    turned = replace(view, tilt=view.tilt + offset, x_tilt=view.x_tilt + more)
    frame = geometry.turned_frame(view.x_tilt, offset, more)
    seen = geometry.project(points @ frame.T, turned)
    np.testing.assert_allclose(seen, geometry.project(points, view), atol=1e-6)
