"""Checks that a folder in hub format is a complete model that can be given the head of a task.

Reads config.json, the headers of the safetensors files and tokenizer.json; no weights and no torch, so that *prepare*
finds a model that was cut short before a GPU is asked for.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from luthier_api.artifact_files import (
    CONFIG_FILE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
    is_model_file,
)
from luthier_artifacts import describe_folder, tree_digest
from luthier_trainer.runtime.errors import InvalidModel, InvalidSpec
from luthier_trainer.spec.transformers_source import model_types

# Their positions begin after the padding token's, so two of the table's rows are never used (fairseq's convention).
_OFFSET_POSITIONS = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer"}
    | {"data2vec-text", "roberta-prelayernorm", "esm", "ibert"}
)
# What wraps a model while it is trained, and puts its own name before that of each weight.
_WRAPPERS = {
    "module.": "torch's DataParallel saves them",
    "_orig_mod.": "torch.compile saves them",
    "base_model.model.": "peft saves them",
}
# Relative or rotary positions: max_position_embeddings is not a limit there.
_RELATIVE_POSITIONS = frozenset({"deberta", "deberta-v2", "xlnet", "t5", "mt5", "umt5"})


# Their heads read a text off at its end token, of which each text of a batch must have as many.
_READ_AT_END = frozenset({"bart", "bigbird_pegasus", "mbart", "mt5", "mvp", "plbart", "t5", "umt5"})


@dataclass(frozen=True)
class BaseModel:
    """A model that passed.

    Attributes:
        folder: where its files lie.
        model_type: config.json's model_type, such as bert.
        pad_token_id: the token that fills a batch up.
        tokenizer_digest: sha256 of tokenizer.json.
        end_token_id: the token at which the head reads a text off, where it looks for it; else None.
    """

    folder: Path
    model_type: str
    pad_token_id: int
    tokenizer_digest: str
    end_token_id: int | None = None

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer as it stands; it may cut and pad by settings of its own."""
        return Tokenizer.from_file(str(self.folder / TOKENIZER_FILE))


def digest_of_model(folder: Path) -> str:
    """Return the digest over the files of a local folder that are the model."""
    return tree_digest(entry for entry in describe_folder(folder) if is_model_file(entry.path))


def check_base_model(folder: Path, uri: str, *, auto_class: str, max_length: int, pairs: bool = False) -> BaseModel:
    """Check a model's folder.

    Args:
        folder: the local copy.
        uri: where it came from, for messages.
        auto_class: name of the transformers Auto class that has the task's head.
        max_length: tokens of a text that the model is asked to read.
        pairs: whether its tokenizer must know how to join two texts.

    Raises:
        InvalidModel: if files are missing or cut short, or the architecture lacks the head.
        InvalidSpec: if the model cannot read as many tokens.
    """
    config = _json_file(folder / CONFIG_FILE, uri)
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise InvalidModel(f"{uri}/{CONFIG_FILE} has no model_type, so it is not a transformers model.")
    if model_type not in model_types(auto_class):
        raise InvalidModel(
            f"The base model {uri} is of type {model_type!r}, which has no {auto_class}; use an encoder such as BERT, "
            "RoBERTa or DistilBERT."
        )
    for shard in _weight_files(folder, uri):
        _check_safetensors(folder / shard, uri)
    tokenizer = _load_tokenizer(folder, uri)
    if pairs and tokenizer.num_special_tokens_to_add(is_pair=True) == 0:
        raise InvalidModel(
            f"The tokenizer of {uri} puts nothing between two texts, so a model cannot tell them apart; give a base "
            "model whose tokenizer.json has a template for pairs, or join the texts and leave out textPairColumn."
        )
    vocabulary = config.get("vocab_size")
    tokens = tokenizer.get_vocab_size(with_added_tokens=True)
    if isinstance(vocabulary, int) and tokens > vocabulary:
        raise InvalidModel(
            f"The tokenizer of {uri} has {tokens} tokens and the model only {vocabulary}: they belong to different "
            "models."
        )
    limit = _position_limit(config, model_type, folder, uri)
    if limit is not None and max_length > limit:
        raise InvalidSpec(
            f"preprocessing.maxLength is {max_length} and the base model {uri} reads at most {limit} tokens; lower it."
        )
    digest = hashlib.sha256((folder / TOKENIZER_FILE).read_bytes()).hexdigest()
    end = config.get("eos_token_id") if model_type in _READ_AT_END else None
    pad = _pad_token_id(config, tokenizer, folder, uri)
    return BaseModel(folder, model_type, pad, digest, end_token_id=end if isinstance(end, int) else None)


