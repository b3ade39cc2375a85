"""The bases of every model here, and the scalar types they share.

`ApiModel` is for what lies in the cluster: unknown fields are ignored, because the API server has pruned or refused
them already and a rolled-back operator must still read a newer object. `Document` is for what one part of Luthier
hands to another: an unknown field there is a mistake, and is refused.
"""

import json
from decimal import Context, Decimal, InvalidOperation
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

DECIMAL_PATTERN = r"^-?[0-9]+(\\.[0-9]+)?([eE][-+]?[0-9]{1,3})?$"


class ApiModel(BaseModel):
    """A part of a resource as the cluster holds it: camelCase on the wire, frozen inside."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    def to_wire(self) -> dict[str, Any]:
        """Return the camelCase JSON form without unset or null fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Document(ApiModel):
    """A JSON document from one part of Luthier to another. Unknown fields are refused, also in nested models."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse a document.

        Raises:
            pydantic.ValidationError: if the text is not JSON or not this document.
        """
        return cls.model_validate_json(text, extra="forbid")

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the document as JSON with sorted keys, so that equal documents are equal text."""
        separators = None if indent else (",", ":")
        return json.dumps(self.to_wire(), sort_keys=True, indent=indent, separators=separators, ensure_ascii=False)


def _exact(value: object) -> Decimal:
    """Parse a decimal exactly; a float has already lost the digits that the user wrote, so it goes through repr."""
    try:
        parsed = Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f'{value!r} is not a decimal number such as "0.01" or "2e-5"') from None
    if not parsed.is_finite():
        raise ValueError(f"{value!r} is not a finite number")
    return parsed


# Wider than any number of 32 characters, so that normalizing never rounds.
_EXACT = Context(prec=64)


def _plain(value: Decimal) -> str:
    """Write a decimal as the shortest text that keeps every digit: 2e-5 and 0.00002 become the same text."""
    normal = value.normalize(_EXACT)
    return f"{normal:f}" if -7 < normal.adjusted() < 7 else f"{normal:E}".replace("E", "e")


def cel(*rules: tuple[str, str]) -> dict[str, Any]:
    """Return the JSON-schema extra for CEL rules, each (expression over `self`, message that tells the fix)."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


def decimal_type(
    *,
    gt: str | None = None,
    ge: str | None = None,
    lt: str | None = None,
    le: str | None = None,
    example: str,
) -> Any:
    """Return the type of a fraction or rate: a string in the schema, an exact `Decimal` inside.

    The API server checks the bounds by CEL, with one message that says what is expected; pydantic checks them again.
    """
    bounds = [
        (word, sign, bound)
        for word, sign, bound in (
            ("greater than", ">", gt),
            ("at least", ">=", ge),
            ("less than", "<", lt),
            ("at most", "<=", le),
        )
        if bound
    ]
    wanted = " and ".join(f"{word} {bound}" for word, _, bound in bounds)
    message = f'must be a decimal number in quotes, such as "{example}"' + (f", {wanted}" if wanted else "")
    rule = f"string(self).matches('{DECIMAL_PATTERN}')" + "".join(
        f" && double(string(self)) {sign} {_cel_double(b)}" for _, sign, b in bounds
    )
    low, above, high, below = (Decimal(bound) if bound else None for bound in (ge, gt, le, lt))
    return Annotated[
        Decimal,
        BeforeValidator(_exact),
        Field(ge=low, gt=above, le=high, lt=below),
        PlainSerializer(_plain, return_type=str),
        WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 32, **cel((rule, message))}),
    ]


def _cel_double(bound: str) -> str:
    """CEL compares doubles with doubles only: 1 must be written 1.0."""
    return bound if "." in bound or "e" in bound else f"{bound}.0"


def decimal_text(value: float, digits: int = 6) -> str:
    """Write a measured number for a status: at most `digits` significant digits, no exponent for common sizes."""
    return _plain(Decimal(f"{value:.{digits}g}"))


Fraction = decimal_type(ge="0", le="1", example="0.1")
BelowOne = decimal_type(ge="0", lt="1", example="0.9")
OpenFraction = decimal_type(gt="0", lt="1", example="0.1")
Ratio = decimal_type(ge="1", le="100", example="1.5")
SamplePercent = decimal_type(gt="0", le="100", example="5")
IndexLimit = decimal_type(gt="0", le="100", example="0.25")
PositiveRate = decimal_type(gt="0", le="1", example="2e-5")
NonNegative = decimal_type(ge="0", example="0.01")
Positive = decimal_type(gt="0", example="1.0")
AnyDecimal = decimal_type(example="0.90")

Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
PositiveCount = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seconds = Annotated[int, Field(ge=0, le=10 * 365 * 24 * 3600)]
Text = Annotated[str, Field(max_length=1024)]
MAX_WARNINGS = 5
MAX_WARNING_CHARACTERS = 300
Warnings = Annotated[list[Annotated[str, Field(max_length=MAX_WARNING_CHARACTERS)]], Field(max_length=MAX_WARNINGS)]
Message = Annotated[str, Field(max_length=4096)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
Timestamp = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
OBJECT_NAME = rf"^{_LABEL}([.]{_LABEL})*$"
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=OBJECT_NAME)]
DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=rf"^{_LABEL}$")]
ImageReference = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\s]+$")]
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?$"
# Written as in a pod: a whole number needs no quotes.
Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value),
    Field(max_length=32, pattern=_QUANTITY),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 32, "pattern": _QUANTITY}),
]
Metrics = Annotated[
    dict[Annotated[str, Field(max_length=128)], Annotated[str, Field(max_length=32)]], Field(max_length=64)
]
Engine = Literal["auto", "torch", "onnxruntime"]
