"""Erasing of a series: hits go, defects go from every view, what moves with the specimen stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from tasks.erase import erase
from tasks.parameters import EraseParameters, Execution
from tasks.store import Series

THREADS = Execution(cluster="threads", workers=2)
SIZE, SHIFT = 512, np.array([6, -5])
SPECK, HOT, DEAD = np.array([200, 250]), (100, 120), (300, 420)
DARK = 6  # the view that the fake run excludes


def planted(rng: np.random.Generator) -> tuple[Any, list[tuple[int, int, int]]]:
    """Return seven views of a moving specimen with a speck, two defects, and hits of their own."""
    field = ndimage.gaussian_filter(rng.standard_normal((SIZE + 100, SIZE + 100)), 6)
    field *= 8 / field.std()
    images = []
    for i in range(7):
        y, x = 50 - i * SHIFT
        images.append(rng.poisson(np.maximum(40 + field[y : y + SIZE, x : x + SIZE], 1)))
    stack = np.array(images, np.float32)
    stack[DARK] = rng.poisson(0.02, (SIZE, SIZE))
    hits = []
    for i in range(6):
        y, x = SPECK + i * SHIFT
        stack[i, y : y + 2, x : x + 2] += 80
        for _ in range(4):
            y, x = (int(n) for n in rng.integers(330, 500, 2))
            stack[i, y, x] += rng.uniform(110, 800)
            hits.append((i, y, x))
    stack[:, *HOT] += 60
    stack[:, *DEAD] = 0
    return stack, hits


@pytest.fixture
def run(fake_run: Any) -> Any:
    made = fake_run(shape=(SIZE, SIZE))
    made.motion()
    made.exclude()
    return made


def erased(run: Any, **parameters: Any) -> tuple[Any, list[dict[str, Any]]]:
    series: Series = run.series
    outcome = erase.fn(series.project.url, "TS_01", EraseParameters(**parameters), "main", THREADS)
    result = series.current("main", "erase")
    assert outcome.key == result.key
    return np.asarray(result.images()[:]), result.attributes()["table"]


def test_hits_and_defects_go_and_the_specimen_stays(run: Any) -> None:
    stack, hits = planted(np.random.default_rng(1))
    run.series.current("main", "motion").array("images")[:] = stack
    clean, table = erased(run)
    np.testing.assert_array_equal(clean[DARK], stack[DARK])  # excluded: copied as it is
    for i, y, x in hits:
        assert abs(clean[i, y, x] - 40) < 45
    for i in range(6):
        y, x = SPECK + i * SHIFT
        np.testing.assert_array_equal(
            clean[i, y : y + 2, x : x + 2], stack[i, y : y + 2, x : x + 2]
        )
        assert abs(clean[i, *HOT] - 40) < 40
        assert clean[i, *DEAD] > 5
    assert [row["kept"] for row in table] == [1] * 6 + [0]
    assert [row["defects"] for row in table] == [2] * 6 + [0]
    assert sum(row["hits"] for row in table) == len(hits)
    changed = (clean != stack).sum(axis=(1, 2))
    assert all(n <= row["pixels"] for n, row in zip(changed, table, strict=True))
    assert table[0]["maximum before"] == stack[0].max() > table[0]["maximum after"]
    assert table[0]["minimum after"] == clean[0].min()


def test_erasing_what_is_erased_changes_nothing(run: Any, fake_run: Any) -> None:
    stack, _ = planted(np.random.default_rng(2))
    run.series.current("main", "motion").array("images")[:] = stack
    once, _ = erased(run)
    run.series.current("main", "motion").array("images")[:] = once
    twice, table = erased(run, big_difference=18.0)  # another result, of the same criteria
    np.testing.assert_array_equal(twice, once)
    assert sum(row["hits"] + row["defects"] for row in table) == 0


def test_each_view_may_also_be_judged_alone(run: Any) -> None:
    stack, _ = planted(np.random.default_rng(3))
    run.series.current("main", "motion").array("images")[:] = stack
    clean, table = erased(run, compare_views=False)
    assert all(row["kept"] == row["defects"] == 0 for row in table)
    y, x = SPECK
    assert clean[0, y, x] < stack[0, y, x] - 40  # nobody tells that it moves with the specimen


def test_views_are_read_and_written_once_where_they_agree(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import erase as step

    stack = np.random.default_rng(4).poisson(40, (7, SIZE, SIZE)).astype(np.float32)
    stack[1, 50, 60] += 300
    run.series.current("main", "motion").array("images")[:] = stack
    calls = []
    for name in ("erase_view", "match_hits", "erase_again"):
        function = getattr(step, name)

        def counted(*arguments: Any, f: Any = function, name: str = name) -> Any:
            calls.append(name)
            return f(*arguments)

        monkeypatch.setattr(step, name, counted)
    clean, table = erased(run)
    assert calls == ["erase_view"] * 7
    assert [row["hits"] for row in table] == [0, 1, 0, 0, 0, 0, 0]
    assert (clean != stack).sum() == 1
