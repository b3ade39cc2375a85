"""The adapter to the API server: the only place that writes to the cluster, and where its errors get their meaning.

`access` knows where the API server is and makes the sessions; `client` sends requests; `errors` says what answers mean;
`pace` holds requests back; `fence` and `lease` see to it that one operator writes. Lists and watches are kopf's.
"""

from luthier_operator.kube.access import Access, counting
from luthier_operator.kube.client import KubeClient, ListedVersions
from luthier_operator.kube.errors import (
    ApiNotInstalled,
    ClusterError,
    Conflict,
    Gone,
    QuotaExceeded,
    Refused,
    Transient,
    Unexpected,
)
from luthier_operator.kube.fence import Fence, fencing
from luthier_operator.kube.pace import Backoffs, Pace, keeping

__all__ = [
    "Access",
    "ApiNotInstalled",
    "Backoffs",
    "ClusterError",
    "Conflict",
    "Fence",
    "Gone",
    "KubeClient",
    "ListedVersions",
    "Pace",
    "QuotaExceeded",
    "Refused",
    "Transient",
    "Unexpected",
    "counting",
    "fencing",
    "keeping",
]
