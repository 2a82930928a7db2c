"""The list of expected defocus values: lines of a series' name and its defocus in nm."""

from __future__ import annotations

from tasks.formats.errors import FormatError, shown
from tasks.formats.files import StrPath, number, read_table

ANGSTROM_PER_NM = 10.0
LEAST, MOST = 100.0, 20_000.0  # nm; beyond them the unit is another one


def read_defocus_list(path: StrPath) -> dict[str, float]:
    """Read lines such as ``TS_01 4000``: series → defocus [Å], underfocus positive.

    Empty lines and those that begin with # are skipped, and so is what follows a # in a line.

    Raises
    ------
    FormatError
        If a line is not a name and a number of nm, a name comes twice, or there is no line.
    """
    defoci: dict[str, float] = {}
    for line, words in read_table(path):
        comment = next((i for i, word in enumerate(words) if word.startswith("#")), len(words))
        if comment != 2:
            raise FormatError(
                path, f"{shown(' '.join(words))} is not a name and a defocus", "write both", line
            )
        name, value = words[0], number(path, words[1], "defocus", line)
        if not LEAST <= value <= MOST:
            raise FormatError(
                path,
                f"a defocus of {words[1]} nm is not within {LEAST:g} to {MOST:g}",
                "give nm, underfocus positive",
                line,
            )
        if name in defoci:
            raise FormatError(path, f"{shown(name)} comes twice", "remove a line", line)
        defoci[name] = value * ANGSTROM_PER_NM
    if not defoci:
        raise FormatError(path, "no lines", "write lines such as TS_01 4000")
    return defoci
