"""The operator of Luthier: gather, plan, apply.

    event --> wake(key) --> work queue --> gather --> plan --> apply

The rooms, from the pure core outwards; none imports one above it:

- `model`: typed views of objects and their parsers, actions, names, defaults, timestamps.
- `manifests`: Jobs, Services and RayServices, built from a resource.
- `plan`: every decision, as pure functions: no clock, no network.
- `ops`: settings, logs, metrics, the health endpoint.
- `kube`: requests to the API server, their errors, their pace; the Lease, and the fence that every write passes.
- `store`: what is known of the cluster, the audit of that, the work queue.
- `gather`, `apply`: what a plan is given, and how it is carried out. `reconcile`: the two, for one key.
- `run`: the parts of one run of the operator. `handlers`: what kopf watches, and whom each event wakes.
- `__main__`: the process, which has one run follow another.
"""
