"""Figures of the main job, read off the cluster on which `make demo` has run. `make bench` runs this.

    apply to Job     `kubectl apply` of a FineTuneJob until its prepare Job exists, ten times
    first step       a training pod's start until its first optimizer step, of every training pod that is there
    operator memory  resident set of the operator's container, as the kubelet reports it
    image sizes      unpacked, as the node reports them

Raw samples go to benchmarks/results/main_job.json. Seconds depend on the machine and on what else it does.
"""

from __future__ import annotations

import json
import platform
import re
import statistics
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from luthier_dev.cluster import Cluster
from luthier_dev.providers import provider

NAMESPACE = "luthier-bench"
DEMO = "luthier-demo"
ROUNDS = 10
RESULTS = Path(__file__).parent / "results" / "main_job.json"
FIRST_STEP = re.compile(r"^(\S+)Z .*\bstep (\d+)/")


def apply_to_job(cluster: Cluster) -> list[float]:
    """Seconds from the start of `kubectl apply` until a watch tells of the Job; the image does not exist."""
    kubectl = cluster.kubectl
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    samples = []
    for number in range(ROUNDS):
        name = f"bench-{number}"
        with watch(cluster, "jobs") as lines:
            started = time.monotonic()
            kubectl("apply", "--namespace", NAMESPACE, "--filename=-", stdin=json.dumps(finetunejob(name)))
            for line in lines.stdout:
                if name in line:
                    break
            samples.append(round(time.monotonic() - started, 3))
            lines.kill()
    kubectl("delete", "namespace", NAMESPACE, "--wait=true", timeout_s=180)
    return samples


def watch(cluster: Cluster, kind: str) -> subprocess.Popen[str]:
    from luthier_dev import binaries

    command = [str(binaries.path("kubectl")), "get", kind, "--namespace", NAMESPACE, "--watch", "--output=name"]
    return subprocess.Popen(command, env=cluster.kubectl.environment, stdout=subprocess.PIPE, text=True, bufsize=1)


def finetunejob(name: str) -> dict[str, Any]:
    spec = {
        "model": {"uri": "s3://models/base/minilm-l6"},
        "dataset": {"train": {"uri": "s3://data/reviews/train.csv"}},
        "image": "localhost/luthier-bench-does-not-exist:1",
        "gpusPerNode": 0,
        "prepareResources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "64Mi"}},
        "output": {"name": name, "uri": "s3://models/bench/"},
    }
    return {"apiVersion": "luthier.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": name}, "spec": spec}


def start_to_first_step(cluster: Cluster) -> list[float]:
    """Seconds from a training container's start until its log tells of the first step."""
    selector = "app.kubernetes.io/component=train"
    samples = []
    for pod in cluster.kubectl.get("pods", "--namespace", DEMO, "-l", selector)["items"]:
        state = pod["status"]["containerStatuses"][0]["state"]
        started = (state.get("terminated") or state.get("running") or {}).get("startedAt")
        log = cluster.kubectl("logs", "--timestamps", pod["metadata"]["name"], "--namespace", DEMO)
        first = next((found for line in log.splitlines() if (found := FIRST_STEP.match(line))), None)
        if started and first:
            moment = datetime.fromisoformat(first[1][:26] + "+00:00")
            samples.append(round((moment - datetime.fromisoformat(started)).total_seconds(), 1))
    return samples


def operator_memory_bytes(cluster: Cluster) -> int:
    """Resident set of the operator's container."""
    node = cluster.kubectl.get("nodes")["items"][0]["metadata"]["name"]
    summary = json.loads(cluster.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
    (container,) = [
        container
        for pod in summary["pods"]
        if pod["podRef"]["namespace"] == "luthier-system"
        for container in pod["containers"]
        if container["name"] == "operator"
    ]
    return int(container["memory"]["rssBytes"])


def image_sizes_bytes(cluster: Cluster) -> dict[str, int]:
    """Unpacked size of each image that is in use now."""
    used = {name: cluster.image_ref(name) for name in ("luthier-operator", "luthier-server", "luthier-trainer")}
    images = cluster.kubectl.get("nodes")["items"][0]["status"]["images"]
    sizes = {name: image["sizeBytes"] for image in images for name in image["names"] or []}
    return {name: sizes[reference] for name, reference in used.items() if reference in sizes}


def main() -> None:
    cluster = provider()
    figures = {
        "machine": f"{platform.machine()}, {platform.release()}",
        "measured_at": datetime.now().isoformat(timespec="seconds"),
        "operator_rss_bytes": operator_memory_bytes(cluster),
        "image_bytes": image_sizes_bytes(cluster),
        "pod_start_to_first_step_s": start_to_first_step(cluster),
        "apply_to_job_s": apply_to_job(cluster),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    applied = figures["apply_to_job_s"]
    print(f"operator at rest      {figures['operator_rss_bytes'] / 2**20:.0f} MiB resident")
    for name, size in figures["image_bytes"].items():
        print(f"{name:21} {size / 1e6:.0f} MB unpacked")
    print(f"pod start to step 1   {figures['pod_start_to_first_step_s']} s")
    print(
        f"apply to Job          median {statistics.median(applied):.2f} s, max {max(applied):.2f} s of {len(applied)}"
    )
    print(f"raw samples: {RESULTS}")


if __name__ == "__main__":
    main()
