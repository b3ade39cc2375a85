"""Names of versions and of the files of an artifact, which the trainer writes and the server reads.

The registry adds its own manifest.json. What lies beside the weights has Hugging Face's names, so that transformers
loads an artifact as it is.
"""

from pathlib import PurePosixPath

VERSION_PATTERN = r"^[0-9]{8}-[0-9]{6}-[0-9a-f]{8}$"

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"  # of weights in several files
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
SERVING_DOCUMENT_FILE = "luthier.json"

ONNX_FILE = "model.onnx"
INT8_ONNX_FILE = "model.int8.onnx"
# In the order in which ONNX Runtime is to have them: the trainer ships int8 only if it passed its accuracy check.
ONNX_FILES = (INT8_ONNX_FILE, ONNX_FILE)

# The updates of method LoRA or QLoRA, and the head: peft's own names, and ours for what they are for.
ADAPTER_FOLDER = "adapter"
ADAPTER_DOCUMENT_FILE = "luthier-adapter.json"
ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"

# Beside tokenizer.json these are what AutoTokenizer reads.
TOKENIZER_FILES = (
    TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
)

CARD_FILE = "README.md"
REPORT_FILE = "report.html"
METRICS_FILE = "metrics.json"
REFERENCE_FILE = "reference.json"
RUN_FILE = "run.json"
LOG_FILE = "log.jsonl"
CONSOLE_FILE = "console.log"


def is_model_file(path: str) -> bool:
    """Tell which files of a model's folder are the model, by whose digest an adapter names it.

    Pictures, other formats and their exports are not.
    """
    if "/" in path:
        return False
    return path == CONFIG_FILE or path in TOKENIZER_FILES or ".safetensors" in PurePosixPath(path).suffixes
