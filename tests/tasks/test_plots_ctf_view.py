from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.plots_ctf_view import CURVES, resolution_ticks, shown_views, spectrum_panel
from tasks.record import CtfEstimate, TiltSeries
from tasks.report import write_report

BOX, PIXEL = 512, 2.0  # Å
U, V, ANGLE = 32000.0, 24000.0, 35.0
FITTED = 6.0  # Å
FREQUENCY = np.linspace(1 / 30, 1 / 5, 150)


def power(ky: Any, kx: Any, angle: float = ANGLE) -> NDArray[np.float64]:
    """Return sin² of the CTF's phase at 300 kV, Cs 2.7 mm, written out anew."""
    k2 = kx**2 + ky**2
    turn = 2 * (np.arctan2(ky, kx) - np.radians(angle))
    defocus = (U + V) / 2 + (U - V) / 2 * np.cos(turn)
    chi = np.pi * 0.0196875 * defocus * k2 - np.pi / 2 * 2.7e7 * 0.0196875**3 * k2**2
    return np.sin(chi + np.arcsin(0.07)) ** 2


def planted(tiles: int = 60) -> NDArray[np.float32]:
    """Return the mean power of tiles with rings, background, noise and a detector's lines."""
    ky, kx = np.fft.fftfreq(BOX, PIXEL)[:, None], np.fft.rfftfreq(BOX, PIXEL)[None, :]
    k = np.hypot(ky, kx)
    mean = (1 + 30 * np.exp(-40 * k)) * (1 + np.exp(-60 * k**2) * 0.8 * power(ky, kx))
    mean[0], mean[:, 0] = 50.0, 50.0
    noise = np.random.default_rng(5).gamma(tiles, 1 / tiles, mean.shape)
    return (mean * noise).astype("float32")


def profile(curves: int = 6) -> NDArray[np.float64]:
    rings = np.exp(-60 * FREQUENCY**2) * power(0.0, FREQUENCY)
    rows = [FREQUENCY, rings, rings, rings, np.linspace(1, -0.2, 150), np.full(150, 0.01)]
    return np.array(rows)[:curves]


def with_ctf(record: TiltSeries, index: int, **fields: Any) -> TiltSeries:
    ctf = CtfEstimate(defocus_u=U, defocus_v=V, astigmatism_angle=ANGLE, fit_resolution=FITTED)
    views = list(record.views)
    views[index] = views[index].model_copy(update={"ctf": ctf.model_copy(update=fields)})
    return record.model_copy(update={"views": tuple(views)})


