"""A tiny base model of random weights for each family of architectures that *prepare* admits."""

from __future__ import annotations

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

SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
PAD, CLS, SEP = 0, 2, 3
# Random weights of this size tell texts apart without having learned anything.
SPREAD = {"initializer_range": 0.2}

_BERT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
_ROBERTA = _BERT | {"max_position_embeddings": 48}
_SEQ2SEQ = {
    **{"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2},
    **{"decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "init_std": 0.2},
    **{"bos_token_id": CLS, "eos_token_id": SEP, "decoder_start_token_id": SEP, "forced_eos_token_id": SEP},
}
_T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": PAD}
_LLAMA = _BERT | {"num_key_value_heads": 1, "head_dim": 16, "bos_token_id": CLS, "eos_token_id": SEP}
_RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}

# The configuration's class, its values, and how its tokenizer ends a text.
FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "bert": ("BertConfig", _BERT, "bert"),
    "roberta": ("RobertaConfig", _ROBERTA | {"type_vocab_size": 1}, "bert"),
    "xlm-roberta": ("XLMRobertaConfig", _ROBERTA | {"type_vocab_size": 1}, "bert"),
    "distilbert": ("DistilBertConfig", {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}, "bert"),
    "albert": ("AlbertConfig", _BERT | {"embedding_size": 16}, "bert"),
    "electra": ("ElectraConfig", _BERT | {"embedding_size": 16}, "bert"),
    "deberta": ("DebertaConfig", _BERT | _RELATIVE, "bert"),
    "deberta-v2": ("DebertaV2Config", _BERT | _RELATIVE, "bert"),
    "deberta-v3": (
        "DebertaV2Config",
        _BERT | _RELATIVE | {"position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True},
        "bert",
    ),
    "modernbert": (
        "ModernBertConfig",
        _BERT
        | {"local_attention": 8, "cls_token_id": CLS, "sep_token_id": SEP, "bos_token_id": CLS}
        | {"initializer_cutoff_factor": 5.0},
        "bert",
    ),
    "mpnet": ("MPNetConfig", _ROBERTA, "bert"),
    "fnet": ("FNetConfig", _BERT, "bert"),
    "funnel": (
        "FunnelConfig",
        {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 64},
        "bert",
    ),
    "longformer": ("LongformerConfig", _ROBERTA | {"attention_window": 8, "max_position_embeddings": 64}, "bert"),
    "big_bird": ("BigBirdConfig", _BERT | {"attention_type": "original_full"}, "bert"),
    "xlm": ("XLMConfig", {"emb_dim": 32, "n_layers": 1, "n_heads": 2, "embed_init_std": 0.2, "init_std": 0.2}, "bert"),
    "xlnet": ("XLNetConfig", {"d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 64}, "xlnet"),
    "bart": ("BartConfig", _SEQ2SEQ, "bert"),
    "t5": ("T5Config", _T5 | {"eos_token_id": SEP, "initializer_factor": 3.0}, "eos"),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 1, "n_head": 2, "bos_token_id": SEP, "eos_token_id": SEP}, "none"),
    "gpt_neox": ("GPTNeoXConfig", _BERT | {"bos_token_id": SEP, "eos_token_id": SEP}, "none"),
    "bloom": (
        "BloomConfig",
        {"hidden_size": 32, "n_layer": 1, "n_head": 2, "bos_token_id": CLS, "eos_token_id": SEP},
        "none",
    ),
    "llama": ("LlamaConfig", _LLAMA, "none"),
    "qwen3": ("Qwen3Config", _LLAMA, "none"),
}
_ENDS = {"bert": "<s> $A </s>", "xlnet": "$A </s> <s>", "eos": "$A </s>", "none": "$A"}
_PAIRS = {
    "bert": "<s> $A </s> $B:1 </s>:1",
    "xlnet": "$A </s> $B:1 </s>:1 <s>:2",
    "eos": "$A </s> $B </s>",
    "none": "$A $B",
}


def families_in(folder_for: Callable[[str], Path], texts: Iterable[str]) -> Callable[[str], Path]:
    """Return what makes a model of a family, in hub format, once."""
    made: dict[str, Path] = {}
    texts = list(texts)

    def get(family: str) -> Path:
        if family not in made:
            made[family] = make_family(folder_for(family), family, texts)
        return made[family]

    return get


def make_family(folder: Path, family: str, texts: Iterable[str]) -> Path:
    """Write a random base model of a family, with a tokenizer trained on the texts."""
    import torch
    import transformers

    kind, values, ends = FAMILIES[family]
    tokenizer = Tokenizer(WordLevel(unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), BertPreTokenizer()
    tokenizer.train_from_iterator(texts, WordLevelTrainer(vocab_size=600, special_tokens=list(SPECIAL.values())))
    tokenizer.post_processor = TemplateProcessing(
        single=_ENDS[ends], pair=_PAIRS[ends], special_tokens=[("<s>", CLS), ("</s>", SEP)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    side = "left" if family == "xlnet" else "right"
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": side, **SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    torch.manual_seed(0)
    given = SPREAD | values | {"vocab_size": tokenizer.get_vocab_size(), "pad_token_id": PAD}
    config = getattr(transformers, kind)(**given)
    # The one without a decoder is what its classifier is made of.
    base = transformers.FunnelBaseModel(config) if family == "funnel" else transformers.AutoModel.from_config(config)
    base.save_pretrained(folder)
    return folder
