from __future__ import annotations

from collections.abc import Sequence
from math import radians, tan
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from tasks import plots_ctf
from tasks.record import CtfEstimate, Handedness, Pretilt, TiltSeries
from tasks.report import write_report

TILTS = (-47.0, -20.0, 0.0, 13.0, 30.0, 47.0, 50.0)  # of tests/tasks/conftest.py, the last is dark


def changed(record: TiltSeries, **fields: Sequence[Any]) -> TiltSeries:
    """Return the record with other values of its views' CTFs."""
    views = []
    for i, view in enumerate(record.views):
        new = {name: values[i] for name, values in fields.items()}
        views.append(view.model_copy(update={"ctf": view.ctf and view.ctf.model_copy(update=new)}))
    return record.model_copy(update={"views": tuple(views)})


def test_defocus_has_bars_of_one_standard_error(record: TiltSeries, figures: list[Figure]) -> None:
    plots_ctf.ctf_plot(changed(record, uncertainty=[50.0, 60.0, None, 80.0, 90.0, 100.0, 1.0]))
    top = figures[0].axes[0]
    along = next(c for c in top.collections if isinstance(c, LineCollection))
    bars = [segment.tolist() for segment in along.get_segments()]
    expected = [(0, 50.0), (1, 60.0), (3, 80.0), (4, 90.0), (5, 100.0)]  # none of view 2
    assert len(bars) == len(expected)
    for bar, (i, error) in zip(bars, expected, strict=True):
        u = 30000 + 100 * i
        np.testing.assert_allclose(
            bar, [[TILTS[i], (u - error) / 1e4], [TILTS[i], (u + error) / 1e4]]
        )


def test_points_are_hollow_where_a_fit_is_not_reliable(
    record: TiltSeries, figures: list[Figure]
) -> None:
    plot = plots_ctf.ctf_plot(record)  # the first view is not
    assert plot is not None
    assert plot.alt.endswith("1 of 6 views are not reliable.")
    for axes in figures[0].axes:
        filled = [line for line in axes.lines if line.get_markerfacecolor() != "white"]
        markers = [line for line in filled if line.get_linestyle() == "None"]
        assert markers
        for line in markers:
            assert list(line.get_xdata()) == list(TILTS[1:6])


def test_the_band_is_what_other_views_expect_and_does_not_decide_the_range(
    record: TiltSeries, figures: list[Figure]
) -> None:
    expected = [
        {"view": i, "defocus": 29000.0 + 10 * i, "sigma": 8e4 if i == 2 else 100.0}
        for i in (0, 1, 2, 4, 5, 6)
    ]
    plots_ctf.ctf_plot(record, expected)
    plots_ctf.ctf_plot(record)
    top, plain = (figure.axes[0] for figure in figures)
    assert top.get_ylim() == plain.get_ylim()
    band = next(c for c in top.collections if isinstance(c, PolyCollection))
    points = np.concatenate([path.vertices for path in band.get_paths()])
    assert (points[:, 0] < 50).all()  # the dark view is not in it
    at = points[points[:, 0] == -20, 1]
    assert (at.min(), at.max()) == pytest.approx((2.891, 2.911))
    assert not (points[:, 0] == 13).any()  # nobody told of that one
    assert not any(isinstance(c, PolyCollection) for c in plain.collections)


def test_phase_shifts_and_reaches_have_panels_where_there_are_any(
    record: TiltSeries, figures: list[Figure]
) -> None:
    plate = changed(record, phase_shift=[40.0, 42.0, 44.0, 46.0, 48.0, 50.0, 0.0])
    without = changed(record, fit_resolution=[None] * 7, uncertainty=[None] * 7)
    plots = [plots_ctf.ctf_plot(series) for series in (record, plate, without)]
    assert [plot and plot.title for plot in plots] == [
        "Defocus and reach of the fits",
        "Defocus, reach of the fits and phase shift",
        "Defocus",
    ]
    assert [len(figure.axes) for figure in figures] == [2, 3, 1]
    assert plots[1] is not None
    assert "Phase shift against tilt angle: median 45 °, largest 50 ° at 47.0°." in plots[1].alt


def test_a_record_without_ctf_has_no_plots(fake_run) -> None:  # type: ignore[no-untyped-def]
    record = fake_run().series.record("main")
    assert plots_ctf.ctf_plot(record) is None
    assert plots_ctf.gradient_plot(record, []) is None


