"""Runs the training loop so that no finished step is lost: it resumes, saves, stops on request, and ends.

    resume   the newest valid checkpoint of the run; an evaluation that was due there is caught up
    save     every spec.checkpoint.everySteps steps, in the background; at once on a request to stop, then Preempted
    end      the best weights; a small checkpoint that records that only evaluation and publishing are left

A checkpoint is the Trainer's own (weights, optimizer, scheduler, scaler, random state, TrainerState), and beside it the
best weights so far (`best`) and `ResumePoint`. All processes read it; the first one alone writes it. Needs torch.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import TrainOutput

from luthier_api.base import Document
from luthier_artifacts import StorageError
from luthier_trainer.checkpointing.best_weights import BestWeights
from luthier_trainer.checkpointing.checkpoints import Checkpoints
from luthier_trainer.engine.watcher import ADVICE
from luthier_trainer.runtime.distributed import World
from luthier_trainer.runtime.errors import LossNotFinite, Preempted
from luthier_trainer.runtime.progress import Progress
from luthier_trainer.runtime.stopping import Stop
from luthier_trainer.runtime.turns import Turn

RESUME_FILE = "luthier.json"

log = logging.getLogger(__name__)


class ResumePoint(Document):
    """What is left to do at a checkpoint.

    Attributes:
        evaluation_due: the step is done, and the evaluation after it is not.
        finished: training is over, so that there are the best weights alone, and no optimizer.
    """

    evaluation_due: bool = False
    finished: bool = False


def fit(
    tuner: Trainer,
    best: BestWeights,
    checkpoints: Checkpoints,
    stop: Stop,
    turn: Turn,
    world: World,
    progress: Progress,
) -> TrainOutput:
    """Train from the newest checkpoint, or from the beginning, and leave the best weights in the model.

    Raises:
        Preempted: when this process, or another one of the world, was asked to stop.
        AlreadyTraining: when another run has taken over, as while this process hung.
        StorageError: if the checkpoints cannot be read.
        TrainerError: of the training itself; the last good checkpoint is in storage then.
    """
    found = _fetch(checkpoints, world)
    saver = CheckpointSaver(tuner, best, checkpoints, stop, turn, world)
    tuner.add_callback(best)
    tuner.add_callback(saver)
    try:
        with stop.deferred():
            output = _train(tuner, best, saver, found, world, progress)
            best.restore(_model(tuner))
            saver.finish()
    except Preempted:
        raise
    except Exception:
        checkpoints.close()
        raise
    finally:
        tuner.remove_callback(saver)
        tuner.remove_callback(best)
    return output


def _fetch(checkpoints: Checkpoints, world: World) -> tuple[int, Path] | None:
    step = world.broadcast(checkpoints.newest() if world.is_first else None)
    if step is None:
        return None
    with world.leader_first():
        return step, checkpoints.fetch(step)


def _train(
    tuner: Trainer,
    best: BestWeights,
    saver: "CheckpointSaver",
    found: tuple[int, Path] | None,
    world: World,
    progress: Progress,
) -> TrainOutput:
    if found is None:
        return tuner.train()
    step, folder = found
    log.info("resuming from the checkpoint of step %d", step)
    progress.resume(step)
    saver.stored_step = step
    best.load_from(folder)
    mark = ResumePoint.from_json((folder / RESUME_FILE).read_bytes())
    tuner.state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
    if mark.evaluation_due:
        _make_up_evaluation(tuner, folder, world)
    if mark.finished or best.patience_is_exhausted or step >= tuner.state.max_steps:
        if not mark.finished:
            tuner._load_from_checkpoint(str(folder))
        return _earlier_output(tuner.state)
    return tuner.train(resume_from_checkpoint=str(folder))


def _make_up_evaluation(tuner: Trainer, folder: Path, world: World) -> None:
    tuner._load_from_checkpoint(str(folder))
    tuner.evaluate()
    # Where the Trainer reads it again.
    if world.is_first:
        # Another file in its place: what was downloaded is read-only, which only root would not notice.
        (folder / TRAINER_STATE_NAME).unlink()
        tuner.state.save_to_json(str(folder / TRAINER_STATE_NAME))
    world.barrier()


def _earlier_output(state: TrainerState) -> TrainOutput:
    """Return what an earlier attempt's training came to, as it was logged."""
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    last = {"train_loss": sum(losses) / max(1, len(losses)), "train_samples_per_second": 0.0}
    for entry in state.log_history:
        last |= {name: entry[name] for name in last.keys() & entry.keys()}
    return TrainOutput(state.global_step, last["train_loss"], last)


