from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from tasks import plots_erase
from tasks.plots_erase import extremes_plot
from tasks.report import write_report


def rows(tilts: int = 7) -> list[dict[str, Any]]:
    return [
        {
            "view": i + 1,
            "hits": 3 * (i == 2),
            "pixels": 5 * (i == 2),
            "minimum before": 1.0 + i,
            "minimum after": 1.0 + i,
            "maximum before": 30.0 + 900 * (i == 2),
            "maximum after": 30.0,
        }
        for i in range(tilts)
    ]


def test_extremes_before_and_after_are_drawn_and_told(
    fake_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run()
    run.motion()
    run.exclude()
    drawn: list[Figure] = []
    monkeypatch.setattr(plots_erase, "svg", lambda figure: drawn.append(figure) or "")
    result = run.finish("erase", table=rows())
    plot = extremes_plot(run.series.record("main"), result)
    assert plot is not None
    assert plot.alt.endswith("3 hits, 5 pixels erased; most, 3, at 0.0°.")
    lines = {line.get_label(): line for line in drawn[0].axes[0].lines}
    np.testing.assert_array_equal(lines["maximum before"].get_ydata(), [30, 30, 930, 30, 30, 30])
    np.testing.assert_array_equal(lines["maximum after"].get_ydata(), [30] * 6)
    np.testing.assert_array_equal(lines["minimum after"].get_xdata(), [-47, -20, 0, 13, 30, 47])
    assert drawn[0].axes[0].get_ylim()[1] > 930


def test_results_without_a_table_have_no_plot(fake_run: Any) -> None:
    run = fake_run()
    run.motion()
    run.exclude()
    assert extremes_plot(run.series.record("main"), None) is None
    assert extremes_plot(run.series.record("main"), run.finish("erase")) is None


def test_the_report_has_it(fake_run: Any, tmp_path: Any) -> None:
    run = fake_run()
    run.motion()
    run.exclude()
    run.finish("erase", table=rows())
    page = write_report(run.series.project.url, "main", tmp_path)
    assert "Extreme pixels before and after erasing" in page.read_text()
