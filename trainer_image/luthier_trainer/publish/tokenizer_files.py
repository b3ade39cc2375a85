"""Writes the tokenizer that is published, and proves that transformers reads texts by it as the server does.

The server, as training, goes by tokenizer.json alone, and cleans a text before. Classes in transformers build their own
tokenizer from tokenizer_config.json, which may say otherwise (do_lower_case, truncation_side), and a pipeline knows
nothing of the cleaning. So real texts are read in both ways, and the files are written in the first of several forms
in which both give the same tokens. If none does, nothing is published, and nothing is trained either: `train` writes
the files once before.
"""

import itertools
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers
from transformers import AutoTokenizer, PreTrainedModel

from luthier_api.artifact_files import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, TOKENIZER_FILES
from luthier_api.documents import Padding
from luthier_api.text import normalize_text
from luthier_api.training import Preprocessing, TrainingSpec
from luthier_trainer.data.tokenization import configure, is_byte_level
from luthier_trainer.formats.prepared import PreparedFolder
from luthier_trainer.models.base_model import BaseModel
from luthier_trainer.runtime.errors import InvalidModel
from luthier_trainer.tasks.registry import task_of

log = logging.getLogger(__name__)

# Texts that are read in both ways, and how many tokens of each a message shows.
_PROOF_TEXTS, _SHOWN_TOKENS = 100, 8
# It takes everything from tokenizer.json.
_GENERIC_CLASS = "PreTrainedTokenizerFast"

Settings = dict[str, Any]
Example = tuple[str, str | None]


@dataclass(frozen=True)
class _Difference:
    """A text that is not read alike, and how it is."""

    text: str
    server: str
    transformers: str


