"""What the server reads: the trainer's document in the artifact, and the operator's in the RayService."""

from typing import Annotated, Literal

from pydantic import Field

from luthier_api.base import Count, Digest, Document, Engine, Text
from luthier_api.documents.run import Access
from luthier_api.training import Label, Task

SERVE_PORT = 8000
# multi-label: a label is assigned from this probability on.
MULTI_LABEL_THRESHOLD = 0.5
# Where texts shorter than the longest of their batch are filled up; none: only texts of one length share a batch.
Padding = Literal["right", "left", "none"]


class ServingDocument(Document):
    """What the server must know of an artifact beside its weights and tokenizer.json; its file is luthier.json."""

    task: Task = Field(description="What the model does.")
    labels: Annotated[list[Label], Field(min_length=1, max_length=1000)] = Field(
        description="Labels in the order of the model's outputs; for regression the name of the number."
    )
    pairs: bool = Field(default=False, description="Whether the model reads two texts.")
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=MULTI_LABEL_THRESHOLD, description="multi-label: a label is assigned from this probability on."
    )
    max_length: Annotated[int, Field(ge=4, le=8192)] = Field(
        description="Tokens of each text at most, special tokens included."
    )
    lowercase: bool = Field(description="Lower the case of every text before tokenization.")
    strip_whitespace: bool = Field(description="Collapse white space before tokenization.")
    pad_token_id: Annotated[int, Field(ge=0)] = Field(description="Token that pads a batch.")
    # Absent for most models, so that servers of earlier releases read their documents.
    other_padding: Literal["left", "none"] | None = Field(
        default=None, description="Where a batch is padded if not on the right; none: texts of one length only."
    )

    @property
    def padding(self) -> Padding:
        """Where a batch is padded."""
        return self.other_padding or "right"


class RevisionConfig(Document):
    """The args of one revision: a Ray Serve application that computes batches of one model version."""

    name: Text = Field(description="Name of the application.")
    model_uri: Text = Field(description="Folder of the version: <uri>/<name>/versions/<version>.")
    version: Text = Field(description="Version of the artifact.")
    digest: Digest = Field(description="Digest that the manifest must have.")
    access: Access = Field(default=Access(), description="Storage of model_uri.")
    engine: Engine = Field(default="auto", description="onnxruntime, torch or auto.")
    gpus_per_replica: Count = Field(default=0, description="GPUs of each replica.")
    max_batch_tokens: Annotated[int, Field(ge=1)] = Field(
        default=4096, description="Tokens of one batch, padding included."
    )
    max_ongoing_requests: Annotated[int, Field(ge=1)] = Field(
        default=64, description="Batches that may wait at one replica."
    )


class Route(Document):
    """A share of the traffic."""

    revision: Text = Field(description="Name of the revision's application.")
    version: Text = Field(description="Version that it serves, for the answer's header.")
    weight: Annotated[int, Field(ge=0, le=100)] = Field(description="Share of the requests in percent.")


class FrontConfig(Document):
    """The user_config of the front: everything that may change while it owns `/`."""

    model_name: Text = Field(description="Name of the ModelDeployment, and of the model in the inference protocols.")
    routes: Annotated[list[Route], Field(max_length=16)] = Field(default=[], description="Weights; empty answers 503.")
    max_batch_texts: Annotated[int, Field(ge=1)] = Field(default=32, description="Texts that one batch holds at most.")
    max_batch_wait_ms: Annotated[int, Field(ge=0)] = Field(
        default=5, description="How long a request may wait for others while a replica is busy."
    )
    max_queued_requests: Annotated[int, Field(ge=1)] = Field(
        default=256, description="Requests accepted and not yet answered; a list counts once for each batch it fills."
    )
    request_timeout_s: Annotated[int, Field(ge=1)] = Field(default=60, description="How long an answer may take.")
    max_body_bytes: Annotated[int, Field(ge=1)] = Field(default=1024 * 1024, description="Size of a request's body.")
    max_texts: Annotated[int, Field(ge=1)] = Field(default=1000, description="Texts in one request.")
    max_text_characters: Annotated[int, Field(ge=1)] = Field(default=100_000, description="Characters of one text.")
