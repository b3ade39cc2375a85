"""An artifact as the trainer publishes it, of a tiny model with random weights."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import onnx

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


def make_artifact(folder: Path, *, hidden: int = 32, layers: int = 2) -> Path:
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
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=2 * hidden,
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


def swapped(artifact: Path, folder: Path) -> Path:
    """The same model with its labels exchanged, so that it disagrees on every text."""
    shutil.copytree(artifact, folder)
    (folder / SERVING_DOCUMENT_FILE).write_text(serving_document("positive", "negative"))
    return folder


def failing(artifact: Path, folder: Path, word: str = "bad") -> Path:
    """The same model, which fails on every text with this word: its token is beyond the embedding."""
    shutil.copytree(artifact, folder)
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text())
    document["model"]["vocab"][word] = 10_000
    path.write_text(json.dumps(document))
    return folder


def hungry(artifact: Path, folder: Path, gigabytes: int) -> Path:
    """The same model, which takes so much memory as soon as it computes."""
    shutil.copytree(artifact, folder)
    path = str(folder / "model.onnx")
    model = onnx.load(path)
    graph = model.graph
    size = onnx.helper.make_tensor("hungry_size", onnx.TensorProto.INT64, [1], [gigabytes * 2**28])
    graph.initializer.append(size)
    zero = onnx.helper.make_tensor("zero", onnx.TensorProto.FLOAT, [1], [0.0])
    graph.node.extend(
        [
            onnx.helper.make_node("Add", ["hungry_zeros", "hungry_zero"], ["hungry_values"]),
            onnx.helper.make_node("ReduceMax", ["hungry_values"], ["hungry_max"], keepdims=0),
            onnx.helper.make_node("Mul", ["hungry_max", "hungry_zero"], ["hungry_nothing"]),
        ]
    )
    graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", ["hungry_size"], ["hungry_zeros"], value=zero))
    graph.initializer.append(onnx.helper.make_tensor("hungry_zero", onnx.TensorProto.FLOAT, [], [0.0]))
    _add_to_logits(graph, "hungry_nothing")
    onnx.save(model, path)
    return folder


def hanging(artifact: Path, folder: Path, word: str = "bad") -> Path:
    """The same model, which never comes to an end with a text that holds this word."""
    shutil.copytree(artifact, folder)
    path = str(folder / "model.onnx")
    model = onnx.load(path)
    graph, helper, kinds = model.graph, onnx.helper, onnx.TensorProto
    _add_to_logits(graph, "hang_nothing")
    scalar = {name: helper.make_tensor_value_info(name, kind, []) for name, kind in (
        ("hang_turn", kinds.INT64), ("hang_on", kinds.BOOL), ("hang_in", kinds.FLOAT), ("hang_goes_on", kinds.BOOL),
        ("hang_out", kinds.FLOAT))}  # fmt: skip
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["hang_on"], ["hang_goes_on"]),
            helper.make_node("Add", ["hang_in", "hang_one"], ["hang_out"]),
        ],
        "hang",
        [scalar["hang_turn"], scalar["hang_on"], scalar["hang_in"]],
        [scalar["hang_goes_on"], scalar["hang_out"]],
    )
    constants = {
        "hang_word": (kinds.INT64, VOCABULARY.index(word)), "hang_turns": (kinds.INT64, 10**15),
        "hang_yes": (kinds.BOOL, True), "hang_zero": (kinds.FLOAT, 0.0), "hang_one": (kinds.FLOAT, 1.0),
    }  # fmt: skip
    for name, (kind, value) in constants.items():
        graph.initializer.append(helper.make_tensor(name, kind, [], [value]))
    nodes = [
        helper.make_node("Equal", ["input_ids", "hang_word"], ["hang_found"]),
        helper.make_node("Cast", ["hang_found"], ["hang_found_number"], to=kinds.INT64),
        helper.make_node("ReduceSum", ["hang_found_number"], ["hang_count"], keepdims=0),
        helper.make_node("Mul", ["hang_count", "hang_turns"], ["hang_trips"]),
        helper.make_node("Loop", ["hang_trips", "hang_yes", "hang_zero"], ["hang_sum"], body=body),
        helper.make_node("Mul", ["hang_sum", "hang_zero"], ["hang_nothing"]),
    ]
    for place, node in enumerate(nodes):
        graph.node.insert(place, node)
    onnx.save(model, path)
    return folder


def _add_to_logits(graph: onnx.GraphProto, nothing: str) -> None:
    """Add a number, which is zero, to the model's output, so that it has to be computed."""
    last = next(node for node in graph.node if "logits" in node.output)
    last.output[list(last.output).index("logits")] = "logits_before"
    graph.node.append(onnx.helper.make_node("Add", ["logits_before", nothing], ["logits"]))
