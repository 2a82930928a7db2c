import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.ctf_planes import automatic_step, lay_planes, novactf_planes
from kernels.geometry import View, defocus_offset

SERIES = [View(float(tilt), 85.3) for tilt in range(-60, 61, 3)]
TUTORIAL = (350, 960, 928)  # TS_01 of EMPIAR-10164 at 5.4 Å


@pytest.mark.parametrize(
    ("step", "minimal", "expected"),
    [(150, False, 35), (300, False, 17), (150, True, 11), (300, True, 5)],
)
def test_novactf_has_its_own_number_of_planes(step, minimal, expected):
    planes = novactf_planes(SERIES, TUTORIAL, 5.4, step=step, minimal=minimal)
    assert set(planes.count) == {expected}
    assert set(planes.first) == {-(expected // 2)}
    if not minimal:  # the depth at 60°: 978.7 voxels
        assert planes.step == pytest.approx(978.7 * 5.4 / expected, rel=1e-4)


def test_a_view_has_only_the_planes_that_its_volume_crosses():
    planes = lay_planes(SERIES, TUTORIAL, 5.4, step=300, blend=False)
    assert planes.count[20] == 7
    assert planes.count[0] == planes.count[40] == 19
    assert planes.count.sum() < 0.85 * 41 * 17


@given(
    st.floats(-65, 65),
    st.floats(-180, 180),
    st.floats(-500, 500),
    st.floats(-4, 4),
    st.sampled_from([1, -1]),
    st.booleans(),
)
def test_levels_are_the_defocus_of_the_voxels(tilt, axis, shift, x_tilt, hand, blend):
    view, shape, centre = View(tilt, axis, shift, -shift / 3, 1.0, x_tilt), (9, 14, 12), (9, -5, 30)
    planes = lay_planes([view], shape, 6.0, centre, step=70.0, hand=hand, midplane=12, blend=blend)
    z, y, x = (index.ravel() for index in np.indices(shape))
    points = 6.0 * np.stack([x - 6, y - 7, z - 4], axis=1) + centre
    level = planes.x[0] * x + planes.y[0] * y + planes.z[0] * z + planes.offset[0]
    expected = defocus_offset(points, view, hand, midplane=12) / 70
    np.testing.assert_allclose(level, expected, atol=1e-9)
    margin = 0 if blend else 0.5
    assert planes.first[0] - margin - 1e-5 <= level.min()
    assert level.max() <= planes.first[0] + planes.count[0] - 1 + margin + 1e-5
    assert planes.count[0] <= np.ptp(level) + (3 if blend else 2)


def test_the_automatic_step_leaves_a_quarter_of_the_limit():
    assert automatic_step(10.8, 300) == pytest.approx(1481, rel=1e-3)
    assert automatic_step(3.5, 300) == pytest.approx(155.5, rel=1e-3)


@pytest.mark.parametrize("hand", [1, -1])
@pytest.mark.parametrize("tilt", [-40.0, 0.0, 25.0])
def test_novactfs_shift_brings_a_box_of_either_hand_where_it_is(hand, tilt):
    # The defoci hold at Z = 0; the box, of an odd size, has its centre at Z = 405 Å.
    shape, voxel, shift = (21, 31, 41), 5.4, 405.0
    planes = novactf_planes([View(tilt, 0.0)], shape, voxel, shift, step=10.0, hand=hand)
    nz, ny, nx = shape
    level = planes.x * (nx // 2) + planes.y * (ny // 2) + planes.z * (nz // 2) + planes.offset
    assert planes.step * level == pytest.approx([-hand * shift])
    # A point above the centre: what it adds to the centre's is of the same sign.
    above = level + 7 * planes.z
    height = shift + 7 * voxel * np.cos(np.radians(tilt))
    assert planes.step * above == pytest.approx([-hand * height])
    # At 0° that is the specimen's own geometry.
    if tilt == 0:
        point = [[0.0, 0.0, height]]
        assert planes.step * above == pytest.approx(defocus_offset(point, View(0.0, 0.0), hand))


def test_impossible_steps_and_hands_are_refused():
    with pytest.raises(ValueError, match="step"):
        lay_planes(SERIES, TUTORIAL, 5.4, step=0.0)
    with pytest.raises(ValueError, match="hand"):
        lay_planes(SERIES, TUTORIAL, 5.4, hand=0)
