"""The step `thickness` on a small series of a planted slab, and on what shows none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slab_series import Slab, draw_views

from kernels.geometry import View, tilt_rotation
from kernels.thickness import Estimate, verdict
from tasks import plots_thickness
from tasks.errors import UnusableData
from tasks.parameters import Execution, Pipeline, ThicknessParameters
from tasks.plots_thickness import faces, thickness_plot
from tasks.position import Position, found
from tasks.record import Acquisition, FileIdentity, TiltSeries
from tasks.record import View as RecordView
from tasks.result import Result
from tasks.store import Series, parse_project
from tasks.thickness import thickness
from tasks.thickness_verdict import judged, told

TILTS = np.arange(-57.0, 58.0, 3.0)
SIZE, PIXEL = 144, 20.0
SLAB = Slab(thickness=1100.0, centre=250.0, pitch=4.0, rise=-1.5)
THREADS = Execution(cluster="threads", workers=2)


def series_of(
    folder: Path, run_of: Callable[..., Any], images: Any, views: list[View], points: Any = None
) -> Series:
    """Write a series with these motion-corrected images, aligned as `views` say."""
    n = len(views)
    record = TiltSeries(
        name="S",
        acquisition=Acquisition(voltage=300, pixel_size=PIXEL, tilt_axis=views[0].axis),
        shape=(SIZE, SIZE),
        views=tuple(
            RecordView(
                tilt_angle=float(tilt),
                order=i + 1,
                prior_dose=3.0 * i,
                dose=3.0,
                frames=1,
                movie=FileIdentity(path=f"/{i}", name=f"{i}", size=1, digest="0", mtime_ns=0),
            )
            for i, tilt in enumerate(TILTS[:n])
        ),
    )
    series = parse_project(str(folder / "p.zarr")).add_series(record)
    run = run_of(series, Pipeline(), "main")
    result = run.begin("motion")
    result.create_array("images", images.shape, (1, SIZE, SIZE))[:] = images
    run.finish("motion", means=[float(image.mean()) for image in images])
    run.finish("exclude", views=[{"excluded": None}] * n)
    run.finish("erase")
    run.finish("dose", images_in=result.path)
    decided = [{"geometry": asdict(view)} for view in views]
    run.finish("coarse", views=decided)
    if points is not None:
        run.finish("fiducials", enough_beads=True)
        aligned = run.begin("align")
        aligned.create_array("points", points.shape, points.shape, "float64")[:] = points
        run.finish("align", views=decided, diameter_A=100.0, shape=[SIZE, SIZE])
    return series


@pytest.fixture(scope="module")
def views() -> list[View]:
    rng = np.random.default_rng(1)
    return [View(float(t), 84.0, *rng.normal(0, 60, 2).tolist()) for t in TILTS]


@pytest.fixture(scope="module")
def beads() -> Any:
    rng = np.random.default_rng(2)
    points = replace(SLAB, thickness=2 * (SLAB.thickness / 2 - 50)).points(rng, 16, (1400, 1400))
    middle = (
        SLAB.centre - points[:, 0] * np.tan(np.radians(4)) + points[:, 1] * np.tan(np.radians(-1.5))
    )
    points[:, 2] = middle + np.where(np.arange(16) % 2, 1, -1) * (SLAB.thickness / 2 - 50)
    return points


@pytest.fixture(scope="module")
def images(views: list[View], beads: Any) -> Any:
    return draw_views(np.random.default_rng(3), SLAB, views, SIZE, PIXEL, beads=beads)


def measured(series: Series, **given: Any) -> Result:
    parameters = ThicknessParameters(**given)
    thickness.fn(series.project.url, series.name, parameters, "main", THREADS)
    return series.current("main", "thickness")


def agrees(position: Position) -> None:
    assert position.thickness == pytest.approx(SLAB.thickness, rel=0.05)
    assert position.z_centre == pytest.approx(SLAB.centre, abs=0.02 * SLAB.thickness)
    assert position.pitch == pytest.approx(SLAB.pitch, abs=0.3)
    assert position.x_tilt == pytest.approx(SLAB.rise, abs=0.3)


def test_a_slab_is_found_with_and_without_beads(
    tmp_path: Path, fake_run_class: Any, images: Any, views: list[View], beads: Any
) -> None:
    series = series_of(tmp_path, fake_run_class, images, views, beads)
    for alignment, methods in (
        ("fiducial", ["beads", "tomogram", "attenuation", "chosen"]),
        ("coarse", ["tomogram", "attenuation", "chosen"]),
    ):
        result = measured(series, alignment=alignment)
        about = result.attributes()
        agrees(found(result))
        assert found(result).verdict == "good", about["message"]
        assert [row["method"] for row in about["table"]] == methods
        assert about["alignment"] == alignment
        chosen = about["table"][-1]
        assert chosen["thickness [Å]"] == found(result).thickness
        assert 0 < chosen["error of thickness [Å]"] < 0.15 * SLAB.thickness
        assert about["message"].startswith("good: thickness ")
        assert "unit" not in result.group()
    only = measured(series, alignment="fiducial", method="beads")
    assert [row["method"] for row in only.attributes()["table"]] == ["beads", "chosen"]
    assert measured(series, alignment="coarse", method="beads").attributes()["verdict"] == {
        "word": "failed",
        "reasons": [
            "nothing tells the thickness: the alignment is coarse, and beads are known where they "
            "were aligned by: use --alignment fiducial, or another --method"
        ],
    }


def test_what_tells_no_height_has_it_from_the_tomogram(
    tmp_path: Path, fake_run_class: Any, images: Any, views: list[View]
) -> None:
    series = series_of(tmp_path, fake_run_class, images, views)
    about = measured(series, alignment="coarse", method="attenuation").attributes()
    methods = [row["method"] for row in about["table"]]
    assert methods == ["tomogram, for the height", "attenuation", "chosen"]
    assert about["table"][0]["thickness [Å]"] is None
    assert about["verdict"]["word"] != "failed"
    assert about["slab"]["centre"] == pytest.approx(SLAB.centre, abs=0.02 * SLAB.thickness)
    assert about["slab"]["thickness"] == about["table"][1]["thickness [Å]"]
    # The CTF's result is read without another word.
    run = fake_run_class(series, Pipeline(), "main")
    run.finish("ctf", thickness_error=40.0)
    key = series.current("main", "ctf").key
    result = series.result("ctf", key)
    decides = result.attributes()["decides"] | {"series": {"thickness": 1080.0}}
    result.group().update_attributes({"decides": decides})
    about = measured(series, alignment="coarse", method="ctf").attributes()
    assert about["inputs"]["ctf"] == key
    assert (about["slab"]["thickness"], about["slab"]["thickness_error"]) == (1080.0, 40.0)
    assert about["slab"]["centre"] == pytest.approx(SLAB.centre, abs=0.02 * SLAB.thickness)


def test_the_plot_has_the_faces_where_they_are(
    tmp_path: Path,
    fake_run_class: Any,
    images: Any,
    views: list[View],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = measured(series_of(tmp_path, fake_run_class, images, views), alignment="coarse")
    drawn: list[Any] = []
    monkeypatch.setattr(plots_thickness, "svg", lambda figure: drawn.append(figure) or "")
    plot = thickness_plot(result)
    assert plot is not None
    assert plot.title.endswith("good")
    for axes, along_x in zip(drawn[0].axes, (True, False), strict=True):
        slope = -np.tan(np.radians(4.0)) if along_x else np.tan(np.radians(-1.5))
        ends = np.array(axes.get_xlim())
        for line, side in zip(axes.lines, (-1, 1), strict=True):
            expected = (SLAB.centre + side * SLAB.thickness / 2) / 10 + slope * ends
            np.testing.assert_allclose(line.get_ydata(), expected, atol=5)
    assert thickness_plot(None) is None
    assert np.isnan(faces(Position(*[np.nan] * 4, "failed"), True, np.zeros(2))).all()


def test_noise_alone_is_told_and_is_no_error(
    tmp_path: Path, fake_run_class: Any, views: list[View]
) -> None:
    noise = np.random.default_rng(4).poisson(400, (len(views), SIZE, SIZE)).astype(np.float32)
    result = measured(series_of(tmp_path, fake_run_class, noise, views), alignment="coarse")
    position = found(result)
    assert position.verdict == "failed"
    assert isnan(position.z_centre)
    assert result.attributes()["message"].startswith("failed: nothing tells")
    assert thickness_plot(result) is not None


def test_what_cannot_be_measured_is_one_line(
    tmp_path: Path, fake_run_class: Any, images: Any, views: list[View]
) -> None:
    broken = images.copy()
    broken[3] -= 2 * broken[3].mean()
    series = series_of(tmp_path, fake_run_class, broken, views)
    with pytest.raises(UnusableData, match=r"S: view 4 has a mean of -\d.*exclude the view"):
        measured(series, alignment="coarse")
    few = series_of(tmp_path / "few", fake_run_class, images[:4], views[:4])
    result = measured(few, alignment="coarse")
    assert found(result).verdict == "failed"
    assert "4 views are not left out, 5 are needed" in result.attributes()["message"]
    assert thickness_plot(result) is None


@pytest.mark.parametrize(("x_tilt", "more"), [(0.0, 0.0), (7.0, 0.0), (-4.0, 3.0)])
def test_the_plane_in_the_raw_views_is_the_same_plane(x_tilt: float, more: float) -> None:
    position = Position(1000.0, 0.0, 5.0, -2.0, "good")
    x, y = np.random.default_rng(5).uniform(-3000, 3000, (2, 10))
    slopes = np.tan(np.radians([5.0, -2.0]))
    points = np.column_stack([x, y, -x * slopes[0] + y * slopes[1]])
    depths = (tilt_rotation(View(20.0 + more, 85.0, x_tilt=x_tilt)) @ points.T)[2]
    pitch, rise = np.tan(np.radians(position.plane_in(x_tilt, more)))
    # The same points of the image are at the same depths where the frame has no such turns.
    flat = tilt_rotation(View(20.0, 85.0)).T @ (
        tilt_rotation(View(20.0 + more, 85.0, x_tilt=x_tilt)) @ points.T
    )
    np.testing.assert_allclose(flat[2], -flat[0] * pitch + flat[1] * rise, atol=1e-9)
    assert np.ptp(depths) > 100


@pytest.mark.parametrize("x_tilt", [0.0, 7.0])
def test_levelled_views_see_a_level_slab(x_tilt: float) -> None:
    position = Position(1000.0, 300.0, 5.0, -2.0, "good")
    x, y = np.random.default_rng(5).uniform(-3000, 3000, (2, 10))
    slopes = np.tan(np.radians([5.0, -2.0]))
    points = np.column_stack([x, y, 300 - x * slopes[0] + y * slopes[1]])
    view = View(20.0, 85.0, x_tilt=x_tilt)
    seen = tilt_rotation(view) @ points.T
    back = np.linalg.inv(tilt_rotation(position.levelled(view))) @ seen
    np.testing.assert_allclose(back[2], position.height, atol=1e-9)


def test_a_verdict_names_what_disagrees_or_lacks() -> None:
    sound = Estimate("tomogram", 1000, 30, 10, 5, 1.0, 0.1, 0.0, 0.1)
    other = Estimate("attenuation", 2000, 150)
    word, reasons = judged(verdict([sound, other]), [sound, other], 5000)
    assert word == "doubtful"
    assert reasons == ["thickness by attenuation is 2000 ± 1.5e+02, by tomogram 1000"]
    assert judged(verdict([sound]), [sound], 5000) == ("good", [])
    for change, said in (
        ({"thickness_error": 200.0}, "thickness is known to 1000 ± 200 Å only"),
        ({"centre_error": 90.0}, "z-centre is known to 10 ± 90 Å only"),
        ({"pitch_error": 2.0}, "pitch is known to 1.0 ± 2.0° only"),
        ({"pitch": float("nan"), "pitch_error": float("inf")}, "pitch is not known"),
        ({"centre": 2000.0}, "raise thickness.height"),
    ):
        doubtful = replace(sound, **change)
        word, reasons = judged(verdict([doubtful]), [doubtful], 5000)
        assert word == "doubtful"
        assert len(reasons) == 1
        assert said in reasons[0]
    thin = replace(sound, thickness=60.0)
    word, reasons = judged(verdict([thin]), [thin], 5000)
    assert word == "failed"
    assert told(thin, word, reasons).startswith("failed: a thickness of 60 Å is not within")
