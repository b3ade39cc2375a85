"""Real texts in three lengths, and models to read them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from training_sides import Data
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification, PreTrainedModel

from luthier_api.training import Task
from luthier_dev import samples

Rows = list[tuple[str, int]]
LONGEST = 512
# Tokens of a text at least, and what the tutorial would pad it to.
LENGTHS = {"short": (0, 128), "mixed": (8, LONGEST), "long": (LONGEST, LONGEST)}


def tokenizer(max_length: int) -> Tokenizer:
    found = Tokenizer.from_file(str(samples.base_model() / "tokenizer.json"))
    found.no_padding()
    found.enable_truncation(max_length)
    return found


def read(path: Path) -> Rows:
    with path.open(newline="") as file:
        rows = [(row["text"], int(row["label"] == "positive")) for row in csv.DictReader(file)]
    return [rows[index] for index in np.random.default_rng(0).permutation(len(rows))]


def train_rows() -> Rows:
    return read(samples.reviews_csv(films=True).train)


def texts(kind: str, count: int) -> Rows:
    """Return texts as they come (short), joined to 8 to 512 tokens (mixed), or joined to 512 (long)."""
    least, _ = LENGTHS[kind]
    rows, chance = train_rows(), np.random.default_rng(1)
    sizes = [len(each.ids) - 2 for each in tokenizer(LONGEST).encode_batch([text for text, _ in rows])]
    made: Rows = []
    while len(made) < count:
        place = len(made) % len(rows)
        parts, tokens = [rows[place][0]], 2 + sizes[place]
        # As many short ones as long ones, on a scale of ratios: what real sets of texts look like.
        wanted = int(np.exp(chance.uniform(np.log(least), np.log(LONGEST)))) if least else 0
        while tokens < wanted:
            more = int(chance.integers(len(rows)))
            parts.append(rows[more][0])
            tokens += sizes[more]
        made.append((" ".join(parts), rows[place][1]))
    return made


def tokenized(rows: Rows, max_length: int) -> Data:
    encode = tokenizer(max_length)
    ids = [each.ids for each in encode.encode_batch([text for text, _ in rows])]
    return Data(Task.TEXT_CLASSIFICATION, ids, [label for _, label in rows])


def bert_base(*, tiny: bool) -> BertForSequenceClassification:
    """Return a model of bert-base's shape (110 million weights) with random weights."""
    torch.manual_seed(0)
    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    return BertForSequenceClassification(BertConfig(num_labels=2, **(small if tiny else {})))


def minilm() -> PreTrainedModel:
    """Return the small real model (22 million weights), in single precision."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        samples.base_model(), num_labels=2, dtype=torch.float32
    )
    return model


def flops_per_token(model: PreTrainedModel) -> int:
    """Return the operations of a forward pass for each token, attention's scores left out: 2 for each weight.

    A training step takes three times as many. After Kaplan et al., "Scaling Laws for Neural Language Models" (2020).
    """
    embedded = {id(each.weight) for each in model.modules() if isinstance(each, torch.nn.Embedding)}
    return 2 * sum(weight.numel() for weight in model.parameters() if id(weight) not in embedded)
