"""The adapter to the API server: the only place that writes to the cluster, and where its errors get their meaning."""

from luthier_operator.kube.access import Access
from luthier_operator.kube.client import Cluster
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
from luthier_operator.kube.fence import Fence, counting, fencing
from luthier_operator.kube.pace import Pace
from luthier_operator.kube.watches import Listener, Watch, Watched

__all__ = [
    "Access",
    "ApiNotInstalled",
    "Cluster",
    "ClusterError",
    "Conflict",
    "Fence",
    "Gone",
    "Listener",
    "Pace",
    "QuotaExceeded",
    "Refused",
    "Transient",
    "Unexpected",
    "Watch",
    "Watched",
    "counting",
    "fencing",
]
