"""The way of a request for predictions, the same for every protocol: read, parse, predict, render, count."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from luthier_serving.answers import Answer
from luthier_serving.errors import RequestError
from luthier_serving.replica.predictor import Predictor
from luthier_serving.replica.protocols.interface import Call, CallT, WireProtocol
from luthier_serving.replica.protocols.options import check_cuts, check_options
from luthier_serving.tasks.options import NO_OPTIONS

CLIENT_CLOSED_REQUEST = 499

ReceivedT = TypeVar("ReceivedT")
SentT = TypeVar("SentT")


class RequestMetrics(Protocol):
    """Records answered requests."""

    def observe_request(self, code: int, revision: str, seconds: float, pending: int) -> None:
        """Record one request for predictions."""


class Endpoint:
    """Answers requests of every protocol.

    Args:
        predictor: answers texts.
        metrics: records requests.
    """

    def __init__(self, predictor: Predictor, metrics: RequestMetrics):
        self.predictor = predictor
        self._metrics = metrics

    async def answer(
        self,
        protocol: WireProtocol[ReceivedT, CallT, SentT],
        read: Callable[[], Awaitable[ReceivedT]],
        headers: Mapping[str, str],
        status: Callable[[SentT], int] = lambda reply: 200,
    ) -> SentT:
        """Return the answer to one request, or its error.

        Args:
            protocol: that the request is written in.
            read: returns the request, once it is there.
            headers: of the request, which may choose the revision.
            status: returns the HTTP status of an answer.
        """
        predictor, started = self.predictor, time.perf_counter()
        revision, code = "", CLIENT_CLOSED_REQUEST
        try:
            call = protocol.parse(await read(), predictor.limits, predictor.served)
            _check_call(call, predictor)
            revision, answer = await predictor.predict(call.texts, headers, call.version, call.adapter)
            _check_answer(call, answer)
            reply = protocol.render(call, answer)
            code = status(reply)
        except RequestError as error:
            reply, code = protocol.error(error), error.status
        except Exception:
            code = 500
            raise
        finally:
            self._metrics.observe_request(code, revision, time.perf_counter() - started, predictor.pending)
        return reply


def _check_call(call: Call, predictor: Predictor) -> None:
    """Refuse options that mean nothing here before anything is computed, where the model is known.

    An adapter has a task and labels of its own, which its answer tells.
    """
    if call.options is not NO_OPTIONS and call.adapter is None and (model := predictor.served.info):
        check_options(call.options, model)


def _check_answer(call: Call, answer: Answer) -> None:
    first = answer.rows[0]
    if first.invalid_input:
        # The texts of a request are all pairs, or none is: what is wrong with one is wrong with all.
        raise RequestError(str(first.error), status=422)
    if call.options is not NO_OPTIONS:
        check_options(call.options, answer.model)
        check_cuts(call.options, answer)
