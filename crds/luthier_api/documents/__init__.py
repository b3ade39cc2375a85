"""The JSON documents that the parts of Luthier hand to each other.

    operator --RunDocument--> prepare --Result{prepared|found|failure}--> operator
    operator --RunDocument with `resolved`--> train --Result{published|failure}--> operator
    operator --Removal--> remove --Result{removed|failure}--> operator
    train --ProgressDocument over HTTP--> operator
    operator --FrontConfig, RevisionConfig in the RayService--> server
    train --ServingDocument in the artifact, as luthier.json--> server

A result travels as the pod's termination message, of which the kubelet keeps 4096 bytes.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from luthier_api.artifact_files import SERVING_DOCUMENT_FILE as SERVING_DOCUMENT_FILE
from luthier_api.base import Count, Digest, Document, Engine, Metrics, Sha256, Text, Timestamp
from luthier_api.reasons import Reason
from luthier_api.training import Label, Task, TrainingSpec

TERMINATION_MESSAGE_BYTES = 4096
RUN_DOCUMENT_PATH = "/etc/luthier/run.json"
TERMINATION_MESSAGE_PATH = "/dev/termination-log"
CA_BUNDLE_DIR = "/etc/luthier/ca"
TRAINER_PORT = 8080
# Environment variable of a training pod: seconds between SIGTERM and SIGKILL.
GRACE_VARIABLE = "LUTHIER_GRACE_S"
SERVE_PORT = 8000
# multi-label: the probability from which a label is given.
MULTI_LABEL_THRESHOLD = 0.5

Role = Literal["output", "model", "dataset"]


def credential_env(role: Role) -> dict[str, str]:
    """Return {key in the user's Secret: environment variable of the pod} for one role.

    Environment variables and not files, because the kubelet then says in the pod's status which Secret or key is
    missing; for a missing volume it only writes Events.
    """
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN")
    return {key: f"LUTHIER_{role.upper()}_{key}" for key in keys}


class Access(Document):
    """How a pod reaches one storage endpoint."""

    endpoint: Text | None = Field(default=None, description="URL; unset means AWS.")
    region: Text | None = Field(default=None, description="Region name.")
    force_path_style: bool | None = Field(
        default=None, description="Bucket in the path; default true with an endpoint."
    )
    ca_bundle: Text | None = Field(default=None, description="Path of a PEM file.")
    credentials: Role | None = Field(
        default=None, description="Whose environment variables hold the keys; unset: the pod's identity."
    )


class Origin(Document):
    """Which resource a run belongs to, for lineage and logs."""

    name: Text = Field(description="Name of the FineTuneJob.")
    namespace: Text = Field(description="Its namespace.")
    uid: Text = Field(description="Its uid.")
    generation: Count = Field(description="Its generation.")
    run: Text = Field(description="Name of the run.")


class Resolved(Document):
    """What prepare found the inputs to be; train refuses anything else."""

    run_key: Sha256 = Field(description="Hash of everything that decides the result.")
    data_key: Sha256 = Field(description="Hash of the prepared data.")
    model_digest: Digest = Field(description="Digest over the base model's files.")
    model_revision: Text | None = Field(default=None, description="Commit that an hf:// revision stands for.")
    dataset_digest: Digest = Field(description="Digest over the dataset's files.")
    image: Text | None = Field(default=None, description="Trainer image that prepare ran; train runs the same.")


class RunDocument(Document):
    """All that a training pod is told. `python -m luthier_trainer run.json` needs nothing else."""

    spec: TrainingSpec = Field(description="What is to be trained.")
    output_access: Access = Field(default=Access(), description="Storage of spec.output.")
    model_access: Access = Field(default=Access(), description="Storage of spec.model.")
    dataset_access: Access = Field(default=Access(), description="Storage of spec.dataset.")
    image: Text | None = Field(default=None, description="Trainer image, part of the run key.")
    origin: Origin | None = Field(default=None, description="The resource behind the run; none without Kubernetes.")
    resolved: Resolved | None = Field(default=None, description="Filled in between prepare and train.")


class Prepared(Document):
    """The inputs exist, the data passes, the run is new: training can start."""

    resolved: Resolved = Field(description="What the inputs are.")
    train_examples: Count = Field(description="Examples to train on.")
    eval_examples: Count = Field(description="Examples to evaluate on.")
    test_examples: Count = Field(default=0, description="Examples of the last test.")
    labels: Count = Field(description="Number of labels.")
    warnings: Annotated[list[Annotated[str, Field(max_length=300)]], Field(max_length=5)] = Field(
        default=[], description="What was odd in the data."
    )


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


class Place(Document):
    """A model's folder in storage, which holds its versions and checkpoints."""

    uri: Text = Field(description="What `output.uri` said.")
    name: Text = Field(description="What `output.name` said.")


class Removal(Document):
    """Which versions of a resource are to go. `python -m luthier_trainer remove removal.json` needs nothing else."""

    places: Annotated[list[Place], Field(min_length=1, max_length=64)] = Field(
        description="Where the resource's versions lie: more than one place if its output was edited."
    )
    output_access: Access = Field(default=Access(), description="Storage of all places.")
    origin: Origin = Field(description="The resource; a version that another one made is kept.")
    versions: Annotated[list[Text], Field(max_length=64)] | None = Field(
        default=None, description="Only these versions; unset: all that the resource made."
    )
    in_use: list[Text] = Field(default=[], description="Versions that are served, and so are kept.")
    run_keys: Annotated[list[Sha256], Field(max_length=128)] = Field(
        default=[], description="Runs whose checkpoints go too."
    )


class Removed(Document):
    """What became of the versions that were to go."""

    removed: list[Text] = Field(default=[], description="Versions that do not exist any more, oldest first.")
    kept: dict[Text, Annotated[str, Field(max_length=300)]] = Field(
        default={}, description="Versions that are still there, each with the sentence why."
    )
    unnamed: Count = Field(default=0, description="Further versions, removed or kept, whose names found no room.")


class Failure(Document):
    """Why the pod stopped."""

    reason: Reason = Field(description="One word for programs.")
    message: Annotated[str, Field(max_length=1500)] = Field(description="What happened and what to do.")


class Result(Document):
    """A pod's last word: exactly one of its fields is set."""

    prepared: Prepared | None = Field(default=None, description="prepare: go on to train.")
    published: Published | None = Field(default=None, description="prepare or train: the version exists.")
    removed: Removed | None = Field(default=None, description="remove: what is gone, and what is kept.")
    failure: Failure | None = Field(default=None, description="Any: it went wrong.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "Result":
        if sum(field is not None for field in (self.prepared, self.published, self.removed, self.failure)) != 1:
            raise ValueError("a result is exactly one of prepared, published, removed and failure")
        return self

    def to_termination_message(self) -> str:
        """Return the JSON text that fits a termination message.

        Metrics and warnings are left out when they do not fit; the version and the digest always do. Of removed and
        kept versions the sentences are cut first, and then names are left out.
        """
        text = self.to_json()
        if len(text.encode()) <= TERMINATION_MESSAGE_BYTES:
            return text
        if self.published:
            return Result(published=self.published.model_copy(update={"metrics": {}})).to_json()
        if self.prepared:
            return Result(prepared=self.prepared.model_copy(update={"warnings": []})).to_json()
        if self.removed:
            return _fitting(self.removed)
        assert self.failure
        return Result(failure=self.failure.model_copy(update={"message": self.failure.message[:700]})).to_json()


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


Stage = Literal["Starting", "Downloading", "Training", "Evaluating", "Exporting", "Uploading", "Done"]


class ProgressDocument(Document):
    """What the training pod answers at GET /progress."""

    stage: Stage = Field(description="What the pod is doing.")
    step: Count = Field(default=0, description="Optimizer steps done.")
    total_steps: Count = Field(default=0, description="Optimizer steps in all.")
    epoch: Annotated[float, Field(ge=0)] = Field(default=0.0, description="Epochs done.")
    eta_seconds: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Time left at the present speed."
    )
    examples_per_second: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Training examples per second."
    )
    tokens_per_second: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Real training tokens per second, without padding."
    )
    gpu_memory_bytes: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Most memory that the GPU held at once."
    )
    checkpoint_step: Count | None = Field(default=None, description="Step of the newest checkpoint in storage.")
    resumed_from_step: Count | None = Field(default=None, description="Checkpoint that this attempt began at.")
    metrics: Annotated[dict[Annotated[str, Field(max_length=128)], float], Field(max_length=64)] = Field(
        default={}, description="Latest values."
    )
    updated_at: Timestamp = Field(description="When this was written.")


