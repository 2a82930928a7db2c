"""The one exception that readers and writers of file formats raise on bad content."""

from __future__ import annotations

import os

LONGEST_VALUE = 60  # a message stays one readable line, even when the value is a megabyte


class FormatError(ValueError):
    """A file, or what should go into one, is not what its format allows.

    Parameters
    ----------
    path
        The file.
    problem
        What is wrong, with the value found.
    remedy
        What to do about it.
    line
        Line of the file, from 1.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        problem: str,
        remedy: str,
        line: int | None = None,
    ) -> None:
        super().__init__(os.fspath(path), problem, remedy, line)  # so that it pickles
        self.path = os.fspath(path)
        self.problem = problem
        self.remedy = remedy
        self.line = line

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}, line {self.line}"
        return " ".join(f"{where}: {self.problem}; {self.remedy}".split())


def shown(value: object) -> str:
    """Return `value` quoted for a message, shortened, on one line."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"
