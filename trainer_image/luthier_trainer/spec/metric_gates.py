"""Judges the metrics of a run by spec.evaluation.gates. Pure."""

from collections.abc import Mapping

from luthier_api.base import decimal_text
from luthier_api.training import Evaluation, GateOperator

_WORDS = {
    GateOperator.GTE: "at least",
    GateOperator.GT: "more than",
    GateOperator.LTE: "at most",
    GateOperator.LT: "less than",
}


def gates_missed_by(export: str, texts: int | None, evaluation: Evaluation, metrics: Mapping[str, float]) -> list[str]:
    """Return one sentence for each gate that an export misses, of those on what was measured of it.

    Args:
        export: its file, for messages.
        texts: on how many it was measured.
        evaluation: the gates.
        metrics: its own.
    """
    measured = [gate for gate in evaluation.gates if gate.metric in metrics]
    missed = missed_gates(evaluation.model_copy(update={"gates": measured}), metrics)
    return [
        f"{sentence.removesuffix('.')}, judged on {texts} texts with {export}, which a server without a GPU loads; "
        "leave onnx-int8 out of export to serve fp32."
        for sentence in missed
    ]


def missed_gates(evaluation: Evaluation, metrics: Mapping[str, float]) -> list[str]:
    """Return one sentence for each gate that the metrics miss; none means promotable.

    A metric that was not measured misses its gate.
    """
    missed = []
    for gate in evaluation.gates:
        value = metrics.get(gate.metric)
        if value is None:
            missed.append(f"{gate.metric} was not measured and must be {_WORDS[gate.operator]} {gate.threshold}.")
        elif not gate.passes(value):
            shown = decimal_text(value) if value == value and abs(value) != float("inf") else str(value)
            missed.append(f"{gate.metric} is {shown} and must be {_WORDS[gate.operator]} {gate.threshold}.")
    return missed
