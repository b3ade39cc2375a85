"""Luthier's workbench: everything that a bare machine needs to run the demo and the tests, and its removal.

From the ground up, each module using only those above it:

    errors, paths, versions      what can go wrong; where things lie; which releases are used
    waiting, processes           the one loop that waits; processes that are known to be ours
    steps, locks                 long work that tells how far it is; one run at a time
    prerequisites, binaries      Debian packages; programs built from the Go module proxy
    pki, kubeconfig, kubectl     certificates, the files that carry them, and their user
    controlplane                 etcd, API server and controller-manager on loopback: the integration tests
    network, cgroups, mounts     what the node takes of the machine, and gives back
    runtime, kubelet, node       one-node Kubernetes in a network namespace of its own
    images, buildah, docker      which images there are, under content tags; the two engines that build them
    loading                      images from buildah's storage into the node's
    addons, cluster              KubeRay and S3; one interface to our node, kind or an existing cluster
    charts, seaweed, samples     the chart's checks; an S3 server as a process; real weights and texts
    setup, watching, traffic     everything up; a resource followed, and requests sent, during the demo
    demo, cleanup, cli           the main job as a story; removal of all; the verbs of `python -m luthier_dev`

Nothing that Luthier ships imports this package.
"""
