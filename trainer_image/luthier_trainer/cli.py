"""The command line: reads the document, runs prepare, train or remove, and writes the result where it is expected.

    stdout                the Result document, for pipelines
    stderr                the log
    termination message   the Result document, at most 4 KiB, for the operator
    exit code             luthier_api.exitcodes

If it is to train with several processes (see `launch`), it starts them and reports for all of them.
The one place that catches everything: any exception becomes a Result and an exit code here.
"""

import argparse
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from luthier_api.documents import (
    GRACE_VARIABLE,
    RUN_DOCUMENT_PATH,
    TERMINATION_MESSAGE_PATH,
    TRAINER_PORT,
    Prepared,
    Published,
    Removal,
    Result,
    RunDocument,
)
from luthier_api.exitcodes import ExitCode
from luthier_trainer.remove import remove
from luthier_trainer.runtime.cpus import limit_threads
from luthier_trainer.runtime.errors import InvalidSpec, Preempted
from luthier_trainer.runtime.launch import RESULTS_VARIABLE, Launch, launch, torchrun_ranks
from luthier_trainer.runtime.logs import logging_to
from luthier_trainer.runtime.outcome import exit_code_of, failure_result, is_known
from luthier_trainer.runtime.progress import Progress, ProgressServer
from luthier_trainer.runtime.stopping import Stop
from luthier_trainer.runtime.workspace import Workspace
from luthier_trainer.spec.read_document import read_document

COMMANDS = ("prepare", "train", "run", "remove")
TERMINATION_VARIABLE = "LUTHIER_TERMINATION_LOG"
INTERRUPTED = 130
_OVERDUE = (
    "The run was asked to stop, and its last checkpoint could not be stored in time; the next attempt resumes from the "
    "previous checkpoint. Raise the chart's trainer.terminationGracePeriodSeconds if that happens often."
)

log = logging.getLogger("luthier_trainer")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["merge"]:
        # It has no run document, and torch takes seconds to import.
        from luthier_trainer.merge import main as merge

        return merge(arguments[1:])
    options = _parser().parse_args(_with_command(arguments))
    limit_threads()
    rank = torchrun_ranks()[0]
    stop = stop_in_time(rank)
    with _folder(options.workspace) as folder:
        workspace = Workspace.of(folder, rank)
        workspace.root.mkdir(parents=True, exist_ok=True)
        try:
            with stop.on_sigterm():
                result, code = _run(options, workspace, stop)
        except KeyboardInterrupt:
            log.error("interrupted; nothing was published")
            return INTERRUPTED
        except BaseException as error:
            if isinstance(error, SystemExit | GeneratorExit):
                raise
            result, code = failure_result(error), exit_code_of(error)
            _report(error, result)
    _write_result(result, rank)
    return code


def _run(options: argparse.Namespace, workspace: Workspace, stop: Stop) -> tuple[Result, ExitCode]:
    if options.command == "remove":
        return _remove(options.document, workspace)
    run = read_document(options.document, RunDocument, "run document")
    progress = Progress()
    bar = run.origin is None and sys.stderr.isatty()
    # One of several processes reports for all.
    speaks = torchrun_ranks()[0] == 0 and Launch.from_environment() is None
    server = _server(options.port, run, progress) if speaks else contextlib.nullcontext()
    with logging_to(workspace.console_log, run.origin), server:
        if torchrun_ranks()[0]:
            logging.disable(logging.INFO)
        output = run.spec.output
        log.info("%s: %s -> %s/%s", options.command, run.spec.model.uri, output.uri.rstrip("/"), output.name)
        return _command(options, run, workspace, progress, bar, stop)


def _remove(document: Path, workspace: Workspace) -> tuple[Result, ExitCode]:
    removal = read_document(document, Removal, "removal document")
    with logging_to(workspace.console_log, removal.origin):
        return Result(removed=remove(removal)), ExitCode.OK


