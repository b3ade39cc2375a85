"""What a pod says at its end, as its termination message, of which the kubelet keeps 4096 bytes.

A pod may be broken or hostile, so `read_result` trusts nothing; and what does not fit is shortened, never the version
and the digest.
"""

from typing import Annotated

from pydantic import Field, model_validator

from luthier_api.base import Count, Digest, Document, Metrics, Sha256, Text, Warnings
from luthier_api.documents.run import Resolved
from luthier_api.reasons import Reason

TERMINATION_MESSAGE_BYTES = 4096
TERMINATION_MESSAGE_PATH = "/dev/termination-log"


class Prepared(Document):
    """The inputs exist, the data passes, the run is new: training can start."""

    resolved: Resolved = Field(description="What the inputs are.")
    train_examples: Count = Field(description="Examples to train on.")
    eval_examples: Count = Field(description="Examples to evaluate on.")
    test_examples: Count = Field(default=0, description="Examples of the last test.")
    labels: Count = Field(description="Number of labels.")
    warnings: Warnings = Field(default=[], description="What is odd in the data, and settings without effect.")


class Published(Document):
    """The version that answers the run: just published, or found."""

    run_key: Sha256 = Field(description="The run that produced it.")
    version: Text = Field(description="Version in the registry.")
    uri: Text = Field(description="Folder of the version.")
    digest: Digest = Field(description="Digest of the version.")
    size_bytes: Annotated[int, Field(ge=0, le=2**63 - 1)] = Field(description="Size of all files.")
    metrics: Metrics = Field(default={}, description="Metrics of the final evaluation.")
    promotable: bool = Field(default=True, description="Whether every gate passed.")
    message: Annotated[str, Field(max_length=600)] | None = Field(default=None, description="Which gate failed.")
    reused: bool = Field(default=False, description="Found, not trained again.")


class Removed(Document):
    """What became of the versions that were to go."""

    removed: list[Text] = Field(default=[], description="Versions that do not exist any more, oldest first.")
    kept: dict[Text, Annotated[str, Field(max_length=300)]] = Field(
        default={}, description="Versions that are still there, each with the sentence why."
    )
    unnamed: Count = Field(default=0, description="Further versions, removed or kept, whose names found no room.")


class Predicted(Document):
    """What a worker of a batch prediction has come to: its shards are in storage, and perhaps all are."""

    output: Text = Field(description="Folder of the predictions.")
    rows: Count = Field(description="Rows of the input.")
    errors: Count = Field(default=0, description="Of all rows those with an error, once all parts are there.")
    shards: Count = Field(description="Parts in all.")
    complete: bool = Field(description="Whether all parts, and so the manifest, are there.")
    reused: bool = Field(default=False, description="Found, not computed again.")


class Failure(Document):
    """Why the pod stopped."""

    reason: Reason = Field(description="One CamelCase word, for programs.")
    message: Annotated[str, Field(max_length=1500)] = Field(description="What happened and what to do.")
    # Absent unless the pod crashed, so that operators of earlier releases read all other failures.
    place: Annotated[str, Field(max_length=200, pattern=r"^[ -~]*$")] | None = Field(
        default=None, description="Where it crashed: the error's type, module and line. Unset: it may not happen again."
    )


class Result(Document):
    """A pod's last word: exactly one of its fields is set."""

    prepared: Prepared | None = Field(default=None, description="prepare: go on to train.")
    published: Published | None = Field(default=None, description="prepare or train: the version exists.")
    removed: Removed | None = Field(default=None, description="remove: what is gone, and what is kept.")
    predicted: Predicted | None = Field(default=None, description="A worker of a batch: its shards are stored.")
    failure: Failure | None = Field(default=None, description="Any: it went wrong.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "Result":
        said = (self.prepared, self.published, self.removed, self.predicted, self.failure)
        if sum(field is not None for field in said) != 1:
            raise ValueError("a result is exactly one of prepared, published, removed, predicted and failure")
        return self

    def to_termination_message(self) -> str:
        """Return the JSON text that fits a termination message.

        Metrics, and the last warnings, are left out when they do not fit; the version and the digest always do. Of
        removed and kept versions the sentences are cut first, and then names are left out.
        """
        text = self.to_json()
        if len(text.encode()) <= TERMINATION_MESSAGE_BYTES:
            return text
        if self.published:
            return Result(published=self.published.model_copy(update={"metrics": {}})).to_json()
        if self.prepared:
            fewer = self.prepared.model_copy(update={"warnings": self.prepared.warnings[:-1]})
            return Result(prepared=fewer).to_termination_message()
        if self.removed:
            return _fitting(self.removed)
        assert self.failure
        # JSON writes a control character in six bytes.
        return Result(failure=self.failure.model_copy(update={"message": self.failure.message[:600]})).to_json()


def _fitting(removed: Removed) -> str:
    kept = {version: why if len(why) <= 40 else f"{why[:39]}…" for version, why in removed.kept.items()}
    gone, rest, unnamed = list(removed.removed), list(kept.items()), removed.unnamed
    while True:
        text = Result(removed=Removed(removed=gone, kept=dict(rest), unnamed=unnamed)).to_json()
        if len(text.encode()) <= TERMINATION_MESSAGE_BYTES:
            return text
        longer = gone if len(gone) >= len(rest) else rest
        unnamed += len(longer) - len(longer) * 3 // 4
        del longer[len(longer) * 3 // 4 :]


class DocumentError(ValueError):
    """A document does not parse. Its message is one sentence for people."""


def read_result(text: str) -> Result:
    """Parse a termination message, which a broken or hostile pod may have written.

    Raises:
        DocumentError: if it is not a result document.
    """
    if len(text.encode(errors="replace")) > TERMINATION_MESSAGE_BYTES:
        raise DocumentError("the pod's termination message is longer than 4096 bytes")
    try:
        return Result.from_json(text)
    except ValueError as error:
        raise DocumentError("the pod left no result that Luthier understands") from error
