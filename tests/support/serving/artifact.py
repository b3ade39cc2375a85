"""An artifact as the trainer publishes it, of a tiny model with random weights."""

from __future__ import annotations

import warnings
from pathlib import Path

from luthier_api.documents import SERVING_DOCUMENT_FILE, ServingDocument
from luthier_api.training import Task

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", "good", "bad", "film", "the", "was"]
INPUTS = ["input_ids", "attention_mask"]


def serving_document(*labels: str) -> str:
    return ServingDocument(
        task=Task.TEXT_CLASSIFICATION,
        labels=list(labels),
        max_length=64,
        lowercase=True,
        strip_whitespace=True,
        pad_token_id=0,
    ).to_json()


def make_artifact(folder: Path) -> Path:
    """A BERT of random weights with everything that an artifact holds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and transformers warn about their own insides while they are imported
        import torch
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
        from transformers import BertConfig, BertForSequenceClassification
    torch.manual_seed(7)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            num_labels=2,
            initializer_range=0.5,
        )
    ).eval()
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    text = torch.tensor([[2, 30, 31, 3]] * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
        torch.onnx.export(
            model,
            kwargs={"input_ids": text, "attention_mask": torch.ones_like(text)},
            f=str(folder / "model.onnx"),
            dynamo=True,
            dynamic_shapes={name: dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC) for name in INPUTS},
            input_names=INPUTS,
            output_names=["logits"],
            opset_version=18,
            verbose=False,
        )
    (folder / SERVING_DOCUMENT_FILE).write_text(serving_document("negative", "positive"))
    return folder
