"""What LoRA and QLoRA save beside full fine-tuning, on a model of bert-base's shape: memory, weights, time.

QLoRA needs bitsandbytes, whose kernels are twice as large as the kit may be: it is left out where that is not there.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from record import Record
from texts import LENGTHS, LONGEST, bert_base, texts, tokenized
from training import Epochs
from training_sides import Data, Setting, side

from luthier_api.artifact_files import TOKENIZER_FILE
from luthier_api.training import Lora, Method, MethodType, Precision, Task
from luthier_dev import samples
from luthier_trainer.engine.device import detect_device
from luthier_trainer.models.base_model import check_base_model
from luthier_trainer.models.load import load_model
from luthier_trainer.models.methods import Trainable, adapt, count_parameters, quantization
from luthier_trainer.tasks.registry import task_of


def adapted(kind: MethodType, base: Path, precision: Precision) -> Trainable:
    """Return the model as `train` makes it."""
    task = task_of(Task.TEXT_CLASSIFICATION)
    checked = check_base_model(base, base.as_uri(), auto_class=task.auto_class, max_length=LONGEST)
    method = Method(type=kind) if kind is MethodType.FULL else Method(type=kind, lora=Lora(r=8))
    held = quantization(method, detect_device(), precision)
    return adapt(load_model(checked, base.as_uri(), task, ["no", "yes"], quantization=held), method)


def measure(record: Record, kind: MethodType, base: Path, data: Data, precision: Precision) -> dict[str, Any]:
    record.peak_memory_mb()
    model = adapted(kind, base, precision)
    epochs = Epochs(record)
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(4 if record.tiny else 32, LENGTHS["mixed"][1], precision, epochs=2)
        trainer = side("us", model, data, setting, Path(folder))
        trainer.add_callback(epochs)
        trainer.train()
    trained, all_ = count_parameters(model)
    found = {
        "examples_per_s": round(len(data.ids) / epochs.seconds[1], 1),
        "peak_memory_mb": record.peak_memory_mb(),
        "trained_weights": trained,
        "weights": all_,
        "packed": trainer.forward.packing is not None,
    }
    del trainer, model
    gc.collect()
    return found


def main() -> None:
    record = Record.from_command_line(__doc__)
    cuda = record.device.type == "cuda"
    precision = Precision.BF16 if cuda else Precision.FP32
    data = tokenized(texts("mixed", 8 if record.tiny else 1024), LENGTHS["mixed"][1])
    methods: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        bert_base(tiny=record.tiny).save_pretrained(folder)
        for name in (TOKENIZER_FILE, "tokenizer_config.json"):
            shutil.copy(samples.base_model() / name, folder)
        for kind in (MethodType.FULL, MethodType.LORA, MethodType.QLORA):
            if kind is MethodType.QLORA and not (cuda and find_spec("bitsandbytes")):
                record.found["left_out"].append("QLoRA: it needs a GPU and the package bitsandbytes")
                record.write()
            elif record.has_time_for(kind, 8.0 if not record.tiny else 0.0):
                methods[kind] = measure(record, kind, Path(folder), data, precision)
                record.found["methods"] = methods
                record.write()
                print(f"{kind:6} {methods[kind]}", flush=True)


if __name__ == "__main__":
    main()
