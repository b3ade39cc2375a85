"""The operator of Luthier: gather, plan, apply.

Reading order, from the pure core outwards:

- `names`, `timestamps`, `defaults`: deterministic names, the form of times, what settings decide about pods.
- `observed`: raw objects parsed into typed views. `resources`: the two resources, and differences of statuses.
- `manifests`: objects built from a resource. `plan`: all decisions. Both pure: no clock, no network.
- `cluster`: the adapter to the API server: writes, lists and watches, with its errors mapped once.
- `progress`: asking a training pod how far it is. `polling`: which pods are asked, and when.
- `told`: what is watched, and whom it wakes. `index`: what was told. `cache`: that, and what own writes returned.
- `audit`: what a watch did not tell.
- `workqueue`: one reconcile per key at a time.
- `events`: asking why a pod is not made. `served`: which versions must not be removed.
- `reconcile`, `apply`: the shell: gather, let plan decide, write.
- `lease`: which of several operators works, and until when it may write.
- `web`, `metrics`, `logs`, `settings`, `__main__`: running it.
"""
