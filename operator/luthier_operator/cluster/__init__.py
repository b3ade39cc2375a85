"""The adapter to the API server: the only place that writes to the cluster, and where its errors get their meaning."""

from luthier_operator.cluster.access import Access
from luthier_operator.cluster.client import Cluster
from luthier_operator.cluster.errors import (
    ApiNotInstalled,
    ClusterError,
    Conflict,
    Gone,
    Refused,
    Transient,
    Unexpected,
)
from luthier_operator.cluster.pace import Pace
from luthier_operator.cluster.tracing import Fence, counting, fencing
from luthier_operator.cluster.watches import Listener, Watch, Watched

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
    "Refused",
    "Transient",
    "Unexpected",
    "Watch",
    "Watched",
    "counting",
    "fencing",
]
