"""What a cluster, and the user, lack for Luthier: one row for each thing, with its fix.

    rows      what a row is
    cluster   the API server, CRDs, the operator, rights, GPUs, KubeRay, Kueue
    namespace what the resources of one namespace refer to: Secrets, queues; and those that are stalled
    storage   S3 from here: the bucket, the rights, conditional writes

A check never stops the others, and changes nothing, but for the object `.probe` in a bucket that is to be proved.
"""

from luthier.doctor.cluster import cluster_rows
from luthier.doctor.namespace import namespace_rows
from luthier.doctor.rows import Level, Row
from luthier.doctor.storage import storage_rows

__all__ = ["Level", "Row", "cluster_rows", "namespace_rows", "storage_rows"]
