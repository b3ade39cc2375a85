"""The FineTuneJob whose version a resource serves, or predicts with."""

import json

from luthier_api.finetunejob import FineTuneJobSpec, FineTuneJobStatus
from luthier_api.modeldeployment import ServedModel
from luthier_operator.model.parse import meta_of
from luthier_operator.model.resources import Unreadable, read_spec, read_status
from luthier_operator.model.views import FineTuneJobView, Key
from luthier_operator.store.store import Store


def followed(store: Store, namespace: str, model: ServedModel) -> FineTuneJobView | None:
    """Return the FineTuneJob that a resource's `model` names; None if it names none, or there is none."""
    reference = model.fine_tune_job_ref
    found = store.read("FineTuneJob", Key("FineTuneJob", namespace, reference.name)) if reference else []
    if not found:
        return None
    raw = json.loads(found[0].value)
    meta = meta_of("FineTuneJob", raw)
    try:
        storage = read_spec(FineTuneJobSpec, raw).output
    except Unreadable:
        return None  # its own reconcile says so
    return FineTuneJobView(meta.name, storage, read_status(FineTuneJobStatus, raw, meta))
