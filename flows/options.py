"""Command-line options and YAML files from the parameter models: one source for all three."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from rich.markup import escape

from flows.presets import PRESETS, Values, values_of
from tasks.errors import WrongParameter
from tasks.parameters import Pipeline

Model = TypeVar("Model", bound=BaseModel)


def options_of(model: type[BaseModel]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command one option for each field of `model`.

    The decorated function takes the validated model as its argument ``parameters``; options that
    the user leaves out keep the model's defaults.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name != "parameters"]

        def command(**given: Any) -> Any:
            values = {name: given.pop(name) for name in model.model_fields}
            chosen = {name: value for name, value in values.items() if value is not None}
            return function(parameters=validated(model, chosen), **given)

        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [*own, *(_option(name, field) for name, field in model.model_fields.items())]
        )
        command.__annotations__ = {
            p.name: p.annotation
            for p in command.__signature__.parameters.values()  # type: ignore[attr-defined]
        }
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        return command

    return decorate


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    shown = field.description or ""
    if field.default is not None and not field.is_required():
        default = field.get_default(call_default_factory=True)
        if default != {}:
            shown += f" [default: {default}]"
    flag = f"--{name.replace('_', '-')}"
    kind: Any = str | None
    if field.annotation is bool:
        kind, flag = bool | None, f"{flag}/--no-{flag[2:]}"
    elif get_origin(field.annotation) is dict:
        kind = list[str] | None
        shown += " [repeatable: NAME=LIST]"
    elif get_origin(field.annotation) is Literal:
        shown += f" [{'|'.join(str(value) for value in get_args(field.annotation))}]"
    # Typer takes what stands in brackets, units included, for Rich's markup.
    option = typer.Option(flag, help=escape(shown), show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def validated(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Return the model made of `values`.

    Raises
    ------
    WrongParameter
        On one line: which parameter, what was given, what is expected.
    """
    prepared = {
        name: dict(_pair(name, text) for text in value)
        if isinstance(value, list)
        else _choice(model.model_fields.get(name), value)
        for name, value in values.items()
    }
    try:
        return model.model_validate(prepared)
    except ValidationError as error:
        raise WrongParameter(_told(model, error)) from None


def _choice(field: FieldInfo | None, value: Any) -> Any:
    """Return the choice that text of the command line means: the number 1 for ``1``."""
    if field is None or get_origin(field.annotation) is not Literal:
        return value
    choices = {str(choice): choice for choice in get_args(field.annotation)}
    return choices.get(value, value) if isinstance(value, str) else value


def _pair(name: str, text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise WrongParameter(f"{name}: {text!r} is not NAME=LIST, e.g. TS_01=1,3-5")
    return key, value


def _told(model: type[BaseModel], error: ValidationError) -> str:
    parts = []
    for fault in error.errors():
        where = ".".join(_named(model, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            known = _fields_at(model, fault["loc"][:-1])
            parts.append(f"{where}: no such parameter; there are: {', '.join(known)}")
        elif fault["type"] == "missing" and len(fault["loc"]) == 1:
            parts.append(f"{where}: is needed")
        elif fault["type"] == "value_error":  # our own words
            text = fault["msg"].removeprefix("Value error, ")
            parts.append(f"{where}: {text}" if where else text)
        else:
            given = "" if isinstance(fault["input"], dict) else f", not {fault['input']!r}"
            parts.append(f"{where or model.__name__}: {fault['msg'].lower()}{given}")
    return "; ".join(dict.fromkeys(parts))


def _named(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    # Behind the name of a parameter that takes two types, pydantic tells which one it tried.
    depth = 2 if any(_is_model(field.annotation) for field in model.model_fields.values()) else 1
    return [str(part) for part in path[:depth]]


def _is_model(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, BaseModel)


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        inner = model.model_fields[str(part)].annotation
        if _is_model(inner):
            model = inner  # type: ignore[assignment]
    return list(model.model_fields)


def pipeline_from(
    preset: str | None,
    config: Path | None,
    assignments: list[str] | None,
    before: Pipeline | None = None,
) -> Pipeline:
    """Return the pipeline's parameters: a preset, then a YAML file, then ``step.name=value``.

    Of a preset of several branches it is that of the first one. What was asked for `before`
    counts in place of the default preset.

    Raises
    ------
    WrongParameter
        If one of them names an unknown preset or parameter, or has an unusable value.
    """
    base = before.model_dump() if before and not preset else values_of(_known(preset or "default"))
    return _validated_layers(base, changes_from(config, assignments))


def changes_from(config: Path | None, assignments: list[str] | None) -> dict[str, dict[str, Any]]:
    """Return what a YAML file and then ``step.name=value`` change: step → parameter → value."""
    return _joined(_yaml(config), assigned(assignments or []))


def pipelines_of(preset: str, changes: Values) -> dict[str, Pipeline]:
    """Return the parameters of each branch of a preset, by the ending of its name.

    Raises
    ------
    WrongParameter
        If there is no such preset, or a change names an unknown parameter or an unusable value.
    """
    return {
        part: _validated_layers(values_of(preset, part), changes)
        for part in PRESETS[_known(preset)]
    }


def _validated_layers(*layers: Values) -> Pipeline:
    return validated(Pipeline, _joined(*layers))


def _joined(*layers: Values) -> dict[str, dict[str, Any]]:
    values: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for step, fields in layer.items():
            values.setdefault(step, {}).update(fields)
    return values


def _known(preset: str) -> str:
    if preset not in PRESETS:
        raise WrongParameter(f"preset {preset!r}: there are {', '.join(PRESETS)}")
    return preset


def _yaml(path: Path | None) -> dict[str, dict[str, Any]]:
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split())
        raise WrongParameter(f"{path}: cannot be read as YAML: {told}") from None
    if not isinstance(content, dict) or not all(
        isinstance(fields, dict) or fields is None for fields in content.values()
    ):
        raise WrongParameter(f"{path}: has no steps with parameters: see `tiltflow config`")
    return {str(step): dict(fields or {}) for step, fields in content.items()}


def assigned(assignments: list[str]) -> dict[str, dict[str, Any]]:
    """Return step → parameter → value of lines ``step.parameter=value``."""
    values: dict[str, dict[str, Any]] = {}
    for text in assignments:
        name, separator, value = text.partition("=")
        step, dot, field = name.strip().partition(".")
        if not (separator and dot):
            raise WrongParameter(f"--set {text}: write step.parameter=value, e.g. motion.binning=2")
        try:
            values.setdefault(step, {})[field] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            told = " ".join(str(error).split())
            raise WrongParameter(f"--set {text}: cannot be read as YAML: {told}") from None
    return values


def as_yaml(pipeline: Pipeline) -> str:
    """Return parameters as a YAML file with their descriptions as comments."""
    lines = ["# Parameters of tiltflow; what is left out has its default.", ""]
    for step, _field in type(pipeline).model_fields.items():
        parameters = getattr(pipeline, step)
        lines.append(f"{step}:  # {(type(parameters).__doc__ or '').splitlines()[0]}")
        for name, inner in type(parameters).model_fields.items():
            value = yaml.safe_dump(getattr(parameters, name), default_flow_style=True)
            value = value.removesuffix("...\n").strip()
            lines.append(f"  {name}: {value}  # {inner.description}")
        lines.append("")
    return "\n".join(lines)
