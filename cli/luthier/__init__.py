"""Luthier for people: the command `luthier`, the plugin `kubectl luthier`, and what a notebook imports.

    import luthier

    job = luthier.FineTuneJob.from_file("finetunejob.yaml").apply().wait()
    job.metrics

The rooms, from the outside in:

- `commands`: the command line: arguments, questions, exit codes; one module for each group of commands.
- `notebook`: the objects of this page's example. Both do the same work by the modules below.
- `doctor`, `support_bundle`, `local_run`, `waiting`: work that takes more than one request.
- `screens`: how things look in a terminal. Decides nothing.
- `steering`, `comparison`, `overview`, `proposal`: pure: what a command would write, or what there is to show.
- `manifests`: reads, checks and edits YAML files.
- `cluster` (the only module that calls a Kubernetes client), `storage` (the registry, with the user's own keys).
- `kinds`, `errors`: the three kinds of resource; every error, and its exit code.

It never writes a resource's status, keeps and shows no Secret's values, and needs no more rights than kubectl does.
"""

from luthier.errors import LuthierError
from luthier.notebook import BatchPrediction, FineTuneJob, ModelDeployment, Prediction, Report

__all__ = ["BatchPrediction", "FineTuneJob", "LuthierError", "ModelDeployment", "Prediction", "Report"]
