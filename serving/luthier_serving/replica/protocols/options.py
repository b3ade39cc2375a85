"""Reads the options of a request, and checks them against the model that answers."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from luthier_serving.answers import Answer, ModelInfo
from luthier_serving.errors import RequestError
from luthier_serving.replica.validation import Json, json_type
from luthier_serving.tasks import OUTPUTS
from luthier_serving.tasks.options import NO_OPTIONS, Options

FUNCTIONS = ("softmax", "sigmoid", "none")
AGGREGATIONS = ("first", "simple", "none")


def read_options(document: Json, names: frozenset[str]) -> Options:
    """Return the options that an object has among its fields; null is as good as none.

    Args:
        document: the object.
        names: options that the protocol has.

    Raises:
        RequestError: 422, a value is not what the option takes.
    """
    given = {name: document[name] for name in names & document.keys() if document[name] is not None}
    return Options(**{name: _READERS[name](name, value) for name, value in given.items()}) if given else NO_OPTIONS


def check_options(options: Options, model: ModelInfo) -> None:
    """Refuse options that mean nothing for a model.

    Raises:
        RequestError: 422.
    """
    output = OUTPUTS[model.task]
    for name in options.given():
        if name not in output.options:
            known = ", ".join(sorted(output.options)) or "none"
            raise RequestError(f"{name} is no option of {model.task}; its options: {known}.", status=422)
    unknown = sorted((options.thresholds or {}).keys() - set(model.labels))
    if unknown:
        raise RequestError(
            f"thresholds names the label {unknown[0][:100]!r}, which the model does not have; its labels: "
            f"{_some(model.labels)}.",
            status=422,
        )


def check_cuts(options: Options, answer: Answer) -> None:
    """Refuse texts that the model read only in part, if the request asks for that.

    Raises:
        RequestError: 413.
    """
    if options.truncate:
        return
    limit = answer.model.max_tokens
    for number, row in enumerate(answer.rows, 1):
        if row.cut_tokens:
            which = f"Text {number} of {len(answer.rows)}" if len(answer.rows) > 1 else "The text"
            raise RequestError(
                f"{which} has {limit + row.cut_tokens} tokens and the model reads {limit}; send a shorter text, or "
                "leave truncate out to have it cut.",
                status=413,
            )


def _top_k(name: str, value: Any) -> int:
    if type(value) is float and value.is_integer():  # JSON has one kind of number: 3.0 is 3
        value = int(value)
    if type(value) is not int or value < 1:
        raise _wrong(name, value, "a whole number of 1 or more")
    return value


def _share(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise _wrong(name, value, "a number from 0 to 1")
    return float(value)


def _shares(name: str, value: Any) -> Mapping[str, float]:
    if not isinstance(value, dict):
        raise _wrong(name, value, "an object of labels and numbers")
    return {label: _share(f"{name}[{label[:60]!r}]", each) for label, each in value.items()}


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "true or false")
    return value


def _function(name: str, value: Any) -> Any:
    return _one_of(name, value, FUNCTIONS)


def _aggregation(name: str, value: Any) -> Any:
    if value in ("average", "max"):
        raise RequestError(
            f"{name} {value} combines the tokens of a word, but the model labels a word by its first token; use "
            "first, simple or none.",
            status=422,
        )
    return _one_of(name, value, AGGREGATIONS)


def _labels(name: str, value: Any) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _wrong(name, value, "a list of labels")
    return frozenset(value)


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise _wrong(name, value, f"one of {', '.join(choices)}")
    return value


def _wrong(name: str, value: Any, wanted: str) -> RequestError:
    shown = json_type(value) if isinstance(value, dict | list) else json.dumps(value)[:60]
    return RequestError(f"{name} is {shown}, not {wanted}.", status=422)


def _some(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:10])
    return shown if len(labels) <= 10 else f"{shown} and {len(labels) - 10} more"


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "top_k": _top_k,
    "threshold": _share,
    "thresholds": _shares,
    "truncate": _boolean,
    "function_to_apply": _function,
    "aggregation_strategy": _aggregation,
    "ignore_labels": _labels,
}
