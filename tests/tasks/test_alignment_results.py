from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kernels.deformation import Deformation
from kernels.tracks import Tracks
from tasks.alignment import DEFORMATION, deformation_of, dose_times, stored
from tasks.bead_store import write_tracks
from tasks.choice import settled
from tasks.markerfree import beads_of
from tasks.parameters import MarkerfreeParameters, Pipeline
from tasks.record import TiltSeries


def with_doses(record: TiltSeries, doses: list[float]) -> TiltSeries:
    views = [
        view.model_copy(update={"dose": 2.0 if any(doses) else 0.0, "prior_dose": dose})
        for view, dose in zip(record.views, doses, strict=True)
    ]
    return record.model_copy(update={"views": tuple(views)})


def test_time_follows_the_dose_from_0_to_1(record: TiltSeries) -> None:
    doses = [10.0, 6.0, 0.0, 2.0, 4.0, 8.0, 12.0]
    # The last view is left out: the series ends before it.
    assert dose_times(with_doses(record, doses)) == pytest.approx(np.array(doses) / 10)


def test_without_a_dose_time_follows_the_order(record: TiltSeries) -> None:
    orders = np.array([view.order for view in record.views])
    used = orders[:-1]
    expected = (orders - used.min()) / np.ptp(used)
    assert dose_times(with_doses(record, [0.0] * len(orders))) == pytest.approx(expected)


def test_a_deformation_is_kept_with_its_result(fake_run: Callable[..., Any]) -> None:
    run = fake_run()
    run.up_to_alignment()
    coefficients = np.random.default_rng(1).normal(size=(3, 5, 2))
    times = np.linspace(0, 1, 7)
    made = Deformation(coefficients, 2500.0)
    result = run.finish("coarse", **{DEFORMATION: stored(made, times)})
    found = deformation_of(result)
    assert found is not None
    assert np.array_equal(found[0].coefficients, coefficients)
    assert (found[0].half_width, found[0].degree, found[1]) == (2500.0, 2, times.tolist())
    assert deformation_of(run.finish("erase", **{DEFORMATION: stored(None, times)})) is None


@pytest.mark.parametrize(("beads", "said"), [(3, "join"), (1, "auto")])
def test_beads_too_few_to_align_by_are_joined_with_patches(beads: int, said: str) -> None:
    about = {"enough_beads": False, "beads": beads}
    few: Any = SimpleNamespace(attributes=lambda: about)
    assert settled(Pipeline(), few).markerfree.beads == said
    told = Pipeline(markerfree=MarkerfreeParameters(beads="ignore"))
    assert settled(told, few).markerfree.beads == "ignore"


def test_beads_of_views_that_are_left_out_do_not_count(fake_run: Callable[..., Any]) -> None:
    run = fake_run("TS_01")
    run.up_to_alignment()
    found, record = run.begin("fiducials"), run.series.imported()
    views = len(record.views)
    view, point = np.repeat(np.arange(views), 2), np.tile([0, 1], views)
    tracks = Tracks(view, point, np.zeros((2 * views, 2)), np.ones(2 * views), views, 2)
    write_tracks(found, tracks, np.zeros((2, 3)))
    left_out = record.views[3].model_copy(update={"excluded": "the user"})
    kept = (*record.views[:3], left_out, *record.views[4:])
    changed = record.model_copy(update={"views": kept})
    work: Any = SimpleNamespace(input=lambda _: found, record=changed)
    read = beads_of(work)
    assert read is not None
    assert set(read.view.tolist()) == set(range(views)) - {3}
