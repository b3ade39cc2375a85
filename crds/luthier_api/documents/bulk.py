"""What a worker of a batch prediction is given. `python -m luthier_serving.bulk bulk.json` needs nothing else."""

from typing import Annotated, Literal

from pydantic import Field

from luthier_api.base import Document, Text
from luthier_api.data_files import Column, Columns, DataFormat
from luthier_api.documents.run import Access, Origin
from luthier_api.documents.serving import RevisionConfig

# Environment variable in which Kubernetes says which of an Indexed Job's pods this is.
WORKER_INDEX_VARIABLE = "JOB_COMPLETION_INDEX"


class BulkDocument(Document):
    """Files to read, a model, and a folder for what it predicts."""

    model: RevisionConfig = Field(description="The version, and how it is computed.")
    input_uri: Text = Field(description="A file, a folder with a trailing /, or a pattern.")
    input_access: Access = Field(default=Access(), description="Storage of input_uri.")
    text_column: Column = Field(default="text", description="Column that holds the text.")
    text_columns: Columns | None = Field(default=None, description="Instead of it: columns that are joined.")
    text_pair_column: Column | None = Field(default=None, description="Column that holds the second text.")
    id_column: Column | None = Field(default=None, description="Column whose value stands beside each prediction.")
    format: DataFormat = Field(default=DataFormat(), description="How text files are read.")
    output_uri: Text = Field(description="Folder; the run's own is below it.")
    output_access: Access = Field(default=Access(), description="Storage of output_uri.")
    output_format: Literal["JSONL", "Parquet"] = Field(default="JSONL", description="Format of the parts.")
    include_text: bool = Field(default=False, description="Repeat the text beside each prediction.")
    shard_rows: Annotated[int, Field(ge=1)] = Field(default=10_000, description="Rows of a part.")
    workers: Annotated[int, Field(ge=1)] = Field(default=1, description="Workers that share the shards.")
    max_text_characters: Annotated[int, Field(ge=1)] = Field(
        default=100_000, description="Characters of one text; a longer one gets an error, as at the server."
    )
    origin: Origin | None = Field(default=None, description="The resource behind the run; none without Kubernetes.")
    begun: Text = Field(
        default="",
        description="When the run began. All its workers, also later ones, must see the same input.",
    )
