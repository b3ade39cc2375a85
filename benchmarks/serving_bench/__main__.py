"""`python -m benchmarks.serving_bench [SIDE ...]`: measure, keep the samples, write the tables to docs/figures.md."""

from __future__ import annotations

import argparse
import os
import time

from benchmarks.serving_bench import results, usage
from benchmarks.serving_bench.answers import Expected, WrongAnswer
from benchmarks.serving_bench.artifact import Artifact, describe, make_artifact, make_texts
from benchmarks.serving_bench.cases import Sample, at_rest, loaded
from benchmarks.serving_bench.load import ensure_generators
from benchmarks.serving_bench.sides import DEFAULT, SIDES, peers_environment
from luthier_dev.errors import DevError


def main() -> None:
    parser = argparse.ArgumentParser(prog="serving_bench", description=__doc__)
    parser.add_argument("sides", nargs="*", help=f"of {', '.join(SIDES)}; default: {' '.join(DEFAULT)}")
    parser.add_argument("--rounds", type=int, default=2, help="the sides take turns so many times")
    parser.add_argument("--seconds", type=int, default=3, help="of each load")
    parser.add_argument("--table", action="store_true", help="write and print the tables of what was measured before")
    arguments = parser.parse_args()
    if unknown := set(arguments.sides) - set(SIDES):
        parser.error(f"no such side: {', '.join(sorted(unknown))}")
    if not arguments.table:
        try:
            measure(arguments.sides or DEFAULT, arguments.rounds, arguments.seconds)
        except (DevError, WrongAnswer) as error:
            raise SystemExit(f"serving_bench: {error}") from error
    elif not results.PATH.exists():
        raise SystemExit(f"There is no {results.PATH} yet: measure without --table first.")
    results.write_page()
    print(results.tables())


def measure(sides: list[str], rounds: int, seconds: int) -> None:
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("The server and the load generator need a core each, and this machine has one.")
    ensure_generators()
    peers_environment()
    artifact = make_artifact()
    model = artifact.model()
    texts = make_texts(model, artifact.model_fp32())
    expected = Expected.of(model, [text for each in texts.values() for text in each])
    about = {"rounds": rounds, "seconds_of_each_load": seconds, "texts": describe(model, texts)}
    samples: list[Sample] = []
    with usage.on_cores(usage.LOAD_CORE):
        for number in range(rounds):
            for side in sides:
                found = one(side, artifact, texts, expected, seconds)
                samples += [{"side": side, "round": number, **sample} for sample in found]
                results.keep(samples, about)


def one(side: str, artifact: Artifact, texts: dict[str, list[str]], expected: Expected, seconds: int) -> list[Sample]:
    """Start a server, measure it, and end it."""
    began = time.monotonic()
    with SIDES[side](artifact) as url:
        samples = [at_rest(url, expected, time.monotonic() - began)]
        for sample in loaded(url, texts, expected, samples[0]["idle_share"], seconds):
            samples.append(sample)
            brief = {name: value for name, value in sample.items() if not name.endswith("s_ms")}
            print(f"{side:8} {brief}", flush=True)
    return samples


if __name__ == "__main__":
    main()
