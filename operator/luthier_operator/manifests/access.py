"""How a pod is given its way to storage: what the document says, and the Secrets and CA bundles that are mounted.

Credentials are files, because the kubelet replaces those when the Secret changes, and environment variables never. It
says only in an Event of the pod which Secret or key is missing. The operator itself never reads a Secret.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luthier_api.documents import CA_BUNDLE_DIR, Access, Role, credential_env, credential_folder
from luthier_api.storage import StorageAccess

# What the names of the volumes with keys begin with; the role follows.
CREDENTIALS_VOLUME = "credentials-"
_S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class Grant:
    """One way to storage that a pod is given."""

    role: Role
    storage: StorageAccess
    hub: bool = False
    """Whether it leads to a hub, where the Secret need hold nothing but HF_TOKEN."""
    optional: bool = False
    """Whether the pod starts without its Secret and ConfigMap."""

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


def volumes(grants: Sequence[Grant]) -> list[dict[str, Any]]:
    """Return the pod's volumes for the Secrets and CA bundles of these grants."""
    secrets = [_credentials(grant, ref.name) for grant in grants if (ref := grant.storage.secret_ref)]
    bundles = [
        {
            "name": f"ca-{grant.role}",
            "configMap": {
                "name": bundle.name,
                "items": [{"key": bundle.key, "path": bundle.key}],
                **({"optional": True} if grant.optional else {}),
            },
        }
        for grant in grants
        if (bundle := grant.storage.ca_bundle)
    ]
    return [*secrets, *bundles]


def mounts(grants: Sequence[Grant]) -> list[dict[str, Any]]:
    """Return the container's mounts of those volumes. No subPath: what is mounted so is never replaced."""
    secrets = {
        f"{CREDENTIALS_VOLUME}{grant.role}": credential_folder(grant.role)
        for grant in grants
        if grant.storage.secret_ref
    }
    bundles = {f"ca-{grant.role}": f"{CA_BUNDLE_DIR}/{grant.role}" for grant in grants if grant.storage.ca_bundle}
    return [{"name": name, "mountPath": path, "readOnly": True} for name, path in (secrets | bundles).items()]


def _credentials(grant: Grant, secret: str) -> dict[str, Any]:
    """Return the volume of one Secret: the keys that it must hold, and those that it may."""
    required = ("HF_TOKEN",) if grant.hub else _S3_KEYS
    allowed = tuple(key for key in credential_env(grant.role) if key not in required)
    sources = [
        {"secret": {"name": secret, "items": [{"key": key, "path": key} for key in keys], "optional": optional}}
        for keys, optional in ((required, grant.optional), (allowed, True))
    ]
    return {"name": f"{CREDENTIALS_VOLUME}{grant.role}", "projected": {"sources": sources}}
