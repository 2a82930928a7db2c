"""The flows on a Prefect server of their own: deployed, described, run by a worker."""

from __future__ import annotations

import json
import shutil
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect_server import Server, running
from tiny_steps import TAKEN

from tasks.parameters import ImportParameters, Pipeline
from tasks.steps import STEPS
from tasks.store import parse_project
from tasks.watch import WatchParameters

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server with a work pool and the deployments of prefect.yaml."""
    home = tmp_path_factory.mktemp("prefect")
    with running(home, "-m prefect server start --host 127.0.0.1") as started:
        started.prefect("work-pool", "create", "--type", "process", "tiltflow")
        started.prefect("deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
        yield started


def test_the_server_listens_on_the_loopback_alone(server: Server) -> None:
    assert server.listens_on() == {"127.0.0.1"}


def test_every_flow_is_deployed_to_the_pool_with_a_description(server: Server) -> None:
    deployments = server.deployments()
    assert len(deployments) == 7 + len(STEPS)  # one is a flow of no step of a run: average
    for entrypoint, deployment in deployments.items():
        assert deployment["work_pool_name"] == "tiltflow", entrypoint
        assert not deployment["pull_steps"], entrypoint
        assert "tiltflow" in deployment["tags"], entrypoint
        assert "\n" not in deployment["description"], "the page shows one line"


def test_a_second_run_of_a_heavy_flow_waits_for_the_first(server: Server) -> None:
    for entrypoint, deployment in server.deployments().items():
        limit = deployment["global_concurrency_limit"]
        if entrypoint == "flows.session.import_series":
            assert limit is None
            continue
        strategy = "CANCEL_NEW" if entrypoint == "flows.watch.watch" else "ENQUEUE"
        assert limit["limit"] == 1
        assert deployment["concurrency_options"]["collision_strategy"] == strategy


def test_a_watch_is_scheduled_every_minute_when_it_is_switched_on(server: Server) -> None:
    deployments = server.deployments()
    (schedule,) = deployments["flows.watch.watch"]["schedules"]
    assert (schedule["schedule"]["interval"], schedule["active"]) == (60.0, False)
    assert deployments["flows.watch.watch"]["parameters"]["once"] is True
    others = [name for name, each in deployments.items() if each["schedules"]]
    assert others == ["flows.watch.watch"]


def test_an_event_has_its_folder_watched_until_all_is_settled_and_none_is_lost(
    server: Server,
) -> None:
    arrived = server.deployments()["flows.watch.watch arrived"]
    assert arrived["parameters"]["stay"] is True
    assert "once" not in arrived["parameters"]
    assert arrived["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    (automation,) = [
        each
        for each in server.post("/automations/filter", {})
        if each["trigger"].get("expect") == ["tiltflow.movies.arrived"]
    ]
    (action,) = automation["actions"]
    assert action["deployment_id"] == arrived["id"]
    assert action["parameters"]["stay"] is True


def test_the_form_has_every_parameter_with_its_description_and_unit(server: Server) -> None:
    forms = {
        entrypoint: deployment["parameter_openapi_schema"]
        for entrypoint, deployment in server.deployments().items()
    }
    models = {field.annotation for field in Pipeline.model_fields.values()}
    for model in models:
        fields = forms["flows.session.session"]["definitions"][model.__name__]["properties"]
        assert fields.keys() == model.model_fields.keys()
        for name, field in model.model_fields.items():
            told = fields[name]["description"].replace("\\", "")  # it is shown as Markdown
            assert told.startswith(field.description), name
    for name in STEPS:
        model = Pipeline.model_fields[name].annotation
        assert model.__name__ in forms[f"flows.steps.{name}"]["definitions"]
    watched = forms["flows.watch.watch"]["definitions"]["WatchParameters"]["properties"]
    assert watched.keys() == WatchParameters.model_fields.keys()
    assert watched["settle"]["description"].endswith("[s] (> 0)")
    imported = forms["flows.session.import_series"]["definitions"]["ImportParameters"]
    assert "required" not in imported  # one of three ways, which the model checks
    assert imported["properties"]["voltage"]["description"].endswith("[kV] (> 0)")
    assert imported["properties"].keys() == ImportParameters.model_fields.keys()


def test_the_form_explains_a_flows_own_arguments(server: Server) -> None:
    for entrypoint, deployment in server.deployments().items():
        form = deployment["parameter_openapi_schema"]
        for name, field in form["properties"].items():
            described = field.get("description")
            if "$ref" in field:
                described = form["definitions"][field["$ref"].rpartition("/")[2]]["description"]
            assert described, f"{entrypoint}: {name}"


def test_a_parameter_that_does_not_exist_is_refused_before_anything_runs(server: Server) -> None:
    motion = server.deployments()["flows.steps.motion"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.post(
            f"/deployments/{motion['id']}/create_flow_run",
            {"parameters": {"project": "/nowhere.zarr", "parameters": {"binnning": 2}}},
        )
    assert refused.value.code in (409, 422)
    assert "binnning" in refused.value.read().decode()


def test_a_worker_takes_a_series_to_its_tomogram_and_shows_every_step(
    server: Server, tiny_project: str
) -> None:
    parameters = {
        "project": tiny_project,
        "series": "TS_01",
        "execution": {"cluster": "threads", "workers": 2},
    }
    run_id = server.start("flows.tomogram.tomogram", parameters)
    printed = server.prefect("worker", "start", "--pool", "tiltflow", "--run-once")
    assert server.run(run_id)["state_type"] == "COMPLETED", printed

    of_run = {"flow_runs": {"id": {"any_": [run_id]}}}
    tasks = server.post("/task_runs/filter", {**of_run, "sort": "EXPECTED_START_TIME_ASC"})
    assert [task["name"] for task in tasks] == [f"{step} TS_01 main" for step in TAKEN]

    shown = {each["key"]: each for each in server.post("/artifacts/filter", of_run)}
    for step in TAKEN:
        table = shown[f"ts-01-{step}"]
        assert table["type"] == "table"
        assert json.loads(table["data"]), f"{step}: no rows"
        link = shown[f"ts-01-{step}-result"]["data"]
        target = link.rpartition("(file://")[2].rstrip(")")
        assert (Path(target) / "zarr.json").exists(), link


def test_of_two_passes_at_once_one_is_cancelled_and_a_later_one_takes_the_series(
    server: Server, tiny_data: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_data, tmp_path / "session")
    parameters = {
        "directory": str(folder),
        "parameters": {"settle": 0.1, "idle": 0.0},
        "until": "import",
    }

    def passes(number: int) -> list[str]:
        runs = [server.start("flows.watch.watch", parameters) for _ in range(number)]
        server.prefect("worker", "start", "--pool", "tiltflow", "--run-once")
        return sorted(server.run(run_id)["state_type"] for run_id in runs)

    assert passes(2) == ["CANCELLED", "COMPLETED"]
    project = parse_project(str(folder / "tiltflow.zarr"))
    assert not project.exists()  # nothing was settled at the first look
    assert passes(1) == ["COMPLETED"]
    assert project.series_names() == ["TS_01", "TS_02"]
    (table,) = server.post(
        "/artifacts/latest/filter", {"artifacts": {"key": {"any_": ["watch-session"]}}}
    )
    assert {row["state"] for row in json.loads(table["data"])} == {"done"}
