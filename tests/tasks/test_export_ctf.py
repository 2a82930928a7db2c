from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.ctf_import import imported_ctf
from tasks.export import export_series
from tasks.export_ctf import write_defoci
from tasks.formats.ctffind import read_avrot, read_ctffind
from tasks.formats.imod_defocus import read_defocus
from tasks.formats.star import read_star
from tasks.record import CtfEstimate, TiltSeries

EXCLUDED = 6  # the last of seven
NAMES = ("TS_01.defocus", "TS_01_ctffind.txt", "TS_01_ctf.star")
# Half of the last digit that each format writes: Å, °, °.
DIGITS = {"TS_01.defocus": (0.05, 0.005, 0.005), "TS_01_ctffind.txt": (1e-6, 1e-6, 3e-5)}


@pytest.fixture
def record(fake_run: Callable[..., Any]) -> TiltSeries:
    """Return a record with a CTF of every view but the excluded third and last."""
    record = fake_run().series.imported()
    rng = np.random.default_rng(7)
    views = []
    for i, view in enumerate(record.views):
        low, high = np.sort(rng.uniform(15000, 45000, 2)).tolist()
        ctf = CtfEstimate(
            defocus_u=high,
            defocus_v=low,
            astigmatism_angle=rng.uniform(-90, 90),
            phase_shift=rng.uniform(10, 100),
            fit_resolution=rng.uniform(3, 12),
            score=rng.uniform(0.01, 0.4),
            uncertainty=40.0,
        )
        excluded = {2: "the user", EXCLUDED: "dark"}.get(i)
        views.append(view.model_copy(update={"excluded": excluded, "ctf": ctf}))
    return record.model_copy(update={"views": tuple(views)})


def changed(record: TiltSeries, **values: Any) -> TiltSeries:
    views = []
    for view in record.views:
        assert view.ctf is not None
        views.append(view.model_copy(update={"ctf": view.ctf.model_copy(update=values)}))
    return record.model_copy(update={"views": tuple(views)})


@pytest.mark.parametrize("name", NAMES)
def test_an_export_imported_again_is_the_record_to_the_digits_written(
    record: TiltSeries, tmp_path: Path, name: str
) -> None:
    write_defoci(tmp_path, record, None, 1.35, lambda line: None)
    found = imported_ctf(tmp_path / name, record)
    defocus, angle, phase = DIGITS.get(name, (6e-7, 6e-7, 6e-7))
    for view, estimate in zip(record.views, found.estimates, strict=True):
        assert (estimate is None) == (view.excluded is not None)
        if estimate is None or view.ctf is None:
            continue
        assert estimate.defocus_u == pytest.approx(view.ctf.defocus_u, rel=0, abs=1.01 * defocus)
        assert estimate.defocus_v == pytest.approx(view.ctf.defocus_v, rel=0, abs=1.01 * defocus)
        assert estimate.astigmatism_angle == pytest.approx(
            view.ctf.astigmatism_angle, rel=0, abs=1.01 * angle
        )
        assert estimate.phase_shift == pytest.approx(view.ctf.phase_shift, rel=0, abs=1.01 * phase)
        assert (estimate.reliable, estimate.uncertainty) == (True, None)
        if name.endswith(".defocus"):
            assert (estimate.score, estimate.fit_resolution) == (None, None)
        else:
            assert estimate.score == pytest.approx(view.ctf.score, abs=1e-6)
            assert estimate.fit_resolution == pytest.approx(view.ctf.fit_resolution, abs=1e-6)
    assert found.doubts == ()


@pytest.mark.parametrize("hand", [1, -1, None])
def test_imod_is_told_of_the_hand(record: TiltSeries, tmp_path: Path, hand: int | None) -> None:
    series = record.model_copy(update={"hand": hand})
    write_defoci(tmp_path, series, None, 1.35, lambda line: None)
    assert read_defocus(tmp_path / "TS_01.defocus").inverted == (hand == -1)
    assert imported_ctf(tmp_path / "TS_01.defocus", series).hand == (-1 if hand == -1 else None)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_score_and_resolution_stay_unknown(
    record: TiltSeries, tmp_path: Path, name: str
) -> None:
    series = changed(record, score=None, fit_resolution=None, phase_shift=0.0)
    write_defoci(tmp_path, series, None, 1.35, lambda line: None)
    for estimate in filter(None, imported_ctf(tmp_path / name, series).estimates):
        assert (estimate.score, estimate.fit_resolution) == (None, None)
        assert (estimate.reliable, estimate.phase_shift) == (True, 0.0)


