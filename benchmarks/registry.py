"""How fast a model of about 90 MB goes into the registry and comes out, beside plain boto3 on the same S3 server.

Run: .venv/bin/python benchmarks/registry.py [repetitions]
The server is SeaweedFS on loopback, so this measures our own cost (hashing, verification, requests), not a network.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import boto3

from luthier_artifacts import Metadata, StorageConfig, open_registry
from luthier_artifacts.hashing import sha256_of
from luthier_dev.seaweed import start_seaweed

SIZE_BYTES = 90_000_000


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(repetitions: int) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="luthier-bench-"))
    server = start_seaweed(scratch / "s3")
    try:
        model = scratch / "model"
        model.mkdir()
        weights = model / "model.safetensors"
        weights.write_bytes(os.urandom(SIZE_BYTES))
        os.environ |= server.admin.environment("LUTHIER_BENCH_")
        config = StorageConfig(endpoint=server.endpoint, credentials_env="LUTHIER_BENCH_")
        client = boto3.client(
            "s3",
            endpoint_url=server.endpoint,
            region_name="us-east-1",
            aws_access_key_id=server.admin.access_key,
            aws_secret_access_key=server.admin.secret_key,
        )
        times: dict[str, list[float]] = {}

        def measure(name: str, call: Callable[[], object]) -> None:
            times.setdefault(name, []).append(timed(call))

        for number in range(repetitions):
            registry = open_registry(f"s3://models/run-{number}", "m", config)
            key, out, cache = f"plain-{number}", scratch / f"out-{number}", scratch / f"cache-{number}"
            measure("boto3 upload_file", lambda key=key: client.upload_file(str(weights), "models", key))
            measure("registry publish", lambda r=registry: r.publish(model, "ab" * 32, Metadata()))
            (version,) = registry.list_versions()
            measure("boto3 download_file", lambda key=key, out=out: client.download_file("models", key, str(out)))
            measure(
                "registry download, empty cache",
                lambda r=registry, v=version, o=out, c=cache: r.download(v, o.with_suffix(".d"), c),
            )
            measure(
                "registry download, full cache",
                lambda r=registry, v=version, o=out, c=cache: r.download(v, o.with_suffix(".e"), c),
            )
            measure("sha256 alone", lambda: sha256_of(weights))
            for path in (out, out.with_suffix(".d"), out.with_suffix(".e"), cache):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, seconds in times.items():
            median = statistics.median(seconds)
            print(f"{name:32} {median:6.2f} s  {SIZE_BYTES / median / 1e6:6.0f} MB/s  (median of {repetitions})")
    finally:
        server.stop()
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
