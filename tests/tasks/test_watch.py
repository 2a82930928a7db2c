"""When a series is whole: told from what looks have shown, on this machine's clock alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.describe import cut_off
from tasks.formats.mdoc import Mdoc, MdocSection
from tasks.watch import Memory, Seen, Verdict, WatchParameters, judge, mark_of, remember

ASKED = WatchParameters(settle=30, idle=15)
MDOC, MOVIE = "/s/TS_01.mrc.mdoc", "/s/frames/TS_01_000_0.0.mrc"
WHOLE = Seen(views=41, files={MDOC: (900, 5), MOVIE: (80, 7)})


def readable() -> str | None:
    return None


def unreadable() -> str | None:
    return "m.mrc: has 80 bytes, its header says 90"


def verdict(seen: Seen = WHOLE, after: float = 0.0, check: Any = readable, **asked: Any) -> Verdict:
    """Judge a series that has been as it is for `after` seconds."""
    memory = remember(None, seen.files, 0.0)
    return judge(seen, memory, ASKED.model_copy(update=asked), after, check)


# -- memory ---------------------------------------------------------------------------------------


def test_a_file_counts_from_the_look_that_saw_it_change() -> None:
    first = remember(None, {MDOC: (900, 5)}, 10.0)
    assert first == Memory(files={MDOC: (900, 5, 10.0)}, changed=10.0)
    assert remember(first, {MDOC: (900, 5)}, 20.0) is first
    grown = remember(first, {MDOC: (950, 5), MOVIE: (80, 7)}, 30.0)
    assert grown.files == {MDOC: (950, 5, 30.0), MOVIE: (80, 7, 30.0)}
    touched = remember(grown, {MDOC: (950, 6), MOVIE: (80, 7)}, 40.0)
    assert touched.files == {MDOC: (950, 6, 40.0), MOVIE: (80, 7, 30.0)}
    assert touched.changed == 40.0
    gone = remember(touched, {MDOC: (950, 6)}, 50.0)
    assert (gone.files, gone.changed) == ({MDOC: (950, 6, 40.0)}, 50.0)


def test_what_was_imported_stays_known_when_files_change() -> None:
    known = remember(None, WHOLE.files, 0.0).model_copy(update={"imported": "3fa2"})
    assert remember(known, {MDOC: (950, 6)}, 9.0).imported == "3fa2"


def test_a_clock_set_back_begins_the_waiting_anew() -> None:
    ahead = remember(None, WHOLE.files, 5000.0)
    memory = remember(ahead, WHOLE.files, 100.0)
    assert memory.changed == 100.0
    assert judge(WHOLE, memory, ASKED, 100.0 + 29, readable).state == "waiting"
    assert judge(WHOLE, memory, ASKED, 100.0 + 900, readable).state == "ready"


def test_a_clock_of_the_file_server_that_is_hours_off_changes_nothing() -> None:
    hours = 5 * 3600 * 10**9
    for skew in (-hours, 0, hours):
        seen = replace(WHOLE, files={path: (n, t + skew) for path, (n, t) in WHOLE.files.items()})
        assert verdict(seen, 899).state == "waiting"
        assert verdict(seen, 900).state == "ready"


def test_marks_tell_files_and_wishes_apart() -> None:
    marks = {
        mark_of(WHOLE.files),
        mark_of({**WHOLE.files, MDOC: (901, 5)}),
        mark_of({**WHOLE.files, MDOC: (900, 6)}),
        mark_of({MDOC: (900, 5)}),
        mark_of(WHOLE.files, ASKED),
        mark_of(WHOLE.files, ASKED.model_copy(update={"voltage": 200.0})),
        mark_of(WHOLE.files, ASKED, "main", None),
    }
    assert len(marks) == 7
    turned = dict(reversed(WHOLE.files.items()))
    assert mark_of(turned, ASKED) == mark_of(WHOLE.files, ASKED)


# -- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "after", "check", "asked", "state", "reason"),
    [
        (WHOLE, 0, readable, {}, "waiting", "41 views, still changing"),
        (WHOLE, 29, readable, {"views": 41}, "waiting", "41 views, still changing"),
        (WHOLE, 30, readable, {"views": 41}, "ready", "41 views"),
        (WHOLE, 30, readable, {"views": 40}, "ready", "41 views"),
        (WHOLE, 30, readable, {"views": 61}, "waiting", "41 of 61 views, starts at {ends} unless"),
        (WHOLE, 900, readable, {"views": 61}, "ready", "41 views"),
        (WHOLE, 30, readable, {}, "waiting", "41 views, starts at {ends} unless more comes"),
        (WHOLE, 900, readable, {}, "ready", "41 views"),
        (WHOLE, 30, readable, {"idle": 0.0}, "ready", "41 views"),
        (WHOLE, 29, readable, {"idle": 0.0}, "waiting", "41 views, still changing"),
        (
            WHOLE,
            30,
            unreadable,
            {"views": 41},
            "waiting",
            "41 views, may become whole until {ends}",
        ),
        (WHOLE, 900, unreadable, {"views": 41}, "failed", "m.mrc: has 80 bytes, its header says"),
        (
            replace(WHOLE, views=38, missing=("a.mrc", "b.mrc")),
            30,
            readable,
            {"views": 38},
            "waiting",
            "38 views, waits for 2 movies, first a.mrc",
        ),
        (
            replace(WHOLE, views=38, missing=("a.mrc",)),
            900,
            readable,
            {},
            "failed",
            "38 views, of which 1 movie, first a.mrc never came",
        ),
        (
            replace(WHOLE, missing=("a.mrc",)),
            899,
            readable,
            {"allow_missing": True},
            "waiting",
            "41 views, waits for 1 movie, first a.mrc",
        ),
        (
            replace(WHOLE, missing=("a.mrc",)),
            900,
            readable,
            {"allow_missing": True},
            "ready",
            "41 views",
        ),
        (
            replace(WHOLE, views=1, missing=("a.mrc",)),
            900,
            readable,
            {"allow_missing": True},
            "failed",
            "1 view, of which 1 movie",
        ),
        (
            replace(WHOLE, unfinished="x.mdoc ends within a line"),
            30,
            readable,
            {"views": 41},
            "waiting",
            "41 views, x.mdoc ends within a line, starts at {ends}",
        ),
        (
            replace(WHOLE, unfinished="x.mdoc ends within a line"),
            900,
            readable,
            {},
            "ready",
            "41 views",
        ),
        (
            replace(WHOLE, fault="x.mdoc: no sections"),
            30,
            readable,
            {"views": 41},
            "waiting",
            "41 views, may become whole until {ends}: x.mdoc: no sections",
        ),
        (
            replace(WHOLE, fault="x.mdoc: no sections"),
            900,
            readable,
            {},
            "failed",
            "x.mdoc: no sec",
        ),
    ],
)
def test_a_series_waits_until_it_is_whole(
    seen: Seen, after: float, check: Any, asked: dict[str, Any], state: str, reason: str
) -> None:
    from datetime import datetime

    found = verdict(seen, after, check, **asked)
    assert found.state == state
    assert found.reason.startswith(reason.format(ends=f"{datetime.fromtimestamp(900):%H:%M:%S}"))


def test_movies_are_opened_only_when_nothing_else_is_missing() -> None:
    def opened() -> str | None:
        raise AssertionError("opened too early")

    for seen, after in ((WHOLE, 0.0), (WHOLE, 899.0), (replace(WHOLE, missing=("a",)), 900.0)):
        assert verdict(seen, after, opened).state in ("waiting", "failed")


worlds = st.lists(
    st.tuples(
        st.integers(1, 60), st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), max_size=3)
    ),
    min_size=1,
    max_size=12,
)


@given(worlds, st.integers(1, 40), st.integers(0, 1), st.none() | st.integers(1, 3))
def test_a_series_is_ready_when_it_has_been_the_same_for_long_enough_and_only_then(
    looks: list[tuple[int, dict[str, int]]], settle: int, idle: int, views: int | None
) -> None:
    asked = WatchParameters(settle=settle, idle=idle, views=views)
    memory, now, since, before = None, 0, 0, None
    for pause, world in looks:
        now += pause
        files = {path: (size, 0) for path, size in world.items()}
        if files != before:
            since, before = now, files
        memory = remember(memory, files, now)
        found = judge(Seen(views=len(files), files=files), memory, asked, now, readable)
        enough = views is not None and len(files) >= views
        whole = now - since >= settle and (enough or now - since >= 60 * idle)
        assert found.state == ("ready" if whole else "waiting")


# -- what is asked for ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "where", "text"),
    [
        ({}, "mdoc", "/data/s[[]1]/*.mdoc"),
        ({"mdoc": "a/*.mdoc"}, "mdoc", "/data/s[[]1]/a/*.mdoc"),
        ({"mdoc": "/other/*.mdoc"}, "mdoc", "/other/*.mdoc"),
        ({"stack": "*.st"}, "stack", "/data/s[[]1]/*.st"),
        ({"pattern": "{TS}_{TA}.mrc"}, "pattern", "/data/s[1]/{TS}_{TA}.mrc"),
    ],
)
def test_files_are_looked_for_in_the_folder(given_: dict[str, str], where: str, text: str) -> None:
    imports = WatchParameters(**given_, voltage=200, views=3).imports(Path("/data/s[1]"))
    assert getattr(imports, where) == text
    assert imports.voltage == 200
    assert imports.model_fields_set == {where, "voltage"}


def test_two_ways_to_name_the_series_are_one_too_many() -> None:
    with pytest.raises(ValidationError, match="mdoc and stack given"):
        WatchParameters(mdoc="a", stack="b")
    with pytest.raises(ValidationError, match="settle"):
        WatchParameters(settle=0)


# -- mdocs without an end -------------------------------------------------------------------------


def mdoc_of(*fields: dict[str, str], paths: tuple[str, ...] = ("a",) * 9) -> Mdoc:
    sections = [
        MdocSection("ZValue", i, keys, Path(path))
        for i, (keys, path) in enumerate(zip(fields, paths, strict=False))
    ]
    return Mdoc(Path("a"), {}, (), tuple(sections))


FULL = {"TiltAngle": "0", "Note": "x", "DateTime": "now"}
PLAIN = {"TiltAngle": "0", "DateTime": "now"}
HALF = {"TiltAngle": "0"}


def test_a_last_section_that_lacks_what_all_others_have_is_no_end() -> None:
    assert cut_off(mdoc_of(FULL, PLAIN, FULL)) is None
    assert cut_off(mdoc_of(PLAIN, FULL, PLAIN)) is None
    found = cut_off(mdoc_of(FULL, PLAIN, HALF))
    assert found is not None
    assert found.startswith("a: [ZValue = 2] ends before DateTime, which all others have")
    assert cut_off(mdoc_of(HALF, FULL, FULL)) is None
    assert cut_off(mdoc_of(FULL, HALF)) is None  # one other section shows no custom


def test_of_mdocs_of_single_movies_each_has_an_end() -> None:
    assert cut_off(mdoc_of(FULL, FULL, FULL, paths=("a", "b", "c"))) is None
    found = cut_off(mdoc_of(FULL, HALF, PLAIN, paths=("a", "b", "c")))
    assert found is not None
    assert found.startswith("b: [ZValue = 1] ends before DateTime")
