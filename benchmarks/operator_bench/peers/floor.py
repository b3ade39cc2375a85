"""R2: kopf that watches what our operator watches, and does nothing. No operator on kopf's defaults costs less."""

from typing import Any

import kopf

_SELECTOR = "app.kubernetes.io/managed-by=luthier"


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = False
    settings.watching.label_selectors["batch", "v1", "jobs"] = _SELECTOR
    settings.watching.label_selectors["", "v1", "pods"] = _SELECTOR


@kopf.on.event("luthier.dev", "v1alpha1", "finetunejobs")
@kopf.on.event("luthier.dev", "v1alpha1", "modeldeployments")
@kopf.on.event("batch", "v1", "jobs")
@kopf.on.event("", "v1", "pods")
async def seen(**_: Any) -> None:
    pass