def _json_file(path: Path, uri: str) -> dict[str, Any]:
    if not path.exists():
        raise InvalidModel(f"{uri} has no {path.name}; give the folder of a model in hub format.")
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        raise InvalidModel(f"{uri}/{path.name} is not JSON; upload the model again.") from None
    if not isinstance(value, dict):
        raise InvalidModel(f"{uri}/{path.name} is not a JSON object; upload the model again.")
    return value


def _weight_files(folder: Path, uri: str) -> list[str]:
    if (folder / WEIGHTS_FILE).exists():
        return [WEIGHTS_FILE]
    if not (folder / WEIGHTS_INDEX_FILE).exists():
        raise InvalidModel(
            f"{uri} has no {WEIGHTS_FILE}; older formats can run code when they are read, so convert them with "
            "save_pretrained."
        )
    shards = _json_file(folder / WEIGHTS_INDEX_FILE, uri).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise InvalidModel(f"{uri}/{WEIGHTS_INDEX_FILE} lists no files; upload the model again.")
    names = sorted({str(name) for name in shards.values()})
    for name in names:
        if "/" in name or not (folder / name).exists():
            raise InvalidModel(f"{uri} lacks {name}, which its {WEIGHTS_INDEX_FILE} lists; upload the model again.")
    return names


def _check_safetensors(path: Path, uri: str) -> None:
    """Open a file, by which the library compares its size with what its header promises. No weights are read."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise InvalidModel(f"{uri}/{path.name} is damaged or incomplete ({error}); upload it again.") from None
    for prefix, what in _WRAPPERS.items():
        if names and all(name.startswith(prefix) for name in names):
            raise InvalidModel(
                f"The weights in {uri}/{path.name} have names that begin with {prefix!r}, as {what}, so they fit no "
                "model; save the model that is inside again with save_pretrained."
            )


def _load_tokenizer(folder: Path, uri: str) -> Tokenizer:
    path = folder / TOKENIZER_FILE
    if not path.exists():
        raise InvalidModel(
            f"{uri} has no {TOKENIZER_FILE}; make one with AutoTokenizer.from_pretrained(...).save_pretrained(...)."
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        if _is_tokenizer(path):
            raise InvalidModel(
                f"{uri}/{TOKENIZER_FILE} has a form that tokenizers {version('tokenizers')} does not know ({error}): a "
                "newer release wrote it. Save it anew with that release or an older one, or use a newer trainer image."
            ) from None
        raise InvalidModel(f"{uri}/{TOKENIZER_FILE} cannot be read ({error}); upload it again.") from None


def _is_tokenizer(path: Path) -> bool:
    """Tell whether a file is whole, and holds what the library writes."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(value, dict) and isinstance(value.get("model"), dict) and "version" in value


def _pad_token_id(config: dict[str, Any], tokenizer: Tokenizer, folder: Path, uri: str) -> int:
    settings_path = folder / TOKENIZER_CONFIG_FILE
    token = _json_file(settings_path, uri).get("pad_token") if settings_path.exists() else None
    if isinstance(token, dict):
        token = token.get("content")
    found = tokenizer.token_to_id(token) if isinstance(token, str) else config.get("pad_token_id")
    if not isinstance(found, int) or found < 0:
        raise InvalidModel(f"The tokenizer of {uri} names no padding token, so texts cannot be batched; set pad_token.")
    return found


def _position_limit(config: dict[str, Any], model_type: str, folder: Path, uri: str) -> int | None:
    limits = []
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0 and model_type not in _RELATIVE_POSITIONS:
        padding = config.get("pad_token_id")
        offset = (padding if isinstance(padding, int) else 1) + 1 if model_type in _OFFSET_POSITIONS else 0
        limits.append(positions - offset)
    settings_path = folder / TOKENIZER_CONFIG_FILE
    longest = _json_file(settings_path, uri).get("model_max_length") if settings_path.exists() else None
    # Tokenizers without a limit write 1e30.
    if isinstance(longest, int) and 0 < longest < 1_000_000:
        limits.append(longest)
    return min(limits) if limits else None