def test_the_relion_table_names_movies_in_the_order_of_tilts(
    record: TiltSeries, tmp_path: Path
) -> None:
    write_defoci(tmp_path, record, None, 1.35, lambda line: None)
    table = read_star(tmp_path / "TS_01_ctf.star")["TS_01"]
    assert table.column("rlnMicrographMovieName") == tuple(
        view.movie.name for view in record.views if view.excluded is None
    )
    assert table.floats("rlnTomoNominalStageTiltAngle").tolist() == [-47, -20, 13, 30, 47]
    assert table.column("rlnTomoTiltMovieIndex") == ("6", "4", "2", "3", "5")
    np.testing.assert_allclose(
        table.floats("rlnCtfAstigmatism"),
        table.floats("rlnDefocusU") - table.floats("rlnDefocusV"),
        atol=2e-6,
    )


def test_views_of_a_stack_are_named_by_their_section(record: TiltSeries, tmp_path: Path) -> None:
    movie = record.views[0].movie.model_copy(update={"name": "a.st"})
    views = [
        view.model_copy(update={"movie": movie, "first_frame": 7 - i, "frames": 1})
        for i, view in enumerate(record.views)
    ]
    stack = record.model_copy(update={"views": tuple(views)})
    write_defoci(tmp_path, stack, None, 1.35, lambda line: None)
    table = read_star(tmp_path / "TS_01_ctf.star")["TS_01"]
    assert table.column("rlnMicrographMovieName")[:2] == ("000007@a.st", "000006@a.st")
    (tmp_path / "TS_01_ctf.star").write_text(
        (tmp_path / "TS_01_ctf.star").read_text().replace("NominalStageTiltAngle", "Other")
    )
    found = imported_ctf(tmp_path / "TS_01_ctf.star", stack)
    expected = [None if v.excluded or v.ctf is None else v.ctf.defocus_u for v in stack.views]
    assert [e and e.defocus_u for e in found.estimates] == pytest.approx(expected, abs=1e-6)


def test_profiles_go_with_the_rows_of_the_table(
    fake_run: Callable[..., Any], tmp_path: Path
) -> None:
    run = fake_run()
    run.up_to_alignment()
    export_series(run.series.project.url, "TS_01", "main", "imod", tmp_path)
    folder = tmp_path / "TS_01"
    stored = run.begin("ctf").array("profiles")[:]
    profiles = read_avrot(folder / "TS_01_ctffind_avrot.txt")
    np.testing.assert_allclose(profiles, stored[:EXCLUDED], atol=1e-6)
    assert len(read_ctffind(folder / "TS_01_ctffind.txt")) == len(profiles) == EXCLUDED
    for name in ("TS_01_ctffind.txt", "TS_01_ctffind_avrot.txt"):
        head = "".join(line for line in (folder / name).open() if line.startswith("#"))
        # As CTFFIND's plotting script finds them.
        assert re.findall("Pixel size: ([0-9.]*)", head) == ["1.350"]
        assert re.findall("Number of micrographs: ([0-9]*)", head) == [f"{EXCLUDED}"]
        assert head.count("\n") == 5


def test_a_view_without_a_profile_has_zeros_so_that_the_order_holds(
    fake_run: Callable[..., Any], tmp_path: Path
) -> None:
    run = fake_run()
    run.up_to_alignment()
    result = run.begin("ctf")
    stored = result.array("profiles")[:]
    stored[2], stored[3, 4] = np.nan, np.inf
    result.array("profiles")[:] = stored
    export_series(run.series.project.url, "TS_01", "main", "imod", tmp_path)
    profiles = read_avrot(tmp_path / "TS_01" / "TS_01_ctffind_avrot.txt")
    assert not profiles[2, 1:].any()
    assert not profiles[3, 4].any()
    np.testing.assert_allclose(profiles[2, 0], stored[0, 0], atol=1e-6)
    np.testing.assert_allclose(profiles[4], stored[4], atol=1e-6)


@pytest.mark.parametrize("curves", [None, 5])
def test_without_the_noise_of_the_profiles_their_file_is_left_out_and_said(
    fake_run: Callable[..., Any], tmp_path: Path, curves: int | None
) -> None:
    run = fake_run()
    run.motion()
    run.exclude()
    result = run.ctf()
    run.series.project.delete(f"{result.path}/profiles")
    if curves is not None:
        result.create_array("profiles", (7, curves, 9), (7, curves, 9), "float64", by_units=False)
    lines: list[str] = []
    export_series(run.series.project.url, "TS_01", "main", "imod", tmp_path, lines.append)
    assert not (tmp_path / "TS_01" / "TS_01_ctffind_avrot.txt").exists()
    assert (tmp_path / "TS_01" / "TS_01_ctf.star").exists()
    assert sum("no TS_01_ctffind_avrot.txt" in line for line in lines) == 1
