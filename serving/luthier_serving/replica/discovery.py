"""What is served, as the protocols say it: which models and versions, whether they answer, their inputs and outputs."""

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Protocol

from luthier_serving.answers import ModelInfo
from luthier_serving.errors import Unavailable
from luthier_serving.replica.predictor import Predictor
from luthier_serving.replica.protocols.interface import check_model
from luthier_serving.replica.protocols.tensors import Described, described_inputs, described_outputs, properties_of

SERVER_NAME = "luthier"
EXTENSIONS = ["binary_tensor_data"]


class Ready(Protocol):
    """Returns the model that answers, or that of one version, or what an adapter makes of it."""

    async def __call__(self, version: str | None = None, adapter: str | None = None) -> ModelInfo:
        """Return it.

        Raises:
            Unavailable: there is none.
        """


class Discovery:
    """Answers what clients ask before they send texts.

    Args:
        predictor: knows what is served.
        ready: returns the model that answers.
    """

    def __init__(self, predictor: Predictor, ready: Ready):
        self._predictor, self._ready = predictor, ready

    def server(self) -> dict[str, Any]:
        """Return the metadata of the server."""
        return {"name": SERVER_NAME, "version": _version(), "extensions": EXTENSIONS}

    def models(self) -> list[str]:
        """Return the names of the models."""
        return self._predictor.served.names

    async def is_ready(self, model: str | None = None, version: str | None = None) -> bool:
        """Return whether a model answers, or this version of it.

        Raises:
            RequestError: 404 for another model or version.
        """
        try:
            await self.ready(model, version)
        except Unavailable:
            return False
        return True

    async def ready(self, model: str | None = None, version: str | None = None) -> ModelInfo:
        """Return the model that answers, or this version of it.

        Raises:
            RequestError: 404 for another model or version.
            Unavailable: it does not answer.
        """
        adapter = None if model is None else check_model(model, version, self._predictor.served)
        if adapter is not None:
            return await self._ready(adapter=adapter)
        return await (self._ready(version) if version else self._ready())

    async def describe(self, model: str, version: str | None = None) -> Mapping[str, Any]:
        """Return the metadata of a model.

        Raises:
            RequestError: 404 for another model or version.
            Unavailable: it does not answer.
        """
        info, served = await self.ready(model, version), self._predictor.served
        return {
            "name": model,
            "versions": list(served.versions_of(check_model(model, version, served))),
            "platform": SERVER_NAME,
            "inputs": [_metadata(each) for each in described_inputs(info)],
            "outputs": [_metadata(each) for each in described_outputs(info)],
            "properties": properties_of(info),
        }


def _metadata(tensor: Described) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}


@lru_cache(maxsize=1)
def _version() -> str:
    return version("luthier-serving")
