"""Training on a GPU, side by side: P1, P2, P3 and Luthier's engine (`training_sides`), on a model of bert-base's shape.

Each trains two epochs over the same texts; the second is measured, when kernels are chosen and memory is taken. Sides
take turns at one global batch, so that all see the same steps, and at a larger one; each side's best is the faster of
the two. What each weighs most is measured first, and again while there is time.

    share_of_peak    operations for real tokens (padding is none) / those of this chip's own large matrix product
    compile_s        what the first epoch of a compiled model takes longer than its second
"""

from __future__ import annotations

import copy
import gc
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from record import Record, matrix_product_tflops
from texts import LENGTHS, bert_base, flops_per_token, texts, tokenized
from training_sides import Data, Setting, side
from transformers import PreTrainedModel, TrainerCallback

from luthier_api.training import Precision

SIDES = ("us", "P2", "P3", "P1")
EXAMPLES = {"short": 4096, "mixed": 1024, "long": 512}
BATCHES = (32, 128)


class Epochs(TrainerCallback):
    """Takes the time of each epoch."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.seconds: list[float] = []
        self._began = 0.0

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self._record.synchronize()
        self._began = time.perf_counter()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self._record.synchronize()
        self.seconds.append(time.perf_counter() - self._began)


def measure(record: Record, name: str, model: PreTrainedModel, data: Data, setting: Setting) -> dict[str, Any]:
    """Train a copy of the model, and return what the last epoch took."""
    record.peak_memory_mb()
    epochs = Epochs(record)
    with tempfile.TemporaryDirectory() as folder:
        trainer = side(name, copy.deepcopy(model), data, setting, Path(folder))
        trainer.add_callback(epochs)
        trainer.train()
    first, second = epochs.seconds
    tokens = sum(map(len, data.ids))
    found = {
        "examples_per_s": round(len(data.ids) / second, 1),
        "real_tokens_per_s": round(tokens / second, 1),
        "tflops": round(3 * flops_per_token(model) * tokens / second / 1e12, 3),
        "peak_memory_mb": record.peak_memory_mb(),
        "first_epoch_s": round(first, 3),
        "second_epoch_s": round(second, 3),
    }
    del trainer
    gc.collect()
    if record.device.type == "cuda":
        torch.cuda.empty_cache()
    return found


def cases(record: Record) -> list[tuple[str, str, int, str]]:
    """Return (precision, texts, batch, side), what matters most first."""
    precisions = ("bf16", "fp32", "fp16") if record.device.type == "cuda" else ("fp32",)
    if record.tiny:
        return [(precision, kind, 4, name) for precision, kind, name in product(precisions, LENGTHS, SIDES)]
    return [
        (precision, kind, batch, name)
        for precision, batch, kind, name in product(precisions, BATCHES, ("mixed", "short", "long"), SIDES)
    ]


def summary(samples: dict[str, list[dict[str, Any]]], peak: dict[str, float]) -> dict[str, Any]:
    """Return for each precision and length the best of each side, and how many times ours is better."""
    best: dict[str, dict[str, float]] = {}
    for case, found in samples.items():
        precision, kind, _, name = case.split()
        fastest = max(each["examples_per_s"] for each in found)
        sides = best.setdefault(f"{precision} {kind}", {})
        sides[name] = max(sides.get(name, 0.0), fastest)
    return {
        case: {
            "best_examples_per_s": sides,
            "times_better_than": {
                name: round(sides["us"] / fastest, 3)
                for name, fastest in sides.items()
                if "us" in sides and name != "us"
            },
        }
        for case, sides in best.items()
    } | {"matrix_product_tflops": peak}


def main() -> None:
    record = Record.from_command_line(__doc__)
    model = bert_base(tiny=record.tiny)
    data = {
        kind: tokenized(texts(kind, 8 if record.tiny else EXAMPLES[kind]), longest)
        for kind, (_, longest) in LENGTHS.items()
    }
    wanted = cases(record)
    peak = {name: matrix_product_tflops(record, name) for name in dict.fromkeys(case[0] for case in wanted)}
    samples: dict[str, list[dict[str, Any]]] = {}
    record.found |= {"mean_tokens": {kind: round(each.mean_tokens, 1) for kind, each in data.items()}}
    took: dict[str, float] = {}
    for round_ in range(1 if record.tiny else 3):
        for precision, kind, batch, name in wanted:
            case = f"{precision} {kind} {batch} {name}"
            if not record.has_time_for(f"{case}, round {round_ + 1}", took.get(case, 6.0)):
                continue
            began = time.monotonic()
            setting = Setting(batch, LENGTHS[kind][1], Precision(precision), seed=round_, epochs=2)
            try:
                found = measure(record, name, model, data[kind], setting)
            except torch.OutOfMemoryError as error:
                record.found["left_out"].append(f"{case}: {str(error).splitlines()[0]}")
                took[case] = float("inf")
                continue
            took[case] = time.monotonic() - began
            found["share_of_peak"] = round(found["tflops"] / peak[precision], 4)
            samples.setdefault(case, []).append(found)
            record.found |= {"samples": samples, "summary": summary(samples, peak)}
            record.write()
            print(
                f"{case:24} {found['examples_per_s']:9.1f} examples/s  {found['share_of_peak']:.1%} of peak", flush=True
            )
    if record.has_time_for("compiled", 60.0 if not record.tiny else 0.0):
        setting = Setting(
            4 if record.tiny else 32, LENGTHS["short"][1], Precision(wanted[0][0]), epochs=2, compiled=True
        )
        found = measure(record, "us", model, data["short"], setting)
        record.found["compiled"] = found | {"compile_s": round(found["first_epoch_s"] - found["second_epoch_s"], 2)}
        record.write()


if __name__ == "__main__":
    main()
