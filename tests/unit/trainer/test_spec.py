"""What of a spec is checked before anything is downloaded, and how it is translated for transformers."""

import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from luthier_api.training import Evaluation, Gate, Hyperparameters, Precision, Task, TrainingSpec
from luthier_trainer.runtime.errors import InvalidSpec
from luthier_trainer.spec.flatten_spec import flatten_spec
from luthier_trainer.spec.hyperparameters import (
    eval_steps,
    greater_is_better,
    steps_per_epoch,
    total_steps,
    warmup_steps,
)
from luthier_trainer.spec.ineffective_settings import ineffective_settings
from luthier_trainer.spec.metric_gates import gates_missed_by, missed_gates
from luthier_trainer.spec.metric_names import check_metric_names
from luthier_trainer.spec.precision import Device, choose_precision
from luthier_trainer.spec.scheduler_arguments import check_scheduler_arguments
from luthier_trainer.spec.training_arguments import MEANINGLESS, OWNED, SPEC_FIELDS, parse_training_arguments
from luthier_trainer.spec.transformers_source import model_types, training_argument_types
from luthier_trainer.tasks.registry import task_of

pytestmark = pytest.mark.unit

CPU = Device("the CPU", is_gpu=False, has_bf16=True)
OLD_GPU = Device("Tesla V100", is_gpu=True, has_bf16=False)
NEW_GPU = Device("NVIDIA H200", is_gpu=True, has_bf16=True)


def spec(**fields: object) -> TrainingSpec:
    wire = {
        "model": {"uri": "file:///model"},
        "dataset": {"train": {"uri": "file:///train.csv"}},
        "output": {"name": "m", "uri": "file:///models"},
    }
    return TrainingSpec.model_validate(wire | fields)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_steps", "7", 7),
        ("torch_compile", "true", True),
        ("tf32", "none", None),
        ("neftune_noise_alpha", " 5 ", 5.0),
        ("optim", "adafactor", "adafactor"),
        ("lr_scheduler_kwargs", '{"power": 2}', {"power": 2}),
        ("optim_target_modules", '["attention"]', ["attention"]),
    ],
)
def test_a_training_argument_gets_the_type_that_its_field_has(name: str, text: str, value: object) -> None:
    parsed = parse_training_arguments({name: text})
    assert parsed == {name: value}
    assert type(parsed[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        (
            "lable_smoothing_factor",
            "0.1",
            r"is not a field of TrainingArguments in transformers .*; did you mean hyperparameters\.labelSmoothing",
        ),
        ("lerning_rate", "1", r"did you mean hyperparameters\.learningRate"),
        ("learning_rate", "1e-3", r"is set by spec\.hyperparameters\.learningRate; set it there\."),
        ("bf16", "true", r"is set by spec\.precision; set it there\."),
        ("output_dir", "/tmp", "is decided by the trainer and cannot be set; leave it out"),
        ("hub_token", "x", "is decided by the trainer"),
        ("gradient_accumulation_steps", "2", r"is set by spec\.hyperparameters\.gradientAccumulationSteps"),
        ("label_smoothing_factor", "0.1", r"is set by spec\.hyperparameters\.labelSmoothing"),
        ("group_by_length", "true", "has no effect here: texts are not padded"),
        ("dataloader_drop_last", "true", "has no effect here: the last batch of an epoch is trained on"),
        ("neftune_noise_alpha", "abc", r"is 'abc' and must be of type float\."),
        ("max_steps", "1.5", r"is '1\.5' and must be of type int\."),
        ("torch_compile", "maybe", r"is 'maybe' and must be of type bool\."),
        ("lr_scheduler_kwargs", "{power: 2}", "is not JSON"),
    ],
)
def test_a_training_argument_that_cannot_be_is_refused_by_name(name: str, text: str, sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=f"^trainingArguments\\.{name} .*{sentence}"):
        parse_training_arguments({name: text})


def test_every_argument_that_is_refused_by_name_exists_in_some_transformers() -> None:
    # Names that went with transformers 5 are still what users look for; one came after the oldest that is supported.
    gone = {"warmup_ratio", "group_by_length", "split_batches", "include_tokens_per_second"}
    new = {"activation_checkpointing", "activation_checkpointing_kwargs"}
    assert {*SPEC_FIELDS, *OWNED, *MEANINGLESS} - set(training_argument_types()) <= gone | new


