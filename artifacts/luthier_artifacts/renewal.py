"""Waiting for keys that have expired to be renewed, request by request, so that nothing that is done is done again.

Only keys that storage has accepted before are waited for: a pod that was just made has its Secret as it is now.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential

from luthier_artifacts.config import StorageConfig
from luthier_artifacts.errors import CredentialsExpired

# How often to look, after the first seconds.
POLL_S = 10.0

log = logging.getLogger(__name__)


class Renewable(Protocol):
    """A store whose keys may be renewed while it is used."""

    accepted: bool
    """Whether storage has accepted its keys before."""

    @property
    def config(self) -> StorageConfig:
        """How long other keys are waited for, and who is told."""


S = TypeVar("S", bound=Renewable)
P = ParamSpec("P")
R = TypeVar("R")


def awaiting_renewal(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Have a method of a store tried again until its keys have been renewed, or `renewal_wait_s` is over."""

    @functools.wraps(method)
    def patiently(store: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        tell = store.config.on_waiting or (lambda why: None)

        def begin_to_wait(state: RetryCallState) -> None:
            if state.attempt_number == 1 and state.outcome:
                log.warning("%s The request is tried again until then.", state.outcome.exception())
                tell(str(state.outcome.exception()))

        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, CredentialsExpired) and store.accepted),
            stop=stop_after_delay(store.config.renewal_wait_s),
            wait=wait_exponential(max=POLL_S),
            before_sleep=begin_to_wait,
            reraise=True,
        )
        found = retrying(method, store, *args, **kwargs)
        if retrying.statistics["attempt_number"] > 1:
            tell(None)
        return found

    return patiently
