"""The server of Luthier: Ray Serve applications that answer HTTP with a model from the registry.

    client --HTTP--> server (owns `/`): HTTP, queue and the stable model in one process
                        └──batches, by handle──> revision: the canary, an application of its own during a rollout

The rooms, from the top down; none imports one above it:

- `replica`: a replica of the application at `/`: HTTP, validation, batching, the stable revision's model, the split of
  traffic between it and a canary, and what the operator is told of both.
- `revision`: the application of a canary, which computes batches in a process of its own.
- `bulk`: a batch prediction: the same models over files, without Ray.
- `observe`: what is seen of the requests: stages, drift, a log of requests, traces.
- `compute`: from texts to values: the verified artifact, its tokenizer, batches, and an engine.
- `tasks`: what logits mean and how an answer presents it, one module for each task.
- `answers`, `errors`: what a model and a queue exchange, also between two processes, and what can go wrong.
- `haproxy`: the program in the place of HAProxy, which Ray starts in front of the replicas: limits for clients.

Ray is imported by the two applications, `replica.handles` and `replica.metrics` only; torch by the torch engine only.
"""
