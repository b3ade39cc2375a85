"""`python -m benchmarks.operator_bench [CASE ...] [-n N ...]`: measure, keep the samples, print the table."""

from __future__ import annotations

import argparse
import asyncio
import os
import time

from benchmarks.operator_bench import results
from benchmarks.operator_bench.cases import CASES, Options
from benchmarks.operator_bench.contenders import compile_all
from luthier_dev.errors import DevError


def main() -> None:
    parser = argparse.ArgumentParser(prog="operator_bench", description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("-n", type=int, nargs="+", default=[1000, 5000, 10000], help="numbers of resources")
    parser.add_argument("--per-second", type=float, default=20, help="creations a second of the case `rate`")
    parser.add_argument("--seconds", type=float, default=300, help="how long the case `rate` goes on")
    parser.add_argument("--lives-per-second", type=float, default=5, help="creations a second of the case `lives`")
    parser.add_argument("--train-seconds", type=float, default=120, help="of a training in `life` and `tutorial`")
    parser.add_argument("--again", action="store_true", help="measure also what there are samples of")
    parser.add_argument("--table", action="store_true", help="print the table only")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    options = Options(
        arguments.per_second, arguments.seconds, arguments.lives_per_second, train_s=arguments.train_seconds
    )
    # The API server, etcd and controllers share the cores with what is measured, and have memory to spare.
    os.environ.setdefault("GOGC", "400")
    wanted = [] if arguments.table else arguments.cases or list(CASES)
    compile_all()
    for case in wanted:
        for n in _sizes(case, arguments.n, options):
            of = (
                ""
                if case not in ("life", "tutorial") or options.train_s == Options.train_s
                else f", {options.train_s:g} s"
            )
            if not arguments.again and results.has(case + of, n):
                print(f"{case}, {n}: there are samples already (--again measures anew)")
                continue
            print(f"{case}, {n} …", flush=True)
            started = time.monotonic()
            try:
                samples = asyncio.run(CASES[case](n, options))
            except (DevError, TimeoutError) as error:
                raise SystemExit(f"{case}, {n}: {error}") from error
            results.keep(case + of, n, samples)
            print(f"{case}, {n}: {time.monotonic() - started:.0f} s", flush=True)
    print(results.table())


def _sizes(case: str, sizes: list[int], options: Options) -> list[int]:
    match case:
        case "rate":
            return [int(options.per_second * options.seconds)]
        case "lives":
            return [int(options.lives_per_second * options.lives_seconds)]
    return sizes


if __name__ == "__main__":
    main()
