"""A batch prediction of many texts, killed three times, and its rate beside that of the online path; `make bench-bulk`.

Both compute the same real reviews with the 6-layer BERT of the demo in int8, on one and the same core; the load is sent
from the other one. CPU time a text is what a busy machine changes least. Online, four clients send lists of 32 texts
each, which is the cheapest way to ask a server. The worker is killed by SIGKILL at a quarter, a half and three quarters
of its parts, begun again each time, and its output is compared with its input row by row. Written to
benchmarks/results/bulk.json.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.serving_bench import luthier, usage
from benchmarks.serving_bench.artifact import Artifact, make_artifact
from luthier_api.documents import Access, BulkDocument, Result, RevisionConfig
from luthier_artifacts import StorageConfig, open_store
from luthier_dev import samples
from luthier_dev.seaweed import start_seaweed

RESULTS = Path(__file__).parent / "results" / "bulk.json"
PREFIX = "LUTHIER_OUTPUT_"
CLIENTS, LIST, SECONDS = 4, 32, 20.0


def texts(count: int) -> list[str]:
    with samples.reviews_csv().eval.open(newline="", encoding="utf-8") as file:
        reviews = [row["text"] for row in csv.DictReader(file)]
    return list(itertools.islice(itertools.cycle(reviews), count))


def main() -> None:
    parser = argparse.ArgumentParser(prog="bulk", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--shard-rows", type=int, default=5_000)
    parser.add_argument("--only", choices=("bulk", "online"), help="measure one, and keep what the other was")
    options = parser.parse_args()
    artifact, rows = make_artifact(), texts(options.rows)
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if options.only and RESULTS.exists() else {}
    if options.only != "online":
        found |= {"rows": options.rows, **bulk(artifact, rows, options.shard_rows)}
    if options.only != "bulk":
        found |= online(artifact, rows)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def bulk(artifact: Artifact, rows: list[str], shard_rows: int) -> dict[str, Any]:
    """Predict all rows from S3 to S3, killed three times; return what it took in all."""
    with tempfile.TemporaryDirectory(prefix="luthier-bench-") as scratch:
        server = start_seaweed(Path(scratch) / "s3", buckets=("bulk",))
        try:
            os.environ |= server.admin.environment(PREFIX)
            store = open_store("s3://bulk", StorageConfig(endpoint=server.endpoint, credentials_env=PREFIX))
            text = io.StringIO()
            csv.writer(text).writerows([["id", "text"], *([number, each] for number, each in enumerate(rows))])
            store.write("reviews.csv", text.getvalue().encode())
            access = Access(endpoint=server.endpoint, credentials="output")
            document = BulkDocument(
                model=RevisionConfig(
                    name="run", model_uri=artifact.uri, version=artifact.version, digest=artifact.digest
                ),
                input_uri="s3://bulk/reviews.csv",
                input_access=access,
                output_uri="s3://bulk/out/",
                output_access=access,
                id_column="id",
                shard_rows=shard_rows,
            )
            path = Path(scratch) / "bulk.json"
            path.write_text(document.to_json())
            return _killed_and_checked(path, store, rows, -(-len(rows) // shard_rows), scratch)
        finally:
            server.stop()


def _killed_and_checked(path: Path, store: Any, rows: list[str], shards: int, scratch: str) -> dict[str, Any]:
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    attempts = []
    for quarter in (1, 2, 3):
        worker = _start(path, scratch)
        while worker.poll() is None and _parts(store) < shards * quarter // 4:
            time.sleep(0.05)
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        attempts.append(_parts(store))
    worker = _start(path, scratch)
    output, _ = worker.communicate()
    predicted = Result.from_json(output).predicted
    assert worker.returncode == 0 and predicted and predicted.complete, output
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    _check(store, predicted.output.removeprefix("s3://bulk/"), rows)
    return {
        "bulk_texts_per_s": round(len(rows) / seconds, 1),
        "bulk_cpu_ms_per_text": round(1000 * cpu / len(rows), 3),
        "bulk_seconds": round(seconds, 1),
        "parts": shards,
        "parts_when_killed": attempts,
        "exactly_one_output_for_each_input": True,
    }


def _start(path: Path, scratch: str) -> subprocess.Popen[str]:
    command = ["taskset", "-c", str(usage.SERVER_CORE), sys.executable, "-W", "ignore", "-m", "luthier_serving.bulk"]
    environment = {**os.environ, "LUTHIER_CACHE": f"{scratch}/cache"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return subprocess.Popen([*command, str(path)], env=environment, **pipes)


def _parts(store: Any) -> int:
    return sum("/part-" in info.key for info in store.list("out"))


def _check(store: Any, folder: str, rows: list[str]) -> None:
    """Check that each row has one line, in its place, and that the lines are answers."""
    number = 0
    for info in store.list(folder.rstrip("/")):
        if "/part-" not in info.key:
            continue
        with store.read_range(info.key, 0, info.size) as body:
            for line in gzip.decompress(b"".join(body.chunks)).splitlines():
                found = json.loads(line)
                assert (found["row"], found["id"]) == (number, str(number)) and "prediction" in found, found
                number += 1
    assert number == len(rows), f"{number} rows of {len(rows)}"


def online(artifact: Artifact, rows: list[str]) -> dict[str, Any]:
    """Ask a server for the same texts for a while, in lists; return its rate."""
    with luthier.now(artifact) as url, usage.on_cores(usage.LOAD_CORE):
        lists = itertools.cycle([rows[first : first + LIST] for first in range(0, len(rows) - LIST, LIST)])
        lock, answered, ends = threading.Lock(), [0], time.monotonic() + SECONDS

        def client() -> None:
            while time.monotonic() < ends:
                with lock:
                    body = json.dumps({"texts": next(lists)}).encode()
                request = urllib.request.Request(f"{url}/predict", body, {"Content-Type": "application/json"})
                with urllib.request.urlopen(request) as answer:
                    count = len(json.load(answer)["predictions"])
                with lock:
                    answered[0] += count

        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        began, before = time.monotonic(), usage.read_cpu()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds, cpu = time.monotonic() - began, usage.read_cpu().since(before)
        return {
            "online_texts_per_s": round(answered[0] / seconds, 1),
            "online_cpu_ms_per_text": round(1000 * cpu / answered[0], 3),
            "online_list": LIST,
        }


if __name__ == "__main__":
    main()
