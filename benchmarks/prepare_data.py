"""prepare of a large file: memory, speed, and the second run that finds the data made. `make bench-prepare` runs this.

    rows/s        rows of the file by the seconds of the whole pod's work: download, read, check, tokenize, upload
    tokenized     rows/s and tokens/s of `make_prepared` alone, as its log line says
    peak memory   ru_maxrss of the process, which counts shared libraries too
    second run    the same document again: the data is found and not made

The file is made of the real review sentences of `luthier_dev.samples`, each row a draw of some of them, so that hardly
any two rows are the same. The base model is all-MiniLM-L6-v2 with its WordPiece tokenizer, maxLength 128; storage is a
folder. Everything but the figures is deleted. Raw samples go to benchmarks/results/prepare.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from luthier_artifacts import open_registry
from luthier_dev import samples
from luthier_dev.paths import layout
from luthier_trainer.formats.prepared import QUALITY_FILE
from luthier_trainer.formats.quality_report import QualityReport

ROWS = 2_000_000
FILE_BYTES = 2**30
MAX_LENGTH = 128
NAME = "bench"
RESULTS = Path(__file__).parent / "results" / "prepare.json"
MADE = re.compile(r"prepared (\d+) training and (\d+) evaluation examples .* in ([\d.]+) s")


def write_reviews(path: Path, rows: int, file_bytes: int) -> None:
    """Write a CSV of about this size: each row is as many sentences of one label as make the mean length."""
    by_label: dict[str, list[str]] = {"negative": [], "positive": []}
    with samples.reviews_csv(films=True).train.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            by_label[row["label"]].append(row["text"])
    generator = random.Random(0)
    # A draw ends half a sentence late; the label and the line's end count too.
    sentences = [text for texts in by_label.values() for text in texts]
    mean_characters = file_bytes / rows - statistics.mean(map(len, sentences)) / 2 - len("positive,\r\n")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(rows):
            label = ("negative", "positive")[number % 2]
            # From a fifth of the mean to nine fifths: short and long reviews.
            writer.writerow(
                [_draw(by_label[label], mean_characters * (0.2 + 1.6 * generator.random()), generator), label]
            )


def _draw(sentences: list[str], characters: float, generator: random.Random) -> str:
    found: list[str] = []
    length = 0.0
    while length < characters:
        found.append(generator.choice(sentences))
        length += len(found[-1]) + 1
    return " ".join(found)


def run_prepare(document: Path, workspace: Path) -> dict[str, Any]:
    """Run *prepare* in a process of its own, and return its figures."""
    command = [sys.executable, "-m", "luthier_trainer", "prepare", str(document), "--workspace", str(workspace)]
    log = workspace.with_suffix(".log")
    started = time.monotonic()
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout
        answer = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"prepare failed with {process.returncode}:\n{log.read_text()}")
    made = MADE.search(log.read_text())
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_rss_bytes": usage.ru_maxrss * 1024,
        "made_seconds": float(made[3]) if made else None,
        "found": "found the prepared data" in log.read_text(),
        "result": json.loads(answer)["prepared"],
    }


def tokens_of(registry: str, data_key: str, folder: Path) -> int:
    """Tokens that were made, from the quality report: mean lengths before the cut."""
    open_registry(registry, NAME).get_prepared(data_key, folder)
    report = QualityReport.from_json((folder / QUALITY_FILE).read_bytes())
    return round(sum(tokens.mean * report.examples[part] for part, tokens in report.tokens.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--bytes", type=int, default=FILE_BYTES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-prepare-", dir=layout().make(layout().home)) as temporary:
        figures = measure(Path(temporary), options.rows, options.bytes)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    show(figures)


def measure(folder: Path, rows: int, file_bytes: int) -> dict[str, Any]:
    data = folder / "reviews.csv"
    write_reviews(data, rows, file_bytes)
    document = folder / "run.json"
    spec = {
        "model": {"uri": f"file://{samples.base_model()}"},
        "dataset": {"train": {"uri": f"file://{data}"}, "preprocessing": {"maxLength": MAX_LENGTH}},
        "output": {"uri": f"file://{folder}/registry", "name": NAME},
    }
    document.write_text(json.dumps({"spec": spec}))
    first = run_prepare(document, folder / "first")
    subprocess.run(["rm", "-r", str(folder / "first")], check=True)
    second = run_prepare(document, folder / "second")
    if first["found"] or not second["found"] or first["result"] != second["result"]:
        raise SystemExit("The second run did not find the data of the first.")
    key = first["result"]["resolved"]["dataKey"]
    return {
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, {platform.machine()}, {platform.release()}",
        "load_average_after": os.getloadavg(),
        "measured_at": datetime.now().isoformat(timespec="seconds"),
        "rows": rows,
        "file_bytes": data.stat().st_size,
        "tokens": tokens_of(f"file://{folder}/registry", key, folder / "prepared"),
        "first": first,
        "second": second,
        "own_peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def show(figures: dict[str, Any]) -> None:
    rows, first, second = figures["rows"], figures["first"], figures["second"]
    print(f"{rows:,} rows, {figures['file_bytes'] / 2**30:.2f} GiB, {figures['tokens']:,} tokens; {figures['machine']}")
    print(
        f"first run    {first['seconds']:.0f} s and {first['cpu_seconds']:.0f} CPU-s: "
        f"{rows / first['cpu_seconds']:,.0f} rows per CPU-second"
    )
    print(
        f"  made in    {first['made_seconds']:.0f} s: {rows / first['made_seconds']:,.0f} rows/s, "
        f"{figures['tokens'] / first['made_seconds']:,.0f} tokens/s"
    )
    print(f"  peak       {first['peak_rss_bytes'] / 2**30:.2f} GiB resident")
    print(
        f"second run   {second['seconds']:.1f} s, {second['peak_rss_bytes'] / 2**30:.2f} GiB resident; nothing was made"
    )
    print(f"raw samples: {RESULTS}")


if __name__ == "__main__":
    main()