class CheckpointSaver(TrainerCallback):
    """Completes each checkpoint that the Trainer wrote, hands it on, and ends the run when it is asked to stop.

    Attributes:
        stored_step: step of the newest checkpoint.
    """

    def __init__(
        self, tuner: Trainer, best: BestWeights, checkpoints: Checkpoints, stop: Stop, turn: Turn, world: World
    ) -> None:
        self.stored_step = 0
        self._tuner = tuner
        self._best = best
        self._checkpoints = checkpoints
        self._stop = stop
        self._turn = turn
        self._world = world
        self._trains = False
        self._stopping = False
        self._evaluation_due = False
        self._forwarded = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """From now on there is an optimizer to save."""
        self._trains = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Decide whether to save, after the Trainer's own callback did; end here if another run has taken over."""
        if not self._world.is_first or state.global_step >= state.max_steps:
            # `finish` saves less at the end.
            control.should_save = False
        if self._must_stop():
            # Also if another run has taken over, as the next one of the same resource may: no finished step is lost.
            self._stopping, control.should_save = True, True
            self._evaluation_due, control.should_evaluate = control.should_evaluate, False
        else:
            self._turn.check()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop in the middle of an evaluation too; the resumed run makes up for all of it."""
        if self._stopping or not self._must_stop():
            return
        if not self._trains:
            raise Preempted(_sentence(state.global_step))
        self._stopping, self._evaluation_due = True, True
        self._tuner._save_checkpoint(_model(self._tuner), trial=None)
        self.on_save(args, state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Complete the folder that the Trainer has written and hand it on.

        Raises:
            LossNotFinite: instead of keeping weights that are no numbers.
            Preempted: after the checkpoint that a request to stop asks for.
        """
        _check_finite(_model(self._tuner), state.global_step)
        folder = _folder(args, state)
        # A pickle that is never read.
        (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
        self._store(folder, state.global_step, ResumePoint(evaluation_due=self._evaluation_due))

    def finish(self) -> None:
        """Save that training is over, where a run is long enough for its user to mind the loss.

        Raises:
            Preempted: if the request to stop came too late for a step.
        """
        state = self._tuner.state
        self._stopping = self._must_stop()
        long = state.global_step >= self._checkpoints.settings.every_steps
        if not self._world.is_first or self._best.record.step is None or not (long or self._stopping):
            return
        if self.stored_step == state.global_step:
            if self._stopping:
                raise Preempted(_sentence(state.global_step))
            return
        folder = _folder(self._tuner.args, state)
        folder.mkdir(parents=True, exist_ok=True)
        state.save_to_json(str(folder / TRAINER_STATE_NAME))
        self._store(folder, state.global_step, ResumePoint(finished=True))

    def _store(self, folder: Path, step: int, mark: ResumePoint) -> None:
        self._best.save_into(folder)
        (folder / RESUME_FILE).write_text(mark.to_json())
        self.stored_step = step
        if not self._stopping:
            self._checkpoints.offer(step, folder)
            return
        try:
            self._checkpoints.put(step, folder)
        except StorageError as error:
            raise Preempted(
                f"The run was asked to stop after step {step}, whose checkpoint could not be stored ({error}) The "
                "next attempt resumes from the previous checkpoint, or starts over if there is none."
            ) from error
        raise Preempted(_sentence(step))

    def _must_stop(self) -> bool:
        """Tell whether to stop here; a process that is not the first forwards the request and continues."""
        if self._world.is_first:
            return self._stop.requested or self._world.stop_requested()
        if self._stop.requested and not self._forwarded:
            self._world.request_stop()
            self._forwarded = True
        return False


def _model(tuner: Trainer) -> torch.nn.Module:
    assert isinstance(tuner.model, torch.nn.Module)
    return tuner.model


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Return where the Trainer writes the checkpoint of the present step."""
    assert args.output_dir is not None
    return Path(args.output_dir, f"checkpoint-{state.global_step}")


def _check_finite(model: torch.nn.Module, step: int) -> None:
    if not bool(torch.stack([weight.detach().isfinite().all() for weight in model.parameters()]).all()):
        raise LossNotFinite(f"The weights are no longer finite after step {step}. {ADVICE}")


def _sentence(step: int) -> str:
    return f"The run was asked to stop; the checkpoint of step {step} is stored, and the next attempt resumes from it."
