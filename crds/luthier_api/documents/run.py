"""What the training pods are given: the run to prepare or to train, or the versions to remove."""

from typing import Annotated, Literal

from pydantic import Field

from luthier_api.artifact_files import VERSION_PATTERN
from luthier_api.base import Count, Digest, Document, Sha256, Text
from luthier_api.training import TrainingSpec

RUN_DOCUMENT_PATH = "/etc/luthier/run.json"
CA_BUNDLE_DIR = "/etc/luthier/ca"
CREDENTIALS_DIR = "/etc/luthier/credentials"
# Environment variable that names another folder than CREDENTIALS_DIR.
CREDENTIALS_VARIABLE = "LUTHIER_CREDENTIALS_DIR"
# Environment variable of a training pod: seconds between SIGTERM and SIGKILL.
GRACE_VARIABLE = "LUTHIER_GRACE_S"
# And of one that is given a cache of base models: the folder where it is mounted.
MODEL_CACHE_VARIABLE = "LUTHIER_MODEL_CACHE"


Role = Literal["output", "model", "dataset", "log"]


def credential_folder(role: Role) -> str:
    """Return the folder in a pod where each key of one role's Secret is a file of that name.

    Files and not environment variables, because Kubernetes replaces them about a minute after the Secret has changed.
    """
    return f"{CREDENTIALS_DIR}/{role}"


def credential_env(role: Role) -> dict[str, str]:
    """Return {key: environment variable that holds it where no such folder is}, as without Kubernetes."""
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
        default=None,
        description="Whose keys are used: those in its folder, or else in its environment variables; unset: the pod's "
        "identity.",
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

    run_key: Sha256 = Field(description="Hash of everything that determines the result.")
    data_key: Sha256 = Field(description="Hash of the prepared data.")
    weights_key: Sha256 | None = Field(
        default=None, description="Hash of what decides the weights; none in documents of earlier releases."
    )
    weights_version: Annotated[str, Field(pattern=VERSION_PATTERN)] | None = Field(
        default=None, description="Version that has these weights: nothing is trained, and no GPU needed."
    )
    model_digest: Digest = Field(description="Digest over the base model's files.")
    model_revision: Text | None = Field(default=None, description="Commit that an hf:// revision stands for.")
    dataset_digest: Digest = Field(description="Digest over the dataset's files.")
    image: Text | None = Field(default=None, description="Trainer image that prepare ran; train runs the same.")


class RunDocument(Document):
    """All that a training pod is told. `python -m luthier_trainer run.json` needs nothing else."""

    spec: TrainingSpec = Field(description="What to train.")
    output_access: Access = Field(default=Access(), description="Storage of spec.output.")
    model_access: Access = Field(default=Access(), description="Storage of spec.model.")
    dataset_access: Access = Field(default=Access(), description="Storage of spec.dataset.")
    image: Text | None = Field(default=None, description="Trainer image, part of the run key.")
    origin: Origin | None = Field(default=None, description="The resource behind the run; none without Kubernetes.")
    resolved: Resolved | None = Field(default=None, description="Filled in between prepare and train.")


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
