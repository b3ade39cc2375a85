"""What the trainer writes beside the weights of an adapter, and the server reads: what the adapter is for."""

from pydantic import Field

from luthier_api.base import Digest, Document, Text
from luthier_api.training import Label, Task


class AdapterDocument(Document):
    """What an adapter is for; it lies in its folder as luthier-adapter.json."""

    base_model_uri: Text = Field(description="Where the base model came from.")
    base_model_revision: Text | None = Field(default=None, description="Commit of a hub's model.")
    base_model_digest: Digest = Field(description="Digest over the base model's files.")
    task: Task = Field(description="What was learned.")
    labels: list[Label] = Field(description="Labels in the order of the model's outputs.")
