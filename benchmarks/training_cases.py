"""The texts that training is measured on, and the measuring; `trainer` says what for, and runs it."""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from training_sides import PEERS, Data, Setting, side
from transformers import PreTrainedModel, Trainer

from luthier_api.training import Task
from luthier_dev import samples
from luthier_trainer.tasks.interface import IGNORED
from luthier_trainer.tasks.registry import task_of

RESULTS = Path(__file__).parent / "results" / "trainer.json"
MAX_LENGTH = 128
BATCH = 16


def read(path: Path) -> list[tuple[str, int]]:
    with path.open(newline="") as file:
        return [(row["text"], int(row["label"] == "positive")) for row in csv.DictReader(file)]


def shuffled(rows: list[tuple[str, int]]) -> list[tuple[str, int]]:
    order = np.random.default_rng(0).permutation(len(rows))
    return [rows[index] for index in order]


def short(rows: list[tuple[str, int]], tokenizer: Tokenizer) -> Data:
    return Data(Task.TEXT_CLASSIFICATION, [tokenizer.encode(text).ids for text, _ in rows], [y for _, y in rows])


def medium(rows: list[tuple[str, int]], tokenizer: Tokenizer) -> Data:
    """Join reviews of one label until there are 50 to 120 tokens or a few more."""
    wanted, made = np.random.default_rng(1), []
    for label in (0, 1):
        text, least = "", wanted.integers(50, 120)
        for each in (text for text, found in rows if found == label):
            text = f"{text} {each}".strip()
            if len(tokenizer.encode(text).ids) >= least:
                made.append((text, label))
                text, least = "", wanted.integers(50, 120)
    return short(shuffled(made), tokenizer)


def equal(rows: list[tuple[str, int]], tokenizer: Tokenizer) -> Data:
    """Fill maxLength with reviews, and learn of every token whether the next one is rarer."""
    stream = [token for text, _ in rows for token in tokenizer.encode(text, add_special_tokens=False).ids]
    first, last = tokenizer.encode("").ids
    size = MAX_LENGTH - 2
    pieces = [stream[start : start + size] for start in range(0, len(stream) - size, size)]
    targets = [[IGNORED, *(int(a < b) for a, b in zip(each, [*each[1:], 0], strict=True)), IGNORED] for each in pieces]
    return Data(Task.TOKEN_CLASSIFICATION, [[first, *each, last] for each in pieces], targets)


CASES: dict[str, Callable[[list[tuple[str, int]], Tokenizer], Data]] = {
    "short": short,
    "medium": medium,
    "equal": equal,
}


def load(task: Task, seed: int) -> PreTrainedModel:
    transformers.set_seed(seed)
    loader = getattr(transformers, task_of(task).auto_class)
    model: PreTrainedModel = loader.from_pretrained(samples.base_model(), num_labels=2, dtype=torch.float32)
    return model


def fitted(name: str, data: Data, seed: int, epochs: int) -> tuple[Trainer, float]:
    """Train, and return the trainer and CPU-milliseconds per example."""
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(BATCH, MAX_LENGTH, seed=seed, epochs=epochs)
        trainer = side(name, load(data.task, seed), data, setting, Path(folder))
        began = time.process_time()
        trainer.train()
        return trainer, 1000 * (time.process_time() - began) / (len(data.ids) * epochs)


def cpu_ms_per_example(name: str, data: Data, seed: int) -> float:
    return fitted(name, data, seed, 1)[1]


def trained_accuracy(name: str, train: Data, held_out: Data, seed: int, epochs: int) -> float:
    return accuracy(fitted(name, train, seed, epochs)[0], held_out)


def apart(work: Callable[[], float]) -> float:
    """Run in a process of its own, so that no run finds the memory as another left it. Nothing ran in this one yet."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=lambda: there.send(work()))
    process.start()
    there.close()
    found: float = here.recv()
    process.join()
    return found


def accuracy(trainer: Trainer, data: Data) -> float:
    """Judge every model in the same way: text by text, unpadded."""
    assert isinstance(trainer.model, PreTrainedModel)
    model = trainer.model.eval()
    with torch.no_grad():
        said = [int(model(input_ids=torch.tensor([ids])).logits.argmax()) for ids in data.ids]
    return float(np.mean(np.equal(said, data.targets)))


def measure(case: str, data: Data, names: list[str], rounds: int) -> dict[str, Any]:
    """Train with each in turn, some rounds."""
    samples_: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(rounds):
        for name in names:
            samples_[name].append(round(apart(partial(cpu_ms_per_example, name, data, round_)), 3))
            print(f"{case:8} {name:3} {samples_[name][-1]:8.2f} CPU-ms per example", flush=True)
    medians = {name: statistics.median(found) for name, found in samples_.items()}
    return {
        "examples": len(data.ids),
        "mean_tokens": round(data.mean_tokens, 1),
        "cpu_ms_per_example": samples_,
        "median": medians,
        "times_better_than": {name: round(medians[name] / medians["us"], 3) for name in names if name != "us"},
    }


def judge(train: Data, held_out: Data, names: list[str], seeds: int, epochs: int) -> dict[str, Any]:
    """Train whole runs with some seeds, and judge what came of them."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(seeds):
        for name in names:
            found[name].append(round(apart(partial(trained_accuracy, name, train, held_out, seed, epochs)), 4))
            print(f"accuracy {name:3} seed {seed}: {found[name][-1]}", flush=True)
    return {
        "train_examples": len(train.ids),
        "held_out_examples": len(held_out.ids),
        "epochs": epochs,
        "accuracy": found,
        "mean": {name: round(statistics.mean(each), 4) for name, each in found.items()},
    }


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def measure_all(description: str | None) -> None:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--only", nargs="+", choices=[*PEERS, "us"], default=[*PEERS, "us"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=320, help="texts of each run")
    parser.add_argument("--seeds", type=int, default=0, help="also compare the accuracy of whole runs over so many")
    parser.add_argument("--epochs", type=int, default=2, help="of those runs")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    reviews = samples.reviews_csv()
    tokenizer = Tokenizer.from_file(str(samples.base_model() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_LENGTH)
    rows = shuffled(read(reviews.train))

    results: dict[str, Any] = {
        "cpu": cpu_model(),
        "threads": 1,
        "model": "all-MiniLM-L6-v2 (6 layers, 384 hidden)",
        "batch": BATCH,
        "max_length": MAX_LENGTH,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "cases": {},
    }
    for case in options.cases:
        data = CASES[case](rows, tokenizer).first(options.examples)
        results["cases"][case] = measure(case, data, options.only, options.rounds)
        print(json.dumps(results["cases"][case].get("times_better_than")), flush=True)
        # After each case: a run that is cut off keeps what it measured.
        options.output.write_text(json.dumps(results, indent=2) + "\n")
    if options.seeds:
        held_out = short(read(reviews.eval), tokenizer)
        results["accuracy"] = judge(short(rows, tokenizer), held_out, options.only, options.seeds, options.epochs)
    options.output.write_text(json.dumps(results, indent=2) + "\n")
