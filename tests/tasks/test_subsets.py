from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import NotThere, UnusableData, WrongParameter
from tasks.exclude import exclude
from tasks.parameters import (
    CtfParameters,
    ExcludeParameters,
    Execution,
    MotionParameters,
    Pipeline,
    ReconstructParameters,
)
from tasks.result_keys import result_key
from tasks.steps import STEPS
from tasks.store import Series, parse_project
from tasks.subset_use import within, within_run, within_step
from tasks.subsets import (
    delete_subset,
    make_subset,
    member_rows,
    ranges,
    read_list,
    subset_named,
    subset_rows,
)

THREADS = Execution(cluster="threads", workers=1)


@pytest.fixture
def url(fake_run: Callable[..., Any]) -> str:
    """Return a project: TS_01 has motion and CTF, its view 7 left out; TS_02 only its import."""
    run = fake_run()
    run.motion()  # total motion 2, 3, … 8 Å
    run.exclude()
    run.ctf()  # resolutions 6, 7, … 11 Å of views 1 to 6, the first not reliable
    fake_run("TS_02")
    return str(run.series.project.url)


def series(url: str, name: str = "TS_01") -> Series:
    return parse_project(url).series(name)


def test_series_are_chosen_by_the_median_of_their_views(url: str) -> None:
    assert make_subset(url, "good", where=["resolution < 8.6"]).series == ("TS_01",)
    assert make_subset(url, "bad", where=["resolution < 8.6"], invert=True).series == ("TS_02",)
    with pytest.raises(WrongParameter, match="subset none: nothing is in it"):
        make_subset(url, "none", where=["resolution < 8.5"])
    both = make_subset(url, "all", where=["views == 7", "share(included) == 1"])
    assert both.series == ("TS_01", "TS_02")
    assert make_subset(url, "out", where=["views_excluded == 1"]).series == ("TS_01",)
    assert make_subset(url, "by-name", where=["series == 'TS_02'"]).series == ("TS_02",)


def test_views_are_chosen_one_by_one(url: str) -> None:
    found = make_subset(url, "good", "views", ["resolution < 9", "ctf_reliable"], ["TS_01"])
    assert (found.views, found.out) == ({"TS_01": (2, 3)}, {"TS_01": (1, 4, 5, 6)})
    assert subset_named(url, "good") == found
    assert member_rows(found) == [{"series": "TS_01", "views": "2-3", "left out": "1,4-6"}]
    others = make_subset(url, "bad", "views", found.where, ["TS_01"], invert=True)
    assert (others.views, others.out) == ({"TS_01": (1, 4, 5, 6)}, {"TS_01": (2, 3)})


