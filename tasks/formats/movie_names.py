"""Series, acquisition order and tilt angle, told by the names of movies.

A pattern is a path with placeholders: ``{TS}`` is the series (letters, digits and ``_.+-``),
``{TO}`` the acquisition order (digits), ``{TA}`` the tilt angle in degrees (a signed decimal).
``*`` and ``?`` match within one name, all else stands for itself, brackets too. Placeholders
may stand in folders; one that comes again must have the same text again.

Where a name can be split in several ways, a tilt angle with a sign or a decimal point is preferred,
so that a date and time behind it are not taken for order and angle; then the longest series name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from tasks.formats.errors import FormatError, shown

PLACEHOLDERS = ("{TS}", "{TO}", "{TA}")

_TOKEN = re.compile(r"\{TS\}|\{TO\}|\{TA\}|\*+|\?|\{[^{}]*\}?|\}|[^{}*?]+")
_VALUES = {
    "{TS}": r"[\w.+-]+",
    "{TO}": r"[0-9]{1,9}",
    "{TA}": r"0{0,3}(?:90(?:\.0{1,9})?|[0-8]?[0-9](?:\.[0-9]{1,9})?)",
}
_POINT_OR_SIGN = r"(?=[+-]|[0-9]+\.[0-9])"
_ENDING = re.compile(r"(?:\.[A-Za-z]\w*)+")


@dataclass(frozen=True)
class Named:
    """A movie and what its name says; order as it is printed, whatever number is first."""

    path: Path
    series: str
    order: int | None
    angle: float | None


class Pattern:
    """A pattern of movie names.

    Raises
    ------
    FormatError
        If it has another placeholder, no ``{TA}``, or no ``{TS}`` and wildcards in a folder.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        parts = Path(os.path.expanduser(text)).parts
        if unknown := [t for t in _TOKEN.findall(text) if t[0] in "{}" and t not in PLACEHOLDERS]:
            raise FormatError(
                text, f"unknown placeholder {shown(unknown[0])}", f"use {', '.join(PLACEHOLDERS)}"
            )
        if "{TA}" not in text:
            raise FormatError(text, "no {TA}", "put {TA} where the names have the tilt angle")
        if "**" in text:
            raise FormatError(text, "** is not known", "give one * for each level of folders")
        fixed = next(i for i, part in enumerate(parts) if re.search(r"[{*?]", part))
        self.folder = Path(*parts[:fixed])
        self._parts = parts[fixed:]
        self._series = None if "{TS}" in text else self._only_series()
        self._regexes = [_regex("/".join(self._parts), strict) for strict in (True, False)]

    def glob(self) -> list[Named]:
        """Return the movies there are, sorted by series, order, angle and path.

        Raises
        ------
        FormatError
            If there is none, or two have the same series and order.
        """
        found = [
            named
            for names in _walk(self.folder, [_regex(part, False) for part in self._parts])
            if (named := self._split(names)) is not None
        ]
        if not found:
            raise FormatError(self.text, *self._nothing())
        found.sort(key=lambda n: (n.series, n.order or 0, n.angle or 0.0, n.path))
        taken: dict[tuple[str, int], Path] = {}
        for named in found:
            if named.order is None:
                continue
            other = taken.setdefault((named.series, named.order), named.path)
            if other != named.path:
                raise FormatError(
                    self.text,
                    f"{other} and {named.path} are both movie {named.order} of {named.series}",
                    "write a pattern that matches one of them",
                )
        return found

    def _split(self, names: Sequence[str]) -> Named | None:
        match = _first_match(self._regexes, "/".join(names))
        return match and _named(self.folder.joinpath(*names), match, self._series)

    def _only_series(self) -> str:
        if any(re.search(r"[{*?]", part) for part in self._parts[:-1]):
            raise FormatError(
                self.text, "no {TS}, but several folders", "put {TS} where the series is named"
            )
        if not (name := Path(os.path.abspath(self.folder)).name):
            raise FormatError(
                self.text, "no {TS}, and no folder to name the series", "put {TS} in the pattern"
            )
        return name

    def _nothing(self) -> tuple[str, str]:
        """Return the problem and the remedy of a pattern without files."""
        if not self.folder.is_dir():
            return f"there is no folder {self.folder}", "check the path"
        folder = self.folder
        regexes = [_regex(part, False) for part in self._parts[:-1]]
        for depth in range(1, len(self._parts)):
            if names := next(_walk(self.folder, regexes[:depth], folders=True), None):
                folder = self.folder.joinpath(*names)
        ending = Path(self.text).suffix
        entries = sorted(os.listdir(folder), key=lambda name: (not name.endswith(ending), name))
        if not entries:
            return f"nothing matches: {folder} is empty", "check the path"
        return f"nothing matches; {folder} has, say, {entries[0]}", "adapt the pattern"


