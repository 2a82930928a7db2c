"""The score of a slope on views of which every point is imaged at its own defocus."""

from __future__ import annotations

import numpy as np
import pytest
from ctf_images import field, tilted_gradient

from kernels.ctf import Ctf
from kernels.ctf_slope import Slope, slope_in_raw
from kernels.ctf_strip_score import agreements, can_tell
from kernels.geometry import View

PIXEL, SIZE = 3.0, 640
CTF = Ctf(22000.0, 21000.0, 25.0)
FINEST = 0.15  # 1/Å; the outer tiles differ by a third of a turn from the middle there


@pytest.mark.parametrize("hand", [1, -1])
@pytest.mark.parametrize("axis", [85.3, 0.0, -150.0])
def test_rings_agree_with_the_slope_that_made_them(hand: int, axis: float) -> None:
    tilt = 50.0
    image = field(SIZE, PIXEL, CTF, seed=3, gradient=tilted_gradient(tilt, axis, hand))
    used = slope_in_raw(View(tilt, axis), hand)
    opposite = Slope(-used.x, -used.y)
    found = agreements(image, CTF, PIXEL, [used, opposite, Slope(0.0, 0.0)], FINEST)
    assert found.shape == (2, 3)
    assert (found[:, 0] > found[:, 1] + 0.04).all()
    assert (found[:, 0] > found[:, 2] + 0.01).all()  # the middle's rings are half wrong
    # Given the other hand the same numbers change places.
    turned = agreements(image, CTF, PIXEL, [opposite, used], FINEST)
    np.testing.assert_allclose(turned, found[::-1, [1, 0]], rtol=1e-6)


def test_without_rings_nothing_agrees() -> None:
    image = np.random.default_rng(2).standard_normal((SIZE, SIZE)).astype(np.float32)
    used = slope_in_raw(View(50.0, 0.0), 1)
    found = agreements(image, CTF, PIXEL, [used, Slope(-used.x, -used.y)], FINEST)
    assert np.abs(found).max() < 0.02


def test_a_view_that_is_nearly_level_cannot_tell() -> None:
    shape = (SIZE, SIZE)
    assert can_tell(shape, CTF, PIXEL, slope_in_raw(View(50.0, 0.0), 1), FINEST)
    assert not can_tell(shape, CTF, PIXEL, slope_in_raw(View(2.0, 0.0), 1), FINEST)
    assert not can_tell(shape, CTF, PIXEL, slope_in_raw(View(50.0, 0.0), 1), 1 / 45)
