"""Runs the trainer's command line in child processes of a warm one: a real process each, without seconds of imports.

One line of JSON on standard input starts one: {"argv": [...], "env": {...}, "log": path}. Its process id is printed,
and when it has ended its exit code, -n for signal n.
"""

import json
import os
import sys

from luthier_trainer.runtime.cpus import limit_threads

limit_threads()

import transformers  # noqa: E402
from sklearn import metrics  # noqa: E402, F401

import luthier_trainer.runtime.distributed  # noqa: E402
import luthier_trainer.train  # noqa: E402, F401
from luthier_trainer.cli import main  # noqa: E402

# Loaded when they are first asked for.
assert transformers.AutoModelForSequenceClassification and transformers.BertForSequenceClassification

print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if not pid:
        os.environ.update(job["env"])
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        code = main(job["argv"])
        sys.stdout.flush()
        os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
