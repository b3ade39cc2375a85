"""Luthier's workbench: sets up all that the demo and the tests need on a bare machine, and removes it.

From the bottom up; each module uses only those above it (import-linter forbids circles):

    errors, paths, versions      what can go wrong; where things lie; which releases are used
    waiting, processes           the loop that waits; processes marked as ours
    steps, locks                 progress of long work; one run at a time
    prerequisites, binaries      Debian packages; programs built from the Go module proxy
    environments                 virtual environments for programs whose packages do not go with ours
    inference_clients            tritonclient and kserve in one of them
    model_signing                the command of OpenSSF Model Signing in another
    pki, kubeconfig, kubectl     certificates, the files that carry them, and their user
    controlplane                 etcd, API server and controller-manager on loopback, for integration tests
    network, cgroups, mounts     what the node uses of the machine, and its removal
    runtime, kubelet, node       one-node Kubernetes in a network namespace of its own
    images, buildah, docker      the images and their content tags; the two engines that build them
    loading                      moves images from buildah's storage to the node
    cluster, addons, kueue       what every cluster can do; KubeRay, S3 and Kueue on it
    providers                    the clusters: our node, kind, or an existing one
    charts, seaweed, samples     the chart's checks; an S3 server as a process; real weights and texts
    licences, release            what may go into an image; images and chart as signed files
    prometheus                   Debian's Prometheus as a process, and promtool
    dashboards, chart_files      Grafana dashboards; the files that are made of the chart's others
    setup, watching, traffic     bring everything up; watch a resource; send requests
    demo, cleanup, cli           the demo; removal of everything; the verbs of `python -m luthier_dev`

Nothing that Luthier ships imports this package.
"""
