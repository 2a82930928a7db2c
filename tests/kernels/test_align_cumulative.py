"""Alignment to a growing reference: a slip along the chain is mended."""

from __future__ import annotations

import numpy as np
from coarse_series import AXIS, PIXEL, SHAPE, flat_views

from kernels.align_coarse import aligned_shape, move_view
from kernels.align_cumulative import follow_outward
from kernels.align_links import centred_view
from kernels.geometry import View

TILTS = tuple(float(t) for t in range(0, 61, 4))


def test_views_are_brought_onto_the_sum_of_those_before() -> None:
    rng = np.random.default_rng(0)
    true = np.vstack([np.zeros(2), rng.uniform(-8, 8, (len(TILTS) - 1, 2))])
    views = [View(t, AXIS) for t in TILTS]
    moved = [move_view(v, *(d * PIXEL)) for v, d in zip(views, true, strict=True)]
    images = flat_views(moved, 0, noise=0.6)
    frame = aligned_shape(SHAPE, AXIS)
    centred = {
        i: centred_view(image, view, PIXEL, frame)
        for i, (image, view) in enumerate(zip(images, views, strict=True))
    }
    before = true + rng.uniform(-1.5, 1.5, true.shape)
    before[0] = 0
    found = follow_outward(centred, range(len(TILTS)), before.tolist(), 4.0)
    places = np.array([(p.dy, p.dx) for p in found])
    assert np.abs(places - true).max() < 0.7
    assert min(p.confidence for p in found[1:]) > 8
