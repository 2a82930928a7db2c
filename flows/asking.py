"""The terminal's way to approve a step's result: accept, change values, reject."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from flows import console
from flows.approval import Answer, Question
from flows.options import assigned, validated
from tasks.errors import WrongParameter


def in_terminal() -> bool:
    """Tell whether somebody can be asked."""
    return sys.stdin.isatty()


def ask(question: Question, prompt: Callable[[str], str] = typer.prompt) -> Answer:
    """Ask until there is a usable answer."""
    outcome, parameters = question.outcome, question.parameters
    of = f"{outcome.series} {outcome.step}"
    console.say(f"{outcome.series}  {outcome.step}: {outcome.message}")
    while True:
        word = prompt(f"{of}: accept, change values, or reject? [a/c/r]").strip().lower()[:1]
        if word == "a":
            return Answer("accept", parameters)
        if word == "r":
            return Answer("reject", parameters, prompt(f"{of}: why").strip())
        if word != "c":
            continue
        text = prompt(f"{of}: values, e.g. {_example(question)}, separated by blanks")
        try:
            given = assigned([f"{outcome.step}.{part}" for part in text.split()])
            values = {**parameters.model_dump(), **given.get(outcome.step, {})}
            return Answer("change values", validated(type(parameters), values))
        except WrongParameter as error:
            console.complain(str(error))


def _example(question: Question) -> str:
    name, value = next(iter(question.parameters.model_dump().items()))
    return f"{name}={value}"
