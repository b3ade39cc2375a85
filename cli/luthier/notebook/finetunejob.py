"""A FineTuneJob as an object: apply it, wait, look at its report and metrics, and ask its model."""

from __future__ import annotations

import asyncio
import html
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from luthier.cluster import Cluster
from luthier.errors import LuthierError, NotFound
from luthier.kinds import FINETUNEJOB, MODELDEPLOYMENT
from luthier.notebook.handle import Handle
from luthier.notebook.modeldeployment import ModelDeployment, Prediction
from luthier.proposal import Choices, find_columns, propose, read_table
from luthier.proposal.build import resource_name
from luthier.proposal.lengths import tokenizer_of
from luthier.storage import fetch
from luthier.version_names import Versions
from luthier_api.artifact_files import REPORT_FILE
from luthier_api.finetunejob import FineTuneJobSpec, VersionStatus

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Report:
    """A version's report. A notebook shows it inline."""

    version: str
    html: str

    def save(self, path: str | Path) -> Path:
        """Write it to a file."""
        target = Path(path)
        target.write_text(self.html, encoding="utf-8")
        return target

    def _repr_html_(self) -> str:
        """Shown in a frame of its own, so that its styles stay there."""
        return f'<iframe srcdoc="{html.escape(self.html)}" width="100%" height="700" frameborder="0"></iframe>'

    def __repr__(self) -> str:
        return f"Report of {self.version}, {len(self.html)} characters; .save(path) writes it"


class FineTuneJob(Handle[FineTuneJobSpec]):
    """A model that is fine-tuned."""

    KIND = FINETUNEJOB

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        *,
        data_uri: str,
        output_uri: str,
        name: str | None = None,
        model: str | None = None,
        gpus: int = 1,
        secret: str | None = "s3-credentials",
        endpoint: str | None = None,
        cluster: Cluster | None = None,
        **connection: Any,
    ) -> Self:
        """Return what `luthier init` proposes for a file of labelled texts.

        Args:
            path: The file, of which columns, task, labels and lengths are found out.
            data_uri: Where it lies for the cluster.
            output_uri: Where versions go.
            name: Name of the resource and of the model; default: of the file.
            model: Base model; default: by language.
            gpus: GPUs to train on.
            secret: Secret with the S3 keys.
            endpoint: Endpoint of an S3 server other than AWS.
            cluster: A connection to use.
            connection: `namespace`, `context` and `kubeconfig` of the cluster.
        """
        table = read_table(Path(path))
        choices = Choices(
            name or resource_name(Path(path).name), data_uri, output_uri, model, None, gpus, secret, endpoint
        )
        proposal = propose(table, find_columns(table), choices, tokenizer_of)
        return cls(choices.name, proposal.job["spec"], cluster=cluster, **connection)

    @property
    def versions(self) -> list[VersionStatus]:
        """The versions that its specs produced or reused, most recently used first."""
        return self.resource.job_status.versions

    @property
    def version(self) -> str:
        """The version of its present spec. Raises NotFound if there is none yet."""
        artifact = self.resource.job_status.artifact
        if artifact is None:
            raise NotFound(f"FineTuneJob {self.name} has published no version yet; .wait() waits for it.")
        return artifact.version

    @property
    def metric_values(self) -> dict[str, float]:
        """{name: value} of the metrics of its version's final evaluation."""
        artifact = self.resource.job_status.artifact
        return {name: float(value) for name, value in (artifact.metrics if artifact else {}).items()}

    @property
    def metrics(self) -> pandas.DataFrame:
        """The same as a DataFrame: a row for each metric, and a column for each part of the data.

        Raises:
            LuthierError: if pandas is not installed; `metric_values` needs nothing.
        """
        try:
            import pandas
        except ImportError:
            raise LuthierError("A DataFrame needs pandas: pip install pandas, or use .metric_values.") from None
        parts = {"eval": "eval_", "test": "test_", "untrained": "untrained_", "majority": "baseline_majority_"}
        columns = {
            part: {
                name.removeprefix(prefix): value
                for name, value in self.metric_values.items()
                if name.startswith(prefix)
            }
            for part, prefix in parts.items()
        }
        return pandas.DataFrame({part: values for part, values in columns.items() if values})

    def report(self, version: str | None = None) -> Report:
        """Return the report of a version, downloaded with your own S3 keys and verified.

        Args:
            version: Default: that of the present spec.
        """
        versions = Versions(self.cluster, self.name)
        resolved = versions.resolve(version)
        with tempfile.TemporaryDirectory() as folder:
            file = fetch(versions.uri(resolved), versions.place.config, REPORT_FILE, Path(folder) / "version")
            return Report(resolved, file.read_text(encoding="utf-8"))

    def deploy(self, name: str | None = None, **fields: Any) -> ModelDeployment:
        """Serve its versions: apply a ModelDeployment that follows it.

        Args:
            name: Name of the ModelDeployment; default: the same.
            fields: Further fields of its spec, such as replicas=2.
        """
        spec = {"model": {"fineTuneJobRef": {"name": self.name}}, **fields}
        return ModelDeployment(name or self.name, spec, cluster=self.cluster).apply()

    def predict(self, texts: Sequence[str] | str, pairs: Sequence[str] | None = None) -> list[Prediction]:
        """Ask the ModelDeployment that serves its versions.

        Raises:
            NotFound: if there is none; `deploy` makes one.
        """
        following = [each for each in self.cluster.all(MODELDEPLOYMENT) if each.follows == self.name]
        if not following:
            raise NotFound(f"No ModelDeployment serves FineTuneJob {self.name}: .deploy().wait() makes one.")
        return ModelDeployment(following[0].name, cluster=self.cluster).predict(texts, pairs)

    async def predict_async(self, texts: Sequence[str] | str, pairs: Sequence[str] | None = None) -> list[Prediction]:
        """`predict`, in a thread."""
        return await asyncio.to_thread(self.predict, texts, pairs)
