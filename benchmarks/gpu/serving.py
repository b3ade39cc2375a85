"""The server's engine on a GPU, without Ray: texts a second and the slowest calls, by texts in a call.

    us       Luthier's model: tokenizes, plans batches by tokens, computes in half precision
    plain    transformers' pipeline in single precision, as the tutorial serves it
    hand     the strong one: tokenizers, one padded batch in half precision, under inference_mode

All read the same artifact of bert-base's shape. Sides take turns; a call's time goes from text to label.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from record import Record
from texts import LENGTHS, LONGEST, bert_base, texts, tokenizer

from luthier_api.documents import SERVING_DOCUMENT_FILE, ServingDocument
from luthier_api.training import Task
from luthier_dev import samples
from luthier_serving.compute.model import open_model

CALLS = (1, 8, 32, 128)
Answer = Callable[[list[str]], np.ndarray]


def make_artifact(folder: Path, *, tiny: bool) -> None:
    bert_base(tiny=tiny).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(samples.base_model() / name, folder)
    document = ServingDocument(
        task=Task.TEXT_CLASSIFICATION,
        labels=["no", "yes"],
        max_length=LONGEST,
        pad_token_id=0,
        lowercase=False,
        strip_whitespace=False,
    )
    (folder / SERVING_DOCUMENT_FILE).write_text(document.to_json())


def us(folder: Path, device: torch.device) -> Answer:
    model = open_model(folder, "torch", gpus=int(device.type == "cuda"), max_tokens=16384)
    return lambda batch: np.array([row.values for row in model.predict(batch)])


def plain(folder: Path, device: torch.device) -> Answer:
    pipe = transformers.pipeline("text-classification", model=str(folder), device=device, top_k=None)
    return lambda batch: np.array(
        [
            [each["score"] for each in sorted(row, key=lambda each: each["label"])]
            for row in pipe(batch, batch_size=len(batch), truncation=True, max_length=LONGEST)
        ]
    )


def hand(folder: Path, device: torch.device) -> Answer:
    cuda = device.type == "cuda"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.bfloat16 if cuda else torch.float32
    )
    model = model.to(device).eval()
    encode = tokenizer(LONGEST)
    encode.enable_padding()

    def answer(batch: list[str]) -> np.ndarray:
        encoded = encode.encode_batch(batch)
        inputs = {
            "input_ids": torch.tensor([each.ids for each in encoded]).to(device),
            "attention_mask": torch.tensor([each.attention_mask for each in encoded]).to(device),
        }
        with torch.inference_mode():
            found: np.ndarray = model(**inputs).logits.float().softmax(-1).cpu().numpy()
        return found

    return answer


def measure(answer: Answer, batches: list[list[str]], seconds: float) -> dict[str, Any]:
    """Ask one call after the other."""
    answer(batches[0])
    took: list[float] = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or len(took) < 3:
        began = time.perf_counter()
        answer(batches[len(took) % len(batches)])
        took.append(time.perf_counter() - began)
    milliseconds = 1000 * np.array(took)
    return {
        "calls": len(took),
        "texts_per_s": round(len(batches[0]) * len(took) / float(np.sum(took)), 1),
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 3),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 3),
    }


def main() -> None:
    record = Record.from_command_line(__doc__)
    calls = CALLS[:2] if record.tiny else CALLS
    each_s = 0.05 if record.tiny else max(0.5, record.seconds / 40)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        make_artifact(Path(name), tiny=record.tiny)
        sides = {make.__name__: make(Path(name), record.device) for make in (us, hand, plain)}
        sample = [text for text, _ in texts("mixed", 16)]
        wanted = sides["plain"](sample)
        record.found["largest_difference_from_plain"] = {
            side: float(np.abs(answer(sample) - wanted).max()) for side, answer in sides.items()
        }
        for kind in ("short", "mixed") if not record.tiny else ("short",):
            rows = [text for text, _ in texts(kind, 16 if record.tiny else 2048)]
            for size in calls:
                batches = [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]
                for side, answer in sides.items():
                    case = f"{kind} {size} {side}"
                    if record.has_time_for(case, 0.0 if record.tiny else 2 * each_s):
                        found[case] = measure(answer, batches, each_s)
                        record.found["samples"] = found
                        record.write()
                        print(f"{case:16} {found[case]}", flush=True)
    record.found["lengths"] = {kind: LENGTHS[kind] for kind in ("short", "mixed")}
    record.write()


if __name__ == "__main__":
    main()
