"""Condition types and reasons. They are API: users alert on them, so a name never takes on another meaning."""

from enum import StrEnum


class ConditionType(StrEnum):
    """Condition types. The first three follow kstatus, so that kubectl wait and Flux need nothing special."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    PREPARED = "Prepared"
    PUBLISHED = "Published"
    AVAILABLE = "Available"
    ADMITTED = "Admitted"
    STORAGE_FAILING = "StorageFailing"
    EXPOSED = "Exposed"
    DRIFTING = "Drifting"


class Reason(StrEnum):
    """Why a condition has its status, why a run failed, and the reason of the Event that says so."""

    # A FineTuneJob on its way.
    PREPARING = "Preparing"
    PREPARED_WITH_WARNINGS = "PreparedWithWarnings"
    TRAINING = "Training"
    SUSPENDED = "Suspended"
    PUBLISHED = "Published"
    REUSED = "Reused"
    GATE_FAILED = "GateFailed"
    RETRYING = "Retrying"
    REPLACED = "Replaced"
    WAITING_FOR_RUN = "WaitingForRun"
    QUEUED = "Queued"
    REQUEUED = "Requeued"
    ADMITTED = "Admitted"
    DELETING = "Deleting"
    PRUNED = "Pruned"
    REMOVED = "Removed"
    REMOVAL_FAILED = "RemovalFailed"
    OTHER_RELEASE = "OtherRelease"
    ADOPTED = "Adopted"
    SIDECAR_RUNNING = "SidecarRunning"
    STORAGE_FAILING = "StorageFailing"

    # A BatchPrediction on its way; the rest of its reasons are those of a FineTuneJob.
    PREDICTING = "Predicting"
    PREDICTED = "Predicted"

    # What stops a run: the user's input.
    INVALID_SPEC = "InvalidSpec"
    INVALID_DATA = "InvalidData"
    INVALID_MODEL = "InvalidModel"
    INPUT_NOT_FOUND = "InputNotFound"
    # ... storage
    BUCKET_NOT_FOUND = "BucketNotFound"
    STORAGE_DENIED = "StorageDenied"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    CREDENTIALS_EXPIRED = "CredentialsExpired"
    STORAGE_UNSAFE = "StorageUnsafe"
    INTEGRITY_ERROR = "IntegrityError"
    # ... the run itself
    OUT_OF_MEMORY = "OutOfMemory"
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    LOSS_NOT_FINITE = "LossNotFinite"
    EXPORT_FAILED = "ExportFailed"
    PREEMPTED = "Preempted"
    EVICTED = "Evicted"
    NODE_LOST = "NodeLost"
    STUCK = "Stuck"
    CRASHED = "Crashed"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    # ... the cluster
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONFIG_ERROR = "ConfigError"
    UNSCHEDULABLE = "Unschedulable"
    POD_REFUSED = "PodRefused"
    QUOTA_EXCEEDED = "QuotaExceeded"
    MISSING_SECRET = "MissingSecret"
    MISSING_CONFIG_MAP = "MissingConfigMap"
    MISSING_SERVICE_ACCOUNT = "MissingServiceAccount"
    MISSING_VOLUME_CLAIM = "MissingVolumeClaim"
    IMAGE_NOT_ALLOWED = "ImageNotAllowed"
    QUEUE_NOT_FOUND = "QueueNotFound"

    # A ModelDeployment on its way.
    WAITING_FOR_MODEL = "WaitingForModel"
    DEPLOYING = "Deploying"
    ROLLING_OUT = "RollingOut"
    SERVING = "Serving"
    IDLE = "Idle"
    UNAVAILABLE = "Unavailable"
    # ... what it is asked beside what it was trained on
    DRIFTING = "Drifting"
    WITHIN_LIMIT = "WithinLimit"
    TOO_FEW_REQUESTS = "TooFewRequests"
    NO_REFERENCE = "NoReference"
    # ... and what stops it.
    MODEL_NOT_FOUND = "ModelNotFound"
    KUBERAY_NOT_INSTALLED = "KubeRayNotInstalled"
    REVISION_FAILED = "RevisionFailed"
    ADAPTER_FAILED = "AdapterFailed"
    ROLLED_BACK = "RolledBack"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    # ... who may ask it, and from where.
    NO_API_KEYS = "NoApiKeys"
    EXPOSED = "Exposed"
    WAITING_FOR_ROUTE = "WaitingForRoute"
    ROUTE_NOT_ACCEPTED = "RouteNotAccepted"
    GATEWAY_NOT_FOUND = "GatewayNotFound"
    GATEWAY_API_NOT_INSTALLED = "GatewayApiNotInstalled"
