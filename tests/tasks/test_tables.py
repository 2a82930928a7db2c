from __future__ import annotations

import pytest

from tasks.parameters import Pipeline
from tasks.tables import project_rows, qc_rows, series_rows, status_rows


def test_a_view_tells_its_dose_and_why_it_is_left_out(fake_run) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    before = series_rows(run.series.imported())
    assert [row["tilt angle [°]"] for row in before] == [-47, -20, 0, 13, 30, 47, 50]
    assert {row["included"] for row in before} == {"yes"}
    assert before[0]["defocus [µm]"] is before[0]["motion [Å]"] is before[0]["axis [°]"] is None
    run.up_to_alignment()
    rows = series_rows(run.series.record("main"))
    first, dark = rows[0], rows[6]
    assert (first["order"], first["movie"]) == (6, "TS_01_6.mrc")
    assert (first["prior dose [e/Å²]"], first["accumulated [e/Å²]"]) == (15, 18)
    assert first["defocus [µm]"] == pytest.approx(2.9)
    assert (first["axis [°]"], first["refined tilt [°]"]) == (85.1 + 0.1 * 3, -46.7)
    assert dark["included"] == "no: dark: mean 2 where 94 is expected"
    assert dark["shift x [Å]"] is None


def test_a_project_has_a_line_per_series(fake_run) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.up_to_alignment()
    run.reconstruct((4, 24, 20), 4)
    fake_run("TS_02")
    one, two = project_rows(run.series.project.url)
    assert (one["series"], one["views"], one["excluded"]) == ("TS_01", 7, 1)
    assert (one["dose [e/Å²]"], one["axis [°]"]) == (21, pytest.approx(85.4))
    # medians of the six views that are kept
    assert (one["motion [Å]"], one["defocus [µm]"]) == (4.5, pytest.approx(2.9125))
    assert one["tomogram"] == "tomogram"
    assert (two["motion [Å]"], two["axis [°]"], two["tomogram"]) == (None, 85.3, None)
    assert list(one) == list(two)


def test_status_tells_done_stale_failed_and_to_do(fake_run) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.up_to_alignment()
    run.series.note_failure("main", "reconstruct", "TS_01: no space left on device")
    other = fake_run("TS_02", pipeline=Pipeline.model_validate({"motion": {"binning": 2}}))
    other.up_to_alignment()
    other.pipeline = Pipeline()
    other.motion()  # again, with other parameters: all that rests on it is stale
    rows, reasons = status_rows(run.series.project.url)
    assert rows[0] == {
        "series": "TS_01",
        **dict.fromkeys(("motion", "exclude", "ctf", "erase", "dose"), "done"),
        **dict.fromkeys(("coarse", "fiducials", "markerfree"), "done"),
        "reconstruct": "failed",
        # too few beads for one, and nobody has asked for the others
        **{
            "align": "",
            "ctf2d": "",
            "ctf3d": "",
            "thickness": "to do",
            "preprocess": "",
            "transform": "",
        },
    }
    assert reasons == ["TS_01: reconstruct failed: no space left on device"]
    assert (rows[1]["motion"], rows[1]["markerfree"]) == ("done", "stale")
    assert rows[1]["reconstruct"] == "to do"


def test_steps_add_their_own_columns_to_the_figures(fake_run) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.motion()
    run.exclude()
    run.finish(
        "erase",
        table=[{"view": 2, "hits": 11, "depth [e/Å²]": 1.5}, {"sum": 3}, {"view": 99, "hits": 0}],
    )
    rows = qc_rows(run.series)
    assert rows[1]["erase_hits"] == 11
    assert rows[1]["erase_depth_e_per_A2"] == 1.5
    assert "erase_hits" not in rows[0]
    assert "motion_tilt_angle_deg" not in rows[0]
