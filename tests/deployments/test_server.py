"""The flows on a Prefect server of their own: deployed, described, run by a worker."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from tiny_steps import TAKEN

from tasks.parameters import ImportParameters, Pipeline
from tasks.steps import STEPS
from tasks.store import parse_project
from tasks.watch import WatchParameters

ROOT = Path(__file__).parents[2]
PATIENCE = 240  # seconds for what takes 20 on a quiet machine

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Server:
    """A Prefect server with the deployments of prefect.yaml."""

    url: str
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    log: Path

    def prefect(self, *arguments: str) -> str:
        """Run the command line of Prefect against this server; return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            env=self.environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"prefect {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Ask the API."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:  # 503: its database is busy, as it says
                if error.code != 503 or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def deployments(self) -> dict[str, dict[str, Any]]:
        """Return entrypoint → deployment."""
        return {each["entrypoint"]: each for each in self.post("/deployments/filter", {})}

    def wait_until_it_answers(self) -> None:
        """Wait for the server's start."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                    assert answer.status == 200
                    return
            except OSError:
                time.sleep(0.5)
        pytest.fail(f"no server after {PATIENCE} s: {self.log.read_text()}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server on a free port of the loopback, with a work pool and all deployments."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = own | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
    }
    log = home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *f"-m prefect server start --host 127.0.0.1 --port {port}".split()],
            env=environment,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    started = Server(url, environment, process, log)
    try:
        started.wait_until_it_answers()
        started.prefect("work-pool", "create", "--type", "process", "tiltflow")
        started.prefect("deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
        yield started
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_the_server_listens_on_the_loopback_alone(server: Server) -> None:
    family = [psutil.Process(server.process.pid)]
    family += family[0].children(recursive=True)
    heard = [c.laddr.ip for one in family for c in one.net_connections() if c.status == "LISTEN"]
    assert set(heard) == {"127.0.0.1"}


def test_every_flow_is_deployed_to_the_pool_with_a_description(server: Server) -> None:
    deployments = server.deployments()
    assert len(deployments) == 5 + len(STEPS)  # one is a flow of no step of a run: average
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
    others = [name for name, each in deployments.items() if each["schedules"]]
    assert others == ["flows.watch.watch"]


def test_the_form_has_every_parameter_with_its_description_and_unit(server: Server) -> None:
    forms = {
        entrypoint: deployment["parameter_openapi_schema"]
        for entrypoint, deployment in server.deployments().items()
    }
    models = {field.annotation for field in Pipeline.model_fields.values()}
    for model in models:
        fields = forms["flows.session.session"]["definitions"][model.__name__]["properties"]
        assert {name: field["description"] for name, field in fields.items()} == {
            name: field.description for name, field in model.model_fields.items()
        }
    for name in STEPS:
        model = Pipeline.model_fields[name].annotation
        assert model.__name__ in forms[f"flows.steps.{name}"]["definitions"]
    watched = forms["flows.watch.watch"]["definitions"]["WatchParameters"]["properties"]
    assert watched.keys() == WatchParameters.model_fields.keys()
    assert watched["settle"]["description"].endswith("[s]")
    imported = forms["flows.session.import_series"]["definitions"]["ImportParameters"]
    assert "required" not in imported  # one of three ways, which the model checks
    assert imported["properties"]["voltage"]["description"].endswith("[kV]")
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
    deployment = server.deployments()["flows.tomogram.tomogram"]
    parameters = {
        "project": tiny_project,
        "series": "TS_01",
        "execution": {"cluster": "threads", "workers": 2},
    }
    run = server.post(
        f"/deployments/{deployment['id']}/create_flow_run",
        {"parameters": parameters, "state": {"type": "SCHEDULED"}},
    )
    printed = server.prefect("worker", "start", "--pool", "tiltflow", "--run-once")
    [run] = server.post("/flow_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    assert run["state_type"] == "COMPLETED", printed

    of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
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
    watch = server.deployments()["flows.watch.watch"]
    folder = shutil.copytree(tiny_data, tmp_path / "session")
    parameters = {
        "directory": str(folder),
        "parameters": {"settle": 0.1, "idle": 0.0},
        "until": "import",
    }

    def passes(number: int) -> list[str]:
        runs = [
            server.post(
                f"/deployments/{watch['id']}/create_flow_run",
                {"parameters": parameters, "state": {"type": "SCHEDULED"}},
            )
            for _ in range(number)
        ]
        server.prefect("worker", "start", "--pool", "tiltflow", "--run-once")
        ids = {"flow_runs": {"id": {"any_": [run["id"] for run in runs]}}}
        return sorted(run["state_type"] for run in server.post("/flow_runs/filter", ids))

    assert passes(2) == ["CANCELLED", "COMPLETED"]
    project = parse_project(str(folder / "tiltflow.zarr"))
    assert not project.exists()  # nothing was settled at the first look
    assert passes(1) == ["COMPLETED"]
    assert project.series_names() == ["TS_01", "TS_02"]
    (table,) = server.post(
        "/artifacts/latest/filter", {"artifacts": {"key": {"any_": ["watch-session"]}}}
    )
    assert {row["state"] for row in json.loads(table["data"])} == {"done"}
