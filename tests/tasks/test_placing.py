"""Where boxes are laid: around a planted slab, as the user says, by default; and the defocus."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, hypot, radians, sin, tan
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.ctf_planes import lay_planes
from kernels.geometry import View
from tasks.parameters import (
    Ctf3dParameters,
    Execution,
    Pipeline,
    ReconstructParameters,
    ThicknessParameters,
)
from tasks.placing import Placed, placed
from tasks.work import begin

IMAGES = (80, 96)
SLAB = {"thickness": 1000.0, "centre": 220.0, "pitch": 4.0, "rise": -2.5}
THREADS = Execution(cluster="threads", workers=1)


def turns(tilt: float, x_tilt: float) -> NDArray[np.float64]:
    """Return R_y(tilt) · R_x(x_tilt), written down once more from the conventions."""
    c, s, ca, sa = (f(radians(a)) for a in (tilt, x_tilt) for f in (cos, sin))
    about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return about_y @ np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])


def lay(run: Any, step: str = "reconstruct", **given: Any) -> Placed:
    model = {"reconstruct": ReconstructParameters, "ctf3d": Ctf3dParameters}[step]
    parameters = model.model_validate({"alignment": "coarse", "binning": 1, **given})
    work = begin(step, run.series.project.url, "TS_01", parameters, "main", THREADS)
    return placed(work, parameters, IMAGES)


@pytest.fixture
def make(fake_run: Callable[..., Any]) -> Callable[..., Any]:
    def made(word: str = "good", x_tilt: float = 0.0, **slab: float) -> Any:
        pipeline = Pipeline(reconstruct=ReconstructParameters(alignment="coarse"))
        run = fake_run(pipeline=pipeline)
        run.up_to_alignment(x_tilt)
        run.thickness(word, **{**SLAB, **slab})
        return run

    return made


def views_of(run: Any, alignment: str = "coarse") -> list[View]:
    """Return the views as an alignment alone has them."""
    keys = {step: run.series.pointer("main", step) for step in ("exclude", alignment)}
    record = run.series.record_of(keys)
    return [record.geometry(i) for i in record.included]


def middle_of(turned: View, asked: View) -> NDArray[np.float64]:
    """Return points (n, 3) of the planted middle in the frame of views that are turned further."""
    x, y = np.random.default_rng(1).uniform(-50, 50, (2, 20))
    points = np.column_stack(
        [x, y, 220 - x * tan(radians(SLAB["pitch"])) + y * tan(radians(SLAB["rise"]))]
    )
    seen = points @ turns(asked.tilt, asked.x_tilt).T
    return np.asarray(seen @ turns(turned.tilt, turned.x_tilt))  # inverse: transposed twice


@pytest.mark.parametrize("x_tilt", [0.0, 6.0])
def test_a_box_lies_around_a_level_specimen(make: Callable[..., Any], x_tilt: float) -> None:
    run = make(x_tilt=x_tilt)
    place = lay(run)
    for turned, asked in zip(place.views, views_of(run), strict=True):
        z = middle_of(turned, asked)[:, 2]
        np.testing.assert_allclose(z, place.box.centre[2], atol=1e-6)
    assert set(place.sources.values()) == {"measured"}
    assert place.about["height_A"] == pytest.approx(1000 + 300, abs=1.35)
    assert place.about["middle_A"] == pytest.approx(place.box.centre[2])
    assert place.row["place"] == "measured"
    assert "around the specimen" in place.said


def test_a_small_x_tilt_is_held_and_not_turned(make: Callable[..., Any]) -> None:
    place = lay(make(rise=0.3, pitch=0.0))
    assert place.about["x_tilt"] == 0
    assert not any(view.x_tilt for view in place.views)
    reach = 96 * 1.35 * tan(radians(0.3))  # axis near 90°: the views' width lies along it
    assert place.about["height_A"] == pytest.approx(1300 + reach, abs=1.35)


def test_what_the_user_gives_counts_and_the_rest_holds_the_specimen(
    make: Callable[..., Any],
) -> None:
    run = make()
    place = lay(run, angle_offset=0.0, x_tilt=0.0)
    rows, columns = place.box.frame
    slopes = tan(radians(4.0)), tan(radians(2.5))
    reach = 1.35 * (columns * slopes[0] + rows * slopes[1])
    high = 1000 * hypot(1, *slopes) + reach + 300
    assert place.about["height_A"] == pytest.approx(high, abs=1.35)
    assert place.about["z_shift_A"] == pytest.approx(220)
    aside = lay(run, angle_offset=0.0, x_tilt=0.0, x_shift=100.0)
    assert aside.about["z_shift_A"] == pytest.approx(220 - 100 * slopes[0])
    tutorial = lay(run, binning=2, thickness="350px", z_shift="75px")
    assert tutorial.box.shape[0] == 350
    assert tutorial.box.centre[2] == pytest.approx(75 * 2.7)
    assert tutorial.about["angle_offset"] == pytest.approx(4.0)
    assert tutorial.sources["thickness"] == tutorial.sources["z_shift"] == "given"
    every = lay(run, thickness=500.0, z_shift=0.0, angle_offset=1.0, x_tilt=0.0)
    assert (every.said, every.why) == ("", "")
    assert set(every.sources.values()) == {"given"}


@pytest.mark.parametrize("word", ["doubtful", "failed"])
def test_what_is_not_sure_is_not_used_and_that_is_told(make: Callable[..., Any], word: str) -> None:
    place = lay(make(word), z_shift=50.0)
    assert place.about["height_A"] == pytest.approx(2400, abs=1.35)
    assert [place.about[name] for name in ("z_shift_A", "angle_offset", "x_tilt")] == [50, 0, 0]
    assert place.said == (
        "; thickness, angle_offset, x_tilt by default: the specimen's measured position is "
        f"{word} (two disagree)"
    )
    assert place.row["place"] == "default, given"


def test_the_position_in_another_alignment_is_not_used_nor_its_geometry(
    make: Callable[..., Any],
) -> None:
    run = make()
    place = lay(run, alignment="markerfree")
    assert "in another alignment" in place.said
    own = views_of(run, "markerfree")
    assert [view.axis for view in place.views] == [view.axis for view in own]
    run.pipeline = run.pipeline.model_copy(
        update={"thickness": ThicknessParameters(alignment="markerfree")}
    )
    run.thickness()
    coarse = lay(run)
    assert "in another alignment" in coarse.said
    assert [view.axis for view in coarse.views] == [view.axis for view in views_of(run)]


@pytest.mark.parametrize("hand", [1, -1])
@pytest.mark.parametrize("x_tilt", [0.0, 6.0])
@pytest.mark.parametrize(
    "given", [{}, {"angle_offset": 1.0, "x_tilt": -1.0}, {"z_shift": -80.0, "thickness": 300.0}]
)
def test_the_defocus_of_every_voxel_is_that_of_the_planted_specimen(
    make: Callable[..., Any], hand: int, x_tilt: float, given: dict[str, Any]
) -> None:
    run = make(x_tilt=x_tilt)
    place = lay(run, "ctf3d", **given)
    box = place.box
    planes = lay_planes(
        *(place.views, box.over_all_rows, box.voxel, (box.centre[0], 0.0, box.centre[2])),
        step=100.0,
        hand=hand,
        depths=place.depths,
    )
    index = np.random.default_rng(2).uniform(0, 60, (30, 3))  # ix, iy, iz
    nz, ny, nx = box.over_all_rows
    normal = np.array([tan(radians(SLAB["pitch"])), -tan(radians(SLAB["rise"])), 1.0])
    for n, view in enumerate(views_of(run)):
        turn = turns(view.tilt, view.x_tilt)
        # The ray through the raw centre, by the definition of `shift`; the middle it meets.
        c, s = cos(radians(view.axis)), sin(radians(view.axis))
        x, y = np.linalg.solve(
            view.magnification * np.array([[c, -s], [s, c]]), [-view.shift_x, -view.shift_y]
        )
        in_image = turn @ normal  # the middle's normal where the beam runs along z′
        reference = (SLAB["centre"] - in_image[0] * x - in_image[1] * y) / in_image[2]
        specimen = box.voxel * (index - [nx // 2, ny // 2, nz // 2])
        specimen += np.array([box.centre[0], 0.0, box.centre[2]])
        deep = specimen @ turns(place.views[n].tilt, place.views[n].x_tilt)[2]
        level = planes.x[n] * index[:, 0] + planes.y[n] * index[:, 1] + planes.z[n] * index[:, 2]
        found = 100.0 * (level + planes.offset[n])
        np.testing.assert_allclose(found, -hand * (deep - reference), atol=1e-6)


def test_a_specimen_that_lies_higher_is_less_underfocused_at_the_origin(
    make: Callable[..., Any],
) -> None:
    # The view's defocus is the middle's. With hand +1 what lies nearer the source, z′ higher, has
    # less underfocus; so the origin, below a middle at +220 Å, has 220 Å more.
    place = lay(make(pitch=0.0, rise=0.0), "ctf3d", z_shift=0.0, thickness=300.0)
    flat = int(np.argmin([abs(view.tilt) for view in place.views]))
    box = place.box
    planes = lay_planes(
        place.views, box.over_all_rows, box.voxel, (0.0, 0.0, 0.0), step=10.0, depths=place.depths
    )
    nz, ny, nx = box.over_all_rows
    level = planes.x[flat] * (nx // 2) + planes.y[flat] * (ny // 2) + planes.z[flat] * (nz // 2)
    assert 10 * (level + planes.offset[flat]) == pytest.approx(220, abs=1.0)
