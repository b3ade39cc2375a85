"""Real reviews, and tiny models of random weights with a tokenizer of those reviews, one for each architecture."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordLevelTrainer

from luthier_dev import samples

Rows = list[tuple[str, str]]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def read_reviews() -> Rows:
    """Real review sentences, evenly of both labels."""
    with samples.reviews_csv().train.open(newline="") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    by_label = [[row for row in rows if row[1] == label] for label in ("negative", "positive")]
    return [row for pair in zip(*by_label, strict=False) for row in pair]


def tiny_models_in(folder_for: Callable[[str], Path], reviews: Rows) -> Callable[[str], Path]:
    """Return what makes a model of an architecture, in hub format, once."""
    made: dict[str, Path] = {}

    def get(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = tiny_model(folder_for(architecture), architecture, [text for text, _ in reviews])
        return made[architecture]

    return get


def tiny_model(folder: Path, architecture: str, texts: Iterable[str]) -> Path:
    """Write a random base model of one architecture, with a tokenizer trained on the texts."""
    import torch
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel, RobertaConfig, RobertaModel

    tokenizer = Tokenizer(WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), BertPreTokenizer()
    tokenizer.train_from_iterator(texts, WordLevelTrainer(vocab_size=600, special_tokens=SPECIAL))
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names | {"cls_token": "[CLS]", "sep_token": "[SEP]"}))

    common: dict[str, Any] = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 40}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    match architecture:
        case "bert":
            model = BertModel(BertConfig(**common, **sizes))
        case "roberta":
            model = RobertaModel(RobertaConfig(**common, **sizes, pad_token_id=0), add_pooling_layer=False)
        case "distilbert":
            model = DistilBertModel(DistilBertConfig(**common, dim=32, n_layers=2, n_heads=2, hidden_dim=64))
    model.save_pretrained(folder)
    return folder
