"""The JSON documents that the parts of Luthier hand to each other, one module for each receiver.

run        operator --RunDocument--> prepare; operator --RunDocument with `resolved`--> train
operator --Removal--> remove
result     prepare, train, remove --Result--> operator, in the pod's termination message
progress   train --ProgressDocument over HTTP--> operator
serving    train --ServingDocument in the artifact, as luthier.json--> server
operator --ServerConfig, RevisionConfig in the RayService--> server
server --ServerReport over HTTP--> operator
bulk       operator --BulkDocument--> workers of a batch prediction, which answer by a Result and a ProgressDocument
"""

from luthier_api.artifact_files import SERVING_DOCUMENT_FILE
from luthier_api.documents.bulk import WORKER_INDEX_VARIABLE, BulkDocument
from luthier_api.documents.progress import TRAINER_PORT, ProgressDocument, Stage
from luthier_api.documents.result import (
    TERMINATION_MESSAGE_BYTES,
    TERMINATION_MESSAGE_PATH,
    DocumentError,
    Failure,
    Predicted,
    Prepared,
    Published,
    Removed,
    Result,
    read_result,
)
from luthier_api.documents.run import (
    CA_BUNDLE_DIR,
    CREDENTIALS_DIR,
    CREDENTIALS_VARIABLE,
    GRACE_VARIABLE,
    MODEL_CACHE_VARIABLE,
    RUN_DOCUMENT_PATH,
    Access,
    Origin,
    Place,
    Removal,
    Resolved,
    Role,
    RunDocument,
    credential_env,
    credential_folder,
)
from luthier_api.documents.serving import (
    API_KEYS_DIR,
    GRPC_PORT,
    LATENCY_BUCKETS_PER_OCTAVE,
    MULTI_LABEL_THRESHOLD,
    SERVE_PORT,
    SERVER_REPORT_PATH,
    SERVER_REPORT_PORT,
    ApiKeysState,
    Mirror,
    ModelState,
    Padding,
    RevisionConfig,
    RevisionCounts,
    Route,
    ServerConfig,
    ServerReport,
    ServingDocument,
)

__all__ = [
    "API_KEYS_DIR",
    "CA_BUNDLE_DIR",
    "CREDENTIALS_DIR",
    "CREDENTIALS_VARIABLE",
    "GRACE_VARIABLE",
    "GRPC_PORT",
    "LATENCY_BUCKETS_PER_OCTAVE",
    "MODEL_CACHE_VARIABLE",
    "MULTI_LABEL_THRESHOLD",
    "RUN_DOCUMENT_PATH",
    "SERVER_REPORT_PATH",
    "SERVER_REPORT_PORT",
    "SERVE_PORT",
    "SERVING_DOCUMENT_FILE",
    "TERMINATION_MESSAGE_BYTES",
    "TERMINATION_MESSAGE_PATH",
    "TRAINER_PORT",
    "WORKER_INDEX_VARIABLE",
    "Access",
    "ApiKeysState",
    "BulkDocument",
    "DocumentError",
    "Failure",
    "ModelState",
    "Mirror",
    "Origin",
    "Padding",
    "Place",
    "Predicted",
    "Prepared",
    "ProgressDocument",
    "Published",
    "Removal",
    "Removed",
    "Resolved",
    "Result",
    "RevisionConfig",
    "RevisionCounts",
    "Role",
    "Route",
    "RunDocument",
    "ServerConfig",
    "ServerReport",
    "ServingDocument",
    "Stage",
    "credential_env",
    "credential_folder",
    "read_result",
]
