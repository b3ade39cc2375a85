"""Luthier in a notebook or a script: the three resources as objects.

    job = luthier.FineTuneJob("reviews", model={"uri": "hf://..."}, dataset={...}, output={...})
    job.apply().wait()          # a page that follows the training
    job.report()                # shown inline
    job.metrics                 # a DataFrame, with pandas
    luthier.ModelDeployment("reviews", model={"fineTuneJobRef": {"name": "reviews"}}).apply().wait()
    job.predict(["Works perfectly."])
    luthier.BatchPrediction.from_file("batch.yaml").apply().wait().output

Specs are the contract's pydantic models, so a wrong field is an error before the cluster is asked. Each call that waits
has a twin for `await`, whose name ends in `_async`: it does the same in a thread.
"""

from luthier.notebook.batchprediction import BatchPrediction
from luthier.notebook.finetunejob import FineTuneJob, Report
from luthier.notebook.modeldeployment import ModelDeployment, Prediction

__all__ = ["BatchPrediction", "FineTuneJob", "ModelDeployment", "Prediction", "Report"]
