"""Text in and out: line ends, encodings, numbers, and files that appear whole or not at all."""

from __future__ import annotations

import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.formats.errors import FormatError, shown

StrPath = str | os.PathLike[str]

_LINE_END = re.compile(r"\r\n|\n|\r")
_NOT_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


def file_name(path: str) -> str | None:
    r"""Return the last part of a path, of ``D:\…`` and ``/…`` alike; None where it is no file's."""
    name = re.split(r"[\\/]", path.strip().rstrip("\\/"))[-1]
    return None if name in ("", ".", "..") else name


@contextmanager
def replacing(path: StrPath) -> Iterator[Path]:
    """Yield a new name beside `path`; what is written there becomes `path` when all went well."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: StrPath, text: str) -> None:
    """Write `text` as UTF-8 with LF line ends, replacing `path` atomically."""
    with replacing(path) as partial:
        partial.write_bytes(text.encode("utf-8", errors="replace"))


def write_bytes(path: StrPath, data: bytes) -> None:
    """Write `data` whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def read_lines(path: StrPath) -> list[str]:
    """Return the lines of a text file, whatever its line ends; Latin-1 when not UTF-8.

    Raises
    ------
    FormatError
        If the file holds control characters, so is no text.
    OSError
        If it cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if found := _NOT_TEXT.search(text):
        line = len(_LINE_END.findall(text, 0, found.start())) + 1
        raise FormatError(
            path, f"byte {shown(found.group())} in a text file", "give the text file", line
        )
    return _LINE_END.split(text)


def read_table(path: StrPath, comment: str = "#") -> list[tuple[int, list[str]]]:
    """Return (line number, words) of each line that is neither empty nor a comment."""
    words = ((number, line.split()) for number, line in enumerate(read_lines(path), 1))
    return [(n, w) for n, w in words if w and not w[0].startswith(comment)]


def number(path: StrPath, text: str, name: str, line: int | None = None) -> float:
    """Return the finite number that `text` stands for, else raise a FormatError on `name`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise FormatError(path, f"{name} is {shown(text)}, not a number", "correct it", line)
    return value


def whole(path: StrPath, text: str, name: str, line: int | None = None) -> int:
    """Return the whole number that `text` stands for, else raise a FormatError on `name`."""
    value = number(path, text, name, line)
    if value != int(value):
        raise FormatError(path, f"{name} is {shown(text)}, not a whole number", "correct it", line)
    return int(value)


def refuse_nan(path: StrPath, name: str, values: Iterable[float]) -> None:
    """Raise a FormatError when one of `values`, about to be written, is not finite."""
    for i, value in enumerate(values):
        if not math.isfinite(value):
            raise FormatError(
                path,
                f"{name} {value} at position {i} cannot be written",
                "exclude that view or estimate the value again",
            )
