"""What a server is told to observe of its requests, and how it reaches the storage of its request log."""

from luthier_api.documents import Access, DriftConfig, ObserveConfig, RequestLogConfig, TracingConfig
from luthier_api.modeldeployment import ModelDeploymentSpec
from luthier_api.storage import StorageAccess
from luthier_operator.manifests.access import Grant


def observe_config(namespace: str, spec: ModelDeploymentSpec, served: Access) -> ObserveConfig | None:
    """Return the server's part; None if nothing is asked for, so that nothing of it stands in the RayService.

    Args:
        namespace: of the resource.
        spec: what the user asks for.
        served: storage of the version in service, where the log goes if it names none of its own.
    """
    wanted = spec.observe
    if wanted is None or not (wanted.drift or wanted.request_log or wanted.tracing):
        return None
    drift, log, tracing = wanted.drift, wanted.request_log, wanted.tracing
    own = log_grant(spec)
    return ObserveConfig(
        namespace=namespace,
        # The limit is the operator's: another one changes nothing on the server.
        drift=DriftConfig(window_s=drift.window_seconds) if drift else None,
        request_log=RequestLogConfig(
            uri=log.uri,
            access=own.access if own else served,
            share=float(log.sample_percent / 100),
            texts=log.texts,
            flush_s=log.flush_seconds,
        )
        if log
        else None,
        tracing=TracingConfig(endpoint=tracing.endpoint, share=float(tracing.sample_percent / 100))
        if tracing
        else None,
    )


def log_grant(spec: ModelDeploymentSpec) -> Grant | None:
    """Return the log's own way to storage; None if it has that of the version.

    Pods start without its Secret: a log that cannot be written is no reason to serve nothing.
    """
    log = spec.observe.request_log if spec.observe else None
    if log is None or log.is_unset():
        return None
    access = StorageAccess(**{name: getattr(log, name) for name in StorageAccess.model_fields})
    return Grant("log", access, optional=True)
