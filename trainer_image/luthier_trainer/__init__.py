"""The trainer: fine-tunes a base model on labelled text as a run document describes, and publishes the version.

    cli -> prepare: data, models.fetch             no torch; writes prepared data to the registry
        -> train:   models, engine, checkpointing, export, publish, tracking
        -> remove:  versions and checkpoints that are no longer wanted
        -> runtime.outcome: any end of a run becomes a Result document and an exit code

A room imports only rooms below it (import-linter's layers in pyproject.toml; each room's docstring is its map):

    cli > prepare | train | remove | merge > publish | tracking > data > export | checkpointing > models > engine > spec
    > tasks > formats > runtime

Storage is read and written through `luthier_artifacts` alone, hubs and the web through `runtime.hub` and `runtime.web`.
Kubernetes is not known here: a run document comes in, a Result goes out.
"""
