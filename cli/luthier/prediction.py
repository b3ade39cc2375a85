"""Asks a ModelDeployment, through the API server: no port is opened, and no address outside of the cluster needed.

The right for it is `create services/proxy`. The API server's proxy is for people: pipelines and applications send their
requests to `status.url`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from luthier.cluster import Cluster
from luthier.errors import Invalid, LuthierError, Unreachable
from luthier.kinds import MODELDEPLOYMENT, Raw
from luthier_api.documents import SERVE_PORT

_TIMEOUT_S = 60.0


def predict(
    cluster: Cluster, name: str, texts: Sequence[str], pairs: Sequence[str] | None = None, timeout_s: float = _TIMEOUT_S
) -> list[dict[str, Any]]:
    """Return the server's answer to each text.

    Args:
        cluster: Where it is served.
        name: Name of the ModelDeployment.
        texts: What to ask.
        pairs: The second texts, for a model of pairs.
        timeout_s: How long the answer may take.

    Raises:
        NotFound: if there is no such ModelDeployment.
        Invalid: if the model refuses the texts; the sentence is its own.
        Unreachable: if it does not answer, with the resource's own sentence on why.
    """
    if not texts:
        raise Invalid("There is no text to predict.")
    deployment = cluster.read(MODELDEPLOYMENT, name)
    body: Raw = {"texts": list(texts), **({"text_pairs": list(pairs)} if pairs is not None else {})}
    try:
        answer = cluster.post_to_service(f"{name}-serve-svc", SERVE_PORT, "predict", body, timeout_s)
    except Invalid:
        raise
    except LuthierError as error:
        if deployment.deployment_status.ready_replicas:
            raise
        ready = next((c.message for c in deployment.status.conditions if c.type == "Ready"), "no operator has seen it")
        raise Unreachable(f"{deployment.title} does not answer ({str(error).rstrip('.')}): {ready}") from error
    return [dict(prediction) for prediction in answer["predictions"]]
