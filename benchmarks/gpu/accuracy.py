"""Does the fast way learn as well as the plain one? bf16 packed against fp32 padded, over three seeds, on real reviews.

The small real model learns 2,000 reviews for two epochs and is judged on reviews that it never saw, text by text,
unpadded and in single precision, whichever way it was trained.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import Record
from texts import minilm, read, tokenized
from training_sides import Data, Setting, side
from transformers import PreTrainedModel

from luthier_api.training import Precision
from luthier_dev import samples

MAX_LENGTH = 128


def accuracy(model: PreTrainedModel, data: Data) -> float:
    model = model.float().eval()
    with torch.inference_mode():
        said = [int(model(input_ids=torch.tensor([ids], device=model.device)).logits.argmax()) for ids in data.ids]
    return float(np.mean(np.equal(said, data.targets)))


def main() -> None:
    record = Record.from_command_line(__doc__)
    reviews = samples.reviews_csv()
    train, held_out = (tokenized(read(path), MAX_LENGTH) for path in (reviews.train, reviews.eval))
    if record.tiny:
        train, held_out = train.first(16), held_out.first(8)
    fast = Precision.BF16 if record.device.type == "cuda" else Precision.FP32
    ways = {f"us {fast} packed": ("us", fast), "P2 fp32 padded": ("P2", Precision.FP32)}
    found: dict[str, list[float]] = {way: [] for way in ways}
    for seed in range(1 if record.tiny else 3):
        for way, (name, precision) in ways.items():
            if not record.has_time_for(f"{way}, seed {seed}", 8.0 if not record.tiny else 0.0):
                continue
            torch.manual_seed(seed)
            setting = Setting(16, MAX_LENGTH, precision, seed=seed, epochs=1 if record.tiny else 2)
            with tempfile.TemporaryDirectory() as folder:
                trainer = side(name, minilm(), train, setting, Path(folder))
                trainer.train()
            assert isinstance(trainer.model, PreTrainedModel)
            found[way].append(round(accuracy(trainer.model, held_out), 4))
            record.found |= {"held_out": len(held_out.ids), "accuracy": found, "mean": means(found)}
            record.write()
            print(f"{way} seed {seed}: {found[way][-1]}", flush=True)


def means(found: dict[str, list[float]]) -> dict[str, Any]:
    return {way: round(statistics.mean(each), 4) for way, each in found.items() if each}


if __name__ == "__main__":
    main()
