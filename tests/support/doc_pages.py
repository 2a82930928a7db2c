"""The pages of the documentation, and the commands in them."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOOKS = ROOT / "docs" / "hooks"
if str(HOOKS) not in sys.path:
    sys.path.append(str(HOOKS))  # for `reference`, as mkdocs.yml's hook has it

NOT_RUN = "<!-- not run:"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
_INDENTED = re.compile(r"^(?:    .*\n|\n)+", re.M)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Command:
    """One ``tiltflow …`` of a page: its words without the first, and whether the page runs it."""

    page: str
    words: tuple[str, ...]
    run: bool = True

    def __str__(self) -> str:
        return f"{self.page}: tiltflow {' '.join(self.words)}"


def pages() -> list[Path]:
    """Return every page that a person wrote."""
    own = sorted((ROOT / "docs").rglob("*.md"))
    return [*own, ROOT / "README.md", ROOT / "deployments" / "README.md"]


def commands(page: Path) -> list[Command]:
    """Return the commands in the blocks of code of a page."""
    text, name = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
    found = []
    for match in _FENCE.finditer(text):
        if match[1] in ("sh", "bash"):
            run = NOT_RUN not in text[: match.start()].rstrip().rpartition("\n")[2]
            found += [Command(name, words, run) for words in _lines(match[2])]
    rest = _FENCE.sub("", text)
    for match in _INDENTED.finditer(rest):
        found += [Command(name, words) for words in _lines(match[0])]
    return found


def mentions(page: Path) -> list[tuple[str, ...]]:
    """Return the words of each ``tiltflow …`` or ``--option`` within the text of a page."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [
        tuple(match[1].split())
        for match in _INLINE.finditer(text)
        if match[1].startswith(("tiltflow ", "--"))
    ]


def _lines(block: str) -> Iterator[tuple[str, ...]]:
    for line in re.sub(r"\\\n", " ", block).splitlines():
        if "tiltflow" not in line:
            continue
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), ";"]:
            if word in (";", "&&", "|", ">"):
                if words and Path(words[0]).name == "tiltflow":
                    yield tuple(words[1:])
                words = []
            else:
                words.append(word)
