"""What a person sees and does in a browser, on the server that `tiltflow serve` starts."""

from __future__ import annotations

import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, choose, field, opened
from prefect import task
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect_server import PATIENCE, Server, running

from tasks.artifacts import ProgressBar
from tasks.parameters import CtfParameters
from tasks.steps import STEPS
from tasks.store import parse_project

pytestmark = pytest.mark.slow
TOMOGRAM, MOTION = "flows.tomogram.tomogram", "flows.steps.motion"
PASSWORD = "tilt:series"
QUICK = {"cluster": "threads", "workers": 2}
STEPS_TAKEN = ("motion", "exclude", "ctf", "erase", "dose", "coarse", "reconstruct")


@pytest.fixture(scope="module")
def movies(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of movies in which the tests may spoil one."""
    return Path(shutil.copytree(tiny_data, tmp_path_factory.mktemp("session") / "movies"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Callable[[str], Browser]]:
    """Return what opens a page on a server; skip before that is started."""
    with opened() as page_on:
        yield page_on


@pytest.fixture(scope="module")
def server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start `tiltflow serve`."""
    home = tmp_path_factory.mktemp("serve")
    given = {"PREFECT_RUNNER_POLL_FREQUENCY": "1", "PREFECT_SERVER_API_AUTH_STRING": PASSWORD}
    with running(home, "-m flows.cli serve --limit 3", **given) as started:
        until(lambda: len(started.deployments()) == 7 + len(STEPS))
        yield started


@pytest.fixture(scope="module")
def ui(browser: Callable[[str], Browser], server: Server) -> Browser:
    """Return a page on the server, which has asked for the password."""
    page = browser(server.url.removesuffix("/api"))
    page.log_in(PASSWORD)
    return page


def until(found: Callable[[], Any]) -> Any:
    """Wait until something is found, and return it."""
    deadline = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return value


def again(act: Callable[[], None], done: Callable[[], Any]) -> Any:
    """Act until something is found, and return it: a page forgets what it was told too early."""
    for attempt in range(4):
        if attempt:
            warnings.warn(f"{act.__qualname__} had to be repeated", stacklevel=2)
        act()
        deadline = time.monotonic() + PATIENCE / 4
        while time.monotonic() < deadline:
            if value := done():
                return value
            time.sleep(0.5)
    raise AssertionError("nothing came of four attempts")


def named(server: Server, name: str, state: str = "") -> list[dict[str, Any]]:
    """Return the runs of that name, in that state if one is given."""
    runs = server.post("/flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}})
    return [run for run in runs if state in ("", run["state_type"])]


def ended(server: Server, run_id: str) -> str:
    """Return the state in which a run ends."""
    final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    state = until(lambda: (s := server.run(run_id)["state_type"]) in final and s)
    return str(state)


def test_deployments_are_listed_with_their_tags(server: Server, ui: Browser) -> None:
    page = ui.open("/deployments")
    page.get_by_text(f"{7 + len(STEPS)} Deployments").wait_for()
    rows = page.locator("tr").filter(has_text="default")
    of = {re.sub(r"\s+", " ", text).strip() for text in rows.all_inner_texts()}
    assert any(text.startswith("default tomogram Ready tiltflow") for text in of), of
    assert any(text.startswith("default ctf Ready") and "step tiltflow" in text for text in of), of
    assert any(text.startswith("default watch") and "Every minute" in text for text in of), of
    ui.keep("prefect-deployments")


def test_series_are_imported_by_a_form_with_units_ranges_and_choices(
    server: Server, ui: Browser, movies: Path
) -> None:
    deployment = server.deployments()["flows.session.import_series"]["id"]

    def submit() -> None:
        page = ui.open(f"/deployments/deployment/{deployment}/run")
        voltage = field(page, "Voltage").inner_text()
        assert "acceleration voltage [kV] (> 0)" in voltage
        assert "'DIR/{TS}_{TO}_{TA}_*.mrc'" in field(page, "Pattern").inner_text()
        assert "dose of one view [e/Å²] (≥ 0)" in field(page, "Dose").inner_text()
        field(page, "project").locator("textarea").fill(str(movies.parent / "s.zarr"))
        mdoc = field(page, "Mdoc")
        mdoc.get_by_text("str", exact=True).click()
        mdoc.locator("textarea").fill(str(movies / "*.mdoc"))
        ui.keep("prefect-form")
        page.get_by_role("button", name="Submit").click()

    name = f"import {movies.parent / 's.zarr'}"
    [run] = again(submit, lambda: named(server, name))
    assert ended(server, run["id"]) == "COMPLETED", server.run(run["id"])["state"]

    page = open_artifact(server, ui, "ts-01-import")
    page.get_by_text("mdoc PixelSpacing / binning").wait_for()
    assert "tilt axis" in page.locator("table").inner_text()


def test_the_form_of_a_run_shows_every_step_with_ranges_and_choices(
    server: Server, ui: Browser
) -> None:
    page = ui.open(f"/deployments/deployment/{server.deployments()[TOMOGRAM]['id']}/run")
    ctf = field(page, "Ctf")
    for name, info in CtfParameters.model_fields.items():
        shown = field(ctf, name.replace("_", " ").title()).first
        assert str(info.description) in shown.inner_text(), name
    assert "(≥ 0, ≤ 180)" in field(ctf, "Min Phase Shift").inner_text()
    choose(field(ctf, "Method"), "strips")


def open_artifact(server: Server, ui: Browser, key: str) -> Any:
    """Open the page of the latest artifact of a key."""
    wanted = {"artifacts": {"key": {"any_": [key]}}}
    [latest] = server.post("/artifacts/latest/filter", wanted)
    return ui.open(f"/artifacts/artifact/{latest['latest_id']}")


def message(ui: Browser, run_id: str) -> str:
    """Return all that the page of a run says of how it ended."""
    page = ui.open(f"/runs/flow-run/{run_id}")
    page.get_by_text("Details", exact=True).click()
    page.get_by_text("See More").click()
    page.get_by_text("Flow run encountered an exception").last.wait_for()
    return str(page.locator("body").inner_text())


def answer(server: Server, ui: Browser, name: str, decision: str, **texts: str) -> None:
    """Find the paused run of that name on the list of runs, and answer in its form."""
    [run] = until(lambda: named(server, name, "PAUSED"))

    def submit() -> None:
        page = ui.open("/runs?state=Paused")
        page.get_by_text(name).first.click()
        page.get_by_role("button", name="Resume").click()
        form = page.get_by_role("dialog")
        choose(field(form, "Decision"), decision)
        for title, text in texts.items():
            field(form, title).locator("input, textarea").fill(text)
        ui.keep(f"prefect-{decision.replace(' ', '-')}")
        form.get_by_role("button", name="Submit").click()

    # Another question may follow at once: it is in another state of the run.
    again(submit, lambda: server.run(run["id"])["state_id"] != run["state_id"])


def test_a_run_waits_for_a_person_goes_on_and_shows_tables_and_pictures(
    server: Server, ui: Browser, movies: Path
) -> None:
    project = str(movies.parent / "s.zarr")
    run_id = server.start(
        TOMOGRAM,
        {
            "project": project,
            "series": "TS_01",
            "pipeline": {"reconstruct": {"alignment": "coarse"}},
            "approve": ["erase"],
            "execution": QUICK,
        },
    )
    answer(server, ui, "approve erase TS_01 main", "change values", Peak="7.5")
    answer(server, ui, "approve erase TS_01 main", "accept")
    assert ended(server, run_id) == "COMPLETED"
    erased = parse_project(project).series("TS_01").current("main", "erase")
    assert erased.attributes()["parameters"]["peak"] == 7.5

    page = ui.open(f"/runs/flow-run/{run_id}")
    page.get_by_text("tomogram TS_01 main").first.wait_for()
    ui.keep("prefect-run")
    for step in STEPS_TAKEN:
        page = open_artifact(server, ui, f"ts-01-{step}")
        page.get_by_text(f"{step} TS_01 main").first.wait_for()
        assert page.locator("table tr").count() > 1, step
    for step in ("motion", "ctf", "erase", "coarse", "reconstruct"):
        page = open_artifact(server, ui, f"ts-01-{step}-pictures")
        page.locator("img").first.wait_for()
        sizes = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.width])")
        assert all(min(size) > 100 for size in sizes), (step, sizes)
        if step == "reconstruct":
            ui.keep("prefect-pictures")