def gradients(factor: float, pretilt: float) -> list[dict[str, float]]:
    """Return what a plane shows in every view, the dark one too."""
    return [
        {"view": i, "gradient_x": factor * tan(radians(tilt + pretilt)), "gradient_x_error": 0.05}
        for i, tilt in enumerate(TILTS)
    ]


@pytest.mark.parametrize("hand", [1, -1])
def test_measured_gradients_lie_on_the_curve_of_their_hand(
    record: TiltSeries, figures: list[Figure], hand: int
) -> None:
    told = record.model_copy(
        update={
            "hand": hand,
            "handedness": Handedness(hand=hand, measured=hand, confidence=0.9987),
            "pretilt": Pretilt(about_axis=-8, across_axis=0, about_error=0.4, across_error=1),
        }
    )
    plot = plots_ctf.gradient_plot(told, gradients(hand, -8.0))
    assert plot is not None
    sign = "+1" if hand == 1 else "−1"
    assert plot.title == f"Defocus gradient: hand {sign} (99.9 %), pre-tilt −8.0 ± 0.4°"
    nearer = (6, 0) if hand == 1 else (0, 6)
    assert plot.alt.endswith(
        f"of 6 views: {nearer[0]} lie nearer to hand +1, {nearer[1]} nearer to hand −1."
    )
    axes = figures[0].axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    believed, other = lines[f"hand {sign}"], lines[f"hand {'−1' if hand == 1 else '+1'}"]
    assert (believed.get_linestyle(), other.get_linestyle()) == ("-", "--")
    measured = lines["measured"]
    assert list(measured.get_xdata()) == list(TILTS[1:6])  # hollow and dark ones are not
    on_curve = np.interp(measured.get_xdata(), *believed.get_data())
    np.testing.assert_allclose(measured.get_ydata(), on_curve, atol=2e-3)


def test_a_view_without_rings_does_not_flatten_the_gradients_of_the_others(
    record: TiltSeries, figures: list[Figure]
) -> None:
    rows = gradients(1, 0.0)
    rows[3] |= {"gradient_x": 40.0, "gradient_x_error": 30.0}
    plots_ctf.gradient_plot(record, rows)
    assert figures[0].axes[0].get_ylim()[1] == pytest.approx(1.15 * tan(radians(47)), rel=1e-3)


@pytest.mark.parametrize(
    ("hand", "seen", "words"),
    [
        (None, None, "hand unknown"),
        (-1, None, "hand −1"),
        (None, (None, None, 0.71, False), "hand unknown (71.0 %)"),
        (1, (1, 1, 0.99999, False), "hand +1 (> 99.9 %)"),
        (1, (1, -1, 0.995, True), "hand +1 as given; the spectra show −1 (99.5 %)"),
        (1, (-1, -1, 0.995, False), "hand +1, the axis turned by 180° for −1 (99.5 %)"),
        (-1, (-1, None, 0.5, False), "hand −1 as the file has it"),
        (1, (1, None, 0.6, True), "hand +1 as given; the spectra cannot tell (60.0 %)"),
    ],
)
def test_the_hand_is_told_in_words(
    record: TiltSeries, hand: int | None, seen: tuple[Any, ...] | None, words: str
) -> None:
    names = ("hand", "measured", "confidence", "forced")
    found = None if seen is None else Handedness(**dict(zip(names, seen, strict=True)))
    assert plots_ctf.what_hand(record.model_copy(update={"hand": hand, "handedness": found})) == (
        words
    )


def test_the_report_shows_the_gradients_and_a_hand_against_the_spectra(fake_run, tmp_path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.motion()
    run.exclude()
    estimate = CtfEstimate(defocus_u=3e4, defocus_v=3e4, astigmatism_angle=0).model_dump()
    seen = {"hand": 1, "measured": -1, "confidence": 0.999, "forced": True}
    views = [{"ctf": estimate}] * 6 + [{"ctf": None}]
    series = {"hand": 1, "handedness": seen, "thickness": 1500.0}
    run.finish("ctf", decides={"views": views, "series": series}, gradients=gradients(-1, 0.0))
    text = write_report(run.series.project.url, "main", tmp_path / "out").read_text()
    assert "0 lie nearer to hand +1, 6 nearer to hand −1." in text
    assert "<li>defocus gradient: hand +1 as given; the spectra show −1 (99.9 %)</li>" in text
    assert "150 nm" in text
    assert "CTF of single views" not in text