@pytest.mark.parametrize("auto_class", ["AutoModelForSequenceClassification", "AutoModelForTokenClassification"])
def test_the_usual_encoders_have_a_tasks_head_and_others_do_not(auto_class: str) -> None:
    types = model_types(auto_class)
    assert {"bert", "roberta", "distilbert", "deberta-v2", "electra", "xlm-roberta"} <= types
    assert not {"whisper", "clip", "vit"} & types


@pytest.mark.parametrize(
    ("wanted", "device", "chosen"),
    [
        (Precision.AUTO, CPU, Precision.FP32),
        (Precision.AUTO, OLD_GPU, Precision.FP16),
        (Precision.AUTO, NEW_GPU, Precision.BF16),
        (Precision.FP32, NEW_GPU, Precision.FP32),
        (Precision.FP16, OLD_GPU, Precision.FP16),
        (Precision.BF16, CPU, Precision.BF16),
    ],
)
def test_precision_follows_the_device(wanted: Precision, device: Device, chosen: Precision) -> None:
    assert choose_precision(wanted, device) is chosen


@pytest.mark.parametrize(
    ("wanted", "device", "sentence"),
    [
        (Precision.FP16, CPU, "precision is fp16, which needs a GPU; use auto or fp32, or set gpusPerNode: 1."),
        (Precision.BF16, OLD_GPU, "precision is bf16, which Tesla V100 does not have; use auto or fp16."),
    ],
)
def test_a_precision_that_the_device_lacks_is_refused_with_the_fix(
    wanted: Precision, device: Device, sentence: str
) -> None:
    with pytest.raises(InvalidSpec) as refused:
        choose_precision(wanted, device)
    assert str(refused.value) == sentence


def test_a_metric_that_no_run_produces_is_refused_with_the_closest() -> None:
    gate = {"gates": [{"metric": "eval_f1", "threshold": "0.9"}]}
    with pytest.raises(InvalidSpec, match=r"^evaluation\.gates names the metric 'eval_f1', .*eval_f1_macro"):
        check_metric_names(spec(evaluation=gate))
    with pytest.raises(InvalidSpec, match=r"^hyperparameters\.metricForBestModel names the metric 'train_loss'"):
        check_metric_names(spec(hyperparameters={"metricForBestModel": "train_loss"}))
    check_metric_names(spec(evaluation={"gates": [{"metric": "untrained_accuracy", "threshold": "0.1"}]}))


@pytest.mark.parametrize(
    ("value", "missed"),
    [
        (0.9, []),
        (0.89, ["eval_accuracy is 0.89 and must be at least 0.9."]),
        (float("nan"), ["eval_accuracy is nan and must be at least 0.9."]),
        (None, ["eval_accuracy was not measured and must be at least 0.9."]),
    ],
)
def test_gates_judge_what_was_measured(value: float | None, missed: list[str]) -> None:
    evaluation = Evaluation(gates=[Gate(metric="eval_accuracy", threshold=Decimal("0.9"))])
    assert missed_gates(evaluation, {} if value is None else {"eval_accuracy": value}) == missed