def picture(figure: Figure) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the picture from 0 to 1, NaN where white, with its ky (upward) and kx (right)."""
    image = figure.axes[0].images[0]
    assert image.origin == "lower"
    values = np.ma.filled(image.get_array(), np.nan) / image.get_clim()[1]
    n = len(values) // 2
    k = np.arange(-n, n + 1) / (BOX * PIXEL)
    edge = (n + 0.5) / (BOX * PIXEL)
    assert image.get_extent() == pytest.approx((-edge, edge, -edge, edge))
    return values, k[:, None], k[None, :]


def correlation(values: NDArray[Any], rings: NDArray[Any], where: NDArray[Any]) -> float:
    return float(np.corrcoef(values[where], rings[where])[0, 1])


def test_both_halves_show_the_rings_of_the_planted_astigmatism(
    record: TiltSeries, figures: list[Figure]
) -> None:
    spectrum_panel(with_ctf(record, 2), 2, planted(), profile(), PIXEL)
    values, ky, kx = picture(figures[0])
    k = np.hypot(ky, kx)
    clear = (k > 1 / 25) & (k < 1 / 7)
    for half in (clear & (kx < 0), clear & (kx > 0)):
        assert correlation(values, power(ky, kx), half) > 0.85
        assert abs(correlation(values, power(ky, kx, -ANGLE), half)) < 0.3  # mirrored
    # One step across the border the rings go on: left of it the data, right of it the fit.
    n = values.shape[1] // 2
    border = clear[:, n - 2] & clear[:, n + 2]
    assert np.corrcoef(values[border, n - 2], values[border, n + 2])[0, 1] > 0.8


def test_the_fit_fades_beyond_its_resolution_and_nothing_is_drawn_outside_the_range(
    record: TiltSeries, figures: list[Figure]
) -> None:
    spectrum_panel(with_ctf(record, 2), 2, planted(), profile(), PIXEL)
    values, ky, kx = picture(figures[0])
    k = np.hypot(ky, kx)
    inside, beyond = (kx > 0) & (k < 1 / 6.2) & (k > 1 / 29), (kx > 0) & (k > 1 / 5.8)
    assert np.ptp(values[inside]) > 0.9
    assert np.nanmax(values[beyond]) - np.nanmin(values[beyond]) < 0.35
    shown = np.isfinite(values)
    assert not shown[(k < 1 / 30) | (k > 1 / 5)].any()
    assert shown[(k > 1 / 29.9) & (k < 1 / 5.05)].all()
    (circle,) = figures[0].axes[0].patches
    assert circle.get_radius() == pytest.approx(1 / FITTED)


def test_the_curves_have_a_band_of_two_sigma_and_a_line_at_the_resolution(
    record: TiltSeries, figures: list[Figure]
) -> None:
    for curves in (6, 5):
        spectrum_panel(with_ctf(record, 2), 2, planted(), profile(curves), PIXEL)
    _, above, below = figures[0].axes
    band = np.concatenate([path.vertices for path in above.collections[0].get_paths()])
    middle = np.argmin(np.abs(band[:, 0] - FREQUENCY[70]))
    here = band[np.isclose(band[:, 0], band[middle, 0]), 1]
    assert np.ptp(here) == pytest.approx(0.04)
    for axes in (above, below):
        assert axes.lines[-1].get_xdata()[0] == pytest.approx(1 / FITTED)
        assert axes.get_xlim() == pytest.approx((1 / 30, 1 / 5))
    np.testing.assert_array_equal(below.lines[0].get_ydata(), profile()[4])
    older = figures[1].axes[1]
    assert not older.collections
    np.testing.assert_array_equal(older.lines[0].get_ydata(), profile()[2])


def test_title_and_words_tell_the_values_and_the_problem(record: TiltSeries) -> None:
    problem = "no clear rings: evidence 3.0, below 9"
    series = with_ctf(record, 1, reliable=False, problem=problem)
    plot = spectrum_panel(series, 1, planted(), profile(), PIXEL)
    values = "3.200 and 2.400 µm, fit to 6.0 Å"
    assert plot.title == f"View 2, −20.0°: {values}; not reliable: {problem}"
    assert "rings of 3.200 µm at 35.0° and 2.400 µm across. They agree to 6.0 Å." in plot.alt
    assert plot.alt.endswith(f"Not reliable: {problem}.")
    assert plot.uri.startswith("data:image/svg+xml")
    assert len(plot.uri) < 300_000


def test_a_view_without_its_own_fit_is_drawn(record: TiltSeries, figures: list[Figure]) -> None:
    series = with_ctf(record, 1, fit_resolution=None, reliable=False)
    spectrum_panel(series, 1, 0 * planted(), np.full((6, 150), np.nan), PIXEL)
    values, _, kx = picture(figures[0])
    assert np.isnan(values[:, kx[0] < 0]).all()
    assert np.isfinite(values[:, kx[0] > 0]).any()
    assert figures[0].axes[1].texts[0].get_text() == "no fit of its own"


def test_a_view_without_ctf_is_refused(record: TiltSeries) -> None:
    with pytest.raises(ValueError, match="view 7 of TS_01 has no CTF"):
        spectrum_panel(record, 6, planted(), profile(), PIXEL)


def test_five_views_are_shown_and_the_worst_one_is_among_them(record: TiltSeries) -> None:
    fitted = np.array([True] * 6 + [False])  # tilts −47, −20, 0, 13, 30, 47, 50
    assert shown_views(record, fitted) == [0, 1, 2, 4, 5]
    poor = {i: with_ctf(record, i, reliable=False, score=0.1) for i in (1, 3)}
    assert shown_views(poor[3], fitted) == [0, 1, 2, 3, 5]
    both = with_ctf(poor[1], 3, reliable=False, score=0.05)
    assert shown_views(both, fitted) == [0, 1, 2, 3, 5]
    worse = with_ctf(poor[3], 1, reliable=False, score=0.0)
    assert shown_views(worse, fitted) == [0, 1, 2, 4, 5]
    assert shown_views(record, fitted & False) == []
    assert shown_views(record, np.array([False, True, False, False, False, False, True])) == [1]


@pytest.mark.parametrize(
    ("ends", "ticks"), [((1 / 30, 1 / 5), [5, 6, 8, 10, 15, 30]), ((0.1, 0.2), [5, 6, 8, 10])]
)
def test_ticks_are_round_and_apart(ends: tuple[float, float], ticks: list[int]) -> None:
    assert resolution_ticks(*ends, 0.1) == ticks


def test_the_report_shows_spectra_where_a_result_has_them(fake_run, tmp_path) -> None:  # type: ignore[no-untyped-def]
    run = fake_run()
    run.motion()
    run.exclude()
    result = run.begin("ctf")
    spectra = result.create_array("spectra", (7, BOX, BOX // 2 + 1), (1, BOX, BOX // 2 + 1))
    profiles = np.full((7, len(CURVES), 150), np.nan)
    for i in (0, 2, 5):
        spectra[i] = planted()
        profiles[i] = profile()
    stored = result.create_array(
        "profiles", profiles.shape, profiles.shape, "float64", by_units=False
    )
    stored[:] = profiles
    estimate = CtfEstimate(defocus_u=U, defocus_v=V, astigmatism_angle=ANGLE).model_dump()
    run.finish("ctf", views=[{"ctf": estimate}] * 6 + [{"ctf": None}], spectrum_pixel=PIXEL)
    text = write_report(run.series.project.url, "main", tmp_path / "out").read_text()
    assert "CTF of single views" in text
    assert text.count('alt="Power spectrum of the view at') == 3