def split_name(name: str) -> Named | None:
    """Guess what a movie's file name says by SerialEM's and PACEtomo's usual layout.

    That is ``{TS}_{TO}_{TA}``, then the ending, or ``_`` and anything; a path's folders, of either
    kind of slash, are left out. None where the name does not fit.
    """
    base = PureWindowsPath(name).name
    match = _first_match(_LAYOUTS, base)
    return match and _named(Path(base), match, None)


def _regex(pattern: str, strict: bool) -> re.Pattern[str]:
    """Return the regular expression of `pattern`; `strict`: the angle has a point or sign."""
    tokens = _TOKEN.findall(pattern)
    is_open = [False, *(t[0] in "*?" or t == "{TS}" for t in tokens), False]
    pieces, seen = [], set[str]()
    for token, after_open, before_open in zip(tokens, is_open[:-2], is_open[2:], strict=True):
        if token in seen:
            pieces.append(f"(?P={token[1:-1]})")
        elif token in _VALUES:
            seen.add(token)
            pieces.append(_placeholder(token, strict, after_open, before_open))
        else:
            pieces.append({"*": "[^/]*?", "?": "[^/]"}.get(token, re.escape(token)))
    return re.compile("".join(pieces))


def _placeholder(token: str, strict: bool, after_open: bool, before_open: bool) -> str:
    """Return a named group; beside a wildcard or {TS}, a number must not be cut in two."""
    value = _VALUES[token]
    if token == "{TO}":
        value = ("(?<![0-9])" if after_open else "") + value
    elif token == "{TA}":
        unsigned = "(?<![0-9.+-])" if after_open else ""
        value = (_POINT_OR_SIGN if strict else "") + f"(?:[+-]|{unsigned}){value}"
    group = f"(?P<{token[1:-1]}>{value})"
    return group + (r"(?!\.?[0-9])" if before_open and token != "{TS}" else "")


def _first_match(regexes: Sequence[re.Pattern[str]], name: str) -> re.Match[str] | None:
    return next((match for regex in regexes if (match := regex.fullmatch(name))), None)


def _named(path: Path, match: re.Match[str], series: str | None) -> Named:
    values = match.groupdict()
    order = values.get("TO")
    return Named(
        path,
        values["TS"] if series is None else series,
        None if order is None else int(order),
        float(values["TA"]) + 0.0,  # so that -0.0 is 0.0
    )


def _walk(
    folder: Path, regexes: Sequence[re.Pattern[str]], folders: bool = False
) -> Iterator[tuple[str, ...]]:
    """Yield the names, folder by folder, of the files (or `folders`) that match the regexes."""
    if not regexes:
        yield ()
        return
    first, *rest = regexes
    if not folder.is_dir():
        return
    for name in sorted(os.listdir(folder)):
        hidden = name.startswith(".") and not first.pattern.startswith(r"\.")
        if hidden or not first.fullmatch(name):
            continue
        path = folder / name
        if path.is_dir() if rest or folders else path.is_file():
            yield from ((name, *names) for names in _walk(path, rest, folders))


_LAYOUTS = [
    re.compile(_regex("{TS}_{TO}_{TA}", strict).pattern + rf"(?:_.*|{_ENDING.pattern})?", re.DOTALL)
    for strict in (True, False)
]
