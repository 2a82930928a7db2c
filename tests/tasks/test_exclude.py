from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.fourier import frequencies, irfft2, rfft2
from tasks.discover import find_sources
from tasks.errors import WrongParameter
from tasks.exclude import exclude, view_list
from tasks.formats.errors import FormatError
from tasks.formats.mrc import write_stack
from tasks.ingest import read_series, store_series
from tasks.motion import motion
from tasks.parameters import ExcludeParameters, Execution, ImportParameters, MotionParameters
from tasks.record import TiltSeries
from tasks.result import Result
from tasks.store import parse_project

THREADS = Execution(cluster="threads", workers=1)


@pytest.fixture
def reasons(fake_run: Callable[..., Any]) -> Callable[..., list[str | None]]:
    """Return the function that runs the step and returns the reason of each view."""
    run = fake_run()
    run.motion()  # its means are 100, 99, … 94: none dark

    def of(**given: Any) -> list[str | None]:
        project = run.series.project.url
        exclude.fn(project, "TS_01", ExcludeParameters(**given), "main", THREADS)
        record: TiltSeries = run.series.record("main")
        return [view.excluded for view in record.views]

    return of


def left_out(reasons: list[str | None]) -> list[int]:
    return [i for i, reason in enumerate(reasons, 1) if reason is not None]


def test_bright_views_are_kept(reasons: Callable[..., list[str | None]]) -> None:
    assert reasons() == [None] * 7


def test_the_users_views_are_left_out_and_named(reasons: Callable[..., list[str | None]]) -> None:
    found = reasons(views={"TS_01": "1, 3-4", "TS_02": "5"})
    assert left_out(found) == [1, 3, 4]
    assert found[0] == "left out by the user"


def test_the_user_may_keep_what_looks_dark(reasons: Callable[..., list[str | None]]) -> None:
    assert left_out(reasons(dark_threshold=0.999)) != []
    kept = reasons(dark_threshold=0.999, include={"TS_01": "1-7"})
    assert kept == [None] * 7
    assert reasons(dark_threshold=0) == [None] * 7


def test_a_dark_view_has_its_reason_in_numbers(finished_project: str) -> None:
    from tasks.store import parse_project

    views = parse_project(finished_project).series("TS_01").record("main").views
    assert left_out([view.excluded for view in views]) == [1]
    assert str(views[0].excluded).startswith("dark: mean 0.1")


def test_too_few_views_are_refused(reasons: Callable[..., list[str | None]]) -> None:
    assert len(left_out(reasons(views={"TS_01": "1-4"}))) == 4
    with pytest.raises(WrongParameter, match="TS_01: fewer than 3 of 7 views would be left"):
        reasons(views={"TS_01": "1-5"})


def test_lists_may_be_files_and_name_series_that_are_elsewhere(
    reasons: Callable[..., list[str | None]], tmp_path: Path
) -> None:
    path = tmp_path / "out.txt"
    path.write_text("TS_01 1\nTS_01 3-4 # bars\nTS_99 60\n")
    assert left_out(reasons(list=str(path))) == [1, 3, 4]
    path.write_text("TS_01 2\n")  # its content counts, not its name
    assert left_out(reasons(list=str(path))) == [2]
    path.write_text("TS_01 8\n")
    with pytest.raises(FormatError, match=r"out\.txt, line 1: TS_01 has no view 8; it has 1 to 7"):
        reasons(list=str(path))


def test_an_option_beats_a_file_and_leaving_out_beats_keeping(
    reasons: Callable[..., list[str | None]], tmp_path: Path
) -> None:
    out, keep = tmp_path / "out.txt", tmp_path / "keep.txt"
    out.write_text("TS_01 1-3\n")
    keep.write_text("TS_01 3-7\n")
    given = {"list": str(out), "include_list": str(keep), "dark_threshold": 0.999}
    assert left_out(reasons(**given)) == [1, 2, 3]
    assert left_out(reasons(**given, include={"TS_01": "1"})) == [2, 3]
    assert left_out(reasons(**given, views={"TS_01": "7"})) == [1, 2, 3, 7]
    assert left_out(reasons(include={"TS_01": "5"}, views={"TS_01": "5"})) == [5]


