"""What a step shows in the Prefect UI: how far it is, its table, its pictures, its result."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext, TaskRunContext

from tasks.pictures import pictures_of
from tasks.result import Result
from tasks.steps import STEPS

LONG = 5.0  # seconds after which a step shows how far it is, and between two looks at it


def artifact_key(*names: str) -> str:
    """Return a key as Prefect wants it: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(names).lower()).strip("-")


class ProgressBar:
    """Shows in the UI how far a long step is; a short one shows nothing.

    Without a task run around it, as in a plain function, it does nothing.
    """

    def __init__(self, series: str, step: str, long: float = LONG) -> None:
        self._key = artifact_key(series, step, "progress")
        self._about = f"{series}: {STEPS[step].about}"
        self._long, self._at = long, monotonic()
        self._id: UUID | None = None
        self._works = TaskRunContext.get() is not None

    def show(self, done: int, total: int) -> None:
        """Show that so many units of all are done."""
        ended = done == total and self._id is not None
        if not self._works or not (ended or monotonic() - self._at >= self._long):
            return
        self._at, percent = monotonic(), 100.0 * done / max(1, total)
        try:
            if self._id is None:
                made = create_progress_artifact(percent, key=self._key, description=self._about)
                self._id = made if isinstance(made, UUID) else UUID(str(made))
            else:
                update_progress_artifact(self._id, progress=percent)
        except Exception as error:  # the step goes on, whatever the server thinks of it
            self._works = False
            get_run_logger().warning("no progress of %s: %s", self._key, error)


def publish(result: Result, branch: str, table: Sequence[Mapping[str, Any]]) -> None:
    """Show a complete result in the UI, in the run that has made it or asks about it."""
    if TaskRunContext.get() is None and FlowRunContext.get() is None:  # called as plain functions
        return
    for show in (_table, _pictures, _link):
        try:
            show(result, branch, table)
        except Exception as error:  # the result is complete, whatever the server thinks of it
            get_run_logger().warning("no artifacts of %s: %s", result.name, error)


def _table(result: Result, branch: str, table: Sequence[Mapping[str, Any]]) -> None:
    if table:
        create_table_artifact(
            key=artifact_key(result.series.name, result.step),
            table=[{column: _plain(value) for column, value in row.items()} for row in table],
            description=_about(result, branch),
        )


def _pictures(result: Result, branch: str, _table: Any) -> None:
    pictures = pictures_of(result, branch)
    if pictures:
        create_markdown_artifact(
            key=artifact_key(result.series.name, result.step, "pictures"),
            markdown="\n\n".join(
                f"**{picture.title}**\n\n![{picture.alt}]({picture.uri})" for picture in pictures
            ),
            description=_about(result, branch),
        )


def _link(result: Result, _branch: str, _table: Any) -> None:
    create_link_artifact(
        key=artifact_key(result.series.name, result.step, "result"),
        link=result.url if "://" in result.url else f"file://{result.url}",
        link_text=result.name,
        description=f"Zarr result of {result.step} of {result.series.name}",
    )


def _about(result: Result, branch: str) -> str:
    return f"{result.series.name}: {STEPS[result.step].about} (branch {branch})"


def _plain(value: Any) -> Any:
    # JSON has no NaN, and the UI's tables no use for ten digits.
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
