"""What the command line shows: progress, a line per step and series, tables, one-line errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from tasks import progress
from tasks.record import TiltSeries

WIDEST = 500  # columns of a table

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


@contextmanager
def following() -> Iterator[Bars]:
    """Show a bar for each step under way, and a line for every step that ends."""
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=out,
        transient=True,
        disable=not out.is_terminal,
    )
    shown: dict[str, TaskID] = {}

    def listen(news: progress.Progress) -> None:
        name = f"{news.series}  {news.step}"
        if news.outcome is None:
            if name not in shown:
                shown[name] = bars.add_task(name, total=news.total)
            bars.update(shown[name], completed=news.done)
            return
        if isinstance(news.outcome, progress.LeftOut):
            bars.console.print(f"{escape(news.series)}  left out  {escape(news.outcome.reason)}")
            return
        if isinstance(news.outcome, progress.Doubt):
            reason = escape(news.outcome.reason)
            bars.console.print(f"[yellow]{escape(news.series)}  doubtful[/]  {reason}")
            return
        if isinstance(news.outcome, progress.Warned):
            bars.console.print(f"[yellow]warning[/]  {escape(news.outcome.reason)}")
            return
        if isinstance(news.outcome, progress.Waiting | progress.OnBranch):
            bars.console.print(f"{escape(news.series)}  {escape(news.outcome.reason)}")
            return
        ended = f"{news.series}  " if isinstance(news.outcome, str) else name
        for key in [key for key in shown if key.startswith(ended)]:
            bars.remove_task(shown.pop(key))
        if isinstance(news.outcome, str):
            bars.console.print(f"[red]{news.series}  failed[/]  {escape(news.outcome)}")
        else:
            done = news.outcome
            time = "" if done.skipped else f"  [dim]{done.seconds:.1f} s[/]"
            bars.console.print(f"{news.series}  {news.step:<12}{escape(done.message)}{time}")

    with bars, progress.listening(listen):
        yield bars


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table, one line each however wide; numbers with five digits."""
    if not rows:
        return
    shown = Table(title=escape(title), title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for column in rows[0]:
        values = [row[column] for row in rows if row[column] is not None]
        numeric = all(isinstance(value, int | float) for value in values)
        shown.add_column(escape(column), justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*(escape(_text(value)) for value in row.values()))
    # A terminal too narrow breaks the lines; a file or pipe gets them whole.
    Console(width=WIDEST, highlight=False).print(shown)


def say(line: str) -> None:
    """Print a line as it is, whatever brackets it has."""
    out.print(line, markup=False)


def import_reports(records: Sequence[TiltSeries]) -> None:
    """Print where each field of the imported records comes from, and every conflict.

    Of all records but the first only what differs from the first is shown.
    """
    for record in records:
        first = records[0]
        rows = [line.model_dump() for line in record.import_report]
        title = f"{record.name}: {len(record.views)} views"
        if record is not first:
            rows = [
                line.model_dump()
                for line in record.import_report
                if line not in first.import_report
            ]
            title += f", all as {first.name}" if not rows else f", otherwise as {first.name}"
        if rows:
            table(title, rows)
        else:
            say(title)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def complain(message: str) -> None:
    """Print an error on one line of the standard error."""
    err.print(f"tiltflow: {message}", markup=False)
