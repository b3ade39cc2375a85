"""The server of Luthier: Ray Serve applications that answer HTTP with a model from the registry.

    client --HTTP--> front (owns `/` for good) --whole batches by handle--> revision (one application per model version)

Reading order:

- `front`: the application at `/`; what may change about it is its user_config, a `FrontConfig`.
- `http`: routes and answers, a plain Starlette application. `validation`: a request's body, or one sentence why not.
- `predictor`: admits a request, picks a revision by weight, cuts it into pieces. `weights`: who gets the next request.
- `lane`: one per revision: pieces wait here, together, as short as the load allows. `batching`: when a batch leaves.
- `handles`: the one place that calls another Ray application.
- `revision`: the application of one model version; `loading` gets the artifact, verified, or says why not.
- `model`: texts to values: `tokenization` (with `offsets`), `planning` of batches, an engine, a task.
- `tasks`: what logits mean and how an answer says it, one module for each task.
- `engines`: ONNX Runtime on CPU, torch on GPU. Only the torch engine imports torch.
- `openapi`, `pages`: the description of the API and the pages for people, without anything from another host.
- `metrics`, `cpus`, `errors`: what Prometheus sees, how many CPUs there are, what can go wrong.
"""