def test_prepare_and_everything_it_imports_leaves_torch_alone() -> None:
    code = (
        "import json, sys, luthier_trainer.cli, luthier_trainer.prepare\n"
        "from luthier_trainer.spec.transformers_source import model_types\n"
        "model_types('AutoModelForTokenClassification')\n"
        "print(json.dumps(sorted({'torch', 'transformers', 'sklearn'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_hyperparameters_with_two_warmups_are_refused() -> None:
    with pytest.raises(ValueError, match="either warmupSteps or warmupRatio"):
        Hyperparameters(warmup_steps=1, warmup_ratio=Decimal("0.1"))


@pytest.mark.parametrize(
    ("given", "steps", "warmup"),
    [
        ({}, 100, 6),
        ({}, 10, 1),
        ({"warmupSteps": 0}, 100, 0),
        ({"warmupSteps": 7}, 100, 7),
        ({"warmupRatio": "0"}, 100, 0),
        ({"warmupRatio": "0.25"}, 10, 3),
    ],
)
def test_warmup_is_what_the_spec_says_and_six_percent_where_it_says_nothing(
    given: dict[str, Any], steps: int, warmup: int
) -> None:
    assert warmup_steps(Hyperparameters.model_validate(given), steps) == warmup


def test_an_epoch_ends_with_a_smaller_step_and_is_evaluated_unless_the_spec_says_when() -> None:
    parameters = Hyperparameters.model_validate({"epochs": 3, "batchSize": 8, "gradientAccumulationSteps": 2})
    assert (steps_per_epoch(parameters, 33), total_steps(parameters, 33)) == (3, 9)
    assert eval_steps(parameters, 33) == 3
    assert eval_steps(Hyperparameters.model_validate({"batchSize": 16, "evalSteps": 2}), 33) == 2


@pytest.mark.parametrize(
    ("task", "given", "better"),
    [
        (Task.TEXT_CLASSIFICATION, {}, True),
        (Task.TEXT_CLASSIFICATION, {"metricForBestModel": "eval_loss"}, False),
        (Task.TEXT_CLASSIFICATION, {"metricForBestModel": "eval_ece"}, False),
        (Task.REGRESSION, {}, False),
        (Task.REGRESSION, {"metricForBestModel": "eval_r2"}, True),
        (Task.REGRESSION, {"greaterIsBetter": True}, True),
    ],
)
def test_errors_and_the_loss_are_better_the_smaller_they_are(task: Task, given: dict[str, Any], better: bool) -> None:
    assert greater_is_better(Hyperparameters.model_validate(given), task_of(task)) is better


def test_settings_hold_every_value_by_its_path_and_no_address_of_a_server() -> None:
    run = spec(
        tracking={"mlflow": {"uri": "https://user:passphrase@mlflow.example", "experiment": "reviews"}},
        hyperparameters={"learningRate": "3e-5"},
    )
    settings = flatten_spec(run)
    assert settings["hyperparameters.learningRate"] == "0.00003"
    assert settings["tracking.mlflow.experiment"] == "reviews"
    assert settings["dataset.preprocessing.lowercase"] == "false"
    assert settings["export"].startswith("safetensors")
    assert not any("passphrase" in value for value in settings.values())


@pytest.mark.parametrize("metric", ["train_loss", "train_seconds", "train_examples_per_second"])
def test_a_gate_on_what_another_attempt_changes_is_refused(metric: str) -> None:
    with pytest.raises(
        InvalidSpec, match=f"^evaluation.gates asks for '{metric}', which depends on how often a run was"
    ):
        check_metric_names(spec(evaluation={"gates": [{"metric": metric, "threshold": "0.1"}]}))


def test_a_gate_that_only_the_served_export_misses_is_missed_and_names_it() -> None:
    gates = [{"metric": "eval_accuracy", "threshold": "0.9"}, {"metric": "untrained_accuracy", "threshold": "0.5"}]
    evaluation = Evaluation.model_validate({"gates": gates})
    assert gates_missed_by("model.int8.onnx", 80, evaluation, {"eval_accuracy": 0.9}) == []
    assert gates_missed_by("model.int8.onnx", 80, evaluation, {"eval_accuracy": 0.85}) == [
        "eval_accuracy is 0.85 and must be at least 0.9, judged on 80 texts with model.int8.onnx, which a server "
        "without a GPU loads; leave onnx-int8 out of export to serve fp32."
    ]


@pytest.mark.parametrize("name", ["save_step", "log_leve", "do_trian", "hub_modelid", "ddp_backnd", "use_cach"])
def test_what_is_proposed_for_an_unknown_argument_is_accepted(name: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_training_arguments({name: "1"})
    _, _, hint = str(refused.value).partition("; did you mean ")
    for proposed in hint.rstrip("?").split(" or ") if hint else []:
        assert "." in proposed or proposed not in OWNED | set(MEANINGLESS)
        assert not proposed.startswith(("hub_", "ddp_", "trackio_"))


@pytest.mark.parametrize("name", ["train_los", "test_acuracy", "evaluation_f1"])
def test_what_is_proposed_for_an_unknown_metric_is_accepted(name: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        check_metric_names(spec(evaluation={"gates": [{"metric": name, "threshold": "0.1"}]}))
    _, _, proposed = str(refused.value).partition("use one of ")
    for each in proposed.rstrip(".").split(", "):
        check_metric_names(spec(evaluation={"gates": [{"metric": each, "threshold": "0.1"}]}))


# Settings without effect


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        ({}, []),
        ({"hyperparameters": {"warmupSteps": 20, "evalSteps": 20}}, []),
        (
            {"hyperparameters": {"warmupSteps": 500, "evalSteps": 500}},
            [
                "hyperparameters.warmupSteps = 500 and the run has 69 steps, so that the learning rate gets no higher "
                "than 14% of learningRate; lower it, or leave it out.",
                "hyperparameters.evalSteps = 500 and the run has 69 steps, so that only its end is evaluated and the "
                "best weights are the last ones; lower it, or leave it out to evaluate once an epoch.",
            ],
        ),
        (
            {"hyperparameters": {"warmupRatio": "0.6"}},
            [
                "hyperparameters.warmupRatio = 0.6 and the run has 69 steps, so that 42 of them train below "
                "learningRate; lower it, or leave it out."
            ],
        ),
        (
            {"hyperparameters": {"earlyStopping": {"patience": 3}}},
            [
                "hyperparameters.earlyStopping.patience = 3 and the run has 3 evaluations, so that it never stops "
                "early; lower one of patience and evalSteps."
            ],
        ),
        ({"hyperparameters": {"earlyStopping": {"patience": 3}, "evalSteps": 10}}, []),
        (
            {"hyperparameters": {"batchSize": 1024}},
            [
                "An optimizer step uses 1024 examples and there are 368, so that an epoch is one step; lower batchSize "
                "or gradientAccumulationSteps."
            ],
        ),
        (
            {"checkpoint": {"everySteps": 100}},
            [
                "checkpoint.everySteps = 100 and the run has 69 steps, so that it begins anew if its pod is "
                "lost at once; lower it."
            ],
        ),
        (
            {"trainingArguments": {"max_steps": "10", "logging_steps": "500"}},
            ["trainingArguments.logging_steps = 500 and the run has 10 steps, so that it has no effect; lower it."],
        ),
    ],
)
def test_a_setting_that_cannot_take_effect_in_so_few_steps_is_a_warning(
    changes: dict[str, Any], sentences: list[str]
) -> None:
    assert ineffective_settings(spec(**changes), 368) == sentences


@pytest.mark.parametrize(
    ("scheduler", "arguments", "sentence"),
    [
        ("cosine", '{"num_cycles": 1}', None),
        ("polynomial", '{"power": 2, "lr_end": 1e-6}', None),
        ("linear", "{}", None),
        (
            "linear",
            '{"num_cycles": 2}',
            "trainingArguments.lr_scheduler_kwargs has 'num_cycles', which hyperparameters.scheduler linear does not "
            "take; it takes none.",
        ),
        (
            "constant",
            '{"power": 2}',
            "trainingArguments.lr_scheduler_kwargs has 'power', which hyperparameters.sch",
        ),
        (
            "cosine",
            '{"power": 2}',
            "trainingArguments.lr_scheduler_kwargs has 'power', which hyperparameters.scheduler cosine does not take; "
            "it takes num_cycles.",
        ),
        (
            "cosine",
            '{"last_epoch": 5}',
            "trainingArguments.lr_scheduler_kwargs has 'last_epoch', which hyperparam",
        ),
        (
            "cosine",
            '{"num_cycles": "two"}',
            "trainingArguments.lr_scheduler_kwargs.num_cycles is 'two' and must be a",
        ),
        ("cosine", "two", 'trainingArguments.lr_scheduler_kwargs must be a JSON object, such as {"num_cycles": 0.5}.'),
        (
            "polynomial",
            '{"lr_end": 1}',
            "hyperparameters.scheduler polynomial ends at a learning rate of 1, which is",
        ),
    ],
)
def test_arguments_that_the_scheduler_does_not_take_are_refused_before_a_gpu_is_asked_for(
    scheduler: str, arguments: str, sentence: str | None
) -> None:
    asked = spec(hyperparameters={"scheduler": scheduler}, trainingArguments={"lr_scheduler_kwargs": arguments})
    if sentence is None:
        return check_scheduler_arguments(asked)
    with pytest.raises(InvalidSpec) as refused:
        check_scheduler_arguments(asked)
    assert str(refused.value).startswith(sentence)


def test_a_learning_rate_below_the_end_of_the_polynomial_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="ends at a learning rate of 1e-07, which is not below learningRate "):
        check_scheduler_arguments(spec(hyperparameters={"scheduler": "polynomial", "learningRate": "1e-8"}))
