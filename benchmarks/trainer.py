"""Measures training on a CPU against what practitioners would otherwise run; `make bench-trainer`.

The sides (P1, P2, P3, us) are those of `training_sides`. All train the same model on the same texts, each run in a
process of its own with one thread, with the same seeds, global batch, optimizer and schedule, in turns (P1 P2 P3 us,
P1 P2 P3 us, ...), so that a machine that gets slower gets slower for all. What is compared is the CPU time of the
process from the first step to the last, by example: memory traffic and Python included, tokenization and evaluation
not. Medians and every sample go to benchmarks/results/trainer.json.

    short        real reviews (about 23 tokens)
    medium       the same joined to about 100 tokens
    equal        token labels of texts that all fill maxLength: nothing to pad and no token to skip: nothing to gain
"""

from __future__ import annotations

from luthier_trainer.runtime.cpus import limit_threads


def main() -> None:
    limit_threads()
    # Only now: torch and numpy read the number of threads when they are imported.
    from training_cases import measure_all

    measure_all(__doc__)


if __name__ == "__main__":
    main()
