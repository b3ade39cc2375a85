"""All that there is in the cluster, as its own watches tell, and what must hold of it at any time."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import yaml

Raw = dict[str, Any]
FTJ = "/apis/luthier.dev/v1alpha1/namespaces/{}/finetunejobs"
JOBS = "/apis/batch/v1/namespaces/{}/jobs"
PODS = "/api/v1/namespaces/{}/pods"
FINETUNEJOB, RUN, COMPONENT = "luthier.dev/finetunejob", "luthier.dev/run", "app.kubernetes.io/component"


class Api:
    """The API server as its administrator sees it, past the fault proxy."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._server: str = cluster["server"]
        tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as pem:
            pem.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
            pem.flush()
            tls.load_cert_chain(pem.name)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=tls))

    async def close(self) -> None:
        await self._session.close()

    async def request(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> tuple[int, Raw]:
        """Return status and answer; ask again for as long as the API server is away."""
        data = None if body is None else json.dumps(body)
        while True:
            try:
                async with self._session.request(
                    method, self._server + path, data=data, headers={"Content-Type": kind}
                ) as answer:
                    if answer.status not in (429, 503):  # as after a restart
                        return answer.status, json.loads(await answer.text())
            except (aiohttp.ClientError, ValueError):
                pass
            await asyncio.sleep(0.5)

    async def watch(self, path: str) -> AsyncIterator[tuple[str, Raw]]:
        """Yield ("LISTED", the list) and then (type, object), and begin anew whenever the watch ends."""
        while True:
            _, listed = await self.request("GET", path)
            if "items" not in listed:
                await asyncio.sleep(0.5)
                continue
            yield "LISTED", listed
            query = f"?watch=true&resourceVersion={listed['metadata']['resourceVersion']}"
            try:
                timeout = aiohttp.ClientTimeout(total=None)
                async with self._session.get(self._server + path + query, timeout=timeout) as answer:
                    partial = b""
                    async for chunk in answer.content.iter_any():
                        *lines, partial = (partial + chunk).split(b"\n")
                        for line in lines:
                            event = json.loads(line)
                            if event["type"] == "ERROR":
                                break
                            yield event["type"], event["object"]
            except aiohttp.ClientError:
                continue


class World:
    """Objects by name, kept by watches, and violations of what must always hold."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        self.finetunejobs: dict[str, Raw] = {}
        self.jobs: dict[str, Raw] = {}
        self.pods: dict[str, Raw] = {}
        self.violations: list[str] = []
        self.events = 0
        self.on_pod: Callable[[Raw], None] = lambda pod: None
        self._generations: dict[str, int] = {}

    async def see(self) -> None:
        """Keep what there is up to date until cancelled."""
        async with asyncio.TaskGroup() as group:
            for path, objects, check in (
                (FTJ, self.finetunejobs, self._check_generation),
                (JOBS, self.jobs, self._check_trainings),
                (PODS, self.pods, lambda pod: self.on_pod(pod)),
            ):
                group.create_task(self._keep(path.format(self.namespace), objects, check))

    async def _keep(self, path: str, objects: dict[str, Raw], check: Callable[[Raw], None]) -> None:
        async for kind, seen in self.api.watch(path):
            if kind == "LISTED":
                objects.clear()
                objects.update({item["metadata"]["name"]: item for item in seen["items"]})
                for item in list(objects.values()):
                    check(item)
                continue
            self.events += 1
            if kind == "DELETED":
                objects.pop(seen["metadata"]["name"], None)
            else:
                objects[seen["metadata"]["name"]] = seen
                check(seen)

    def _violated(self, what: str) -> None:
        if what not in self.violations:
            self.violations.append(what)
            print(f"VIOLATED: {what}", flush=True)

    def _check_generation(self, raw: Raw) -> None:
        uid, seen = raw["metadata"]["uid"], raw.get("status", {}).get("observedGeneration", 0)
        if seen < self._generations.get(uid, 0):
            self._violated(f"observedGeneration of {raw['metadata']['name']} went back to {seen}")
        if seen > raw["metadata"]["generation"]:
            self._violated(f"observedGeneration of {raw['metadata']['name']} is ahead of its generation")
        self._generations[uid] = seen

    def _check_trainings(self, changed: Raw) -> None:
        labels = changed["metadata"].get("labels", {})
        if labels.get(COMPONENT) != "train" or ended(changed):
            return
        training = [job for job in self.jobs.values() if job["metadata"]["labels"].get(COMPONENT) == "train"]
        mine = [job for job in training if not ended(job) and owner(job) == owner(changed)]
        if len(mine) > 1:
            names = sorted(job["metadata"]["name"] for job in mine)
            self._violated(f"two trainings of one resource are live: {names}")
        same = [job for job in training if not ended(job) and job["metadata"]["labels"][RUN] == labels[RUN]]
        if len(same) > 1:
            self._violated(f"two trainings of run {labels[RUN]} are live")

    def orphans(self) -> list[str]:
        """Return the Jobs whose owner is gone, and that are not going."""
        living = {raw["metadata"]["uid"] for raw in self.finetunejobs.values()}
        return [
            name
            for name, job in self.jobs.items()
            if owner(job) not in living and "deletionTimestamp" not in job["metadata"]
        ]


def ended(job: Raw) -> bool:
    conditions = job.get("status", {}).get("conditions") or []
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


def owner(job: Raw) -> str:
    references = job["metadata"].get("ownerReferences") or [{}]
    return str(references[0].get("uid", ""))


def condition(raw: Raw, kind: str) -> Raw:
    conditions = raw.get("status", {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind), {})
