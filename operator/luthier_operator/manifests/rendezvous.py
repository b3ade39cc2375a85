"""How the pods of one run on several nodes find each other and are kept close: Service, environment, affinity.

The pods belong to one Indexed Job. Each has the Job's name and its index for a host name, and the headless Service
gives that name an address before the pod is ready: the first pod is where all meet (torchrun's c10d rendezvous).
"""

from typing import Any

from luthier_api.finetunejob import FineTuneJobSpec
from luthier_operator.manifests.pods import owner_reference
from luthier_operator.model import names
from luthier_operator.model.views import Meta

PORT = 29500


def service(owner: Meta) -> dict[str, Any]:
    """Return the headless Service of a FineTuneJob. It is made once, with the resource's first run that needs it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.rendezvous_service(owner.name, owner.uid),
            "namespace": owner.namespace,
            "labels": names.labels("rendezvous", **{names.FINETUNEJOB: owner.name}),
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {
            "clusterIP": "None",
            # A pod is ready when it trains, and it trains when all have met.
            "publishNotReadyAddresses": True,
            "selector": {names.FINETUNEJOB: owner.name, names.COMPONENT: "train"},
            "ports": [{"name": "rendezvous", "port": PORT, "targetPort": PORT}],
        },
    }


def environment(owner: Meta, spec: FineTuneJobSpec, job: str) -> list[dict[str, str]]:
    """Return the variables by which the trainer starts its processes and finds the other pods; none for one process."""
    processes = {"LUTHIER_PROCESSES_PER_NODE": str(max(1, spec.gpus_per_node))}
    if spec.num_nodes > 1:
        wanted = {
            **processes,
            "LUTHIER_NUM_NODES": str(spec.num_nodes),
            "LUTHIER_RENDEZVOUS": f"{job}-0.{names.rendezvous_service(owner.name, owner.uid)}:{PORT}",
            # When one pod is lost the whole Job is made again, so no pod waits for others that never come.
            "LUTHIER_MAX_RESTARTS": "0",
        }
    else:
        wanted = processes if spec.gpus_per_node > 1 else {}
    return [{"name": name, "value": value} for name, value in wanted.items()]


def network(owner: Meta, spec: FineTuneJobSpec, run: str) -> dict[str, Any]:
    """Return the fields of a pod spec that give it its name in the network, near the other pods of the run."""
    if spec.num_nodes == 1:
        return {}
    mine = {names.RUN: run, names.COMPONENT: "train"}
    near = {"labelSelector": {"matchLabels": mine}, "topologyKey": "topology.kubernetes.io/zone"}
    preferred = [{"weight": 100, "podAffinityTerm": near}]
    return {
        "subdomain": names.rendezvous_service(owner.name, owner.uid),
        "affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}},
    }
