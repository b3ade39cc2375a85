"""What a pod leaves as its last word, whatever it is, ends in one sane sentence, and only its own run takes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from luthier_api.documents import Failure, Result
from luthier_api.exitcodes import ExitCode
from luthier_api.reasons import Reason
from support.operator.crowd import ESCAPE, Crowd, assert_fit_for_a_terminal, each, ready, result

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_bug")]

Raw = dict[str, Any]


def failure(reason: str, message: str) -> str:
    return json.dumps({"failure": {"reason": reason, "message": message}})


NO_RESULT = ("Crashed", "left no result that Luthier understands")
LAST_WORDS: dict[str, tuple[int, str, str, str]] = {
    "nothing": (0, "", *NO_RESULT),
    "not-json": (0, "Killed", *NO_RESULT),
    "cut": (0, result(message="x" * 500)[:300], *NO_RESULT),
    "huge": (0, "x" * 100_000, *NO_RESULT),
    "huge-result": (0, result(message="x" * 5000), *NO_RESULT),
    "deep": (0, "[" * 4000, *NO_RESULT),
    "surrogates": (0, result(version="v\ud800"), *NO_RESULT),
    "control": (0, result(version=f"v{ESCAPE}", uri=f"s3://m/s/versions/v{ESCAPE}"), *NO_RESULT),
    "elsewhere": (0, result(version="../../other"), *NO_RESULT),
    "too-large": (0, result(sizeBytes=10**30), *NO_RESULT),
    "unknown-fields": (0, result(command="rm"), *NO_RESULT),
    "fails-well": (0, failure("InvalidData", "The labels are empty."), "InvalidData", "The labels are empty."),
    "no-failure": (65, failure("Serving", f"All {ESCAPE}\n\nis well"), "InvalidData", "All [2J [31m is well."),
    "endless": (65, failure("InvalidData", "x" * 1500), "InvalidData", "xxx"),
    "unknown-code": (77, "", "Crashed", "exit code 77"),
}


def test_whatever_a_pod_leaves_as_its_last_word_ends_in_one_sane_sentence(
    operator: Any, namespace: Any, crowd: Crowd
) -> None:
    crowd.submit(*LAST_WORDS, backoffLimit=0)
    pods = crowd.pods("prepare", list(LAST_WORDS))

    def end(name: str) -> None:
        code, message, *_ = LAST_WORDS[name]
        namespace.end(pods[name], code, message, "Completed" if code == 0 else f"Error{ESCAPE}")

    each(end, LAST_WORDS)
    namespace.until("all to fail", lambda: {s.get("phase") for s in crowd.statuses().values()} == {"Failed"}, 90)
    for name, status in crowd.statuses().items():
        *_, reason, sentence = LAST_WORDS[name]
        assert ready(status)["reason"] == reason, name
        assert sentence in ready(status)["message"], name
        assert len(ready(status)["message"]) <= 1600 and "\n" not in ready(status)["message"], name
        assert not status.get("versions"), name
        assert "Stalled" in [c["type"] for c in status["conditions"]], name
    assert "train" not in {job["metadata"]["labels"]["app.kubernetes.io/component"] for job in namespace.all("jobs")}
    assert_fit_for_a_terminal(namespace)
    shown = namespace.kubectl("describe", "ftj") + namespace.kubectl("get", "ftj") + namespace.kubectl("get", "events")
    assert all(line.replace("\t", " ").isprintable() for line in shown.splitlines())


def test_the_result_of_another_run_or_stage_is_not_taken(
    operator: Any, namespace: Any, crowd: Crowd, prepared_message: Callable[..., str]
) -> None:
    words = {"prepares-again": prepared_message(), "other-run": result(runKey="f" * 64)}
    for name, pod in crowd.train(*words).items():
        namespace.end(pod, 0, words[name])
    namespace.until("both to fail", lambda: {s["phase"] for s in crowd.statuses().values()} == {"Failed"})
    for status in crowd.statuses().values():
        assert ready(status)["reason"] == "IntegrityError"
        assert "reported the result of another run, which was not accepted" in ready(status)["message"]
        assert "artifact" not in status and not status.get("versions")


def test_containers_that_others_put_into_the_pod_are_not_taken_for_the_trainers(
    operator: Any, namespace: Any, crowd: Crowd
) -> None:
    names = ["sidecar-speaks", "sidecar-image", "init-image"]
    crowd.submit(*names)
    pods = crowd.pods("prepare", names)

    def status(name: str, **state: Any) -> Raw:
        return {"name": name, "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}

    times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}
    said = Result(failure=Failure(reason=Reason.INVALID_DATA, message="The data is bad.")).to_termination_message()
    mine = status("main", terminated={"exitCode": ExitCode.INVALID_DATA, "message": said, "reason": "Error", **times})
    other = status("a-proxy", terminated={"exitCode": 0, "message": result(), "reason": "Completed", **times})
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "proxy:1"'}
    written: dict[str, Raw] = {
        "sidecar-speaks": {"phase": "Failed", "containerStatuses": [other, mine]},
        "sidecar-image": {"containerStatuses": [status("a-proxy", waiting=waiting), status("main", running={})]},
        "init-image": {
            "initContainerStatuses": [status("a-vault", waiting=waiting)],
            "containerStatuses": [status("main", waiting={"reason": "PodInitializing"})],
        },
    }
    for name, content in written.items():
        namespace.merge("pod", pods[name]["metadata"]["name"], {"status": content}, status=True)
    namespace.until("the failure", lambda: ready(crowd.status("sidecar-speaks"))["reason"] == "InvalidData")
    assert ready(crowd.status("sidecar-speaks"))["message"].startswith("The data is bad.")
    namespace.until("the init container", lambda: ready(crowd.status("init-image"))["reason"] == "ImagePullFailed")
    assert "proxy:1" in ready(crowd.status("init-image"))["message"]
    assert ready(crowd.status("sidecar-image"))["reason"] == "Preparing", "the trainer itself runs"
