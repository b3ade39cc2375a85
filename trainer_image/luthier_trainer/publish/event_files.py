"""Writes what was logged as TensorBoard event files, which lie in the artifact under tensorboard/.

Written once, from the Trainer's history, and not while it trains: a run that was interrupted has the whole of its
curves in its checkpoint, and what an attempt before it wrote to a disk is gone.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from luthier_api.training import TrainingSpec
from luthier_trainer.spec.flatten_spec import flatten_spec

FOLDER = "tensorboard"


def write_event_files(
    folder: Path, spec: TrainingSpec, history: Sequence[Mapping[str, Any]], metrics: Mapping[str, float], steps: int
) -> None:
    """Write one event file.

    Args:
        folder: is created.
        spec: is shown as text, and its settings beside the metrics.
        history: what the Trainer logged; names that begin with eval_ come under eval/, others under train/.
        metrics: of the finished run, under final/.
        steps: optimizer steps done.
    """
    # Imports torch, which only *train* has.
    from tensorboardX import SummaryWriter

    with SummaryWriter(logdir=str(folder), write_to_disk=True) as writer:
        for entry in history:
            for name, value in entry.items():
                if name not in ("step", "epoch") and _is_number(value):
                    writer.add_scalar(_tag(name), value, int(entry["step"]))
        for name, value in metrics.items():
            if math.isfinite(value):
                writer.add_scalar(f"final/{name}", value, steps)
        writer.add_text("spec", f"```json\n{json.dumps(flatten_spec(spec), indent=2)}\n```", steps)


def _tag(name: str) -> str:
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
