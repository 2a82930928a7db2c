"""IMOD's own sample: 23 beads in 61 views, tracked by beadtrack and solved by tiltalign."""

from math import atan2, degrees

import numpy as np
import pytest

from kernels.bundle import solve
from kernels.bundle_model import Model
from kernels.bundle_select import left_out, select
from kernels.bundle_system import Local
from kernels.geometry import View, image_matrix
from kernels.tracks import Tracks

SIZE = 512
ALL = Model("all", "all", "all", stretch="grouped", skew="grouped")


@pytest.fixture(scope="module")
def bba(shared_data):
    folder = shared_data / "imod_BBa"
    rows = np.loadtxt(folder / "BBa.resid", skiprows=1)
    view = rows[:, 2].astype(int)
    bead = np.concatenate([[0], np.cumsum(np.diff(view) < 0)])
    xy = rows[:, :2] - SIZE / 2
    tracks = Tracks(view, bead, xy, np.full(len(view), 0.3), 61, bead.max() + 1)
    xf = np.loadtxt(folder / "BBa.tltxf")
    axis = degrees(atan2(xf[30, 1], xf[30, 0]))
    views = [View(float(tilt), axis) for tilt in np.loadtxt(folder / "BBa.tlt")]
    return tracks, views, xf, rows


# Unweighted mean residual in pixels; IMOD's own solution has 0.313.
@pytest.mark.parametrize(
    ("model", "bar"),
    [(Model(), 0.596), (Model("all"), 0.383), (Model("all", "all", "all"), 0.327), (ALL, 0.327)],
)
def test_the_mean_residual_is_as_small_as_the_model_allows(bba, model, bar):
    tracks, views, _, _ = bba
    assert len(tracks.view) == 1403
    solution = solve(tracks, views, model)
    assert solution.mean_residual <= bar
    # Beads that took no part are predicted little worse: no model fits noise alone.
    apart = left_out(tracks, views, model, start=solution, folds=23)
    assert solution.mean_residual < apart.score < 1.25 * bar


def test_a_local_field_fits_as_well_as_local_alignments(bba):
    tracks, views, _, _ = bba
    local = Local(2, 2, SIZE / 2, np.arange(61) / 60, 5.0)
    solution = solve(tracks, views, Model("all", "all", "all"), local=local)
    assert solution.mean_residual <= 0.315


def test_the_solution_agrees_with_the_stored_one(bba):
    tracks, views, xf, _ = bba
    solution = solve(tracks, views, Model("all", "all", "all"))
    matrices = np.array([image_matrix(v) for v in solution.views])
    stored = np.linalg.inv(xf[:, :4].reshape(-1, 2, 2))
    turns = [
        np.degrees(np.arctan2(m[:, 1, 0] - m[:, 0, 1], m[:, 0, 0] + m[:, 1, 1]))
        for m in (matrices, stored)
    ]
    assert np.abs(turns[0] - turns[1] - np.mean(turns[0] - turns[1])).max() < 0.15
    assert abs(np.mean(turns[0] - turns[1])) < 0.1
    sizes = [np.sqrt(np.linalg.det(m)) for m in (matrices, stored)]
    ratio = sizes[0] / sizes[1]
    assert np.abs(ratio / ratio.mean() - 1).max() < 3e-3


def test_the_mirrored_specimen_does_not_fit(bba):
    tracks, views, _, _ = bba
    mirrored = [View(-v.tilt, v.axis) for v in views]
    # Tilts reversed are the specimen upside down, which fits as well; reversing one side does not.
    folded = [View(abs(v.tilt), v.axis) for v in views]
    plain = solve(tracks, views).mean_residual
    assert solve(tracks, mirrored).mean_residual == pytest.approx(plain, rel=0.02)
    assert solve(tracks, folded).mean_residual > 5 * plain


def test_selection_takes_what_predicts_beads_best(bba):
    tracks, views, _, _ = bba
    selected = select(tracks, views)
    scores = [tried.score for tried in selected.tried]
    assert scores[selected.chosen] < min(scores) * 1.03
    assert selected.solution.model.rotation != "one"
    assert selected.solution.model.magnification != "fixed"
    assert selected.solution.mean_residual < 0.36


def test_tilts_off_by_degrees_are_found_again(bba):
    tracks, views, _, _ = bba
    rng = np.random.default_rng(2)
    far = [View(v.tilt + float(rng.normal(0, 2)), v.axis + 8) for v in views]
    assert solve(tracks, far, Model("all", "all", "all")).mean_residual < 0.335
