"""What a model answers: plain tuples, cheap to pickle, since a canary's come from another process."""

from typing import NamedTuple

from luthier_api.training import Task

# What a model reads: a text, or a pair of texts.
Text = str | tuple[str, str]


class Span(NamedTuple):
    """A labelled part of the text, in the coordinates of the caller's own text.

    Attributes:
        start: its first character.
        end: the character after its last.
        label: index of its label.
        confidence: probability of the label.
    """

    start: int
    end: int
    label: int
    confidence: float


# What a model computes for one text: a number for each label, or its labelled words; `tasks` knows what they mean.
Values = list[float] | list[Span]


class Row(NamedTuple):
    """The answer to one text: its values, or one sentence that says why there are none.

    Attributes:
        invalid_input: whether the caller must send something else, as opposed to a failure of the model.
        cut_tokens: tokens of the text that the model did not read, since it was too long.
        logits: what `values` were made of, as float32; empty for a task per token.
        tokens: of the text, as the model read it.
        unknown: how many of them the tokenizer does not know; counted where the artifact has a reference.
    """

    values: Values
    error: str | None = None
    invalid_input: bool = False
    cut_tokens: int = 0
    logits: bytes = b""
    tokens: int = 0
    unknown: int = 0


class ModelInfo(NamedTuple):
    """The model that answers.

    Attributes:
        version: in the registry.
        weights: name of the file that the engine loaded.
        pairs: whether it reads pairs of texts.
        threshold: multi-label: a label is assigned from this probability on.
        max_tokens: tokens of a text that it reads at most, special tokens included.
        digest: of the version, empty where no registry was asked.
    """

    version: str
    weights: str
    task: Task
    labels: tuple[str, ...]
    pairs: bool
    threshold: float
    max_tokens: int = 0
    digest: str = ""


class Work(NamedTuple):
    """What a model has done for one batch.

    Attributes:
        started_ns: when it began, in nanoseconds since 1970, by the clock of its own process.
        tokenize_s: how long cleaning and tokenization took.
        compute_s: how long all else took.
        tokens: without padding.
    """

    started_ns: int
    tokenize_s: float
    compute_s: float
    tokens: int


class Answer(NamedTuple):
    """The answer to a batch: one row for each text, in order; the model; the replica that computed it, and its work."""

    rows: list[Row]
    model: ModelInfo
    replica: str
    work: Work | None = None
