"""The trainer: makes a text classifier from a base model and labelled text, as a run document says.

    cli -> prepare: inputs, base_model, readers -> cleaning -> splitting -> quality, tokenization -> prepared
        -> train:   hyperparameters, callbacks, evaluation, export, artifact, report
                    methods: which weights are trained; adapters, merge: what became of them
                    export: onnx_model, int8
                    fitting: survives by checkpoints, best, stopping; launch, distributed: in several processes
        -> remove:  versions that are to go
        -> outcome: whatever happened, as a Result document and an exit code

*prepare* and *remove* run on a CPU and import no torch; *train* begins where prepare ended. All read and write storage
through `luthier_artifacts` alone. Kubernetes is not known here: a run document comes in, a Result goes out.
"""
