"""The contract of Luthier: what users write, what the parts say to each other, and what the outcomes are called.

Every other package imports this one; it imports pydantic and the standard library only. Reading order:

- `base`: the two kinds of model (resources ignore unknown fields, documents forbid them) and the scalar types.
- `storage`: how an S3 location and its credentials are named.
- `training`: the part of a FineTuneJob that decides its result.
- `finetunejob`, `modeldeployment`, `batchprediction`: the resources.
- `reasons`: condition types and reasons. A reason is API.
- `exitcodes`: what a training pod's exit code means, in one table.
- `documents`: the run document that a pod is given, its result, its progress; the documents of the server.
- `artifact_files`, `entity_labels`, `text`: what trainer and server must agree on.
- `keys`: spec hash, run hash, run key and data key: what makes two runs the same.
- `schema`: the CRDs, from the models.
- `logs`, `cpus`: how each program logs, and how many CPUs it may use.
"""

GROUP = "luthier.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
