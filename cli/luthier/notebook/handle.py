"""What the objects of all kinds do: apply, wait, suspend, delete, and how they look in a notebook."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from rich.console import Console

from luthier import waiting
from luthier.cluster import Cluster, connect
from luthier.errors import Invalid, NotFound
from luthier.kinds import Kind, Raw, Resource, manifest_of
from luthier.manifests import dump, read_manifests, validate
from luthier.overview import Overview
from luthier.screens import words
from luthier.screens.live import follow
from luthier.screens.status_page import status_page
from luthier_api.base import ApiModel
from luthier_api.reasons import ConditionType

S = TypeVar("S", bound=ApiModel)


class Handle(Generic[S]):
    """A resource of one name, which need not exist yet.

    Args:
        name: Its name.
        spec: Its spec, as the contract's model or as a dict. Without one, the resource is only looked at.
        namespace: Default: the context's own, or that of the pod in which the notebook runs.
        context: Context of the kubeconfig; default: the current one.
        kubeconfig: Default: $KUBECONFIG, ~/.kube/config, or the pod's service account.
        cluster: A connection to use instead of these three.
        fields: Fields of the spec, in camelCase as in YAML, instead of `spec`.

    Raises:
        Invalid: if the spec does not pass the contract.
    """

    KIND: ClassVar[Kind]

    def __init__(
        self,
        name: str,
        spec: S | Mapping[str, Any] | None = None,
        *,
        namespace: str | None = None,
        context: str | None = None,
        kubeconfig: str | Path | None = None,
        cluster: Cluster | None = None,
        **fields: Any,
    ) -> None:
        if spec is not None and fields:
            raise Invalid("Give either a spec or its fields, not both.")
        given: Raw | None = dict(fields) or None
        if spec is not None:
            given = (
                spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
                if isinstance(spec, ApiModel)
                else dict(spec)
            )
        if given is not None:
            validate(self.KIND, given, f"{self.KIND.name} {name}")
        self.name = name
        self._given = given
        self._namespace, self._context = namespace, context
        self._kubeconfig = Path(kubeconfig) if kubeconfig else None
        self._connected = cluster

    @classmethod
    def from_file(cls, path: str | Path, name: str | None = None, **connection: Any) -> Self:
        """Return the resource of this kind in a YAML file.

        Raises:
            Invalid: if the file has none, or several and no name is given.
        """
        found = [each for each in read_manifests(Path(path)) if each.kind is cls.KIND and name in (None, each.name)]
        if len(found) != 1:
            raise Invalid(f"{path} holds {len(found)} {cls.KIND.name}s{f' {name}' if name else ''}; give its name.")
        connection.setdefault("namespace", found[0].namespace)
        return cls(found[0].name, found[0].raw["spec"], **connection)

    @cached_property
    def cluster(self) -> Cluster:
        """The connection to the cluster."""
        return self._connected or connect(self._namespace, self._context, self._kubeconfig)

    @property
    def manifest(self) -> Raw:
        """The manifest that `apply` sends. Raises Invalid if there is no spec."""
        if self._given is None:
            raise Invalid(f"{self.KIND.name} {self.name} was given no spec, so it can only be looked at.")
        return manifest_of(self.KIND, self.name, self._given)

    def to_yaml(self) -> str:
        """Return the manifest as YAML, for Git."""
        return dump(self.manifest)

    def apply(self) -> Self:
        """Create or change the resource."""
        self.cluster.apply(self.KIND, self.manifest)
        return self

    @property
    def resource(self) -> Resource:
        """The resource as it is now. Raises NotFound."""
        return self.cluster.read(self.KIND, self.name)

    @property
    def spec(self) -> S:
        """Its spec as it is now, with all defaults."""
        return self.KIND.spec.model_validate(self.resource.spec)  # type: ignore[return-value]

    @property
    def ready(self) -> bool:
        """Whether it is ready now."""
        return self.resource.is_true(ConditionType.READY)

    def wait(self, timeout_s: float | None = None, *, quiet: bool = False) -> Self:
        """Follow it until it is ready.

        Args:
            timeout_s: How long at most; None is for ever.
            quiet: Show nothing meanwhile.

        Raises:
            Stalled: if it will not become ready by itself, with its own sentence.
            TimedOut: if the time is up; the work goes on.
        """
        looks = waiting.looks(self._look, waiting.all_settled, timeout_s=timeout_s)
        last = follow(looks, Console(file=io.StringIO(), force_jupyter=False) if quiet else Console(highlight=False))
        waiting.check_ready(*(last.resources if last else []))
        return self

    def suspend(self, suspended: bool = True) -> Self:
        """Suspend it, or with False go on."""
        self.cluster.patch(self.resource, {"spec": {"suspend": suspended}})
        return self

    def delete(self) -> None:
        """Delete the resource; its predictions stay, and its versions, unless its deletionPolicy is Delete."""
        self.cluster.delete(self.resource)

    async def apply_async(self) -> Self:
        """`apply`, in a thread."""
        return await asyncio.to_thread(self.apply)

    async def wait_async(self, timeout_s: float | None = None) -> Self:
        """`wait`, in a thread and without a page, so that several may be awaited at once.

        Cancelling it ends the waiting within a second, and not the work.
        """
        looks = waiting.looks(self._look, waiting.all_settled, timeout_s=timeout_s, interval_s=0)
        while True:
            last = await asyncio.to_thread(next, looks, None)
            if last is None:
                return self
            waiting.check_ready(*last.resources)
            await asyncio.sleep(waiting.INTERVAL_S)

    def _look(self) -> Overview:
        return Overview(self.name, self.cluster.namespace, [self.resource])

    def __repr__(self) -> str:
        """The page of `luthier status`, as text."""
        console = Console(file=io.StringIO(), width=100, highlight=False, force_jupyter=False)
        try:
            console.print(status_page(self._look(), words.now_utc()))
        except NotFound:
            return f"{self.KIND.name} {self.name}: not applied yet"
        return str(console.file.getvalue()).rstrip()  # type: ignore[attr-defined]
