"""The server of Luthier: Ray Serve applications that answer HTTP with a model from the registry.

    client --HTTP--> front (owns `/` for good) --batches, by handle--> revision (one application per model version)

The rooms, from the top down; none imports one above it:

- `replica`: the application at `/`: HTTP, validation, batching, and the split of traffic between revisions.
- `revision`: the application of one model version, which computes batches.
- `compute`: from texts to values: the verified artifact, its tokenizer, batches, and an engine.
- `tasks`: what logits mean and how an answer presents it, one module for each task.
- `answers`, `errors`: what travels between the two applications, and what can go wrong.

Ray is imported by the two applications, `replica.handles` and `replica.metrics` only; torch by the torch engine only.
"""
