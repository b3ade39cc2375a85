"""Measures a whole training job from the start of its process to the artifact in storage; `make bench-job`.

    us  python -m luthier_trainer run: prepare, train, evaluate, report, ONNX checked against the model, published
    P2  what a script of transformers' text-classification example does: read, split, tokenize, Trainer with dynamic
        padding, metrics, confusion matrix, ONNX (not checked), files copied to storage

Both learn from the same real reviews for one epoch with the same model, batch and learning rate, on all of this
machine's CPUs, in turns, each run in a process of its own, on a folder as storage. Every sample goes to
benchmarks/results/job.json. P2 does less: no checks of the data, no model before training to compare with, no
intervals, no verified upload.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from luthier_dev import samples

RESULTS = Path(__file__).parent / "results" / "job.json"
MAX_LENGTH, BATCH, LEARNING_RATE = 64, 32, "2e-4"


def us(folder: Path) -> dict[str, float]:
    """Run Luthier's trainer, and return its parts in seconds."""
    run = {
        "spec": {
            "model": {"uri": samples.base_model().as_uri()},
            "dataset": {
                "train": {"uri": samples.reviews_csv().train.as_uri()},
                "eval": {"uri": samples.reviews_csv().eval.as_uri()},
                "preprocessing": {"maxLength": MAX_LENGTH},
            },
            "hyperparameters": {"epochs": 1, "batchSize": BATCH, "learningRate": LEARNING_RATE},
            "output": {"name": "m", "uri": (folder / "registry").as_uri()},
        }
    }
    (folder / "run.json").write_text(json.dumps(run))
    answer = _timed([sys.executable, "-m", "luthier_trainer", "run", str(folder / "run.json")], folder)
    published = json.loads(answer["output"])["published"]
    metrics = json.loads((folder / "registry" / "m" / "versions" / published["version"] / "metrics.json").read_text())
    parts: dict[str, float] = {f"part_{name}": value for name, value in metrics["seconds"].items()}
    return {"wall": answer["wall"], "accuracy": float(published["metrics"]["eval_accuracy"]), **parts}


def tutorial(folder: Path) -> dict[str, float]:
    """Run the script, and return its parts in seconds."""
    answer = _timed([sys.executable, __file__, "--tutorial", str(folder)], folder)
    found: dict[str, float] = json.loads(answer["output"].splitlines()[-1])
    return {"wall": answer["wall"], **found}


def _timed(command: list[str], folder: Path) -> dict[str, Any]:
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=folder)
    if done.returncode:
        raise SystemExit(f"{command} ended with {done.returncode}: {done.stderr[-2000:]}")
    return {"wall": round(time.monotonic() - began, 2), "output": done.stdout}


def run_tutorial(folder: Path) -> dict[str, float]:
    """The script itself."""
    seconds: dict[str, float] = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        seconds[f"part_{name}"] = round(time.monotonic() - began, 2)

    with part("import"):
        import numpy as np
        import torch
        from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
        from transformers import (
            AutoModelForSequenceClassification,
            AutoTokenizer,
            DataCollatorWithPadding,
            Trainer,
            TrainingArguments,
        )
    base = samples.base_model()
    with part("data"):
        tokenizer = AutoTokenizer.from_pretrained(base)
        rows = {}
        for name, path in (("train", samples.reviews_csv().train), ("eval", samples.reviews_csv().eval)):
            with path.open(newline="") as file:
                read = list(csv.DictReader(file))
            encoded = tokenizer([row["text"] for row in read], truncation=True, max_length=MAX_LENGTH)
            rows[name] = [
                {"input_ids": ids, "attention_mask": mask, "labels": int(row["label"] == "positive")}
                for ids, mask, row in zip(encoded["input_ids"], encoded["attention_mask"], read, strict=True)
            ]
    with part("load"):
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, dtype=torch.float32)
    arguments = TrainingArguments(
        output_dir=str(folder / "out"),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=64,
        learning_rate=float(LEARNING_RATE),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )

    def measure(output: Any) -> dict[str, float]:
        said = np.argmax(output.predictions, axis=-1)
        return {"accuracy": accuracy_score(output.label_ids, said), "f1": f1_score(output.label_ids, said)}

    trainer = Trainer(
        model,
        arguments,
        DataCollatorWithPadding(tokenizer),
        rows["train"],
        rows["eval"],
        compute_metrics=measure,
    )
    with part("fit"):
        trainer.train()
    with part("evaluate"):
        output = trainer.predict(rows["eval"])
        matrix = confusion_matrix(output.label_ids, np.argmax(output.predictions, axis=-1))
    with part("export"):
        artifact = folder / "artifact"
        model.save_pretrained(artifact)
        tokenizer.save_pretrained(artifact)
        (artifact / "confusion.json").write_text(json.dumps(matrix.tolist()))
        batch = {name: torch.ones(2, 8, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
        dynamic = {name: {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for name in batch}
        torch.onnx.export(
            model.eval(),
            (),
            str(artifact / "model.onnx"),
            kwargs=batch,
            dynamo=True,
            dynamic_shapes=dynamic,
            external_data=False,
            verbose=False,
        )
    with part("upload"):
        shutil.copytree(artifact, folder / "storage")
    return {"accuracy": round(float(output.metrics["test_accuracy"]), 6), **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--tutorial", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tutorial:
        print(json.dumps(run_tutorial(options.tutorial)))
        return
    found: dict[str, list[dict[str, float]]] = {"us": [], "P2": []}
    for _ in range(options.rounds):
        for name, job in (("us", us), ("P2", tutorial)):
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(job(Path(folder)))
            print(name, json.dumps(found[name][-1]), flush=True)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
