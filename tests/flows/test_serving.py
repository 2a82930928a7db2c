"""What `tiltflow serve` serves is what deployments/prefect.yaml deploys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import serving

PREFECT_YAML = Path(__file__).parents[2] / "deployments" / "prefect.yaml"
DEPLOYED: list[dict[str, Any]] = yaml.safe_load(PREFECT_YAML.read_text())["deployments"]


def test_both_ways_have_the_same_deployments() -> None:
    served = serving.deployments()
    assert [each.entrypoint for each in served] == [each["entrypoint"] for each in DEPLOYED]
    for ours, theirs in zip(served, DEPLOYED, strict=True):
        assert ours.name == theirs["name"]
        assert ours.tags == theirs["tags"]
        limit = theirs.get("concurrency_limit")
        assert ours.concurrency_limit == (limit and limit["limit"])
        strategy = ours.concurrency_options and ours.concurrency_options.collision_strategy
        assert strategy == (limit and limit["collision_strategy"])
        assert ours.parameters == theirs.get("parameters", {})
        schedules = [
            {"interval": each.schedule.interval.total_seconds(), "active": each.active}
            for each in ours.schedules or []
        ]
        assert schedules == theirs["schedules"]
        for mine, other in zip(ours.triggers, theirs.get("triggers", []), strict=True):
            assert mine.expect == set(other["expect"])
            assert mine.match.root == other["match"]
            assert mine.parameters == other["parameters"]
            assert mine.enabled == other["enabled"]


def test_a_server_that_ends_at_once_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving.sys, "executable", "/bin/false")
    with (
        pytest.raises(serving.UserError, match="no server on port 1: another program has it"),
        serving._server("http://127.0.0.1:1/api", 1),
    ):
        pass