class ServingDocument(Document):
    """What the server must know of an artifact beside its weights and tokenizer.json; it lies in it as luthier.json."""

    task: Task = Field(description="What the model does.")
    labels: Annotated[list[Label], Field(min_length=1, max_length=1000)] = Field(
        description="Labels in the order of the model's outputs; for regression the name of the number."
    )
    pairs: bool = Field(default=False, description="Whether the model reads two texts.")
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=MULTI_LABEL_THRESHOLD, description="multi-label: the probability from which a label is given."
    )
    max_length: Annotated[int, Field(ge=4, le=8192)] = Field(description="Tokens kept of each text, special ones too.")
    lowercase: bool = Field(description="Lower the case of every text before tokenization.")
    strip_whitespace: bool = Field(description="Collapse white space before tokenization.")
    pad_token_id: Annotated[int, Field(ge=0)] = Field(description="Token that fills a batch up.")


class RevisionConfig(Document):
    """The arguments of one revision: a Ray Serve application that computes whole batches of one model version."""

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
    replicas: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Fixed number of replicas.")
    min_replicas: Annotated[int, Field(ge=1)] | None = Field(default=None, description="With autoscaling: fewest.")
    max_replicas: Annotated[int, Field(ge=1)] | None = Field(default=None, description="With autoscaling: most.")
    target_ongoing_requests: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="With autoscaling: batches in flight per replica."
    )
    upscale_delay_s: Count | None = Field(default=None, description="With autoscaling: load must last this long.")
    downscale_delay_s: Count | None = Field(default=None, description="With autoscaling: calm must last this long.")


class Route(Document):
    """A share of the traffic."""

    revision: Text = Field(description="Name of the revision's application.")
    version: Text = Field(description="Version that it serves, for the answer's header.")
    weight: Annotated[int, Field(ge=0, le=100)] = Field(description="Share of the requests in percent.")


class FrontConfig(Document):
    """The user_config of the front: everything that may change while it keeps `/`."""

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
