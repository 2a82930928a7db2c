"""A run that waits for a person: in the Prefect UI, in the terminal, and where there is nobody."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import approval, asking, cli_common, steps
from flows.approval import Answer, Question, asked_by
from flows.tomogram import tomogram
from tasks import approvals
from tasks.errors import UserError, WrongParameter
from tasks.parameters import EraseParameters, Execution, Pipeline
from tasks.plan import current_plan, plan
from tasks.store import parse_project
from tasks.work import Outcome

pytestmark = pytest.mark.usefixtures("prefect_server")
THREADS = Execution(cluster="threads", workers=2)


def run(project: str, answers: list[Any], **given: Any) -> tuple[list[Outcome], list[Question]]:
    """Run up to X-ray erasing with these answers; return the outcomes and what was asked."""
    asked: list[Question] = []

    def answer(question: Question) -> Answer:
        asked.append(question)
        decision, values = answers[len(asked) - 1]
        return Answer(decision, values or question.parameters, "too many")

    with asked_by(answer):
        done = tomogram(
            project, "TS_01", until="erase", execution=THREADS, approve=["erase"], **given
        )
    assert len(asked) == len(answers)
    return done, asked


def test_nobody_is_asked_twice_about_a_result_that_was_accepted(finished_copy: str) -> None:
    done, (question,) = run(finished_copy, [("accept", None)])
    assert question.outcome == done[-1]
    assert question.parameters == EraseParameters()
    again, _ = run(finished_copy, [])
    assert again[-1].key == done[-1].key


def test_changed_values_are_used_asked_about_again_and_kept_for_the_series(
    finished_copy: str,
) -> None:
    other = EraseParameters(peak=7.0)
    done, asked = run(finished_copy, [("change values", other), ("accept", None)])
    assert [question.parameters for question in asked] == [EraseParameters(), other]
    series = parse_project(finished_copy).series("TS_01")
    assert series.current("main", "erase").attributes()["parameters"]["peak"] == 7.0
    assert len({outcome.step for outcome in done}) == len(done)  # each step once

    # A later run goes on with them; other parameters of the user count for more.
    plain = tomogram(finished_copy, "TS_01", until="erase", execution=THREADS)
    assert plain[-1].key == done[-1].key
    assert all(step.state == "done" for step in plan(series, Pipeline(), until="erase").values())
    newer = Pipeline(erase=EraseParameters(peak=6.0))
    assert plan(series, newer, until="erase")["erase"].state != "done"


def test_no_run_goes_on_with_what_was_rejected_until_it_is_accepted(finished_copy: str) -> None:
    series = parse_project(finished_copy).series("TS_01")
    with pytest.raises(approvals.Rejected, match="TS_01: erase was rejected: too many: change its"):
        run(finished_copy, [("reject", None)])
    failure = series.failure("main", "erase")
    assert failure is not None
    assert "rejected: too many" in failure
    assert series.pointer("main", "erase") is None
    assert plan(series, Pipeline(), until="erase")["erase"].state == "failed"
    assert current_plan(series)["erase"].state == "failed"

    with pytest.raises(approvals.Rejected, match="or approve it in a run with --approve erase"):
        tomogram(finished_copy, "TS_01", until="erase", execution=THREADS)
    with pytest.raises(UserError, match="rejected: too many"):
        steps.erase(finished_copy, series=["TS_01"], execution=THREADS)
    assert series.pointer("main", "erase") is None
    assert series.failure("main", "erase") == failure

    other = Pipeline(erase=EraseParameters(peak=7.0))
    done = tomogram(finished_copy, "TS_01", other, until="erase", execution=THREADS)
    assert series.pointer("main", "erase") == done[-1].key

    done, (question,) = run(finished_copy, [("accept", None)])  # it asks about it again
    assert question.outcome.skipped
    assert series.pointer("main", "erase") == done[-1].key
    assert tomogram(finished_copy, "TS_01", until="erase", execution=THREADS)[-1].skipped


def test_a_rejection_brings_back_what_was_accepted_before(finished_copy: str) -> None:
    series = parse_project(finished_copy).series("TS_01")
    done, _ = run(finished_copy, [("accept", None)])
    other = Pipeline(erase=EraseParameters(peak=7.0))
    worse = EraseParameters(peak=6.5)
    with pytest.raises(approvals.Rejected):
        run(finished_copy, [("change values", worse), ("reject", None)], pipeline=other)
    assert series.pointer("main", "erase") == done[-1].key
    assert plan(series, other, until="erase")["erase"].state == "done"  # nobody rejected that
    assert plan(series, Pipeline(erase=worse), until="erase")["erase"].state == "failed"


def test_alignment_is_the_one_that_the_tomogram_rests_on() -> None:
    pipeline = Pipeline.model_validate({"reconstruct": {"alignment": "coarse"}})
    waits = approvals.checked(["alignment"], pipeline)
    assert approvals.concerns(waits, "coarse", pipeline)
    assert not approvals.concerns(waits, "align", pipeline)
    for step in ("fiducials", "align", "markerfree"):  # the beads decide first
        assert not approvals.concerns(waits, step, Pipeline())
    with pytest.raises(WrongParameter, match="no step 'lunch': there are alignment, motion"):
        approvals.checked(["lunch"], pipeline)


@pytest.mark.parametrize(
    ("approve", "until", "also", "told"),
    [
        (["ctf3d"], None, (), "approve ctf3d: this run takes no such step, but motion, exclude"),
        (["reconstruct"], "ctf", (), r"approve reconstruct: .* but motion, exclude, ctf: leave"),
        (["alignment"], "ctf", (), "approve alignment: this run takes no such step"),
        (["alignment"], None, (), None),
        (["align", "markerfree", "fiducials"], None, (), None),  # the beads decide which
        (["ctf3d"], None, ("ctf3d",), None),
    ],
)
def test_a_step_that_a_run_does_not_take_cannot_be_approved(
    approve: list[str], until: str | None, also: tuple[str, ...], told: str | None
) -> None:
    if told is None:
        assert approvals.checked(approve, Pipeline(), until, also) == tuple(approve)
        return
    with pytest.raises(WrongParameter, match=told):
        approvals.checked(approve, Pipeline(), until, also)


def test_an_alignment_that_is_chosen_takes_no_other() -> None:
    pipeline = Pipeline.model_validate({"reconstruct": {"alignment": "coarse"}})
    with pytest.raises(WrongParameter, match="approve markerfree: this run takes no such step"):
        approvals.checked(["markerfree"], pipeline)


def test_two_series_ask_one_after_the_other_and_say_who(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most, prompts = 0, 0, []

    def prompt(text: str) -> str:
        nonlocal at_once, most
        at_once, most = at_once + 1, max(most, at_once + 1)
        prompts.append(text)
        time.sleep(0.1)
        at_once -= 1
        return "a"

    def both() -> None:
        asker = approval._asker.get()
        assert asker is not None
        threads = [threading.Thread(target=asker, args=(of(n),)) for n in ("TS_01", "TS_02")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def of(name: str) -> Question:
        told = {"key": "k", "url": "u", "skipped": False, "seconds": 1.0, "message": "5 hits"}
        return Question(Outcome(series=name, step="erase", **told), EraseParameters())

    ask = asking.ask
    monkeypatch.setattr(asking, "in_terminal", lambda: True)
    monkeypatch.setattr(asking, "ask", lambda question: ask(question, prompt))
    cli_common.run_flow(both)
    assert most == 1
    assert sorted(prompts) == [
        f"{name} erase: accept, change values, or reject? [a/c/r]" for name in ("TS_01", "TS_02")
    ]


def test_a_run_that_nobody_could_approve_is_refused_before_it_starts(tiny_project: str) -> None:
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(WrongParameter, match="nobody can be asked: run it in a terminal, or as a"),
    ):
        approval.require_somebody(("alignment",))
    with pytest.raises(WrongParameter, match="no step 'lunch'"):
        tomogram(tiny_project, "TS_01", approve=["lunch"], execution=THREADS)
    series = parse_project(tiny_project).series("TS_01")
    assert series.pointer("main", "motion") is None


def test_the_form_of_the_ui_has_decision_reason_and_values_and_the_run_goes_on(
    finished_copy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approval, "LOOK_EVERY", 0.1)
    seen: list[dict[str, Any]] = []
    shown: list[set[str]] = []
    given = [{"decision": "change values", "values": {"peak": 6.5}}, {"decision": "accept"}]
    answered: list[Any] = []
    over = threading.Event()

    def person() -> None:
        name = FlowRunFilter.model_validate({"name": {"any_": ["approve erase TS_01 form"]}})
        with get_client(sync_client=True) as client:
            while not over.wait(0.1):
                for each in client.read_flow_runs(flow_run_filter=name):
                    if each.state is None or each.state.name != "Paused" or each.id in answered:
                        continue
                    keys = each.state.state_details.run_input_keyset
                    with suppress(ObjectNotFound, httpx.HTTPError):  # not there yet: look again
                        stored = client.read_flow_run_input(each.id, keys["schema"])
                        there = {a.key for a in client.read_artifacts(flow_run_filter=name)}
                        client.resume_flow_run(each.id, run_input=given[len(answered)])
                        seen.append(json.loads(stored))
                        shown.append(there)
                        answered.append(each.id)

    thread = threading.Thread(target=person, daemon=True)
    thread.start()
    try:
        tomogram(finished_copy, "TS_01", Pipeline(), "form", "erase", THREADS, approve=["erase"])
    finally:
        over.set()
        thread.join(10)
    series = parse_project(finished_copy).series("TS_01")
    assert series.current("form", "erase").attributes()["parameters"]["peak"] == 6.5
    first = seen[0]["properties"]
    assert first.keys() == {"decision", "reason", "values"}
    assert first["decision"]["enum"] == ["accept", "change values", "reject"]
    assert first["decision"]["default"] == "accept"
    assert len(seen) == 2
    assert shown[0] == {"ts-01-erase", "ts-01-erase-pictures", "ts-01-erase-result"}


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["x", "a"], ("accept", EraseParameters(), "")),
        (["r", "drift"], ("reject", EraseParameters(), "drift")),
        (
            [
                "c",
                "peak=9",
            ],
            ("change values", EraseParameters(peak=9.0), ""),
        ),
        (["c", "peek=9", "a"], ("accept", EraseParameters(), "")),
    ],
)
def test_the_terminal_asks_until_it_understands(
    typed: list[str], expected: tuple[str, EraseParameters, str]
) -> None:
    outcome = Outcome(
        series="TS_01", step="erase", key="k", url="u", skipped=False, seconds=1.0, message="5 hits"
    )
    words = iter(typed)
    prompt: Callable[[str], str] = lambda _text: next(words)  # noqa: E731
    answer = asking.ask(Question(outcome, EraseParameters()), prompt)
    assert (answer.decision, answer.values, answer.reason) == expected
    assert next(words, None) is None
