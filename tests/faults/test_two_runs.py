"""Two runs on the same project at once: every result is made once, by one of them."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_runs import Zygote, marks, of_one
from patience import PATIENCE

Fresh = Callable[[], str]


def locks(project: str) -> list[Path]:
    return list(Path(project).glob("*/locks/*.json"))


def test_two_runs_of_a_project_share_its_work(
    zygote: Zygote, undisturbed: tuple[str, int], until: str | None, fresh: Fresh
) -> None:
    project = fresh()
    both = [zygote.start(project, until=until) for _ in range(2)]
    ended = [one.wait() for one in both]
    assert [(one.code, one.error) for one in ended] == [(0, "")] * 2
    times = Counter(mark for one in ended for mark in one.marked)
    assert set(times.values()) == {1}
    assert of_one(project) == of_one(undisturbed[0])
    assert locks(project) == []


@pytest.mark.long
def test_two_branches_at_once_share_the_results_on_which_they_agree(
    zygote: Zygote, undisturbed: tuple[str, int], until: str | None, fresh: Fresh
) -> None:
    project = fresh()
    both = [
        zygote.start(project, until=until, series=["TS_01"], branch=branch)
        for branch in ("main", "other")
    ]
    ended = [one.wait() for one in both]
    assert [(one.code, one.error) for one in ended] == [(0, "")] * 2
    assert set(Counter(mark for one in ended for mark in one.marked).values()) == {1}
    assert of_one(project) == of_one(undisturbed[0])


def test_who_waits_goes_on_when_the_other_is_killed(
    zygote: Zygote, undisturbed: tuple[str, int], until: str | None, fresh: Fresh
) -> None:
    project = fresh()
    first = zygote.start(project, until=until, series=["TS_01"])
    deadline = time.monotonic() + PATIENCE
    while not marks(project) and time.monotonic() < deadline:
        time.sleep(0.01)
    second = zygote.start(project, until=until, series=["TS_01"])
    time.sleep(0.5)
    os.killpg(first.pid, signal.SIGKILL)
    assert first.wait().code == -signal.SIGKILL
    assert second.wait().code == 0
    assert of_one(project) == of_one(undisturbed[0])
    assert locks(project) == []
