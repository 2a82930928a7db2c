"""What all parameter models have in common."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _pair(value: Any) -> Any:
    """Return the two numbers of ``5,4`` or ``5x4``, as the command line has them."""
    if not isinstance(value, str):
        return value
    numbers = re.split("[,x×]", value)
    if len(numbers) != 2:
        raise ValueError(f"{value!r} are not two numbers, such as 5,4")
    return numbers


Pair = Annotated[
    tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], BeforeValidator(_pair)
]


class Parameters(BaseModel):
    """Base of all parameter models: frozen, and refusing unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Let the descriptions say the ranges of numbers, which forms do not show by themselves.

        Forms show them as Markdown, of which they are none.
        """
        found = handler(schema)
        for field in handler.resolve_ref_schema(found)["properties"].values():
            kinds = (field, *field.get("anyOf", ()))
            limits = [
                f"{sign} {kind[name]:g}"
                for kind in kinds
                for name, sign in LIMITS.items()
                if name in kind
            ]
            told = re.sub(r"([*_])", r"\\\1", field.get("description", ""))
            if limits:
                told += f" ({', '.join(dict.fromkeys(limits))})"
            if told:
                field["description"] = told
        return found

    def for_series(self, name: str) -> Self:
        """Return what of the parameters concerns series `name`."""
        return self
