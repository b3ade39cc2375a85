"""A BatchPrediction as an object: apply it, wait, and find the predictions."""

from __future__ import annotations

from luthier.errors import NotFound
from luthier.kinds import BATCHPREDICTION
from luthier.notebook.handle import Handle
from luthier_api.batchprediction import BatchPredictionSpec


class BatchPrediction(Handle[BatchPredictionSpec]):
    """A prediction for each row of files."""

    KIND = BATCHPREDICTION

    @property
    def output(self) -> str:
        """The folder of the predictions. Raises NotFound if not all of them are there yet."""
        output = self.resource.batch_status.output
        if output is None:
            raise NotFound(f"BatchPrediction {self.name} is not done yet; .wait() waits for it.")
        return output

    @property
    def version(self) -> str | None:
        """The version that predicts, once it is chosen."""
        return self.resource.batch_status.version

    @property
    def rows(self) -> int | None:
        """Rows of the input, once they are counted."""
        return self.resource.batch_status.rows

    @property
    def errors(self) -> int | None:
        """Rows with an error in place of a prediction, once it is done."""
        return self.resource.batch_status.errors