def test_a_long_step_shows_how_far_it_is(server: Server, ui: Browser) -> None:
    own = {PREFECT_API_URL: server.url, PREFECT_API_AUTH_STRING: PASSWORD}
    with temporary_settings(own):
        task(lambda: ProgressBar("TS_09", "ctf", long=0.0).show(3, 4), name="long")()
    page = open_artifact(server, ui, "ts-09-ctf-progress")
    page.get_by_text("75%").first.wait_for()


def test_a_rejection_ends_the_run_with_its_reason(
    server: Server, ui: Browser, movies: Path
) -> None:
    asked = {
        "project": str(movies.parent / "s.zarr"),
        "series": "TS_01",
        "until": "exclude",
        "approve": ["exclude"],
        "execution": QUICK,
    }
    run_id = server.start(TOMOGRAM, asked)
    answer(server, ui, "approve exclude TS_01 main", "reject", Reason="too many are left")
    assert ended(server, run_id) == "FAILED"
    assert "TS_01: exclude was rejected: too many are left" in message(ui, run_id)


def test_a_failed_run_names_the_file_that_it_lacks(
    server: Server, ui: Browser, movies: Path
) -> None:
    movie = next((movies / "frames").glob("TS_02_003*"))
    movie.unlink()
    run_id = server.start(
        MOTION,
        {"project": str(movies.parent / "s.zarr"), "series": ["TS_02"], "execution": QUICK},
    )
    assert ended(server, run_id) == "FAILED"
    told = message(ui, run_id)
    assert "1 of 1 series failed: TS_02: " in told
    assert movie.name in told


def test_nothing_is_asked_of_other_hosts_and_none_may_ask(server: Server, ui: Browser) -> None:
    assert {host.partition(":")[0] for host in ui.hosts if host} == {"127.0.0.1"}
    assert server.listens_on() == {"127.0.0.1"}
