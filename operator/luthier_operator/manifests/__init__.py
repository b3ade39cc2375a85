"""Kubernetes manifests, built from resources and defaults. Pure: values in, dicts out, nothing decided."""
