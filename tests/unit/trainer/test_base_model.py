"""Models that are complete, and every way in which one is not. Headers only: there are no weights here."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from luthier_api.artifact_files import is_model_file
from luthier_trainer.models.base_model import BaseModel, check_base_model
from luthier_trainer.runtime.errors import InvalidModel, InvalidSpec

pytestmark = pytest.mark.unit

URI = "s3://models/base"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad"]


def tokenizer() -> Tokenizer:
    made = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    # Files of real models say such things; they must not decide what is trained.
    made.enable_truncation(2)
    made.enable_padding(length=9)
    return made


def safetensors(payload: int = 8) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, payload]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(payload)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    config = {"model_type": "bert", "vocab_size": 6, "max_position_embeddings": 16, "pad_token_id": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def check(model: Path, max_length: int, auto_class: str = "AutoModelForSequenceClassification") -> BaseModel:
    return check_base_model(model, URI, auto_class=auto_class, max_length=max_length)


def configure(model: Path, **fields: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_complete_model_passes(model: Path) -> None:
    found = check(model, max_length=16)
    assert (found.model_type, found.pad_token_id, len(found.tokenizer_digest)) == ("bert", 0, 64)


def test_a_model_that_reads_a_text_off_at_its_end_token_says_which(model: Path) -> None:
    configure(model, eos_token_id=3)
    assert check(model, max_length=16).end_token_id is None
    configure(model, model_type="bart")
    assert check(model, max_length=16).end_token_id == 3


def break_header(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\xff" * 100)


def cut_weights(model: Path) -> None:
    (model / "model.safetensors").write_bytes(safetensors()[:-3])


def cut_inside_header(model: Path) -> None:
    (model / "model.safetensors").write_bytes(safetensors()[:20])


def lose_a_shard(model: Path) -> None:
    (model / "model.safetensors").unlink()
    weights = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(weights))
    (model / "model-1.safetensors").write_bytes(safetensors())


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda m: (m / "config.json").unlink(), r"s3://models/base has no config\.json; give the folder of a model"),
        (lambda m: (m / "config.json").write_text("{"), r"s3://models/base/config\.json is not JSON"),
        (lambda m: (m / "config.json").write_text("{}"), r"s3://models/base/config\.json has no model_type"),
        (
            lambda m: configure(m, model_type="whisper"),
            r"The base model s3://models/base is of type 'whisper', which has",
        ),
        (
            lambda m: (m / "model.safetensors").unlink(),
            r"s3://models/base has no model\.safetensors; older formats can",
        ),
        (
            cut_weights,
            r"s3://models/base/model\.safetensors is damaged or incomplete \(.*\); upload it again\.$",
        ),
        (cut_inside_header, r".*/model\.safetensors is damaged or incomplete"),
        (break_header, r".*/model\.safetensors is damaged or incomplete"),
        (lose_a_shard, r"s3://models/base lacks model-2\.safetensors, which its .* lists"),
        (lambda m: (m / "tokenizer.json").unlink(), r"s3://models/base has no tokenizer\.json; make one with"),
        (lambda m: (m / "tokenizer.json").write_text("{}"), r"s3://models/base/tokenizer\.json cannot be read"),
        (lambda m: configure(m, vocab_size=5), r"The tokenizer of s3://models/base has 6 tokens and the model only 5"),
        (lambda m: configure(m, pad_token_id=None), r"The tokenizer of s3://models/base names no padding token"),
    ],
)
def test_an_incomplete_model_is_refused_in_one_sentence(model: Path, damage, sentence: str) -> None:
    damage(model)
    with pytest.raises(InvalidModel, match=f"^{sentence}"):
        check(model, max_length=16)


@pytest.mark.parametrize(
    ("fields", "limit"),
    [({}, 16), ({"model_type": "roberta", "pad_token_id": 1}, 14), ({"model_type": "distilbert"}, 16)],
)
def test_no_more_tokens_are_asked_for_than_the_model_reads(model: Path, fields: dict, limit: int) -> None:
    configure(model, **fields)
    check(model, max_length=limit)
    with pytest.raises(
        InvalidSpec, match=rf"^preprocessing\.maxLength is {limit + 1} and .* reads at most {limit} tokens"
    ):
        check(model, max_length=limit + 1)


def test_the_tokenizers_own_limit_counts_too(model: Path) -> None:
    (model / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 8, "pad_token": {"content": "[PAD]"}}))
    assert check(model, max_length=8).pad_token_id == 0
    with pytest.raises(InvalidSpec, match="reads at most 8 tokens"):
        check(model, max_length=9)


def test_only_the_files_of_the_model_are_wanted() -> None:
    wanted = ["config.json", "model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    wanted += ["tokenizer.json", "vocab.txt", "merges.txt"]
    assert all(is_model_file(path) for path in wanted)
    assert not any(is_model_file(path) for path in ("README.md", "pytorch_model.bin", "onnx/config.json", "train.py"))


def test_the_head_that_is_needed_is_the_tasks(model: Path) -> None:
    # BART classifies texts, and has no head for tokens.
    configure(model, model_type="bart")
    assert check(model, max_length=16).model_type == "bart"
    with pytest.raises(InvalidModel, match=r"is of type 'bart', which has no AutoModelForTokenClassification; use an"):
        check(model, max_length=16, auto_class="AutoModelForTokenClassification")


def test_two_texts_need_a_tokenizer_that_parts_them(model: Path) -> None:
    def check_pairs() -> BaseModel:
        return check_base_model(model, URI, auto_class="AutoModelForSequenceClassification", max_length=16, pairs=True)

    with pytest.raises(InvalidModel, match=r"^The tokenizer of s3://models/base puts nothing between two texts, so"):
        check_pairs()
    made = tokenizer()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.save(str(model / "tokenizer.json"))
    assert check_pairs().pad_token_id == 0


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model."])
def test_weights_of_a_wrapped_model_are_named_as_the_cause(model: Path, prefix: str) -> None:
    header = json.dumps({f"{prefix}w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(InvalidModel, match=rf"have names that begin with .{prefix}., as "):
        check(model, 8)


def test_a_tokenizer_of_a_newer_release_is_named_as_the_cause(model: Path) -> None:
    settings = json.loads((model / "tokenizer.json").read_bytes())
    settings["model"]["type"] = "SuperBPE"
    (model / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(InvalidModel, match=r"has a form that tokenizers [\d.]+ does not know .*newer release wrote it"):
        check(model, 8)