N, SIZE, PIXEL = 21, 256, 8.0
BAR, SHIFTED, BLURRED, HALF_BLOCKED, DIM = 4, 8, 13, 17, 11  # indices


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a project of a series of 3 e/Å² to ±70°, some of whose views are spoilt."""
    rng = np.random.default_rng(11)
    folder = tmp_path_factory.mktemp("spoilt")
    tilts = np.linspace(-70, 70, N)
    ky, kx = frequencies((SIZE, 2 * SIZE), np.zeros(1, np.float32))
    texture = rng.normal(size=(SIZE, 2 * SIZE)).astype(np.float32)
    texture = irfft2(rfft2(texture) * np.exp(-30 * (kx**2 + ky**2)), texture.shape)
    texture *= 0.12 / texture.std()
    views = []
    for i, tilt in enumerate(tilts):
        cosine = np.cos(np.radians(tilt))
        place = SIZE + (np.arange(SIZE) - SIZE // 2) / cosine + rng.normal(0, 3)
        place += 0.6 * SIZE / cosine if i == SHIFTED else 0
        seen = texture[:, np.rint(place).astype(int) % (2 * SIZE)]
        if i == BLURRED:  # by 60 Å along x, before the electrons are counted
            seen = np.mean([np.roll(seen, k, axis=1) for k in range(-4, 5)], axis=0)
        mean = 190 * np.exp(-0.5 * (1 / cosine - 1))
        expected = mean * np.clip(1 + seen, 0.1, None) * (0.3 if i == DIM else 1)
        expected[:, : {BAR: 102, HALF_BLOCKED: 52}.get(i, 0)] *= 0.03
        views.append(rng.poisson(expected))
    write_stack(folder / "TS.st", np.array(views, dtype=np.int16), PIXEL)
    (folder / "TS.rawtlt").write_text("".join(f"{tilt:.2f}\n" for tilt in tilts))
    given = ImportParameters(
        stack=str(folder / "TS.st"), dose=3, tilt_axis=0, voltage=300, pixel_size=PIXEL
    )
    (source,) = find_sources(given).sources
    project = str(folder / "p.zarr")
    store_series.fn(project, read_series.fn(source, given))
    motion.fn(project, "TS", MotionParameters(), "main", THREADS)
    return project


def excluded(project: str, **given: Any) -> Result:
    exclude.fn(project, "TS", ExcludeParameters(**given), "main", THREADS)
    return parse_project(project).series("TS").current("main", "exclude")


def test_spoilt_views_are_left_out_with_their_reasons(spoilt: str) -> None:
    told = excluded(spoilt).attributes()
    rows = told["table"]
    out = {i: row["excluded"].split(":")[0] for i, row in enumerate(rows) if row["excluded"]}
    assert out == {BAR: "blocked", SHIFTED: "shifted", BLURRED: "blurred"}
    assert rows[BAR]["excluded"] == "blocked: 40% of the field, up to 30% is accepted"
    assert rows[BAR]["blocked"] == pytest.approx(0.4, abs=0.03)
    assert rows[SHIFTED]["jump"] is None or rows[SHIFTED]["jump"] > 0.5
    assert rows[BLURRED]["missing detail"] > 0.7
    doubts = {i: row["doubt"] for i, row in enumerate(rows) if row["doubt"]}
    assert list(doubts) == [DIM, HALF_BLOCKED]
    assert doubts[DIM] == "dim: 30% of the brightness that other tilts let expect"
    assert doubts[HALF_BLOCKED].startswith("blocked: 2")
    assert (
        "3 of 21 views left out: 5 (-42°), 9 (-14°), 14 (21°); doubtful: 12 (7°) dim"
        in (told["message"])
    )


def test_each_cue_can_be_switched_off(spoilt: str) -> None:
    def out(**given: float) -> list[int]:
        decided = excluded(spoilt, **given).attributes()["decides"]["views"]
        return [i for i, view in enumerate(decided) if view["excluded"]]

    assert out(blocked_threshold=0) == [SHIFTED, BLURRED]
    assert out(shift_threshold=0) == [BAR, BLURRED]
    assert out(blur_threshold=0) == [BAR, SHIFTED]
    assert out(blocked_threshold=0, shift_threshold=0, blur_threshold=0) == []


def test_the_users_word_beats_what_the_images_show(spoilt: str) -> None:
    rows = excluded(spoilt, include={"TS": f"{BAR + 1}"}).attributes()["table"]
    assert not rows[BAR]["excluded"]
    assert rows[BAR]["doubt"].startswith("blocked")


def test_the_measured_images_go_with_the_result(spoilt: str) -> None:
    assert list(excluded(spoilt).group().arrays()) == []


@given(st.sets(st.integers(1, 60)))
def test_a_list_of_views_is_read_as_written(views: set[int]) -> None:
    assert set(view_list(",".join(map(str, views)), "TS", 60)) == {v - 1 for v in views}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0", "TS: views 0 do not exist, there are 1 to 9"),
        ("3-10", "TS: views 3-10 do not exist"),
        ("5-3", "TS: views 5-3 do not exist"),
        ("a", "TS: 'a' names no views: write for example 1,3-5"),
        ("-3", "'-3' names no views"),
        ("1;2", "'1;2' names no views"),
    ],
)
def test_a_list_that_names_no_views_is_explained(text: str, told: str) -> None:
    with pytest.raises(WrongParameter, match=told):
        view_list(text, "TS", 9)
