"""A new revision's figures against what the spec asks for: added up over the replicas, and judged at the limits."""

from typing import Any

import pytest

from luthier_api.documents import RevisionCounts, ServerReport
from luthier_api.modeldeployment import Analysis
from luthier_operator.plan.modeldeployment.analysis import Figures, Judgement, figures_of, judge, summary

pytestmark = pytest.mark.unit

WINDOW = "rev-b/0"
IN_SERVICE = Figures(requests=1000)


def report(window: str = WINDOW, **counts: RevisionCounts) -> ServerReport:
    return ServerReport(
        replica="replica", ready=True, window=window, counts={f"rev-{name}": each for name, each in counts.items()}
    )


def figures(*counts: RevisionCounts) -> Figures:
    return figures_of([report(b=each) for each in counts], "rev-b", WINDOW)


def judged(canary: Figures, stable: Figures = IN_SERVICE, **analysis: Any) -> Judgement:
    return judge(Analysis.model_validate({"minRequests": 10, **analysis}), canary, stable, 30.0)


def test_the_counts_of_all_replicas_are_added_up() -> None:
    one = RevisionCounts(
        requests=10, errors=1, latency={8: 9}, compared=2, agreement=1.5, confidence_shift=0.5, flips={"a -> b": 1}
    )
    two = RevisionCounts(
        requests=30, errors=2, latency={8: 20, 80: 8}, compared=2, agreement=2.0, confidence_shift=0.3,
        flips={"a -> b": 2, "b -> a": 1},
    )  # fmt: skip
    found = figures(one, two)
    assert (found.requests, found.errors, found.p99_ms) == (40, 3, 1024.0)
    assert (found.compared, found.agreement, found.confidence_shift) == (4, 3.5, pytest.approx(0.2))
    assert found.flips == (("a -> b", 3), ("b -> a", 1))
    assert (found.error_rate, found.agreement_rate) == (0.075, 0.875)


def test_what_a_replica_counted_in_another_step_or_of_another_revision_is_left_out() -> None:
    counts = RevisionCounts(requests=10, errors=10)
    reports = [
        report("rev-b/1", b=counts),
        report("", b=counts),
        report(a=counts),
        report(b=RevisionCounts(requests=1)),
    ]
    assert figures_of(reports, "rev-b", WINDOW) == Figures(requests=1)


def test_without_requests_there_are_no_figures() -> None:
    none = figures_of([], "rev-b", WINDOW)
    assert (none.error_rate, none.p99_ms, none.agreement_rate) == (0.0, None, None)


@pytest.mark.parametrize(
    ("latency", "p99_ms"),
    [
        ({8: 99, 80: 1}, 2.0),
        ({8: 98, 80: 2}, 1024.0),
        ({-64: 1}, 2.0**-8),
        ({80: 5, 8: 5}, 1024.0),
        ({8: 10}, 2.0),
        ({8: 9, 80: 1}, 1024.0),
    ],
)
def test_the_p99_is_the_upper_edge_of_the_bucket_that_holds_it(latency: dict[int, int], p99_ms: float) -> None:
    assert figures(RevisionCounts(requests=1000, latency=latency)).p99_ms == p99_ms


@pytest.mark.parametrize(
    ("analysis", "within", "beyond"),
    [
        ({"maxErrorRate": "0.05"}, Figures(100, errors=5), Figures(100, errors=6)),
        ({"maxErrorRateIncrease": "0.05"}, Figures(100, errors=10), Figures(100, errors=11)),
        ({"maxP99Milliseconds": 100}, Figures(100, p99_ms=100.0), Figures(100, p99_ms=100.5)),
        ({"maxP99Ratio": "1.5"}, Figures(100, p99_ms=60.0), Figures(100, p99_ms=60.5)),
        (
            {"minAgreement": "0.9"},
            Figures(100, compared=10, agreement=9.0),
            Figures(100, compared=10, agreement=8.9),
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_is_exactly_at_a_limit_passes_and_what_is_beyond_fails(
    analysis: dict[str, Any], within: Figures, beyond: Figures
) -> None:
    stable = Figures(1000, errors=50, p99_ms=40.0)
    assert judged(within, stable, **analysis).outcome == "Passed"
    assert judged(beyond, stable, **analysis).outcome == "Failed"


def test_a_ratio_without_a_figure_of_the_revision_in_service_breaks_nothing() -> None:
    assert judged(Figures(100, p99_ms=900.0), Figures(0), maxP99Ratio="1.1").outcome == "Passed"
    assert judged(Figures(100), Figures(100, p99_ms=1.0), maxP99Ratio="1.1", maxP99Milliseconds=1).outcome == "Passed"


def test_fewer_requests_than_asked_for_are_inconclusive_and_as_many_are_enough() -> None:
    few = judged(Figures(9, errors=9), maxErrorRate="0")
    assert few == Judgement("Inconclusive", "9 of 10 requests in 30 s")
    assert judged(Figures(10, errors=10), maxErrorRate="0").outcome == "Failed"


def test_no_copy_yet_is_inconclusive_unless_another_measure_failed_or_agreement_is_only_reported() -> None:
    nothing = Figures(100, errors=50)
    assert judged(nothing, minAgreement="0.9").message == "no copied request was compared yet"
    assert judged(nothing, minAgreement="0.9").outcome == "Inconclusive"
    assert judged(nothing, minAgreement="0.9", maxErrorRate="0.1").outcome == "Failed"
    assert judged(nothing, minAgreement="0.9", dryRun=["minAgreement"]).outcome == "Passed"


def test_all_measures_that_fail_are_named_and_those_in_dry_run_apart() -> None:
    bad = Figures(100, errors=50, p99_ms=2000.0, compared=10, agreement=1.0)
    limits = {"maxErrorRate": "0.1", "maxP99Milliseconds": 500, "minAgreement": "0.9"}
    found = judged(bad, **limits, dryRun=["maxP99Milliseconds"])
    assert found.outcome == "Failed"
    assert found.message == (
        "50 % of 100 requests failed, 10 % are allowed; "
        "it agrees with the revision in service on 10 % of 10 copied requests, 90 % are asked for"
    )
    assert found.dry == "maxP99Milliseconds: its p99 is 2000 ms, 500 ms are allowed"
    only = judged(bad, **limits, dryRun=["maxErrorRate", "maxP99Milliseconds", "minAgreement"])
    assert only.outcome == "Passed" and only.dry.count(";") == 2


def test_figures_are_told_in_one_line() -> None:
    assert summary(Figures(200, errors=1, p99_ms=12.4, compared=50, agreement=49.5)) == (
        "200 requests, 0.5 % failed, p99 12 ms, 99 % agreement on 50 copies"
    )
    assert summary(Figures(3)) == "3 requests, 0 % failed"
