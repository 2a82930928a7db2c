"""How a result is named: by what made it.

A result's key is the hash of (step, version of its algorithm, parameters, keys of its input
results, the fields of the imported record that it reads, identity of its raw files, content of
the files that its parameters name). Two runs that agree in all of these share the result;
everything else stands beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.errors import UnusableData
from tasks.parameters import Parameters
from tasks.record import FileIdentity, TiltSeries
from tasks.steps import Step, file_of, reads_of


def result_key(
    step: Step, parameters: Parameters, record: TiltSeries, inputs: Mapping[str, str]
) -> str:
    """Return the key of the result of `step`: 12 hexadecimal digits.

    Parameters
    ----------
    step : Step
    parameters : Parameters
        Of this step.
    record : TiltSeries
        As imported.
    inputs : mapping of str to str
        Step name → key of the result that is read.

    Raises
    ------
    UnusableData
        If a file that the parameters name cannot be read.
    """
    values = parameters.for_series(record.name).model_dump(mode="json")
    given = {name: file_of(parameters, name, record.name) for name in step.files}
    files = {name: _content(path, f"{step.name}.{name}") for name, path in given.items() if path}
    content = {
        "step": step.name,
        "version": step.version,
        "parameters": {name: value for name, value in values.items() if name not in files},
        "inputs": dict(sorted(inputs.items())),
        "reads": {field: _value(record, field) for field in reads_of(step, parameters)},
        **({"files": files} if files else {}),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _content(path: Path, parameter: str) -> list[int | str]:
    # Hashed whole, not sampled as movies are: one changed digit in a long table counts.
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or "cannot be read").lower()
        raise UnusableData(f"{path}: {why}: put the file there, or correct {parameter}") from error
    return [len(data), hashlib.sha256(data).hexdigest()[:16]]


def _value(record: TiltSeries, field: str) -> Any:
    part, _, name = field.partition(".")
    if part == "views":
        return [_plain(getattr(view, name)) for view in record.views]
    if part == "acquisition":
        return _plain(getattr(record.acquisition, name))
    return _plain(getattr(record, part))


def _plain(value: Any) -> Any:
    # A file is what it contains, wherever it lies.
    if isinstance(value, FileIdentity):
        return [value.name, value.size, value.digest]
    return list(value) if isinstance(value, tuple) else value
