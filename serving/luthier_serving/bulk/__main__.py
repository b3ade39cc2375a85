"""`python -m luthier_serving.bulk bulk.json`: one worker, its log, its progress, its result and its exit code.

    stdout                the Result document, for pipelines
    stderr                the log
    termination message   the Result document, for the operator
    exit code             luthier_api.exitcodes

The one place that catches everything: any exception becomes a Result and an exit code here.
"""

import argparse
import contextlib
import logging
import logging.config
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from luthier_api.documents import (
    RUN_DOCUMENT_PATH,
    TERMINATION_MESSAGE_PATH,
    TRAINER_PORT,
    WORKER_INDEX_VARIABLE,
    BulkDocument,
    Predicted,
    Result,
)
from luthier_api.exitcodes import ExitCode
from luthier_api.logs import logging_config
from luthier_artifacts.readers.errors import InvalidSpec
from luthier_serving.bulk.errors import StopRequested
from luthier_serving.bulk.outcome import exit_code_of, failure_result
from luthier_serving.bulk.progress import Progress, ProgressServer
from luthier_serving.bulk.worker import Worker

TERMINATION_VARIABLE = "LUTHIER_TERMINATION_LOG"
_QUIET = ("botocore", "boto3", "urllib3", "s3transfer")

log = logging.getLogger("luthier_serving.bulk")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker and return its exit code."""
    options = _parser().parse_args(arguments)
    logging.config.dictConfig(logging_config("text", quiet=_QUIET))
    signal.signal(signal.SIGTERM, _stop)
    try:
        result, code = Result(predicted=_run(options)), ExitCode.OK
    except BaseException as error:
        if isinstance(error, SystemExit | KeyboardInterrupt | GeneratorExit):
            raise
        result, code = failure_result(error), exit_code_of(error)
        log.error("%s", result.failure and result.failure.message, exc_info=code is ExitCode.CRASHED)
    _write_result(result)
    return code


def _run(options: argparse.Namespace) -> Predicted:
    document = _read(options.document)
    index = int(os.environ.get(WORKER_INDEX_VARIABLE, "0"))
    progress = Progress()
    # In a pod, the operator asks for progress; elsewhere it is served only on request.
    host, port = ("0.0.0.0", TRAINER_PORT) if document.origin else ("127.0.0.1", None)
    port = port if options.port is None else options.port
    server = contextlib.nullcontext() if port is None else ProgressServer(progress, host, port)
    with server, tempfile.TemporaryDirectory(prefix="luthier-") as work:
        log.info("worker %d of %d: %s -> %s", index, document.workers, document.input_uri, document.output_uri)
        return Worker(document, index, Path(work), progress).run()


def _read(path: Path) -> BulkDocument:
    try:
        return BulkDocument.from_json(path.read_bytes())
    except OSError as error:
        raise InvalidSpec(f"The document {path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise InvalidSpec(f"{path} is no document of a batch prediction: {where}: {first['msg']}.") from error


def _stop(number: int, frame: FrameType | None) -> None:
    raise StopRequested


def _write_result(result: Result) -> None:
    """Write the result to standard output, and to the termination message if the kubelet made a file for it."""
    text = result.to_termination_message()
    print(text)
    path = Path(os.environ.get(TERMINATION_VARIABLE, TERMINATION_MESSAGE_PATH))
    if TERMINATION_VARIABLE in os.environ or (path.exists() and os.access(path, os.W_OK)):
        path.write_text(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m luthier_serving.bulk",
        description="Predict the rows of files with a model of the registry, as a document describes, with or without "
        f"Kubernetes. ${WORKER_INDEX_VARIABLE} says which of several workers this is, from 0.",
    )
    parser.add_argument("document", type=Path, nargs="?", default=Path(RUN_DOCUMENT_PATH), help="the document")
    parser.add_argument("--port", type=int, help="answer /progress on this port")
    return parser


if __name__ == "__main__":
    sys.exit(main())
