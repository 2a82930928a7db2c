"""The step markerfree: what it refuses, what it reads, and what it says of what it found."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from kernels.geometry import View
from tasks import cluster, plots_patches
from tasks.choice import settled_ctf, usable_ctf
from tasks.chunks.markerfree import NOT_ASKED, unmeasured
from tasks.errors import WrongParameter
from tasks.markerfree import check_regions, pretilt_of
from tasks.markerfree_told import told, view_rows
from tasks.parameters import Execution, MarkerfreeParameters, Pipeline
from tasks.plan import plan
from tasks.record import Pretilt, TiltSeries
from tasks.steps import STEPS, inputs_of

MakeRun = Callable[..., Any]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"patches": "1,1"},
            r"patches 1,1: at least 4 in all are needed, such as 2,2; or use --no",
        ),
        ({"patches": "2,1"}, "patches 2,1"),
        ({"regions": "1,1 2,2 3,3 nan,1"}, "regions: 'nan,1' is no place, such as 1200,3000"),
        ({"regions": "1,1 2,2 3,3 inf,1"}, "regions: 'inf,1' is no place"),
        ({"regions": "1,1 2,2 3,3 4"}, "regions: '4' is no place"),
    ],
)
def test_patches_that_tell_no_deformation_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MarkerfreeParameters(**given)


def test_few_patches_are_no_matter_where_they_are_not_used() -> None:
    MarkerfreeParameters(patches=(4, 1))
    MarkerfreeParameters(patches=(1, 1), local=False)
    MarkerfreeParameters(patches=(1, 1), regions="1,1 9,1 1,9 9,9")


@pytest.mark.parametrize("place", ["-1,5", "5,-1", "192,5", "5,160"])
def test_a_region_outside_of_the_movies_is_refused(fake_run: MakeRun, place: str) -> None:
    run = fake_run()
    run.up_to_alignment()
    # Images of 96 × 80, of movies binned by 2.
    work: Any = SimpleNamespace(
        image_pixel_size=2.7,
        record=run.series.imported(),
        series=run.series,
        input=lambda _: run.series.current("main", "dose"),
    )
    check_regions(work, MarkerfreeParameters(regions="0,0 191,159 20,20 30,30"))
    parameters = MarkerfreeParameters(regions=f"0,0 9,9 20,20 {place}")
    with pytest.raises(WrongParameter, match=rf"TS_01: region {place} is outside .*192×160 pixels"):
        check_regions(work, parameters)


@pytest.mark.parametrize(("given", "kept"), [(True, "yes"), (False, "no"), ("auto", "auto")])
def test_yes_of_yaml_is_understood(given: Any, kept: str) -> None:
    assert MarkerfreeParameters.model_validate({"use_ctf": given}).use_ctf == kept


def test_the_ctf_is_read_where_it_has_been_measured_of_these_views(fake_run: MakeRun) -> None:
    run = fake_run()
    run.motion()
    run.exclude()
    parameters = MarkerfreeParameters(tilt_offset="apply")
    assert usable_ctf(run.series, "main") == ""
    key = run.ctf().key
    assert usable_ctf(run.series, "main") == key
    read = settled_ctf(parameters, there=True)
    assert "ctf" in inputs_of(STEPS["markerfree"], read)
    assert "ctf" not in inputs_of(STEPS["markerfree"], settled_ctf(parameters, there=False))
    # An offset that is only told is no reason to align again with every new CTF.
    assert settled_ctf(MarkerfreeParameters(), there=True).use_ctf == "no"
    for word in ("yes", "no"):
        asked = MarkerfreeParameters(use_ctf=word)
        assert settled_ctf(asked, there=word == "no") == asked
    run.series.point("main", "motion", "0" * 12)  # another motion: the CTF is of other images
    assert usable_ctf(run.series, "main") == ""


@pytest.mark.parametrize("until", [None, "markerfree"])
def test_a_plan_foresees_whether_the_ctf_is_read(fake_run: MakeRun, until: str | None) -> None:
    run = fake_run(pipeline=Pipeline.model_validate({"markerfree": {"tilt_offset": "apply"}}))
    run.up_to_alignment()
    pipeline = run.pipeline
    assert pipeline.markerfree.use_ctf == "yes"
    asked = pipeline.markerfree.model_copy(update={"use_ctf": "auto"})
    open_ = pipeline.model_copy(update={"markerfree": asked})
    pipeline = pipeline.model_copy(update={"markerfree": settled_ctf(asked, there=True)})
    expected = plan(run.series, pipeline, until=until)["markerfree"]
    found = plan(run.series, open_, until=until)["markerfree"]
    assert found.state == expected.state == "done"
    assert found.result == expected.result


def test_an_offset_that_the_alignment_had_is_not_told_twice(record: TiltSeries) -> None:
    plane = Pretilt(about_axis=5.0, across_axis=0.0, about_error=0.2, across_error=0.2)
    changed = record.model_copy(update={"pretilt": plane})
    views = [View(view.tilt_angle + 3.0, 85.0) for view in record.views]
    assert pretilt_of(changed, views) == pytest.approx((2.0, 0.2))
    assert pretilt_of(record, views) is None


def patched(seen: int, asked: int = 16, field: Any = None) -> Any:
    tracks = SimpleNamespace(point=np.arange(seen))
    return SimpleNamespace(
        patched=SimpleNamespace(tracks=tracks, points=np.zeros((asked, 3))), field=field
    )


def test_what_was_asked_for_and_not_measured_is_said() -> None:
    join, plain = MarkerfreeParameters(beads="join"), MarkerfreeParameters()
    few, enough = patched(3), patched(16, field=object())
    beads: Any = object()
    lacking = "local deformation not measured: 3 of 16 patches are seen, 4 are needed"
    assert unmeasured(plain, few, None, None) == [lacking]
    assert unmeasured(plain, enough, None, None) == []
    assert unmeasured(plain, None, None, None) == []
    assert unmeasured(join, few, beads, None) == [
        lacking,
        "beads not joined: there are no patches to join them with",
    ]
    assert unmeasured(join, enough, None, None) == ["beads not joined: the fiducials step has none"]
    one: Any = SimpleNamespace(beads=1)
    assert unmeasured(join, enough, beads, one) == [
        "beads not joined: 1 seen in views enough, 2 are needed"
    ]
    two: Any = SimpleNamespace(beads=2)
    assert unmeasured(join, enough, beads, two) == []


def report(**given: Any) -> dict[str, Any]:
    offset = {"angle": -1.25, "error": 0.3, "applied": False, "reason": "matter −1.2 ± 0.3°"}
    local = {
        "model": "shifts",
        "deformation": None,
        "error": 0.0,
        "tracks": [[0, 0, 1.0, 2.0, 0.5]],
        "residuals": [[3.0, 4.0]],
        "shift_errors": [[0.3, 0.4], [0.6, 0.8], [None, None]],
    }
    made = {
        "verdict": {"word": "good", "reasons": []},
        "depths": [-500.0, 500.0],
        "scores": [0.5, 0.6, 0.0],
        "moves": [0.1, 0.2, 0.0],
        "axis": {"error": 0.02},
        "offset": offset,
        "local": local,
        "hybrid": None,
    }
    return {**made, **given}


VIEWS = [View(float(i), 85.0) for i in range(3)]
TAKING = [True, True, False]


@pytest.mark.parametrize(
    ("offset", "said"),
    [
        ({}, ", tilt offset −1.2° ± 0.3° (not applied),"),
        ({"applied": True}, ", tilt offset −1.2° ± 0.3° (applied),"),
        ({"angle": None, "error": None}, ", tilt offset undetermined,"),
    ],
)
def test_the_message_tells_errors_and_what_was_applied(offset: dict[str, Any], said: str) -> None:
    made = report()
    message = told({**made, "offset": {**made["offset"], **offset}}, VIEWS, TAKING)
    assert message.startswith("good: tilt axis 85.00° ± 0.02°, median correlation 0.60, matter")
    assert said in message
    assert message.endswith("shifts known to ± 0.8 Å, no local deformation")


def test_an_offset_that_was_not_asked_for_is_not_told() -> None:
    off = {"angle": None, "error": None, "applied": False, "reason": NOT_ASKED}
    assert "offset" not in told(report(offset=off), VIEWS, TAKING)


def test_a_deformation_that_was_not_measured_is_not_told_to_be_none() -> None:
    local = report()["local"] | {"model": None, "shift_errors": []}
    verdict = {"word": "doubtful", "reasons": ["local deformation not measured: 3 of 16"]}
    message = told(report(local=local, verdict=verdict), VIEWS, TAKING)
    assert "no local deformation" not in message
    assert message.endswith("; but local deformation not measured: 3 of 16")


def test_the_table_has_each_shift_with_its_error() -> None:
    rows = view_rows(report(), VIEWS, [True] * 3, TAKING)
    errors = [(row["error of shift x [Å]"], row["error of shift y [Å]"]) for row in rows]
    assert errors == [(0.3, 0.4), (0.6, 0.8), (None, None)]
    assert [row["patches' residual [Å]"] for row in rows] == [5.0, None, None]
    failed = report(verdict={"word": "failed", "reasons": ["nothing"]})
    assert view_rows(failed, VIEWS, [True] * 3, TAKING)[0]["error of shift x [Å]"] is None


def test_patches_and_errors_are_plotted(fake_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fake_run()
    run.up_to_alignment()
    record = run.series.record("main")
    assert plots_patches.patch_plots(record, run.series.current("main", "markerfree")) == []
    patches = [
        {"patch": j + 1, "X [Å]": 100.0 * j, "Y [Å]": 50.0, "views": 6 - j, "residual [Å]": 1.0 + j}
        for j in range(4)
    ]
    table = view_rows(report(), VIEWS, [True] * 3, TAKING)
    result = run.finish("markerfree", table=table, patches=patches)
    drawn: list[Any] = []
    monkeypatch.setattr(plots_patches, "svg", lambda figure: drawn.append(figure) or "")
    (plot,) = plots_patches.patch_plots(record, result)
    assert "2.50 Å in the middle" in plot.title
    assert "4 patches seen in 3 to 6 views" in plot.alt
    left, right = drawn[0].axes[:2]
    np.testing.assert_allclose(left.collections[0].get_offsets()[:, 0], [0, 10, 20, 30])
    lines = {line.get_label(): line.get_ydata().tolist() for line in right.lines}
    assert lines["error of shift x"] == [0.3, 0.6]


@pytest.mark.parametrize(
    ("hosts", "here"),
    [(["127.0.0.1", "127.0.0.1"], True), (["127.0.0.1", "10.0.0.7"], False), (["node3"], False)],
)
def test_idle_cores_are_lent_on_this_machine_only(
    monkeypatch: pytest.MonkeyPatch, hosts: list[str], here: bool
) -> None:
    workers = {f"tcp://{i}": {"host": host} for i, host in enumerate(hosts)}
    client = SimpleNamespace(scheduler_info=lambda n_workers: {"workers": workers})
    monkeypatch.setattr(cluster, "client_of", lambda _: client)
    assert cluster.here(Execution(cluster="tcp://127.0.0.1:8786")) == here
    assert cluster.here(Execution(cluster="threads"))