def _command(
    options: argparse.Namespace, run: RunDocument, workspace: Workspace, progress: Progress, bar: bool, stop: Stop
) -> tuple[Result, ExitCode]:
    command = options.command
    if command in ("prepare", "run"):
        if torchrun_ranks()[1] > 1:
            raise InvalidSpec(f"torchrun can only start `train`, not `{command}`: run `prepare` by itself first.")
        from luthier_trainer.prepare import prepare

        answer = prepare(run, workspace, progress)
        if command == "prepare" or isinstance(answer, Published):
            return _result(answer), ExitCode.OK
        run = run.model_copy(update={"resolved": answer.resolved})
    if plan := Launch.from_environment():
        return launch(plan, run, workspace, port=options.port)
    # torch takes seconds to import, and prepare must not.
    from luthier_trainer.runtime.distributed import joined
    from luthier_trainer.tracking.mlflow_tracker import MlflowTracker
    from luthier_trainer.train import train

    with joined() as world, MlflowTracker(run) as tracker:
        return _result(train(run, workspace, progress, bar=bar, stop=stop, world=world, tracker=tracker)), ExitCode.OK


def stop_in_time(rank: int) -> Stop:
    """Return the handler of SIGTERM, which ends the process as preempted before it would be killed.

    A kill would look like one for lack of memory, after which no pod is started again.
    """

    def overdue() -> None:
        _write_result(failure_result(Preempted(_OVERDUE)), rank)
        sys.stdout.flush()
        # The main thread may wait for storage; nothing that it would clean up matters in a pod that is removed.
        os._exit(ExitCode.PREEMPTED)

    grace_s = os.environ.get(GRACE_VARIABLE)
    return Stop(float(grace_s) if grace_s else None, overdue)


def _result(answer: Prepared | Published) -> Result:
    return Result(prepared=answer) if isinstance(answer, Prepared) else Result(published=answer)


def _report(error: BaseException, result: Result) -> None:
    assert result.failure
    if is_known(error):
        print(f"{result.failure.reason}: {result.failure.message}", file=sys.stderr)
    else:
        logging.getLogger("luthier_trainer").error("crashed", exc_info=error)


def _write_result(result: Result, rank: int) -> None:
    """Write the result to standard output, and to the termination message if the kubelet made a file for it."""
    text = result.to_termination_message()
    if RESULTS_VARIABLE in os.environ and "RANK" in os.environ:
        Path(os.environ[RESULTS_VARIABLE], f"{rank}.json").write_text(text)
        return
    if rank:
        return
    print(text)
    path = Path(os.environ.get(TERMINATION_VARIABLE, TERMINATION_MESSAGE_PATH))
    if TERMINATION_VARIABLE in os.environ or (path.exists() and os.access(path, os.W_OK)):
        path.write_text(text)


@contextlib.contextmanager
def _folder(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen
        return
    with tempfile.TemporaryDirectory(prefix="luthier-") as folder:
        yield Path(folder)


def _server(port: int | None, run: RunDocument, progress: Progress) -> contextlib.AbstractContextManager[object]:
    """In a pod, the operator asks for progress; elsewhere it is served only on request."""
    if run.origin is not None:
        return ProgressServer(progress, "0.0.0.0", TRAINER_PORT if port is None else port)
    return contextlib.nullcontext() if port is None else ProgressServer(progress, "127.0.0.1", port)


def _with_command(arguments: list[str]) -> list[str]:
    """Insert `run`, the default command, if none is given."""
    named = any(argument in COMMANDS for argument in arguments[:1])
    helps = any(argument in ("-h", "--help") for argument in arguments)
    return arguments if named or helps else ["run", *arguments]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m luthier_trainer",
        description="Fine-tune a text encoder as a run document describes, with or without Kubernetes.",
        epilog="remove deletes the versions that a removal document lists. Another command, merge ARTIFACT BASE "
        "OUT, makes a plain model of an adapter and its base model.",
    )
    parser.add_argument("command", choices=COMMANDS, help="prepare (no GPU, no torch), train, run (both), or remove")
    parser.add_argument("document", type=Path, nargs="?", default=Path(RUN_DOCUMENT_PATH), help="the document")
    parser.add_argument("--port", type=int, help="answer /progress, /metrics and /healthz on this port")
    parser.add_argument("--workspace", type=Path, help="working folder, which is kept; default: a temporary folder")
    return parser
