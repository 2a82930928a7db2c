"""Looks at real files that are being written: what they say of a series, and what is kept."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.formats.errors import FormatError
from tasks.formats.mrc import write_stack
from tasks.look import Lookout, Watched
from tasks.parameters import Pipeline
from tasks.store import parse_project
from tasks.watch import Verdict, WatchParameters

HEADER = (
    "PixelSpacing = 2.7\nVoltage = 300\nImageFile = TS_01.mrc\n\n[T = Tilt axis angle = 85.3]\n\n"
)
SKEW = -7 * 3600 * 10**9  # of the file server's clock [ns]


def section(name: str, number: int) -> str:
    return (
        f"[ZValue = {number}]\nTiltAngle = {3.0 * number}\nExposureDose = 3\n"
        f"SubFramePath = D:\\frames\\{movie_name(name, number)}\n"
        f"DateTime = 22-Nov-26  19:{number:02d}:00\n\n"
    )


def movie_name(name: str, number: int) -> str:
    return f"{name}_{number:03d}_{3.0 * number}.mrc"


def movie_bytes(folder: Path) -> bytes:
    path = folder / "one.mrc"
    write_stack(path, np.ones((2, 8, 8), np.int16), 2.7)
    data = path.read_bytes()
    path.unlink()
    return data


class Scope:
    """A microscope that writes when told to, and a watch whose clock stands still in between."""

    def __init__(self, folder: Path, **asked: Any) -> None:
        self.folder, self.now, self.writes = folder, 1e9, 0
        self.asked = WatchParameters(**{"settle": 10, "idle": 1} | asked)
        self.movie = movie_bytes(folder)
        self.begin_anew()

    def begin_anew(self, **request: Any) -> None:
        """Start the watch again: it knows what the project knows."""
        project = parse_project(str(self.folder / "p.zarr"))
        wishes = (Pipeline(**request), "main", None)
        self.lookout = Lookout(project, self.folder, self.asked, wishes, lambda: self.now)

    def write(self, path: str, data: bytes, mode: str = "ab") -> None:
        with (self.folder / path).open(mode) as file:
            file.write(data)
        self.writes += 1
        stamp = int(self.now * 1e9) + SKEW + self.writes
        os.utime(self.folder / path, ns=(stamp, stamp))

    def whole(self, views: int, name: str = "TS_01", first: int = 0) -> None:
        """Write views of a series at once."""
        if first == 0:
            self.write(f"{name}.mrc.mdoc", HEADER.encode())
        for i in range(first, views):
            self.write(f"{name}.mrc.mdoc", section(name, i).encode())
            self.write(movie_name(name, i), self.movie)

    def look(self, after: float = 0.0) -> dict[str, Watched]:
        self.now += after
        return self.lookout.look()

    def one(self, after: float = 0.0) -> tuple[str, str]:
        found = self.look(after)["TS_01"].verdict
        return found.state, found.reason


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    return Scope(tmp_path)


def test_a_series_is_taken_after_looks_that_lie_far_enough_apart(scope: Scope) -> None:
    assert scope.look() == {}
    assert scope.lookout.trouble == f"nothing there yet, waits for {scope.folder}/*.mdoc"
    scope.whole(3)
    assert scope.one() == ("waiting", "3 views, still changing")
    assert scope.lookout.trouble is None
    assert scope.one(10)[0] == "waiting"
    assert scope.one(49)[0] == "waiting"
    assert scope.one(1) == ("ready", "3 views")


def test_what_was_seen_is_kept_for_the_next_pass(scope: Scope) -> None:
    scope.whole(3)
    scope.one()
    scope.begin_anew()
    assert scope.one(59)[0] == "waiting"
    scope.begin_anew()
    assert scope.one(1)[0] == "ready"


def test_an_imported_series_is_known_until_it_changes(scope: Scope) -> None:
    scope.whole(3)
    scope.one()
    found = scope.look(60)["TS_01"]
    assert scope.lookout.note_imported(found)
    scope.begin_anew()
    assert scope.one(0)[0] == "imported"
    scope.whole(4, first=3)
    assert scope.one(0)[0] == "waiting"
    assert scope.one(60) == ("ready", "4 views")


def test_other_wishes_for_the_import_take_the_series_again(scope: Scope) -> None:
    scope.whole(3)
    scope.one()
    scope.lookout.note_imported(scope.look(60)["TS_01"])
    scope.asked = scope.asked.model_copy(update={"idle": 0.5})
    scope.begin_anew(motion={"binning": 2})
    assert scope.one()[0] == "imported"
    scope.asked = WatchParameters(settle=10, idle=1, voltage=200)
    scope.begin_anew()
    assert scope.one()[0] == "ready"


def test_what_changes_while_it_is_imported_does_not_count_as_imported(scope: Scope) -> None:
    scope.whole(3)
    scope.one()
    found = scope.look(60)["TS_01"]
    scope.whole(4, first=3)
    assert not scope.lookout.note_imported(found)
    assert not scope.lookout.note_failed(found, "a movie is gone")
    assert scope.one()[0] == "waiting"


def test_a_series_that_failed_is_tried_again_when_it_changes_or_on_request(scope: Scope) -> None:
    scope.whole(3)
    scope.one()
    scope.lookout.note_failed(scope.look(60)["TS_01"], "no voltage")
    scope.begin_anew()
    assert scope.one(99) == ("refused", "no voltage")
    scope.begin_anew(motion={"binning": 2})  # another pipeline may get through
    assert scope.one()[0] == "ready"
    scope.begin_anew()
    scope.lookout.forget_failures()
    assert scope.one()[0] == "ready"
    scope.lookout.note_failed(scope.look()["TS_01"], "no voltage")
    scope.write(movie_name("TS_01", 0), scope.movie, "wb")
    assert scope.one()[0] == "waiting"
    assert scope.one(60)[0] == "ready"


def test_it_says_which_movies_it_waits_for(scope: Scope) -> None:
    scope.whole(3)
    scope.write("TS_01.mrc.mdoc", section("TS_01", 3).encode())
    scope.one()
    assert scope.one(10)[1] == "4 views, waits for 1 movie, first TS_01_003_9.0.mrc"
    assert scope.one(60)[0] == "failed"
    scope.write("TS_01_003_9.0.mrc", scope.movie)
    assert scope.one()[0] == "waiting"
    assert scope.one(60)[0] == "ready"


def test_a_movie_shorter_than_its_header_says_is_waited_for_and_fails_when_all_is_idle(
    tmp_path: Path,
) -> None:
    scope = Scope(tmp_path, views=3)
    scope.whole(3)
    path = movie_name("TS_01", 1)
    scope.write(path, scope.movie[:-1], "wb")
    scope.one()
    state, reason = scope.one(10)
    assert (state, path in reason) == ("waiting", True)
    state, reason = scope.one(50)
    assert (state, path in reason, str(len(scope.movie) - 1) in reason) == ("failed", True, True)
    scope.write(path, scope.movie[-1:])
    scope.one()
    assert scope.one(10) == ("ready", "3 views")


@pytest.mark.parametrize(
    ("left", "told"),
    [("\nSubFramePath", "ends before SubFramePath"), ("DateTime", "ends before DateTime")],
)
def test_an_mdoc_that_ends_within_a_section_never_passes(
    tmp_path: Path, left: str, told: str
) -> None:
    scope = Scope(tmp_path, views=4)
    scope.whole(3)
    scope.write(movie_name("TS_01", 3), scope.movie)
    scope.write("TS_01.mrc.mdoc", section("TS_01", 3).partition(left)[0].encode())
    scope.one()
    state, reason = scope.one(10)
    assert (state, told in reason) == ("waiting", True)
    state, reason = scope.one(60)
    assert (state, told in reason) == ("failed", True)


def test_a_number_cut_in_two_is_waited_for(tmp_path: Path) -> None:
    scope = Scope(tmp_path, views=3)
    scope.whole(2)
    scope.write(movie_name("TS_01", 2), scope.movie)
    scope.write("TS_01.mrc.mdoc", section("TS_01", 2).rstrip()[:-1].encode())
    scope.one()
    assert scope.one(10)[1].startswith("3 views, TS_01.mrc.mdoc ends within a line, starts at ")
    scope.write("TS_01.mrc.mdoc", b"0\n\n")
    scope.one()
    assert scope.one(10)[0] == "ready"


def test_an_mdoc_without_a_section_is_waited_for(scope: Scope) -> None:
    scope.write("TS_01.mrc.mdoc", HEADER.encode())
    scope.one()
    state, reason = scope.one(10)
    assert (state, "no [ZValue = n]" in reason) == ("waiting", True)
    assert scope.one(50)[0] == "failed"
    for i in range(2):
        scope.write("TS_01.mrc.mdoc", section("TS_01", i).encode())
        scope.write(movie_name("TS_01", i), scope.movie)
    scope.one()
    assert scope.one(60)[0] == "ready"


def test_a_movie_that_the_mdoc_does_not_list_yet_tells_that_more_comes(scope: Scope) -> None:
    scope.whole(3)
    scope.one()
    assert scope.one(60)[0] == "ready"
    scope.write(movie_name("TS_01", 3), scope.movie[:1])
    scope.write(movie_name("TS_02", 3), scope.movie[:1])
    assert scope.one() == ("waiting", "3 views, still changing")
    scope.write(movie_name("TS_01", 3), scope.movie[1:])
    scope.one(59)
    found = scope.look(60)["TS_01"]
    assert found.verdict == Verdict("ready", "3 views")
    assert scope.lookout.note_imported(found)
    assert scope.one()[0] == "imported"
    scope.write(movie_name("TS_01", 4), scope.movie)  # changes nothing that was imported
    assert scope.one()[0] == "imported"


def test_a_gain_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    scope = Scope(tmp_path, gain=str(tmp_path / "gain.mrc"), views=3)
    scope.whole(3)
    scope.one()
    assert scope.one(10)[1].endswith("gain.mrc: no such file")
    assert scope.one(60)[0] == "failed"
    write_stack(tmp_path / "gain.mrc", np.ones((1, 8, 8), np.float32), 2.7)
    assert scope.one()[0] == "waiting"
    assert scope.one(10)[0] == "ready"


def test_one_series_that_cannot_be_read_keeps_no_other_waiting(scope: Scope) -> None:
    scope.whole(3)
    scope.whole(3, "TS_02")
    scope.write("TS_03.mdoc", b"\xff\xfe\x00nonsense")
    scope.write("TS_02.mdoc", b"the name of another")
    scope.look()
    found = scope.look(60)
    assert {name: one.verdict.state for name, one in found.items()} == {
        "TS_01": "ready",
        "TS_02": "failed",
        "TS_03": "failed",
    }
    assert scope.lookout.left_out == {
        scope.folder / "TS_02.mrc.mdoc": "same series name as TS_02.mdoc: rename one"
    }


def test_a_pattern_and_a_stack_are_watched_likewise(tmp_path: Path) -> None:
    scope = Scope(tmp_path, pattern="{TS}_{TO}_{TA}.mrc", voltage=300, tilt_axis=85)
    assert scope.look() == {}
    assert str(scope.lookout.trouble).startswith(f"{tmp_path}/{{TS}}_{{TO}}_{{TA}}.mrc: nothing")
    for i in range(3):
        scope.write(movie_name("TS_01", i), scope.movie[: 900 + 300 * i])
    scope.one()
    state, reason = scope.one(10)
    assert (state, reason[:7]) == ("waiting", "3 views")
    assert scope.one(50)[0] == "failed"
    for i in range(3):
        scope.write(movie_name("TS_01", i), scope.movie, "wb")
    scope.one()
    assert scope.one(60)[0] == "ready"

    stacks = Scope(tmp_path, stack="*.st", views=2)
    stacks.write("TS_02.st", stacks.movie[:1100])
    stacks.look()
    found = stacks.look(10)["TS_02"].verdict
    assert (found.state, "TS_02.st" in found.reason) == ("waiting", True)
    stacks.write("TS_02.st", stacks.movie[1100:])
    stacks.write("TS_02.rawtlt", b"-3\n3\n")
    stacks.look()
    assert stacks.look(10)["TS_02"].verdict.state == "ready"


def test_a_pattern_that_means_nothing_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="unknown placeholder"):
        Scope(tmp_path, pattern="{TX}_{TA}.mrc")


def test_memory_that_cannot_be_read_is_no_memory(scope: Scope) -> None:
    scope.whole(3)
    scope.one()
    kept = scope.folder / "p.zarr" / "watch" / "TS_01.json"
    for text in ("{", "[]", '{"files": 3}'):
        kept.write_text(text)
        scope.begin_anew()
        assert scope.one(60)[0] == "waiting"


def test_a_disk_that_is_full_for_a_while_ends_nothing(
    scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.store import Project

    def full(project: Project, path: str, value: Any) -> None:
        raise OSError(28, "No space left on device", path)

    scope.whole(3)
    with monkeypatch.context() as patched:
        patched.setattr(Project, "write_json", full)
        assert scope.one() == ("waiting", "watch/TS_01.json: no space left on device")
    assert scope.one(60)[0] == "ready"


def test_a_project_with_watched_series_shows_its_own_alone(fake_run: Any) -> None:
    from tasks.prune import prune, unreachable

    run = fake_run()
    run.motion()
    project = run.series.project
    project.write_json("watch/TS_02.json", {"changed": 0})
    assert project.series_names() == ["TS_01"]
    assert unreachable(project.url) == []
    prune(project.url)
    assert project.read_json("watch/TS_02.json") == {"changed": 0}


# -- any way of writing -------------------------------------------------------------------------

VIEWS = 4
steps = st.lists(
    st.tuples(st.integers(0, VIEWS), st.integers(1, 900), st.sampled_from([0, 0, 3, 11, 61])),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps, st.booleans())
# A cut mdoc is idle, then the first byte of a movie comes that it does not list.
@example([(0, 172, 0), (1, 1, 0), (1, 379, 0), (1, 900, 61), (2, 1, 0)], False)
def test_no_way_of_writing_gets_half_a_series_imported(
    written: list[tuple[int, int, int]], counted: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scope = Scope(Path(folder), views=VIEWS if counted else None)
        mdoc = HEADER + "".join(section("TS_01", i) for i in range(VIEWS))
        left = {"TS_01.mrc.mdoc": mdoc.encode()}
        left |= {movie_name("TS_01", i): scope.movie for i in range(VIEWS)}
        whole = dict(left)
        names, last_write = list(left), scope.now

        def judged() -> str | None:
            found = scope.look().get("TS_01")
            if found is None or found.verdict.state != "ready":
                return None if found is None else found.verdict.state
            assert scope.now - last_write >= scope.asked.settle
            if scope.now - last_write < 60 * scope.asked.idle:
                assert not any(left.values())
            listed = {path for path in found.seen.files if path.endswith(".mrc")}
            assert all(Path(path).read_bytes() == scope.movie for path in listed)
            assert len(listed) == found.seen.views
            return "ready"

        for file, size, pause in written:
            name = names[file]
            data, left[name] = left[name][:size], left[name][size:]
            if data:
                scope.write(name, data)
                last_write = scope.now
            judged()
            scope.now += pause
            judged()
        for name in names:
            scope.write(name, left[name])
            left[name] = b""
        last_write = scope.now
        assert all((scope.folder / name).read_bytes() == data for name, data in whole.items())
        judged()
        scope.now += 60
        assert judged() == "ready"
