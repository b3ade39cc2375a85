"""Luthier's workbench: everything that a bare machine needs to run the demo and the tests, and its removal.

From the ground up, each module using only those above it:

    errors, paths, versions     what can go wrong; where things lie; which releases are used
    steps, processes            long work that tells how far it is; processes that are known to be ours
    prerequisites, binaries     Debian packages; programs built from the Go module proxy
    pki, kubeconfig             certificates and the files that carry them
    waiting                     the one loop that waits for a condition
    controlplane                etcd, API server and controller-manager on loopback: the integration tests
    network, runtime, node      one-node Kubernetes in a network namespace of its own
    images                      the repository's Dockerfiles built by buildah (or Docker) under content tags
    cluster, addons             one interface to our node, kind or an existing cluster; KubeRay and S3 on it
    cleanup, cli                removal of all of it; the verbs of `python -m luthier_dev`

Nothing that Luthier ships imports this package.
"""