def write_tokenizer(
    folder: Path,
    model: PreTrainedModel,
    base: BaseModel,
    prepared: PreparedFolder,
    spec: TrainingSpec,
    padding: Padding,
) -> None:
    """Write the base model's tokenizer, set to do as it did in training, for transformers too.

    Args:
        folder: written into; made if it does not exist.
        model: with the task's head.
        base: whose tokenizer it is.
        prepared: real texts.
        spec: how they were cleaned and cut.
        padding: where a batch may be filled up.

    Raises:
        InvalidModel: if transformers reads texts otherwise than the server, however the files are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Where the tokenizer names no class, transformers goes by the model's type.
    model.config.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (base.folder / name).exists() and name != TOKENIZER_FILE:
            shutil.copyfile(base.folder / name, folder / name)
    per_token, cleaning = task_of(spec.task).per_token, spec.dataset.preprocessing
    tokenizer = configure(base.tokenizer(), prepared.data.max_length, per_token=per_token)
    settings_path = folder / TOKENIZER_CONFIG_FILE
    given = json.loads(settings_path.read_bytes()) if settings_path.exists() else {}
    # As in training; see collate.token_format.
    token_types = prepared.data.pairs and getattr(model.config, "type_vocab_size", 0) > 1
    settings = given | {
        "model_max_length": prepared.data.max_length,
        "model_input_names": ["input_ids", *(["token_type_ids"] if token_types else []), "attention_mask"],
        "padding_side": "left" if padding == "left" else "right",
        "truncation_side": "right",
    }
    if per_token and is_byte_level(tokenizer):
        settings["add_prefix_space"] = True
    examples, first = _examples(prepared, cleaning, per_token=per_token), None
    for what, each, form in _forms(tokenizer, settings, cleaning):
        each.save(str(folder / TOKENIZER_FILE))
        settings_path.write_text(json.dumps(form, indent=2, ensure_ascii=False) + "\n")
        found = _first_difference(folder, examples, cleaning, prepared.data.max_length, per_token, token_types)
        if found is None:
            if what and first:
                log.info("the tokenizer is published with %s: transformers read %r otherwise", what, first.text)
            return
        first = first or found
    assert first is not None
    raise InvalidModel(
        f"The tokenizer of {spec.model.uri} is not read alike: of {first.text!r} tokenizer.json makes {first.server} "
        f"and transformers {first.transformers}. Save it anew with AutoTokenizer.from_pretrained(...)"
        ".save_pretrained(...)."
    )


def _forms(
    tokenizer: Tokenizer, settings: Settings, cleaning: Preprocessing
) -> Iterator[tuple[str, Tokenizer, Settings]]:
    """Yield what may be written, the closest to what the base model has first, each with words for what is changed."""
    yield "", tokenizer, settings
    if "do_lower_case" in settings:
        lowered = not settings["do_lower_case"]
        yield f"do_lower_case {str(lowered).lower()}", tokenizer, settings | {"do_lower_case": lowered}
    generic = {name: value for name, value in settings.items() if name != "do_lower_case"}
    generic["tokenizer_class"] = _GENERIC_CLASS
    yield f"the class {_GENERIC_CLASS}", tokenizer, generic
    yield "the cleaning in tokenizer.json", _that_cleans(tokenizer, cleaning), settings
    yield f"the cleaning in tokenizer.json and the class {_GENERIC_CLASS}", _that_cleans(tokenizer, cleaning), generic


def _that_cleans(tokenizer: Tokenizer, cleaning: Preprocessing) -> Tokenizer:
    """Return a tokenizer that does by itself what is done to a text before; it changes nothing of a cleaned one."""
    steps: list[Any] = []
    if cleaning.strip_whitespace:
        steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    if cleaning.lowercase:
        steps.append(normalizers.Lowercase())
    made = Tokenizer.from_str(tokenizer.to_str())
    if tokenizer.normalizer is not None:
        steps.append(tokenizer.normalizer)
    if steps:
        made.normalizer = normalizers.Sequence(steps)
    return made


def _examples(prepared: PreparedFolder, cleaning: Preprocessing, *, per_token: bool) -> list[Example]:
    """Return real texts; as they may come, too, where that is cleaned away."""
    part, count = prepared.held_out, min(_PROOF_TEXTS, len(prepared.held_out))
    examples = [(part.text(index), part.text_pair(index)) for index in range(count)]
    if cleaning.lowercase:
        examples += [(text.title(), pair) for text, pair in examples]
    if cleaning.strip_whitespace and not per_token:
        examples += [(text.replace(" ", "\n\n", 1), pair) for text, pair in examples]
    return examples


def _first_difference(
    folder: Path, examples: list[Example], cleaning: Preprocessing, max_length: int, per_token: bool, token_types: bool
) -> _Difference | None:
    server = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    server.no_padding()
    server.enable_truncation(max_length)
    try:
        theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a class asks for that is not there
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return _Difference(examples[0][0], "tokens", f"an error ({reason[:200]})")
    for text, pair in examples:
        strip = cleaning.strip_whitespace or per_token
        first, *second = (
            normalize_text(each, lowercase=cleaning.lowercase, strip_whitespace=strip)
            for each in (text, pair)
            if each is not None
        )
        ours = server.encode(first, *second)  # type: ignore[arg-type]
        found = theirs(text, pair, truncation=True)
        if found["input_ids"] != ours.ids:
            shown = (_shown(server, ours.ids, found["input_ids"]), _shown(server, found["input_ids"], ours.ids))
            return _Difference(text, *shown)
        types = list(found.get("token_type_ids") or [0] * len(ours.ids))
        wanted = ours.type_ids if token_types else [0] * len(ours.ids)
        if types != wanted:
            return _Difference(text, f"the types {wanted}", str(types))
    return None


def _shown(tokenizer: Tokenizer, ids: list[int], others: list[int]) -> str:
    """Return the first tokens from where two readings part."""
    equal = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(ids, others, strict=False))
    start = max(0, sum(1 for _ in equal) - 1)
    return str([tokenizer.id_to_token(each) or each for each in ids[start : start + _SHOWN_TOKENS]])
