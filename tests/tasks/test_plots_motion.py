from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from kernels.motion_local import LocalField
from tasks import plots_motion, plots_power
from tasks.record import Motion, TiltSeries
from tasks.report import write_report

FIELD = LocalField(np.arange(4)[:, None, None] * np.array([[0.5, 0.0], [0.0, 0.0]]))  # y with y
TITLE = "Motion during each movie (local 2, whole frame 4, nothing found 1)"


@pytest.fixture
def record(fake_run) -> TiltSeries:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.motion()
    run.exclude()
    record: TiltSeries = run.series.record("main")
    return record


def moved(record: TiltSeries, *models: str) -> TiltSeries:
    """Return the record with other models of motion."""
    views = [
        view.model_copy(update={"motion": view.motion and Motion(**told(view.motion, model))})
        for view, model in zip(record.views, models, strict=True)
    ]
    return record.model_copy(update={"views": tuple(views)})


def told(motion: Motion, model: str) -> dict[str, Any]:
    return {**motion.model_dump(), "model": model}


def test_the_title_counts_what_the_movies_support(record: TiltSeries) -> None:
    models = ["local"] * 2 + ["global"] * 4 + ["none"]
    plot = plots_motion.motion_plot(moved(record, *models))
    assert plot is not None
    assert plot.title == TITLE
    assert plot.alt == "Motion against tilt angle: median 4.5 Å, largest 7 Å at 47.0°."


def test_sums_without_alignment_have_no_plots_of_motion(record: TiltSeries) -> None:
    summed = moved(record, *["sum"] * 7)
    assert plots_motion.motion_plot(summed) is None
    assert plots_motion.trajectory_plot(summed, np.zeros((7, 4, 2)), [None] * 7) is None
    assert plots_power.spectrum_plot(summed, np.ones((7, 2, 32)), 0.01) is None


def test_a_path_goes_up_where_the_row_grows(record: TiltSeries, figures: list[Figure]) -> None:
    shifts = np.full((7, 4, 2), np.nan)
    shifts[:, 1:] = np.arange(3)[:, None] * np.array([2.0, -1.0])  # the first frame is left out
    fields = [LocalField(FIELD.coefficients[1:]), *[None] * 6]
    plot = plots_motion.trajectory_plot(record, shifts, fields)
    assert plot is not None
    assert "faint" in plot.title
    local, plain = figures[0].axes[:2]
    assert (len(local.lines), len(plain.lines)) == (6, 2)  # four corners, path, start
    x, y = plain.lines[0].get_data()
    np.testing.assert_allclose(x, np.array([1, 0, -1]) * 1.35)
    np.testing.assert_allclose(y, np.array([-2, 0, 2]) * 1.35)
    start = plain.lines[1].get_data()
    assert (start[0][0], start[1][0]) == (x[0], y[0])
    # The field grows with y: the upper corners go further up than the lower ones.
    ends = [line.get_data()[1][-1] for line in local.lines[:4]]
    assert ends[0] == ends[1] < ends[2] == ends[3]


def test_a_view_without_signal_has_no_path(record: TiltSeries, figures: list[Figure]) -> None:
    shifts = np.cumsum(np.ones((7, 4, 2)), axis=1)
    plots_motion.trajectory_plot(moved(record, *["global"] * 6, "none"), shifts, [None] * 7)
    last = figures[0].axes[6]
    assert not last.lines
    assert last.texts[0].get_text() == "no motion\nfound"


def test_local_motion_is_drawn_from_its_place_and_to_its_scale(figures: list[Figure]) -> None:
    image = np.random.default_rng(0).normal(size=(200, 300)).astype("float32")
    plot = plots_motion.local_plot(FIELD, 2.0, image, 4.0, 30.0)
    assert plot.title.startswith("Largest local motion, 30.0°")
    axes = figures[0].axes[0]
    assert axes.get_xlim() == (-60, 60)  # nm
    assert axes.get_ylim() == (-40, 40)
    starts = [line for line in axes.lines if line.get_marker() == "o"]
    assert len(starts) == 9 * 6
    paths = [line for line in axes.lines if len(line.get_data()[0]) == 4][1::2]
    magnified = float(axes.texts[0].get_text().split("(")[1].split(" ×")[0])
    for start, path in zip(starts, paths, strict=True):
        x, y = path.get_data()
        assert (x[0], y[0]) == (start.get_data()[0][0], start.get_data()[1][0])
        expected = FIELD.at(y[0] / 80, x[0] / 120)[3] * 2.0 / 10  # nm
        np.testing.assert_allclose([y[3] - y[0], x[3] - x[0]], expected * magnified, atol=1e-9)
    longest = 2.0 * np.abs(FIELD.at(5 / 12, 0.0)[3]).max()
    assert f"up to {longest:.1f} Å" in plot.alt


def test_the_view_with_the_largest_local_motion_is_shown_unless_left_out(
    record: TiltSeries,
) -> None:
    small, large = (LocalField(FIELD.coefficients * factor) for factor in (1, 2))
    assert plots_motion.most_local(record, [None, small, large, *[None] * 4]) == 2
    assert plots_motion.most_local(record, [None, small, *[None] * 4, large]) == 1  # 6 is dark
    assert plots_motion.most_local(record, [None] * 7) is None


def test_the_gain_of_power_is_that_of_the_rings(record: TiltSeries, figures: list[Figure]) -> None:
    step = 0.37 / 64
    frequency = (np.arange(64) + 0.5) * step
    ring = np.exp(-(((frequency - frequency[13]) / 0.01) ** 2))
    profiles = np.stack([np.stack([1 + ring, 1 + 1.5 * ring])] * 7) * np.arange(1, 8)[:, None, None]
    models = ["global", "local", "local", "none", "local", "global", "global"]
    plot = plots_power.spectrum_plot(moved(record, *models), profiles, step)
    assert plot is not None
    assert plot.alt.startswith("Largest gain of power against tilt angle: median 25 %")
    titles = [axes.get_title() for axes in figures[0].axes[:4]]
    assert titles == ["0.0°", "−20.0°", "−47.0°", "gain of power, all views"]
    before, after = (line.get_data()[1] for line in figures[0].axes[2].lines)
    assert before.max() == pytest.approx(2, rel=1e-5)  # whatever the noise is
    assert after.max() == pytest.approx(2.5, rel=1e-5)
    gains = np.ma.getmaskarray(figures[0].axes[3].collections[0].get_array())
    assert gains.all(axis=1).tolist() == [model == "none" for model in models]


def test_reports_of_older_results_and_of_stacks_are_written(fake_run, tmp_path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.motion(older=True)
    text = write_report(run.series.project.url, "main", tmp_path / "out").read_text()
    assert "Motion during each movie (whole frame 7)" in text
    assert "Path of the specimen in each movie" in text
    assert "Largest local motion" not in text
    assert "Power spectra" not in text
