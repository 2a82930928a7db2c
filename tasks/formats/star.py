"""STAR files as RELION writes them: named blocks of pairs and loops."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.formats.errors import FormatError, shown
from tasks.formats.files import StrPath, number, read_lines, write_text

# A quote ends a token only before white space; an unquoted # begins a comment after white space.
_TOKEN = re.compile(r"""\s*(?:(#.*)|'(.*?)'(?=\s|$)|"(.*?)"(?=\s|$)|(\S+))""")
_RESERVED = re.compile(r"(?:data_|loop_|save_|stop_|global_|[_#$'\"\[;])", re.IGNORECASE)


@dataclass(frozen=True)
class StarBlock:
    """One ``data_`` block: pairs and at most one loop; names without the leading underscore."""

    name: str
    pairs: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    path: str = "star"

    def column(self, name: str) -> tuple[str, ...]:
        """Return one column of the loop as text."""
        if name not in self.columns:
            raise FormatError(
                self.path,
                f"no column _{name} in data_{self.name}",
                f"columns are {', '.join(self.columns) or 'none'}",
            )
        i = self.columns.index(name)
        return tuple(row[i] for row in self.rows)

    def floats(self, name: str) -> NDArray[np.float64]:
        """Return one column of the loop as numbers (n,)."""
        values = [number(self.path, text, f"_{name}") for text in self.column(name)]
        return np.array(values, dtype=np.float64)

    def value(self, name: str) -> str:
        """Return the value of a pair as text."""
        if name not in self.pairs:
            raise FormatError(self.path, f"no _{name} in data_{self.name}", "add the pair")
        return self.pairs[name]


def read_star(path: StrPath) -> dict[str, StarBlock]:
    """Read the blocks of a STAR file by name (without ``data_``).

    Raises
    ------
    FormatError
        If there is no block, a row has the wrong number of values, or a name appears twice.
    """
    blocks: dict[str, StarBlock] = {}
    name: str | None = None
    pairs: dict[str, str] = {}
    columns: list[str] = []
    rows: list[tuple[str, ...]] = []
    in_loop = False

    def close() -> None:
        if name is not None:
            blocks[name] = StarBlock(name, pairs, tuple(columns), tuple(rows), str(path))

    for n, line in enumerate(read_lines(path), 1):
        if line.startswith(";"):
            raise FormatError(path, "a text block in semicolons", "quote the text on one line", n)
        quoted, words = _tokens(line)
        if not words:
            continue
        first = "" if quoted else words[0]
        if first.startswith("data_"):
            close()
            name = first[len("data_") :]
            if name in blocks:
                raise FormatError(path, f"data_{name} appears twice", "rename a block", n)
            pairs, columns, rows, in_loop = {}, [], [], False
        elif name is None:
            raise FormatError(path, f"{shown(line)} before any data_ block", "give a STAR file", n)
        elif first == "loop_":
            if columns:
                raise FormatError(path, f"two loops in data_{name}", "split the block", n)
            in_loop = True
        elif first.startswith("_") and len(first) > 1 and in_loop and not rows:
            columns.append(first[1:])
        elif first.startswith("_") and len(first) > 1 and len(words) == 2:
            pairs[first[1:]], in_loop = words[1], False
        elif in_loop and columns and len(words) == len(columns):
            rows.append(tuple(words))
        else:
            wanted = f"{len(columns)} values of the loop" if in_loop else "a name and its value"
            raise FormatError(path, f"{len(words)} words, not {wanted}", "complete the line", n)
    close()
    if not blocks:
        raise FormatError(path, "no data_ block", "give a STAR file")
    return blocks


def write_star(path: StrPath, blocks: Iterable[StarBlock], comment: str = "version 30001") -> None:
    """Write blocks in RELION's layout.

    Raises
    ------
    FormatError
        If a value is NaN, or a row has not as many values as there are columns.
    """
    lines: list[str] = []
    for block in blocks:
        lines += ["", f"# {' '.join(comment.split())}", "", f"data_{block.name}", ""]
        lines += [f"_{key} {_quoted(path, value)}" for key, value in block.pairs.items()]
        names = (*block.pairs, *block.columns)
        if any(not key or re.search(r"\s", key) for key in (*names, block.name or "x")):
            raise FormatError(path, f"names {shown(names)}", "use no spaces in them")
        if block.columns:
            lines += ["", "loop_"] if block.pairs else ["loop_"]
            lines += [f"_{key} #{i}" for i, key in enumerate(block.columns, 1)]
        for row in block.rows:
            if len(row) != len(block.columns):
                raise FormatError(
                    path, f"{len(row)} values for {len(block.columns)} columns", "complete the row"
                )
            lines.append(" ".join(_quoted(path, value) for value in row))
    write_text(path, "\n".join(lines) + "\n\n")


def printed(values: Sequence[float | int | str]) -> tuple[str, ...]:
    """Return a row's values as text, numbers with six decimals."""
    return tuple(f"{value:.6f}" if isinstance(value, float) else f"{value}" for value in values)


def _tokens(line: str) -> tuple[bool, list[str]]:
    """Return whether the first word is quoted, and the words."""
    words: list[str] = []
    quoted = False
    for comment, single, double, plain in (m.groups() for m in _TOKEN.finditer(line)):
        if comment is not None:
            break
        word = next(part for part in (single, double, plain) if part is not None)
        quoted |= not words and plain is None
        words.append(word)
    return quoted, words


def _quoted(path: StrPath, value: str) -> str:
    if value.lower() in {"nan", "inf", "-nan", "-inf"}:
        raise FormatError(path, f"value {value}", "leave the row out")
    matrix_row = re.fullmatch(r"\[[^\s'\"#]*\]", value)
    if value and (matrix_row or (not re.search(r"\s", value) and not _RESERVED.match(value))):
        return value
    quote = '"' if '"' not in value else "'"
    if quote in value or not value.isprintable():
        raise FormatError(path, f"value {shown(value)} cannot be quoted", "use one kind of quote")
    return f"{quote}{value}{quote}"
