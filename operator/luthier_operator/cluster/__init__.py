"""The adapter to the API server: the only place that writes to the cluster, and where its errors get their meaning."""

from luthier_operator.cluster.client import Cluster
from luthier_operator.cluster.errors import ApiNotInstalled, ClusterError, Gone, Refused, Transient, Unexpected

__all__ = ["ApiNotInstalled", "Cluster", "ClusterError", "Gone", "Refused", "Transient", "Unexpected"]
