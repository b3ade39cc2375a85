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
