"""The process of a run is killed at random points, and taken up."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest
from fault_runs import Zygote, complete_files, content, marks

Sizes = Callable[[int, int], int]
Fresh = Callable[[], str]
SERIES = ["TS_01"]


def disturb(
    zygote: Zygote,
    project: str,
    undisturbed: tuple[str, int],
    until: str | None,
    rng: random.Random,
    timed: bool,
) -> bool:
    """Run a project until it is killed, and tell whether it was; nothing is done twice."""
    kept, marked = complete_files(project), marks(project)
    if timed:
        running = zygote.start(project, series=SERIES, until=until)
        time.sleep(rng.uniform(0.1, 3.0))
        os.killpg(running.pid, signal.SIGKILL)
        ended = running.wait()
    else:
        at, how = rng.randint(1, undisturbed[1] // 4), rng.choice(["before", "torn", "after"])
        ended = zygote.run(project, series=SERIES, until=until, fault={"at": at, "how": how})
    assert ended.code in (0, -signal.SIGKILL), ended.error
    assert not set(ended.marked) & marked
    now = complete_files(project)
    assert {path: now.get(path) for path in kept} == kept
    return ended.code != 0


def test_a_run_killed_at_random_points_ends_as_if_undisturbed(
    zygote: Zygote, undisturbed: tuple[str, int], until: str | None, fresh: Fresh, sized: Sizes
) -> None:
    rng, kills, finished = random.Random(11), 0, 0
    while kills < sized(5, 50):
        project = fresh()
        while disturb(zygote, project, undisturbed, until, rng, timed=kills % 5 == 4):
            kills += 1
            if kills >= sized(5, 50):
                assert zygote.run(project, series=SERIES, until=until).code == 0
                break
        assert content(project) == content(undisturbed[0])
        finished += 1
    assert finished >= 1


@pytest.mark.long
@pytest.mark.parametrize("how", ["before", "torn", "after"])
def test_the_last_writes_of_a_run_may_be_killed(
    zygote: Zygote, undisturbed: tuple[str, int], until: str | None, fresh: Fresh, how: str
) -> None:
    project, total = fresh(), undisturbed[1]
    for before_the_end in (8, 4, 3, 2, 1):
        copy = fresh()
        fault = {"at": total - before_the_end, "how": how}
        assert zygote.run(copy, series=SERIES, until=until, fault=fault).code == -signal.SIGKILL
        assert zygote.run(copy, series=SERIES, until=until).code == 0
        assert content(copy) == content(undisturbed[0])
    assert zygote.run(project, series=SERIES, until=until).written > 0


def test_a_disk_that_fills_at_any_write_loses_nothing(
    zygote: Zygote, undisturbed: tuple[str, int], until: str | None, fresh: Fresh, sized: Sizes
) -> None:
    rng = random.Random(5)
    for _ in range(sized(1, 12)):
        project = fresh()
        at = rng.randint(2, undisturbed[1] - 8)
        ended = zygote.run(project, series=SERIES, until=until, fault={"at": at, "how": "full"})
        assert ended.code == 1
        assert "no space left on device" in ended.error
        assert "\n" not in ended.error
        kept, marked = complete_files(project), marks(project)
        ended = zygote.run(project, series=SERIES, until=until)
        assert ended.code == 0
        assert not set(ended.marked) & marked
        assert kept.items() <= complete_files(project).items()
        assert content(project) == content(undisturbed[0])
