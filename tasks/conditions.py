"""Conditions on figures, such as ``ctf_fit_resolution_A < 8 and abs(tilt_angle_deg) <= 50``.

Python's own parser reads them, and nothing is executed but what stands in the tables below.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from tasks.errors import WrongParameter

# Missing is neither true nor false: what is compared with it, or computed from it, is missing too.
Value = float | str | bool | None
Row = Mapping[str, Any]

LONGEST = 1000  # characters of a condition
EXAMPLE = "write for example 'ctf_fit_resolution_A < 8 and abs(tilt_angle_deg) <= 50'"
COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
COMPUTED: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
# Over the included views of a series; `count` and `share` of those for which something is true.
OVER_VIEWS: dict[str, Callable[[list[float]], float]] = {
    "min": min,
    "max": max,
    "mean": fmean,
    "median": median,
    "count": sum,
    "share": fmean,
}


@dataclass(frozen=True)
class Condition:
    """A condition that was read, its names being those of columns."""

    text: str
    tree: ast.expr

    def holds(self, row: Row, views: Sequence[Row]) -> bool:
        """Tell whether it is true: of a row, and of the included views of its series.

        Raises
        ------
        WrongParameter
            If it compares a text with a number, or is itself no condition.
        """
        value = self._value(self.tree, row, views)
        if value is None or isinstance(value, bool):
            return value is True
        raise WrongParameter(f"{self.text!r} is {value!r}, neither true nor false: {EXAMPLE}")

    def _value(self, node: ast.expr, row: Row, views: Sequence[Row]) -> Value:
        match node:
            case ast.Constant(value=value):
                return plain(value)
            case ast.Name(id=name):
                return plain(row.get(name))
            case ast.Call(func=ast.Name(id="abs"), args=[inner]):
                found = self._number(self._value(inner, row, views))
                return None if found is None else abs(found)
            case ast.Call(func=ast.Name(id=name), args=[inner]):
                over = (self._number(self._value(inner, view, views)) for view in views)
                known = [value for value in over if value is not None]
                return float(OVER_VIEWS[name](known)) if known or name == "count" else None
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                found = self._truth(self._value(inner, row, views))
                return None if found is None else not found
            case ast.UnaryOp(operand=inner):
                found = self._number(self._value(inner, row, views))
                return None if found is None else -found
            case ast.BoolOp(op=kind, values=parts):
                decides = isinstance(kind, ast.Or)  # one that is true decides or, one false and
                truths = [self._truth(self._value(part, row, views)) for part in parts]
                if decides in truths:
                    return decides
                return None if None in truths else not decides
            case ast.BinOp(left=left, op=kind, right=right):
                a, b = (self._number(self._value(n, row, views)) for n in (left, right))
                if a is None or b is None or (isinstance(kind, ast.Div) and b == 0):
                    return None
                return plain(COMPUTED[type(kind)](a, b))
            case ast.Compare(left=left, ops=kinds, comparators=rights):
                values = [self._value(part, row, views) for part in (left, *rights)]
                pairs = zip(kinds, values, values[1:], strict=False)
                told = [self._compared(COMPARED[type(kind)], x, y) for kind, x, y in pairs]
                return False if False in told else None if None in told else True
        raise AssertionError(ast.dump(node))  # `read_condition` lets nothing else through

    def _compared(self, compare: Callable[[Any, Any], bool], a: Value, b: Value) -> bool | None:
        if a is None or b is None:
            return None
        if isinstance(a, str) != isinstance(b, str):
            if "" in (a, b):  # a table's way to say that there is no number
                return None
            raise WrongParameter(f"{self.text!r}: {a!r} and {b!r} cannot be compared: {EXAMPLE}")
        return compare(a, b)

    def _number(self, value: Value) -> float | None:
        if value is None or value == "":
            return None
        if isinstance(value, str):
            raise WrongParameter(f"{self.text!r}: {value!r} is no number: {EXAMPLE}")
        return float(value)

    def _truth(self, value: Value) -> bool | None:
        if value is None or isinstance(value, bool):
            return value
        raise WrongParameter(f"{self.text!r}: {value!r} is neither true nor false: {EXAMPLE}")


def plain(value: Any) -> Value:
    """Return a figure of a table as conditions take it; one that is not finite is missing."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def read_condition(text: str, columns: Iterable[str]) -> Condition:
    """Read a condition on columns of a table.

    Known are ``< <= > >= == !=``, ``and or not``, ``+ - * /``, brackets, numbers, texts in quotes,
    ``abs``, and over the included views of a series ``min max mean median``, ``count`` and
    ``share``. A name may be a part of a column's name that no other column has.

    Raises
    ------
    WrongParameter
        If it is none; naming the columns that there are where one is wanted that is not.
    """
    known = tuple(dict.fromkeys(columns))
    if len(text) > LONGEST:
        raise WrongParameter(f"a condition of {len(text)} characters: at most {LONGEST}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        tree = _Checked(text, known).visit(tree)
    except WrongParameter:  # one of the ValueErrors
        raise
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        raise WrongParameter(f"{text!r} is no condition: {EXAMPLE}") from None
    return Condition(text, tree)


class _Checked(ast.NodeTransformer):
    """Refuses what is not in the language, and writes out the names of columns."""

    def __init__(self, text: str, columns: tuple[str, ...]) -> None:
        self.text, self.columns = text, columns

    def visit(self, node: ast.AST) -> Any:
        match node:
            case ast.Constant(value=bool() | str()):
                return node
            case ast.Constant(value=int() | float() as number):
                return ast.Constant(float(number))
            case ast.Name(id="true" | "false"):
                return ast.Constant(node.id == "true")
            case ast.Name():
                return ast.Name(self._column(node.id), ast.Load())
            case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]):
                if name != "abs" and name not in OVER_VIEWS:
                    known = ", ".join(("abs", *OVER_VIEWS))
                    raise WrongParameter(f"{self.text!r}: no function {name!r}; there are {known}")
                node.args = [self.visit(inner)]
                return node
            case ast.UnaryOp(op=ast.Not() | ast.USub()) | ast.BoolOp():
                return self.generic_visit(node)
            case ast.BinOp(op=kind) if type(kind) in COMPUTED:
                return self.generic_visit(node)
            case ast.Compare(ops=kinds) if all(type(kind) in COMPARED for kind in kinds):
                return self.generic_visit(node)
            case ast.operator() | ast.unaryop() | ast.boolop() | ast.cmpop():
                return node
        raise WrongParameter(f"{self.text!r} is no condition: {EXAMPLE}")

    def _column(self, name: str) -> str:
        if name in self.columns:
            return name
        meant = [column for column in self.columns if name.lower() in column.lower()]
        if len(meant) == 1:
            return meant[0]
        if meant:
            raise WrongParameter(f"{self.text!r}: {name!r} may be {' or '.join(meant)}")
        there = ", ".join(self.columns)
        raise WrongParameter(f"{self.text!r}: no column {name!r}; there are {there}")