def test_lists_name_series_or_views(url: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# good ones\nTS_02\nTS_01 2-4\nTS_01\t6  # the last\n")
    listed = read_list(path)
    found = make_subset(url, "listed", "views", listed=listed)
    assert found.views == {"TS_01": (2, 3, 4, 6), "TS_02": (1, 2, 3, 4, 5, 6, 7)}
    assert found.out == {"TS_01": (1, 5, 7), "TS_02": ()}
    narrowed = make_subset(url, "narrowed", "views", ["resolution > 7.5"], listed=listed)
    assert narrowed.views == {"TS_01": (3, 4, 6)}
    with pytest.raises(WrongParameter, match="the list names views: add --of views"):
        make_subset(url, "listed", listed=listed)
    path.write_text("TS_02\n")
    assert make_subset(url, "listed", listed=read_list(path)).series == ("TS_02",)
    path.write_text("TS_09\n")
    with pytest.raises(NotThere, match="no series 'TS_09'"):
        make_subset(url, "listed", listed=read_list(path))
    path.write_text("# nothing\n")
    with pytest.raises(UnusableData, match="names nothing: write lines such as"):
        read_list(path)


def test_a_wrong_column_or_an_empty_wish_is_refused(url: str) -> None:
    with pytest.raises(WrongParameter, match="no column 'colour'; there are series, view, order"):
        make_subset(url, "good", where=["colour == 'red'"])
    with pytest.raises(WrongParameter, match="of what"):
        make_subset(url, "good")
    with pytest.raises(WrongParameter, match=r"subset name '\.\./x'"):
        make_subset(url, "../x", series=["TS_01"])
    with pytest.raises(NotThere, match="no branch 'other'"):
        make_subset(url, "good", series=["TS_01"], branch="other")


def test_subsets_are_listed_and_deleted(url: str) -> None:
    assert subset_rows(url) == []
    make_subset(url, "listed", series=["TS_02"])
    make_subset(url, "good", "views", ["resolution < 9"])
    assert [(row["subset"], row["of"], row["views"]) for row in subset_rows(url)] == [
        ("good", "views", 3),
        ("listed", "series", None),
    ]
    delete_subset(url, "good")
    with pytest.raises(NotThere, match=r"no subset 'good' \(there are: listed\)"):
        delete_subset(url, "good")
    assert parse_project(url).series_names() == ["TS_01", "TS_02"]  # subsets is none of them
    parse_project(url).write_json("subsets/old.json", {"name": "old"})
    with pytest.raises(UnusableData, match="no subset of this version"):
        subset_named(url, "old")


def test_series_named_and_in_the_subset_are_taken(url: str) -> None:
    make_subset(url, "good", series=["TS_02"])
    assert within(url, None, None) is None
    assert within(url, ["TS_01"], None) == ["TS_01"]
    assert within(url, None, "good") == within(url, ["TS_01", "TS_02"], "good") == ["TS_02"]
    assert within_run(url, None, "good", Pipeline()) == (["TS_02"], Pipeline())
    with pytest.raises(WrongParameter, match="has none of these series: it has TS_02"):
        within(url, ["TS_01"], "good")
    with pytest.raises(NotThere, match="no series 'TS_09'"):
        within(url, ["TS_02", "TS_09"], "good")


def test_a_run_leaves_out_what_a_subset_of_views_does(url: str) -> None:
    make_subset(url, "good", "views", ["resolution < 9"])
    before = Pipeline(exclude=ExcludeParameters(subset_views={"TS_01": "2", "TS_05": "1"}))
    names, pipeline = within_run(url, None, "good", before)
    assert names == ["TS_01"]
    assert pipeline.exclude.subset_views == {"TS_01": "4-6", "TS_05": "1"}
    assert within_step(url, None, "good", before.exclude, "main") == (names, pipeline.exclude)

    motion, ctf = MotionParameters(), CtfParameters()
    assert within_step(url, None, "good", motion, "main") == (["TS_01"], motion)
    for other in (ctf, ReconstructParameters()):  # would use what the subset leaves out
        with pytest.raises(WrongParameter, match="branch main uses views 4-6, which subset 'good'"):
            within_step(url, None, "good", other, "main")
    exclude.fn(url, "TS_01", pipeline.exclude, "main", THREADS)
    assert within_step(url, None, "good", ctf, "main") == (["TS_01"], ctf)
    assert within(url, None, "good") == ["TS_01"]


def test_a_subset_of_views_is_of_the_movies_it_was_made_from(url: str) -> None:
    make_subset(url, "good", "views", ["resolution < 9"])
    record = series(url).imported()
    parse_project(url).add_series(record.model_copy(update={"views": record.views[1:]}))
    for use in (
        lambda: within(url, None, "good"),
        lambda: within_run(url, None, "good", Pipeline()),
    ):
        with pytest.raises(WrongParameter, match="TS_01: subset 'good' was made from movies"):
            use()


def test_exclude_names_the_subset_and_listens_to_the_user(url: str) -> None:
    given = ExcludeParameters(
        subset_views={"TS_01": "4-6", "TS_02": "1"}, include={"TS_01": "5"}, views={"TS_01": "6"}
    )
    exclude.fn(url, "TS_01", given, "main", THREADS)
    reasons = [view.excluded for view in series(url).record("main").views]
    assert reasons == [None] * 3 + ["left out by a subset", None, "left out by the user", None]


def test_without_a_subset_results_keep_their_names(url: str) -> None:
    def key(**given: Any) -> str:
        parameters = ExcludeParameters(**given)
        return result_key(STEPS["exclude"], parameters, series(url).imported(), {"motion": "0"})

    assert "subset_views" not in ExcludeParameters().model_dump(mode="json")
    assert key() == key(subset_views={}) == key(subset_views={"TS_02": "1"})
    assert key(subset_views={"TS_01": "1"}) not in (key(), key(views={"TS_01": "1"}))


def test_numbers_are_written_as_ranges() -> None:
    assert ranges([1, 3, 4, 5, 9]) == "1,3-5,9"
    assert ranges([]) == ""
