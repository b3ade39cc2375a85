"""Names of versions and of the files of an artifact, which the trainer writes and the server reads.

The registry adds its own manifest.json. What lies beside the weights has Hugging Face's names, so that transformers
loads an artifact as it is.
"""

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

ADAPTER_FOLDER = "adapter"

CARD_FILE = "README.md"
REPORT_FILE = "report.html"
METRICS_FILE = "metrics.json"
REFERENCE_FILE = "reference.json"
RUN_FILE = "run.json"
LOG_FILE = "log.jsonl"
CONSOLE_FILE = "console.log"
