"""How a pod is given its way to storage: what the document says, the environment from Secrets, the CA bundles.

Credentials are environment variables with `secretKeyRef`, because the kubelet then says in the pod's status which
Secret or key is missing. The operator itself never reads a Secret.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from luthier_api.documents import CA_BUNDLE_DIR, Access, Role, credential_env
from luthier_api.storage import StorageAccess

_S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class Grant:
    """One way to storage that a pod is given."""

    role: Role
    storage: StorageAccess
    hub: bool = False
    """Whether it leads to a hub, where the Secret need hold nothing but HF_TOKEN."""

    @property
    def access(self) -> Access:
        """What the pod's document says about it."""
        bundle = self.storage.ca_bundle
        return Access(
            endpoint=self.storage.endpoint,
            region=self.storage.region,
            force_path_style=self.storage.force_path_style,
            ca_bundle=f"{CA_BUNDLE_DIR}/{self.role}/{bundle.key}" if bundle else None,
            credentials=self.role if self.storage.secret_ref else None,
        )


def environment(grants: Iterable[Grant]) -> list[dict[str, Any]]:
    """Return the container's variables for the Secrets of these grants."""
    return [
        {
            "name": variable,
            "valueFrom": {
                "secretKeyRef": {
                    "name": grant.storage.secret_ref.name,
                    "key": key,
                    "optional": key not in (("HF_TOKEN",) if grant.hub else _S3_KEYS),
                }
            },
        }
        for grant in grants
        if grant.storage.secret_ref
        for key, variable in credential_env(grant.role).items()
    ]


def ca_volumes(grants: Iterable[Grant]) -> list[dict[str, Any]]:
    """Return the pod's volumes for the CA bundles of these grants."""
    return [
        {
            "name": f"ca-{grant.role}",
            "configMap": {"name": bundle.name, "items": [{"key": bundle.key, "path": bundle.key}]},
        }
        for grant in grants
        if (bundle := grant.storage.ca_bundle)
    ]


def ca_mounts(grants: Iterable[Grant]) -> list[dict[str, Any]]:
    """Return the container's mounts of those volumes."""
    return [
        {"name": f"ca-{grant.role}", "mountPath": f"{CA_BUNDLE_DIR}/{grant.role}", "readOnly": True}
        for grant in grants
        if grant.storage.ca_bundle
    ]
