"""A model of an artifact by hand: tokenizers, one session of ONNX Runtime with one thread, softmax."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Model:
    """Labels one text at a time: on a CPU a batch is no faster, and padding makes it slower."""

    def __init__(self, folder: Path, version: str, file: str = "model.int8.onnx") -> None:
        document = json.loads((folder / "luthier.json").read_text())
        self.labels: list[str] = document["labels"]
        self.version = version
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(document["maxLength"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(folder / file), options, providers=["CPUExecutionProvider"])

    @classmethod
    def from_environment(cls) -> Model:
        return cls(Path(os.environ["ARTIFACT"]), os.environ["VERSION"])

    def predict(self, text: str) -> dict[str, Any]:
        encoding = self.tokenizer.encode(text)
        feed = {
            "input_ids": np.array([encoding.ids], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask], dtype=np.int64),
        }
        logits = self._session.run(None, feed)[0][0]
        powers = np.exp(logits - logits.max())
        shares = (powers / powers.sum()).tolist()
        best = int(logits.argmax())
        return {
            "input_text": text,
            "prediction": self.labels[best],
            "confidence": shares[best],
            "probabilities": dict(zip(self.labels, shares, strict=True)),
            "version": self.version,
        }
